"""Tokenizers on disk: what transformers writes beside a text tower, read without any code of a model's author.

Source: the files of transformers; the rest own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.models.text.clip_tokenizer import END_ID, ClipTokenizer
from meddiff.models.text.offset_tokenizer import OffsetTokenizer
from meddiff.models.text.tokens import TextTokenizer
from meddiff.models.weights.clip_tokenizer_files import vocabulary, write_clip_tokenizer
from meddiff.models.weights.sources import Config, read_config

#: Any of these makes a folder that of a tokenizer.
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
#: Larger "maximal lengths" stand for none: transformers writes 1e30.
NO_LIMIT = 100_000


@dataclass(frozen=True)
class StoredTokenizer:
    """What the files of a tokenizer say.

    Attributes:
        serialized: a ``tokenizer.json``; None is CLIP's own vocabulary.
        max_length: tokens of a text; None where nothing says it.
        pad_id: what texts are padded with; None where nothing says it.
    """

    serialized: str | None
    max_length: int | None
    pad_id: int | None


def tokenizer_folder(part: Path) -> Path | None:
    """Where the tokenizer of the text tower in ``part`` lies: in the same folder, or in a pipeline's ``tokenizer/``."""
    folders = [part, part.parent / "tokenizer"] if part.name.startswith("text_encoder") else [part]
    return next((folder for folder in folders if any((folder / name).is_file() for name in FILES)), None)


def read_tokenizer(folder: Path) -> StoredTokenizer:
    """The tokenizer in ``folder``.

    Raises:
        UserError: damaged files, or ones that cannot be read without sentencepiece.
    """
    settings = _settings(folder)
    length = settings.get("model_max_length")
    max_length = int(length) if isinstance(length, int | float) and 0 < length < NO_LIMIT else None
    pad = _content(settings.get("pad_token"))
    if _is_clips(folder):
        known = {"!": 0, "<|endoftext|>": END_ID}
        if pad is not None and pad not in known:
            known |= vocabulary()
        return StoredTokenizer(None, max_length, known.get(pad) if pad is not None else None)
    serialized = _serialized(folder, settings)
    tokens = _tokens(serialized)
    pad = next((one for one in (pad, "[PAD]", "<pad>") if one in tokens), None)
    return StoredTokenizer(serialized, max_length, None if pad is None else tokens[pad])


def write_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write what transformers (and with it a diffusers pipeline) reads."""
    if isinstance(tokenizer, ClipTokenizer):
        write_clip_tokenizer(folder, tokenizer.pad_id, tokenizer.max_length)
        return
    own = cast(OffsetTokenizer, tokenizer)
    names = {number: name for name, number in _tokens(own.serialized).items()}
    around = own.ids("")
    special = {"pad_token": names[own.pad_id], "eos_token": names[around[-1]], "sep_token": names[around[-1]]}
    special |= {"bos_token": names[around[0]], "cls_token": names[around[0]]} if own.starts else {}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": own.max_length, **special}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special)
    with atomic_open(folder / "tokenizer.json", "w") as stream:
        stream.write(own.serialized)


def _settings(folder: Path) -> Config:
    found: Config = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        found |= read_config(folder, name) if (folder / name).is_file() else {}
    return found


def _content(token: object) -> str | None:
    """A token is written as itself, or as a dict with its properties."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _is_clips(folder: Path) -> bool:
    """Whether the vocabulary is CLIP's own, token by token."""
    if (folder / "vocab.json").is_file():
        return read_config(folder, "vocab.json") == vocabulary()
    if not (folder / "tokenizer.json").is_file():
        return False
    return read_config(folder, "tokenizer.json").get("model", {}).get("vocab") == vocabulary()


def _serialized(folder: Path, settings: Config) -> str:
    if (folder / "tokenizer.json").is_file():
        return (folder / "tokenizer.json").read_text(encoding="utf-8")
    if (folder / "vocab.txt").is_file():
        return _word_piece(folder / "vocab.txt", settings)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_pairs(folder)
    raise UserError(
        f"text_encoder: {folder} has no tokenizer.json that can be read here: write one with transformers' "
        f"AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})."
    )


def _word_piece(file: Path, settings: Config) -> str:
    """BERT's: of CXR-BERT, BioViL-T and others that come with a ``vocab.txt`` and code of their own, which is not run."""
    from tokenizers.implementations import BertWordPieceTokenizer

    lines = file.read_text(encoding="utf-8").splitlines()
    tokens = {token: number for number, token in enumerate(lines)}
    lacking = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in tokens]
    if lacking:
        raise UserError(f"text_encoder: {file} has no {' and no '.join(lacking)}: it is no vocabulary of BERT's kind.")
    lower = bool(settings.get("do_lower_case", True))
    accents = settings.get("strip_accents")
    chinese = bool(settings.get("tokenize_chinese_chars", True))
    made: str = BertWordPieceTokenizer(
        tokens, lowercase=lower, strip_accents=accents, handle_chinese_chars=chinese
    ).to_str()
    return made


def _byte_pairs(folder: Path) -> str:
    """RoBERTa's or, with its own vocabulary, CLIP's: told by their special tokens."""
    import transformers

    tokens = read_config(folder, "vocab.json")
    name = "CLIPTokenizer" if "<|startoftext|>" in tokens else "RobertaTokenizer"
    kind = getattr(transformers, f"{name}Fast", None) or getattr(transformers, name)  # the first until version 4
    try:
        made: str = kind.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str()
    except Exception as error:  # transformers raises whatever its parts do
        raise UserError(f"text_encoder: the tokenizer in {folder} cannot be read ({error}): fetch it again.") from error
    return made


def _tokens(serialized: str) -> dict[str, int]:
    """Token -> id, added ones included."""
    from tokenizers import Tokenizer

    try:
        tokens: dict[str, int] = Tokenizer.from_str(serialized).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises plain Exception
        told = "not JSON" if not _is_json(serialized) else error
        raise UserError(f"text_encoder: its tokenizer.json cannot be read ({told}): fetch it again.") from error
    return tokens


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
