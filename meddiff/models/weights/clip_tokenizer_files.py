"""CLIP's tokenizer as transformers reads it."""

from pathlib import Path


def write_clip_tokenizer(folder: Path, pad_id: int = 0, max_length: int = 77) -> None:
    """Not written yet."""
