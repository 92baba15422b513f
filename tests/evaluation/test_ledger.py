"""The ledger of results: a kill in the middle of a line costs that line."""

import json
from pathlib import Path

import numpy as np

from meddiff.evaluation.ledger import Ledger


def test_the_ledger_drops_a_cut_line_and_keeps_the_rest(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.jsonl", {"a": 1}) as ledger:
        for i in range(3):
            ledger.add({"i": i, "value": float(np.float32(0.1))})
    data = (tmp_path / "x.jsonl").read_bytes()
    for cut in range(len(data)):
        (tmp_path / "x.jsonl").write_bytes(data[:cut])
        with Ledger(tmp_path / "x.jsonl", {"a": 1}) as ledger:
            kept = max(0, data[:cut].count(b"\n") - 1)
            assert [entry["i"] for entry in ledger.entries] == list(range(kept))
            ledger.add({"i": 9})
        lines = (tmp_path / "x.jsonl").read_text().splitlines()
        assert json.loads(lines[0]) == {"a": 1}
        assert json.loads(lines[-1]) == {"i": 9}
