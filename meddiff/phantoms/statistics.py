"""Norms of lung outlines and of places and sizes of findings, measured from what torchxrayvision carries.

Read at run time, kept in memory only:

- ``semantic_masks_v7labs_lungs.zip`` (lung masks): mean and covariance of the outline vector of
  :class:`~meddiff.phantoms.anatomy.OutlineNorms`; empty and implausible masks are skipped.
- ``BBox_List_2017.csv.gz`` (NIH) and ``kaggle_stage_2_train_labels.csv.zip`` (RSNA), both in a 1024 frame: places and
  sizes. ``vinbigdata-train.csv.gz``: the shape (height / width) of consolidations; it has no image sizes.

Sides are deliberately not taken over: phantoms are balanced. Where a file is missing the own constants serve.
"""

import csv
import gzip
import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, label

from meddiff.common.errors import UserError
from meddiff.phantoms.anatomy import HEIGHTS, MEDIAL, OWN_NORMS, OutlineNorms
from meddiff.phantoms.findings import ZONES, BoxNorms, zone_of
from meddiff.phantoms.openi import data_file

#: Every fifth mask is enough for a mean and a covariance and keeps the start of a process short.
MASK_STEP = 5
#: Typical chest in the 1024 frame of NIH and RSNA: midline, half width of the thorax, apex and base of the lungs.
FRAME = (512.0, 390.0, 150.0, 780.0)
#: label -> (NIH names, whether RSNA boxes count too)
_SOURCES = {
    "Atelectasis": (("Atelectasis",), False),
    "Consolidation": ((), True),
    "Lung Opacity": (("Infiltrate", "Nodule", "Mass"), True),
    "Pneumonia": (("Pneumonia",), True),
}


def outline_norms(choice: str) -> OutlineNorms:
    """Norms for the option ``outlines``: "own", "measured", or "auto" (measured where the masks are there).

    Raises:
        UserError: "measured" without the masks.
    """
    if choice == "own":
        return OWN_NORMS
    norms = _measured_outlines()
    if norms is None and choice == "measured":
        raise UserError("Measured lung outlines need torchxrayvision with its v7 masks; use --outlines own.")
    return norms or OWN_NORMS


@lru_cache(maxsize=1)
def _measured_outlines() -> OutlineNorms | None:
    path = data_file("semantic_masks_v7labs_lungs.zip")
    if path is None:
        return None
    vectors = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg")))
        for name in names[::MASK_STEP]:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                image.draft("L", (256, 256))
                size = (round(256 * image.width / max(image.size)), round(256 * image.height / max(image.size)))
                mask = np.asarray(image.convert("L").resize(size, Image.Resampling.NEAREST)) > 64
            vector = outline_vector(mask)
            if vector is not None:
                vectors.append(vector)
    if len(vectors) < 20:
        return None
    data = np.array(vectors)
    # robust: leave out outlines with any entry far from the median (cut-off lungs, white lungs)
    middle = np.median(data, axis=0)
    scale = 1.4826 * np.median(np.abs(data - middle), axis=0) + 1e-3
    data = data[(np.abs(data - middle) / scale).max(axis=1) < 5]
    mean = data.mean(axis=0)
    _, singular, directions = np.linalg.svd(data - mean, full_matrices=False)
    keep = 8  # the first directions are shapes of chests, the rest is how the masks were drawn
    spread = directions[:keep].T * (singular[:keep] / np.sqrt(len(data) - 1))
    # the sign of a singular vector is arbitrary and must not depend on the machine
    spread *= np.sign(spread[np.abs(spread).argmax(axis=0), np.arange(keep)])
    # rounding hides the last bits, in which linear algebra libraries differ
    return OutlineNorms(np.round(mean, 4), np.round(spread, 4), "v7")


def outline_vector(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The outline vector (32,) of a mask of both lungs (H, W); None where it does not show two plausible lungs."""
    parts, count = label(mask)
    if count < 2:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    first, second = np.argsort(sizes)[::-1][:2]
    if sizes[second] < 0.02 * mask.size or sizes[second] < 0.35 * sizes[first]:
        return None
    boxes = find_objects(parts)
    pair = sorted((first, second), key=lambda k: boxes[k - 1][1].start)  # the patient's right is on the image's left
    (_, x_right), (_, x_left) = boxes[pair[0] - 1], boxes[pair[1] - 1]
    if x_right.stop > x_left.start + 0.1 * mask.shape[1]:
        return None
    unit = (x_left.stop - x_right.start) / 2
    middle = (x_left.stop + x_right.start) / 2
    top = min(boxes[k - 1][0].start for k in pair)
    vector = []
    for index, sign in ((pair[0], -1), (pair[1], 1)):
        lung = parts == index
        rows = np.flatnonzero(lung.any(axis=1))
        heights = np.clip(HEIGHTS, 0.01, 0.96)
        at = np.round(rows[0] + heights * (rows[-1] - rows[0])).astype(int)
        across = [sign * (np.flatnonzero(lung[row]) + 0.5 - middle) / unit for row in at]
        lateral = np.array([line.max() for line in across])
        medial = np.array([line.min() for line in across])
        medial[4:] = MEDIAL[4:] * medial[3] / MEDIAL[3]  # lower down the masks end at the heart, rendered on its own
        columns = np.flatnonzero(lung.any(axis=0))
        bottom = lung.shape[0] - np.argmax(lung[::-1], axis=0)
        dome = bottom[columns].max() - np.median(bottom[columns][len(columns) // 3 : -len(columns) // 3])
        base = (rows[-1] + 1 - top) / unit
        lateral[5:] = np.maximum(lateral[5:], lateral[4])  # at the angle the mask shows only a corner of the lung
        vector += [*lateral, *medial, base, max(dome / unit, 0.12)]
    out = np.array(vector)
    return out if 1.1 < out[14] < 2.4 and 1.1 < out[30] < 2.4 and np.isfinite(out).all() else None


def box_norms(choice: str) -> BoxNorms | None:
    """Places and sizes for the option ``boxes``; None stands for the own constants.

    Raises:
        UserError: "measured" without the annotation files.
    """
    if choice == "own":
        return None
    norms = _measured_boxes()
    if norms is None and choice == "measured":
        raise UserError("Measured finding boxes need the annotation files of torchxrayvision; use --boxes own.")
    return norms


@dataclass
class _Boxes:
    """Boxes (n, 4) as x, y, w, h in the 1024 frame."""

    nih: dict[str, NDArray[np.float64]]
    rsna: NDArray[np.float64]
    shape: float
    """Median height / width of VinBigData's consolidations."""


def _read_boxes() -> _Boxes | None:
    nih_path, rsna_path = data_file("BBox_List_2017.csv.gz"), data_file("kaggle_stage_2_train_labels.csv.zip")
    vin_path = data_file("vinbigdata-train.csv.gz")
    if nih_path is None or rsna_path is None or vin_path is None:
        return None
    nih: dict[str, list[list[float]]] = {}
    with gzip.open(nih_path, "rt", encoding="utf-8", newline="") as stream:
        for row in list(csv.reader(stream))[1:]:
            nih.setdefault(row[1], []).append([float(value) for value in row[2:6]])
    with zipfile.ZipFile(rsna_path) as archive:
        table = next(name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__"))
        rows = csv.DictReader(io.StringIO(archive.read(table).decode()))
        rsna = [[float(row[key]) for key in ("x", "y", "width", "height")] for row in rows if row["x"]]
    shapes = []
    with gzip.open(vin_path, "rt", encoding="utf-8", newline="") as stream:
        for record in csv.DictReader(stream):
            if record["class_name"] == "Consolidation":
                width = float(record["x_max"]) - float(record["x_min"])
                shapes.append((float(record["y_max"]) - float(record["y_min"])) / max(width, 1.0))
    return _Boxes({name: np.array(boxes) for name, boxes in nih.items()}, np.array(rsna), float(np.median(shapes)))


@lru_cache(maxsize=1)
def _measured_boxes() -> BoxNorms | None:
    boxes = _read_boxes()
    if boxes is None:
        return None
    places: dict[tuple[str, str, int], NDArray[np.float64]] = {}
    weights: dict[str, tuple[float, float, float]] = {}
    for name, (nih_names, with_rsna) in _SOURCES.items():
        parts = [boxes.nih[one] for one in nih_names if one in boxes.nih] + ([boxes.rsna] if with_rsna else [])
        local = lung_local(np.concatenate(parts))
        if name == "Consolidation":
            area = local[:, 2] * local[:, 3]
            local[:, 2], local[:, 3] = np.sqrt(area / boxes.shape), np.sqrt(area * boxes.shape)
        zones = np.array([ZONES.index(zone_of(v)) for v in local[:, 1]])
        share = np.bincount(zones, minlength=3) / len(zones)
        # flattened: real zones are so uneven that the place alone would give the class away
        share = np.sqrt(share) / np.sqrt(share).sum()
        weights[name] = (float(share[0]), float(share[1]), float(share[2]))
        edges = np.quantile(local[:, 2] * local[:, 3], (1 / 3, 2 / 3))
        thirds = np.searchsorted(edges, local[:, 2] * local[:, 3])
        for zone in range(3):
            for third in range(3):
                chosen = local[(zones == zone) & (thirds == third)]
                if len(chosen) >= 5:
                    places[name, ZONES[zone], third] = np.round(chosen, 4)
    return BoxNorms(places, weights, "nih+rsna+vinbigdata")


def lung_local(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(u, v, half width, half height)`` (n, 4) of boxes (n, 4) in the 1024 frame: lung-local place, body units."""
    middle, half, apex, base = FRAME
    x, y = boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3] / 2
    u = (np.abs(x - middle) / half - 0.22) / (0.95 - 0.22)
    v = (y - apex) / (base - apex)
    return np.stack([np.clip(u, 0.05, 0.95), np.clip(v, 0.1, 0.95), boxes[:, 2] / 2 / half, boxes[:, 3] / 2 / half], 1)
