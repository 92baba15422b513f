"""Tables and controls of a run: written whole, read as text, what is undefined an empty cell."""

import csv
import json
import math
import os

import pytest

from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import parse_table, read_table, update_controls, write_table


def test_what_is_written_is_read_again(tmp_path):
    rows = [
        {"key": "a", "phrase": 'two\nlines, "quoted"', "cnr": 1 / 3, "n": 2},
        {"key": "b", "cnr": math.nan, "top1": None, "far": 1e9},
    ]
    write_table(tmp_path / "new" / "t.csv", rows, ("key", "cnr", "absent"))
    assert (tmp_path / "new" / "t.csv").read_text().splitlines()[0] == "key,cnr,absent,far,n,phrase,top1"
    first, second = read_table(tmp_path / "new" / "t.csv")
    assert (first["phrase"], first["cnr"], first["n"]) == ('two\nlines, "quoted"', "0.333333", "2")
    assert (second["cnr"], second["top1"], second["far"], second["absent"]) == ("", "", "1e+09", "")
    assert read_table(tmp_path / "none.csv") == []


def test_other_columns_can_be_left_out(tmp_path):
    write_table(tmp_path / "t.csv", [{"key": "a", "reason": "b", "more": 1}], ("key", "reason"), only=True)
    assert read_table(tmp_path / "t.csv") == [{"key": "a", "reason": "b"}]


def test_a_table_is_whole_or_absent(tmp_path, monkeypatch):
    write_table(tmp_path / "t.csv", [{"key": "old"}])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_table(tmp_path / "t.csv", [{"key": "new"}])
    assert read_table(tmp_path / "t.csv") == [{"key": "old"}]


def test_a_long_cell_is_read_whole():
    csv.field_size_limit(131_072)  # as Python starts with
    assert parse_table("a,b\n" + "x" * 140_000 + ",1\n") == [{"a": "x" * 140_000, "b": "1"}]


def test_controls_of_one_side_leave_the_other(tmp_path):
    update_controls(tmp_path, "grounding", {"prior": {"cnr": 0.5}, "base": {"cnr": 0.1}})
    update_controls(tmp_path, "fidelity", {"n": 500})
    update_controls(tmp_path, "grounding", {"prior": {"cnr": 0.6}})
    found = json.loads((tmp_path / "controls.json").read_text())
    assert found == {"grounding": {"prior": {"cnr": 0.6}, "base": {"cnr": 0.1}}, "fidelity": {"n": 500}}


def test_metrics_lose_a_line_that_was_cut_off_and_what_is_no_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "train/loss": null}\n[1]\n\n{"step": 9}\n{"step": 19, "tr')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "train/loss": None}, {"step": 9}]
    assert read_metrics(tmp_path / "none.jsonl") == []
