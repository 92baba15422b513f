"""CLIP's causal text transformer, as Stable Diffusion conditions on it.

Source: open_clip; Stable Diffusion 2 (penultimate block, then the final layer norm); spec/tradeoff.md section 3.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError, refuse
from meddiff.common.ranges import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, Range, range_problems
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH, END_ID, ClipTokenizer
from meddiff.models.text.offset_tokenizer import OffsetTokenizer, packed
from meddiff.models.text.tokenizer_files import write_tokenizer
from meddiff.models.text.tokens import TextTokenizer
from meddiff.models.text.tower import TextTower
from meddiff.models.weights.clip_folder import write_clip_folder
from meddiff.models.weights.sources import Config

#: What the numbers of a tower may be.
RANGES: dict[str, Range] = {
    **dict.fromkeys(("width", "heads", "vocab_size"), COUNT),
    "layers": COUNT_OR_NONE,
    "max_length": Range(2, whole=True),
    **dict.fromkeys(("embedding_std", "position_std"), NOT_NEGATIVE),
}


#: Of Stable Diffusion 2 and open_clip.
USUAL: Config = {"max_length": CONTEXT_LENGTH, "pad_id": 0, "attention_mask": False}


class ClipTower(TextTower):
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
        max_length: tokens of a text.
        pad_id: what texts are padded with: 0 (open_clip, Stable Diffusion 2) or 49407, the end token (Stable Diffusion 1).
            Padding is ordinary text to the causal transformer: nothing before the end token can see it, and Stable
            Diffusion was trained with it.
        tokenizer: a ``tokenizer.json`` in place of CLIP's own vocabulary, as text or packed.
        attention_mask: hand the U-Net a mask, so that it attends to no padding (Stable Diffusion does not).

    Attributes:
        stored_rows: (R,) ids of the token embeddings that its file held, where the others were drawn again; None: all, or none.
    """

    causal_mask: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        act: str = "gelu",
        vocab_size: int = 49408,
        embedding_std: float = 0.02,
        position_std: float = 0.01,
        max_length: int = CONTEXT_LENGTH,
        pad_id: int = 0,
        tokenizer: str | None = None,
        attention_mask: bool = False,
    ) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU, TextTransformer

        if act not in ("gelu", "quick_gelu"):
            raise UserError(f"text_encoder: act is {act!r}; it must be 'gelu' or 'quick_gelu'.")
        self.config: Config = {
            "width": width,
            "heads": heads,
            "layers": layers,
            "act": act,
            "vocab_size": vocab_size,
            "embedding_std": embedding_std,
            "position_std": position_std,
        }
        more: Config = {"max_length": max_length, "pad_id": pad_id, "attention_mask": attention_mask}
        refuse(range_problems(self.config | more, RANGES, "text_encoder."))
        if width % heads:
            raise UserError(f"text_encoder: width {width} is not divisible by heads {heads}.")
        own = None if tokenizer is None else OffsetTokenizer(tokenizer, max_length, pad_id)
        self.tokenizer: TextTokenizer = own or ClipTokenizer(max_length, pad_id)
        # only what is not usual, so that a digest of what a model is stays what it was
        self.config |= {name: value for name, value in more.items() if value != USUAL[name]}
        self.config |= {"tokenizer": packed(own.serialized)} if own is not None else {}
        known = END_ID + 1 if own is None else own.vocab_size
        if known > vocab_size or pad_id >= vocab_size:
            raise UserError(
                f"text_encoder: its tokenizer has {known} tokens and pads with {pad_id}, the tower embeds {vocab_size}: they "
                f"do not belong together."
            )
        tower = TextTransformer(
            context_length=max_length,
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
        self.width, self.attention_mask = width, attention_mask
        self.stored_rows: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states of every position: tokens (B, L) -> (B, L, width); what is cut off behind changes none before it."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # (B, L, width)
        x = self.transformer(x, attn_mask=self.causal_mask[:length, :length].to(x.dtype))
        states: Tensor = self.ln_final(x)
        return states

    @property
    def token_table(self) -> nn.Embedding:
        """The embeddings of the vocabulary."""
        table: nn.Embedding = self.token_embedding
        return table

    def checkpoint_activations(self) -> None:
        """Block by block, as open_clip does it."""
        self.transformer.grad_checkpointing = True

    def save(self, folder: Path, half: bool = False) -> None:
        """Write a ``CLIPTextModel`` and its ``CLIPTokenizer``."""
        write_clip_folder(self.state_dict(), self.config, folder / "text_encoder", half=half)
        write_tokenizer(self.tokenizer, folder / "tokenizer")
