"""CLIP's tokenizer as the files that transformers reads, written out of open_clip's own vocabulary.

transformers does not repair a text first (ftfy, HTML entities) as open_clip does; of a text that needs no repair both make
the same ids. One more difference is Stable Diffusion 2's own: its padding is the token "!", id 0, so a "!" that stands by
itself is read as padding there. Source: the layout is transformers'; the vocabulary is open_clip's.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
#: open_clip's names of the last two of its vocabulary.
OPEN_CLIP_NAMES = {"<start_of_text>": START, "<end_of_text>": END}


@lru_cache(maxsize=1)
def _tokenizer() -> "SimpleTokenizer":
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Token -> id, the two special ones under transformers' names."""
    return {OPEN_CLIP_NAMES.get(name, name): number for name, number in _tokenizer().encoder.items()}


def write_clip_tokenizer(folder: Path, pad_id: int = 0, max_length: int = 77) -> None:
    """Write ``vocab.json``, ``merges.txt``, ``tokenizer_config.json`` and ``special_tokens_map.json`` into ``folder``.

    Args:
        folder: usually called ``tokenizer``, beside ``text_encoder``.
        pad_id: what stands after the end token: 0 in Stable Diffusion 2 and here, 49407 in Stable Diffusion 1.
        max_length: tokens of a text with its start and end.

    Raises:
        UserError: ``pad_id`` is no token.
    """
    tokens = vocabulary()
    names = {number: name for name, number in tokens.items()}
    if pad_id not in names:
        raise UserError(f"pad_id is {pad_id}; it must be a token of CLIP's vocabulary, 0 to {len(names) - 1}.")
    ranks = _tokenizer().bpe_ranks
    merges = sorted(ranks, key=ranks.__getitem__)
    with atomic_open(folder / "merges.txt", "w") as stream:
        stream.write("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    write_json(folder / "vocab.json", tokens)
    pad = names[pad_id]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    write_json(folder / "special_tokens_map.json", {name: _token(one) for name, one in special.items()})
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(tokens[one]): _token(one) | {"special": True} for one in (START, END, pad)},
        **special,
    }
    write_json(folder / "tokenizer_config.json", config)


def _token(name: str) -> dict[str, object]:
    """One special token; "!" as padding is one only where no word stands beside it, so that "Stable!" keeps its own."""
    return {
        "content": name,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": name not in (START, END),
    }
