"""Any encoder of transformers in front of the U-Net: BERT and its relatives, the encoder of a T5.

Which network a folder holds is told by its config; code that came with a model is never run. Source: transformers.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.models.text.offset_tokenizer import OffsetTokenizer, packed
from meddiff.models.text.tokenizer_files import write_tokenizer
from meddiff.models.text.tower import TextTower
from meddiff.models.weights.network_files import write_state
from meddiff.models.weights.reading import State
from meddiff.models.weights.sources import Config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Kinds that come with code of their own and are BERT underneath (CXR-BERT, BioViL-T).
KINDS = {"cxr-bert": "bert"}
#: Of two-sided models the encoder alone.
ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
#: Of a ``config.json``: where it was made and by what, which says nothing about the network.
ABOUT = ("architectures", "auto_map", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "model_type")
#: What the suite writes beside it.
MASKS = ("use_attention_mask", "unet_attention_mask")


class TransformersTower(TextTower):
    """An encoder of transformers without its pooler.

    Args:
        transformers: what its ``config.json`` holds.
        tokenizer: what its ``tokenizer.json`` holds, or the same packed.
        max_length: tokens of a text, special ones included.
        pad_id: what texts are padded with.
        mask_padding: words do not attend to padding inside the tower, as it was trained. False is what
            ``StableDiffusionPipeline`` does unless ``use_attention_mask`` stands in the tower's config.
        attention_mask: hand the U-Net a mask, so that it attends to no padding.

    Raises:
        UserError: no encoder, or one with fewer embeddings or positions than its tokenizer needs.
    """

    def __init__(
        self,
        transformers: Config,
        tokenizer: str,
        max_length: int,
        pad_id: int,
        mask_padding: bool = True,
        attention_mask: bool = False,
    ) -> None:
        super().__init__()
        self.tokenizer = OffsetTokenizer(tokenizer, max_length, pad_id)
        self.transformer = _network(transformers)
        self.width = int(self.transformer.config.hidden_size)
        self.mask_padding, self.attention_mask = mask_padding, attention_mask
        self.config: Config = {
            "transformers": _plain(self.transformer),
            "tokenizer": packed(self.tokenizer.serialized),
            "max_length": max_length,
            "pad_id": pad_id,
            "mask_padding": mask_padding,
            "attention_mask": attention_mask,
        }
        known, rows = max(self.tokenizer.vocab_size, pad_id + 1), self.token_table.num_embeddings
        if known > rows:
            raise UserError(
                f"text_encoder: its tokenizer has {known} tokens, the tower embeds {rows}: they do not belong together."
            )
        longest = _positions(self.transformer)
        if not 2 <= max_length <= longest:
            raise UserError(
                f"text_encoder: max_length is {max_length}; this tower takes between 2 and {longest} tokens: set "
                f"text_encoder.max_length."
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states of every position: tokens (B, L) -> (B, L, width)."""
        mask = self.tokenizer.mask(tokens).long() if self.mask_padding else None  # (B, L)
        states: Tensor = self.transformer(input_ids=tokens, attention_mask=mask).last_hidden_state
        return states

    @property
    def token_table(self) -> nn.Embedding:
        """The embeddings of the vocabulary."""
        table = self.transformer.get_input_embeddings()
        assert isinstance(table, nn.Embedding), "_network refuses what has none"
        return table

    def checkpoint_activations(self) -> None:
        """As transformers does it.

        Raises:
            UserError: it cannot do it for this network.
        """
        if not self.transformer.supports_gradient_checkpointing:
            raise UserError(
                "speed.activation_checkpointing: transformers cannot compute this text tower's activations again: take unet."
            )
        self.transformer.gradient_checkpointing_enable({"use_reentrant": False})

    def weights(self) -> State:
        """Tensors under transformers' names, one that has two names under its first."""
        twins, stored = self.twins(), self.transformer.state_dict()
        return {name: value.cpu() for name, value in stored.items() if name not in twins}

    def twins(self) -> dict[str, str]:
        """Second names of a tensor (T5's table has two) -> its first name."""
        first: dict[int, str] = {}
        stored = self.transformer.state_dict(keep_vars=True)
        return {name: one for name, value in stored.items() if (one := first.setdefault(id(value), name)) != name}

    def save(self, folder: Path, half: bool = False) -> None:
        """Write what transformers' ``from_pretrained`` reads."""
        # without a type transformers would compute in that of the file, whatever a pipeline does
        about = {"architectures": [type(self.transformer).__name__], "dtype": "float32"}
        own = {**self.config["transformers"], **about}
        masks = dict(zip(MASKS, (self.mask_padding, self.attention_mask), strict=True))
        write_json(folder / "text_encoder" / "config.json", {**own, **masks})
        write_state(self.weights(), folder / "text_encoder" / "model.safetensors", half)
        write_tokenizer(self.tokenizer, folder / "tokenizer")


def _network(config: Config) -> "PreTrainedModel":
    """The network of a config, freshly drawn."""
    import transformers

    kind = str(config.get("model_type", ""))
    kind = KINDS.get(kind, kind)
    if kind not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"text_encoder: its config.json is of a {kind or 'model without a name'!r}, which transformers "
            f"{transformers.__version__} does not know: give a BERT, RoBERTa, T5 or another encoder of transformers."
        )
    arguments = {name: value for name, value in config.items() if name not in (*ABOUT, *MASKS)}
    try:
        described = transformers.AutoConfig.for_model(kind, **arguments)
        if kind in ENCODERS:
            network = getattr(transformers, ENCODERS[kind])(described)
        else:
            chosen: type[PreTrainedModel] = transformers.MODEL_MAPPING[type(described)]  # type: ignore[assignment]
            # it never reaches the output, and plain DDP and FSDP refuse parameters without a gradient
            takes = "add_pooling_layer" in inspect.signature(chosen).parameters
            network = chosen(described, add_pooling_layer=False) if takes else chosen(described)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise UserError(f"text_encoder: transformers makes no encoder of this config ({error}).") from error
    if getattr(described, "is_encoder_decoder", False) and kind not in ENCODERS:
        raise UserError(f"text_encoder: a {kind} has an encoder and a decoder; give an encoder alone, or a T5.")
    if not hasattr(described, "hidden_size") or not isinstance(network.get_input_embeddings(), nn.Embedding):
        raise UserError(f"text_encoder: a {kind} is no encoder of texts: give a BERT, RoBERTa, T5 or the like.")
    return network


def _plain(network: "PreTrainedModel") -> Config:
    """Its config as JSON values, without what says nothing about the network."""
    found: Config = network.config.to_dict()
    return {name: value for name, value in found.items() if name not in ABOUT or name == "model_type"}


def _positions(network: "PreTrainedModel") -> int:
    """Tokens a network can tell apart by their place; relative ones (T5) have no end."""
    config = network.config
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places <= 0:
        return 4096
    # RoBERTa's positions begin behind the padding's id
    begins_late = config.model_type in ("roberta", "xlm-roberta", "camembert")
    return places - int(config.pad_token_id) - 1 if begins_late else places
