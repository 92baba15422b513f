"""What readers of boxes in csv files share: numbers, identifiers, folders, label prompts, splits. Source: own."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.shards.sample import Box, Phrase

#: Two readers mean the same place when their boxes have this intersection over union.
SAME_PLACE = 0.4


def number(text: str) -> float:
    """The number in a cell; nan where there is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) < 1e9 else math.nan


def on_image(box: Sequence[float], size: tuple[float, float] = (math.inf, math.inf)) -> bool:
    """Whether x, y, w, h has an area of which some lies on an image of (width, height); a nan is not on it."""
    (x, y, w, h), (width, height) = box, size
    return w > 0 and h > 0 and x < width and y < height and x + w > 0 and y + h > 0


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    shared = max(w, 0.0) * max(h, 0.0)
    return shared / (a.w * a.h + b.w * b.h - shared)


def looks_like_fractions(box: Sequence[float]) -> bool:
    """Whether x, y, w, h are parts of 1, as other programs write boxes: none above 1, and not all whole."""
    return all(0 <= one <= 1 for one in box) and not all(float(one).is_integer() for one in box)


def is_image_id(text: str) -> bool:
    """Whether ``text`` may become a key and part of a path."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", text))


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels once each, in the order of the paper, "No Finding" last."""
    found = set(labels)
    return tuple(label for label in (*FINDINGS, NO_FINDING) if label in found)


def label_prompt(labels: Iterable[str]) -> str:
    """Text of an image that has no report: its labels joined by blanks, as ``--data.prompt label`` writes them."""
    return " ".join(labels)


def label_phrases(boxes: Iterable[Box]) -> tuple[Phrase, ...]:
    """One phrase for each label that has boxes: the label's name, with all of its boxes."""
    groups: dict[str, list[Box]] = {}
    for box in boxes:
        groups.setdefault(box.label, []).append(box)
    return tuple(Phrase(label, label, tuple(groups[label])) for label in in_order(groups))


def image_folder(root: Path, name: str, source: str) -> str:
    """The folder of images relative to the root: in it or one or two levels below, the nearest.

    Args:
        source: where it comes from, for the sentence.

    Raises:
        UserError: it is not there.
    """
    for depth in ("", "*/", "*/*/"):
        for path in sorted(root.glob(depth + name)):
            if path.is_dir():
                return path.relative_to(root).as_posix()
    raise UserError(f"{root} holds no folder {name} with images (nor the folders below it); it comes from {source}.")


def draw_split(address: tuple[object, ...], val: float, fidelity: float, grounding: float, boxed: bool) -> str:
    """The split of a patient, by draws that depend on ``address`` alone.

    Args:
        address: seed, cohort and patient.
        val, fidelity: parts of the patients that are left after grounding.
        grounding: part of the patients with boxes; the others have nothing to be scored on.
        boxed: the patient has boxes.
    """
    first, second = generator(*address).random(2)
    if boxed and first < grounding:
        return "grounding"
    return "val" if second < val else "fidelity" if second < val + fidelity else "train"
