"""The loader benchmark: cold is cold, and every block has a row."""

from pathlib import Path

import pytest

from benchmarks.loader import _at_hand, compare, forget


def test_forgotten_pages_are_gone_until_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "shard.tar"
    file.write_bytes(bytes(1 << 22))
    if not 0.0 < forget([file]) <= 1.0:
        pytest.skip("this file system keeps its pages in memory, as tmpfs does, or does not tell")
    with file.open("rb") as stream:
        stream.read()
        assert _at_hand(stream.fileno(), 1 << 21)
    assert forget([file]) > 0.9


def test_each_block_is_read_warm_and_cold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = compare(tmp_path, 300, 0.1, [0])
    assert [row["block"] for row in rows] == ["read warm", "read cold", "batches warm", "batches cold"]
    assert all(row["ours"] > 0 and row["webdataset"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "floor: 10 x 200 samples/s" in printed
    assert all(printed.count(str(row["block"])) == 2 for row in rows)  # in the table and in the JSON
