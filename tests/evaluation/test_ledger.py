"""The ledger of results: a kill in the middle of a line costs that line."""

import json
from pathlib import Path

import numpy as np
import pytest
from typing_extensions import TypedDict

from meddiff.common.errors import UserError
from meddiff.evaluation.ledger import Ledger


class Found(TypedDict, total=False):
    i: int
    value: float


def test_the_ledger_drops_a_cut_line_and_keeps_the_rest(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.jsonl", {"a": 1}, Found) as ledger:
        for i in range(3):
            ledger.add({"i": i, "value": float(np.float32(0.1))})
    data = (tmp_path / "x.jsonl").read_bytes()
    for cut in range(len(data)):
        (tmp_path / "x.jsonl").write_bytes(data[:cut])
        with Ledger(tmp_path / "x.jsonl", {"a": 1}, Found) as ledger:
            kept = max(0, data[:cut].count(b"\n") - 1)
            assert [entry["i"] for entry in ledger.entries] == list(range(kept))
            ledger.add({"i": 9})
        lines = (tmp_path / "x.jsonl").read_text().splitlines()
        assert json.loads(lines[0]) == {"a": 1}
        assert json.loads(lines[-1]) == {"i": 9}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "line 2 cannot be read"),
        (b"[" * 5000, "line 2 cannot be read .nests deeper"),
        (b"[1]", "line 2 holds no mapping"),
        (b'{"i": "x"}', "line 2 is no result of this evaluation .i: "),
        (b'{"i": 1' + b"0" * 400 + b"}", "line 2 cannot be read .holds a number of 401 digits"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(tmp_path: Path, line: bytes, told: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=told):
        Ledger(tmp_path / "x.jsonl", {"a": 1}, Found)
