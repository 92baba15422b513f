"""The sheet of a cohort: every mask is drawn and named, in a colour of its own."""

import numpy as np
from PIL import Image

from meddiff.preparation.preview import LINES, SIDE, TEXT, colours, tile
from meddiff.shards.sample import CohortSample


def sample(masks: int) -> CohortSample:
    """A black image with so many masks beside one another."""
    found = {}
    for number in range(masks):
        found[f"part {number}"] = np.zeros((64, 64), bool)
        found[f"part {number}"][4 * number : 4 * number + 3, 10:50] = True
    return CohortSample("a", np.zeros((64, 64), np.uint8), "Text.", [], "grounding", "p", masks=found)


def test_more_than_six_masks_are_all_shown_and_named():
    page = tile(sample(14))
    picture = np.asarray(page)[:SIDE].reshape(SIDE, SIDE, 3)
    shown = {tuple(picture[16 * number + 6, SIDE // 2].tolist()) for number in range(14)}
    assert len(shown) == 14
    assert (0, 0, 0) not in shown
    text = np.asarray(page.convert("L"))[SIDE + 2 :]
    rows = [text[line * (TEXT + 2) : (line + 1) * (TEXT + 2)] for line in range(2 + 14)]
    assert all((row < 250).any() for row in rows)


def test_few_names_leave_the_size_of_a_tile():
    assert tile(sample(2)).size == tile(sample(0)).size == tile(sample(LINES - 2)).size
    assert isinstance(tile(sample(0)), Image.Image)


def test_colours_do_not_repeat():
    assert len(set(colours(64))) == 64
    assert colours(20)[:6] == colours(6)
