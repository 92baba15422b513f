"""The open_clip text tower as one module: token ids in, the hidden states that condition the U-Net out.

Source: Stable Diffusion 2 (penultimate block, then the final layer norm); spec/tradeoff.md section 3.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError, refuse
from meddiff.common.places import locate
from meddiff.common.ranges import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, Range, range_problems
from meddiff.models.weights.export import to_transformers_state
from meddiff.models.weights.fitting import PREFIXES, fit_state
from meddiff.models.weights.reading import State, read_state
from meddiff.models.weights.sources import Config, Source, find_part, read_config, weights_file
from meddiff.models.weights.token_rows import expand_rows

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

CONTEXT_LENGTH = 77
#: What the numbers of a tower may be.
RANGES: dict[str, Range] = {
    **dict.fromkeys(("width", "heads", "vocab_size"), COUNT),
    "layers": COUNT_OR_NONE,
    **dict.fromkeys(("embedding_std", "position_std"), NOT_NEGATIVE),
}
#: What else an open_clip checkpoint holds: its image tower, and what stands behind the last block that runs here.
OPEN_CLIP_SPARE = ("visual.*", "logit_scale", "logit_bias", "text_projection", "text_projection.*", "attn_mask")
#: What else a transformers file may hold: positions as buffers of older versions, the projection behind the tower, and
#: the other tower of a whole CLIP.
TRANSFORMERS_SPARE = (
    "embeddings.position_ids",
    "text_projection.weight",
    "visual_projection.weight",
    "vision_model.*",
    "logit_scale",
)
#: Names of a transformers config without which there is no tower.
TRANSFORMERS_CONFIG = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")


class TextEncoder(nn.Module):
    """Causal text transformer of open_clip without the parts that never reach the output.

    The last block and the projection of the original tower are not built: unused parameters get no gradient, and plain
    DDP and FSDP refuse to train a module that has some.

    Args:
        width: channels of the hidden states.
        heads: attention heads.
        layers: blocks that run (the tower of ViT-H-14 has 24 and runs 23).
        act: ``gelu`` or ``quick_gelu`` (OpenAI's CLIP, Stable Diffusion 1).
        vocab_size: rows of the token embedding.
        embedding_std: of freshly drawn token embeddings. At open_clip's 0.02 a random tower hardly tells a token from
            those before it: its blocks add running means of unit scale. A small tower that is not pretrained
            contrastively needs about 0.5 for its words to stay words.
        position_std: of freshly drawn position embeddings.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        act: str = "gelu",
        vocab_size: int = 49408,
        embedding_std: float = 0.02,
        position_std: float = 0.01,
    ) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, TextTransformer

        if act not in ("gelu", "quick_gelu"):
            raise UserError(f"text_encoder: act is {act!r}; it must be 'gelu' or 'quick_gelu'.")
        config: Config = {
            "width": width,
            "heads": heads,
            "layers": layers,
            "act": act,
            "vocab_size": vocab_size,
            "embedding_std": embedding_std,
            "position_std": position_std,
        }
        refuse(range_problems(config, RANGES, "text_encoder."))
        if width % heads:
            raise UserError(f"text_encoder: width {width} is not divisible by heads {heads}.")
        tower = TextTransformer(
            context_length=CONTEXT_LENGTH,
            vocab_size=vocab_size,
            width=width,
            heads=heads,
            layers=layers,
            output_dim=None,
            proj_type="none",
            act_layer=QuickGELU if act == "quick_gelu" else nn.GELU,
        )
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        with torch.no_grad():  # open_clip draws them with 0.02 and 0.01
            self.token_embedding.weight.mul_(embedding_std / 0.02)
            self.positional_embedding.mul_(position_std / 0.01)
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.register_buffer("causal_mask", tower.attn_mask, persistent=False)
        self.width = width
        self.config = config

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states of every position.

        Args:
            tokens: (B, 77) int64, start token, pieces, end token, zeros. Zeros are ordinary tokens to the causal
                transformer: nothing before the end token can see them, and SD was trained with them.

        Returns:
            (B, 77, width).
        """
        x = self.token_embedding(tokens) + self.positional_embedding  # (B, 77, width)
        x = self.transformer(x, attn_mask=self.causal_mask.to(x.dtype))
        return self.ln_final(x)


def build_text_encoder(source: Source) -> TextEncoder:
    """Build the tower and load its weights.

    Args:
        source: a diffusers folder with a ``CLIPTextModel`` (its last hidden state is the tower's output, the
            penultimate block being baked in), or a dict: ``{width, heads, layers, ...}`` for random weights or
            ``{arch: ViT-H-14, checkpoint: FILE}`` for an open_clip checkpoint.

    Raises:
        UserError: unknown architecture, missing file, or weights that do not fit.
    """
    if isinstance(source, dict):
        if "arch" in source:
            return _from_open_clip(**source)
        try:
            return TextEncoder(**source)
        except TypeError as error:
            raise UserError(
                f"text_encoder: {error}; it takes width, heads, layers, act, vocab_size, embedding_std, position_std."
            ) from error
    return _from_transformers(find_part(source, "text_encoder"))


def _from_open_clip(arch: str, checkpoint: str | None = None, meta: bool = False) -> TextEncoder:
    import open_clip

    config = open_clip.get_model_config(arch)
    if config is None:
        raise UserError(f"text_encoder: open_clip knows no architecture {arch!r}; see open_clip.list_models().")
    text: Config = config["text_cfg"]
    if "hf_model_name" in text:
        raise UserError(f"text_encoder: {arch!r} has a Hugging Face text tower, not open_clip's own.")
    path = locate(checkpoint) if checkpoint is not None else None
    if path is not None and not path.is_file():
        raise UserError(f"text_encoder: no open_clip checkpoint at {checkpoint}: download it, or drop `checkpoint`.")
    act = "quick_gelu" if config.get("quick_gelu") else "gelu"
    layers = text["layers"] - 1  # the penultimate block is the last one that runs
    encoder = TextEncoder(text["width"], text["heads"], layers, act, text["vocab_size"])
    if path is not None:
        spare = (*OPEN_CLIP_SPARE, f"transformer.resblocks.{layers}.*")
        state = fit_state(encoder.state_dict(), read_state(path, meta), _file(path), spare, prefixes=_OPEN_CLIP)
        if not meta:
            encoder.load_state_dict(state)
    return encoder


_OPEN_CLIP = (*PREFIXES, "text.")
_TRANSFORMERS = (*PREFIXES, "text_model.")


def _from_transformers(folder: Path, meta: bool = False) -> TextEncoder:
    """The tower of a folder; with ``meta`` names, shapes and types are compared and nothing is loaded."""
    config = read_config(folder)
    lacking = [name for name in TRANSFORMERS_CONFIG if not isinstance(config.get(name), int)]
    if lacking:
        raise UserError(
            f"text_encoder: {folder}/config.json has no {', '.join(lacking)}: give a CLIPTextModel's folder."
        )
    encoder = TextEncoder(
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_hidden_layers"],
        config.get("hidden_act", "quick_gelu"),
        config["vocab_size"],
    )
    path = weights_file(folder)
    state = expand_rows(read_state(path, meta), config, _file(path))
    wanted = to_transformers_state(encoder.state_dict())
    fitting = fit_state(wanted, state, _file(path), TRANSFORMERS_SPARE, prefixes=_TRANSFORMERS)
    if not meta:
        encoder.load_state_dict(convert_transformers_state(fitting))
    return encoder


def misfit(source: Source) -> str | None:
    """One sentence when local weights do not fit their architecture, by names, shapes and types; reads no values."""
    try:
        with torch.device("meta"):
            if isinstance(source, str):
                _from_transformers(find_part(source, "text_encoder"), meta=True)
            elif "checkpoint" in source and "arch" in source:
                _from_open_clip(source["arch"], source["checkpoint"], meta=True)
    except UserError as error:
        return str(error)
    return None


def _file(path: Path) -> str:
    return f"text_encoder: {path}"


def convert_transformers_state(state: State) -> State:
    """Names of a transformers ``CLIPTextModel`` -> names of this tower (q, k, v stacked into ``in_proj``)."""
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    converted = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    layers = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.layers."))
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for theirs, ours in names.items():
                converted[f"{new}.{ours}.{kind}"] = state[f"{old}.{theirs}.{kind}"]
            converted[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"{old}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            )
    return converted


@lru_cache(maxsize=1)
def _tokenizer() -> "SimpleTokenizer":
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


@lru_cache(maxsize=200_000)
def token_ids(text: str) -> tuple[int, ...]:
    """Token ids of ``text`` with start and end token, not truncated, not padded (open_clip's BPE)."""
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id)


@lru_cache(maxsize=100_000)
def read_words(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The blank-separated words of ``text`` as open_clip reads it, each with its token ids.

    Before it looks for pieces, open_clip repairs a text (ftfy, HTML entities), and a repair may join or part words:
    "\u00c3 gauche" is read as "\u00e0 gauche", a control character vanishes. No piece reaches over a blank of the repaired
    text, so the ids of its words in a row are always ``token_ids(text)[1:-1]``.
    """
    from open_clip.tokenizer import basic_clean, whitespace_clean

    tokenizer = _tokenizer()
    words = whitespace_clean(basic_clean(text)).split()
    # the tokenizer's own steps after cleaning: cleaning a word by itself again could change it once more
    pieces = [
        [tokenizer.bpe("".join(tokenizer.byte_encoder[byte] for byte in part.encode())) for part in found]
        for found in (tokenizer.pat.findall(word.lower()) for word in words)
    ]
    ids = (tuple(tokenizer.encoder[one] for part in some for one in part.split(" ")) for some in pieces)
    return tuple(zip(words, ids, strict=True))


def tokenize(texts: list[str]) -> tuple[Tensor, int]:
    """Token ids padded with zeros after the end token.

    Returns:
        (B, 77) int64, and how many texts were too long; those keep their first 76 tokens and the end token.
    """
    tokens = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    truncated = 0
    for row, text in enumerate(texts):
        ids = token_ids(text)
        if len(ids) > CONTEXT_LENGTH:
            truncated += 1
            ids = (*ids[: CONTEXT_LENGTH - 1], ids[-1])
        tokens[row, : len(ids)] = torch.tensor(ids)
    return tokens, truncated
