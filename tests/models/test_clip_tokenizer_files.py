"""CLIP's tokenizer as files: transformers makes the ids of open_clip of them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.models.weights.clip_tokenizer_files import write_clip_tokenizer
from meddiff.phantoms.openi import read_reports

END = 49407


@pytest.fixture(scope="module")
def captions() -> list[str]:
    """50 real impressions, read where they are carried."""
    reports = read_reports()
    return list(dict.fromkeys(one.impression for one in (*reports.normal[:10], *reports.abnormal)))[:50]


def ids(folder: Path, texts: list[str]) -> Tensor:
    """As diffusers' pipelines ask for them, (B, max_length)."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    length = tokenizer.model_max_length
    given: Tensor = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return given


def padded(texts: list[str], pad: int) -> Tensor:
    """Ids of this suite."""
    return ClipTokenizer(pad_id=pad).tokenize(texts)[0]


@pytest.mark.parametrize("pad", [0, END])
def test_transformers_makes_our_ids_of_50_real_captions(tmp_path: Path, captions: list[str], pad: int) -> None:
    write_clip_tokenizer(tmp_path, pad)
    more = ["", "stable, " * 60, "No change!", "It's 3.5 cm; the T-spine isn't."]
    texts = [*captions, *more]
    assert len(captions) == 50
    assert torch.equal(ids(tmp_path, texts), padded(texts, pad))
    # and the comparison sees another padding
    assert not torch.equal(ids(tmp_path, texts), padded(texts, END - pad))


def test_joining_pieces_matters(tmp_path: Path, captions: list[str]) -> None:
    """The control: a tokenizer without the last merges makes other ids."""
    write_clip_tokenizer(tmp_path)
    file = tmp_path / "merges.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:20_000]) + "\n")
    assert not torch.equal(ids(tmp_path, captions), padded(captions, 0))


def test_another_length(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path, max_length=20)
    found = ids(tmp_path, ["effusion " * 30, ""])
    assert found.shape == (2, 20)
    assert found[0, -1] == END
    assert torch.equal(found[0, :19], ClipTokenizer().tokenize(["effusion " * 30])[0][0, :19])


def test_equal_bytes_again_and_no_such_token(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_clip_tokenizer(tmp_path / folder)
    assert [(f.name, f.read_bytes()) for f in sorted((tmp_path / "a").iterdir())] == [
        (f.name, f.read_bytes()) for f in sorted((tmp_path / "b").iterdir())
    ]
    with pytest.raises(UserError, match=r"pad_id is 49408; it must be a token of CLIP's vocabulary, 0 to 49407\."):
        write_clip_tokenizer(tmp_path / "c", 49408)
