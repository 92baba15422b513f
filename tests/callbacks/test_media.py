"""Pictures beside which others were drawn keep their names, also when a run goes on with other data."""

from pathlib import Path

import numpy as np
from PIL import Image

from callbacks.media import keep_png


def test_another_picture_of_the_same_key_gets_a_name_of_its_own(tmp_path: Path) -> None:
    one, two = np.zeros((4, 4), np.uint8), np.full((4, 4), 7, np.uint8)
    assert keep_png(tmp_path, "real-a", one) == "real-a.png"
    assert keep_png(tmp_path, "real-a", one) == "real-a.png"
    name = keep_png(tmp_path, "real-a", two)
    assert name != "real-a.png"
    assert keep_png(tmp_path, "real-a", two) == name
    assert np.array_equal(np.asarray(Image.open(tmp_path / "real-a.png")), one)
    assert np.array_equal(np.asarray(Image.open(tmp_path / name)), two)
    assert len(list(tmp_path.iterdir())) == 2
