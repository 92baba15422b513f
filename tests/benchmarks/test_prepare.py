"""What the benchmark of `lightning prepare` rests on: its files, its plain loop and its turns."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.prepare import (
    KINDS,
    draft,
    in_turns,
    make_files,
    plain,
    product,
    reading,
)

#: The same shapes of files, small.
SMALL = {name: replace(kind, size=(kind.size[0] // 8, kind.size[1] // 8)) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_plain_loop_makes_the_products_crop(tmp_path, name):
    kind = SMALL[name]
    paths = make_files(tmp_path / "files", kind, 2)
    with Image.open(paths[0]) as image:
        assert image.size == kind.size
        assert image.mode == ("L" if kind.bits == 8 else "I;16")
        assert np.asarray(image).max() > 0.7 * 2**kind.bits
    ours, others = product(tmp_path), [plain, draft] if kind.suffix == "jpg" else [plain]
    for path in paths:
        crop = ours(path).astype(int)
        assert crop.shape == (512, 512)
        for other in others:
            # plain rounds the longer side to whole pixels, so an edge may lie a fraction of a pixel elsewhere
            assert np.abs(other(path).astype(int) - crop).mean() < 2.5


def test_the_table_of_rates_has_a_row_for_each_kind(capsys):
    ratios = reading(1, 1, SMALL)
    assert list(ratios) == list(SMALL)
    assert min(ratios.values()) > 0
    printed = capsys.readouterr().out
    assert all(printed.count(name) == 1 for name in SMALL)
    assert printed.count("against ours") == len(SMALL) + 1


def test_every_way_has_its_turn_and_the_first_changes():
    calls: list[tuple[str, str]] = []

    def way(name: str, path: Path) -> None:
        calls.append((name, path.name))

    spent = in_turns({name: partial(way, name) for name in ("a", "b")}, [Path("x"), Path("y")], rounds=2)
    assert calls[2:] == [("a", "x"), ("b", "x"), ("b", "y"), ("a", "y")] * 2
    assert {name: len(seconds) for name, seconds in spent.items()} == {"a": 4, "b": 4}
