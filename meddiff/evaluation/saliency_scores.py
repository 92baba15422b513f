"""Scores of maps by timestep, the same for every tool, with the same controls; and what they average to. Source: own.

Of every map: CNR, pixel AUROC and Top-1 on the boxes of the phrase, as in grounding, and the grounding gain
(:mod:`meddiff.metrics.gain_summary`) under the controls that one split allows: the same place asked for an absent finding,
another finding's mask in the image, another patient's box, the own box mirrored. Means stand with 95 % intervals over images.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.common.findings import FINDINGS
from meddiff.evaluation.gain import Elsewhere
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.saliency_tools import ALL, Channel
from meddiff.evaluation.samples import GroundingSample, Pixels
from meddiff.metrics.functional import PairedScores, contrast_to_noise_ratio, grounding_gain, resize_maps
from meddiff.metrics.gain_summary import Asking, gain_rows
from meddiff.metrics.grounding import locate_maps
from meddiff.metrics.intervals import mean_interval
from meddiff.metrics.statistics import macro_mean, micro_mean

#: What is averaged over images.
FIGURES = ("cnr", "auroc", "top1")
#: Rows over all classes: each phrase counts alike, each class counts alike.
MICRO, MACRO = "all", "macro"
FIRST = ("model", "seed", "images", "tool", "layer", "class", "timestep", "figure", "value", "low", "high", "n")


class Curve(TypedDict):
    """Scores of one channel for one phrase, a value a timestep; None is undefined.

    ``asked`` and ``under`` are the CNR where it should lie and under each control, pixels of both places left out.
    """

    tool: str
    layer: str
    scores: dict[str, list[Value]]
    asked: dict[str, list[Value]]
    under: dict[str, list[Value]]


class Entry(TypedDict):
    """One line of the ledger: what one tool answered to one phrase."""

    address: str
    made: str
    source: str  # tool, or the control that it is
    index: int
    key: str
    label: str
    timesteps: list[int]
    partners: dict[str, int]  # control -> index of the other image, where it has one
    curves: list[Curve]
    shares: dict[str, list[float]]  # kind of token -> its share, a value a timestep


def places_of(sample: GroundingSample, elsewhere: Elsewhere, masks: Mapping[str, Pixels]) -> dict[str, Pixels]:
    """Control -> where else the maps of a phrase are scored, (H, W)."""
    places = {name: mask for name, (mask, _) in elsewhere.items()}
    others = [mask for name, mask in masks.items() if name in FINDINGS and name != sample.label]
    if others:
        places["other_finding"] = np.logical_or.reduce(others)
    return places


def score_curves(
    sample: GroundingSample,
    maps: Mapping[Channel, Tensor],
    absent: Mapping[Channel, Tensor],
    places: Mapping[str, Pixels],
) -> list[Curve]:
    """Scores of all channels; of single layers CNR and the absent finding only.

    Args:
        maps: channel -> (S, h, w).
        absent: the same of a finding that the image does not have; may be empty.
        places: of :func:`places_of`.
    """
    box = torch.from_numpy(sample.box_mask())
    found = []
    for channel, heat in maps.items():
        full = resize_maps(heat, sample.size)  # (S, H, W)
        mask = box.expand(len(full), -1, -1)
        whole = channel.layer == ALL
        scores = locate_maps(full, mask) if whole else {"cnr": contrast_to_noise_ratio(full, mask)}
        pairs: dict[str, PairedScores] = {}
        if channel in absent:
            pairs["absent"] = grounding_gain(full, mask, control_maps=resize_maps(absent[channel], sample.size))
        for name, place in places.items() if whole else ():
            other = torch.from_numpy(place).expand(len(full), -1, -1)
            pairs[name] = grounding_gain(full, mask, control_places=other)
        curve: Curve = {
            "tool": channel.tool,
            "layer": channel.layer,
            "scores": {name: _plain(values) for name, values in scores.items()},
            "asked": {name: _plain(pair.asked) for name, pair in pairs.items()},
            "under": {name: _plain(pair.control) for name, pair in pairs.items()},
        }
        found.append(curve)
    return found


def _plain(values: Tensor) -> list[Value]:
    """JSON knows no NaN: None stands for it."""
    return [None if value != value else float(value) for value in values.tolist()]


class Point(TypedDict):
    """One phrase at one timestep of one channel."""

    index: int
    key: str
    label: str
    scores: dict[str, Value]
    pairs: dict[str, tuple[Value, Value, int]]


#: (tool, layer, timestep) -> the phrases that were asked there.
Points = dict[tuple[str, str, int], list[Point]]


def gather_points(entries: Iterable[Entry]) -> Points:
    """Entries by what is averaged."""
    found: Points = {}
    for entry in entries:
        for curve in entry["curves"]:
            for place, timestep in enumerate(entry["timesteps"]):
                pairs = {
                    name: (values[place], curve["under"][name][place], entry["partners"].get(name, entry["index"]))
                    for name, values in curve["asked"].items()
                }
                point: Point = {
                    "index": entry["index"],
                    "key": entry["key"],
                    "label": entry["label"],
                    "scores": {name: values[place] for name, values in curve["scores"].items()},
                    "pairs": pairs,
                }
                found.setdefault((curve["tool"], curve["layer"], timestep), []).append(point)
    return found


def curve_rows(points: Points) -> list[Row]:
    """One row a tool, layer, class, timestep and figure: ``cnr``, ``auroc``, ``top1``; ``gain``, the least of the gains;
    ``gain/CONTROL``, ``cnr/CONTROL``, what the same maps score under a control."""
    rows: list[Row] = []
    for (tool, layer, timestep), some in points.items():
        classes = sorted({one["label"] for one in some}) if layer == ALL else []
        for label in (MICRO, MACRO, *classes):
            chosen = [one for one in some if label in (MICRO, MACRO, one["label"])]
            head: dict[str, Value] = {"tool": tool, "layer": layer, "class": label, "timestep": timestep}
            for figure in FIGURES:
                cells = [(one["key"], one["label"], _number(one["scores"].get(figure))) for one in chosen]
                if any(np.isfinite(value) for _, _, value in cells):
                    rows.append({**head, "figure": figure, **mean_row(cells, macro=label == MACRO)})
            if label != MACRO:
                rows += [{**head, **row} for row in gain_lines(chosen)]
    return rows


def gain_lines(points: Sequence[Point]) -> list[Row]:
    """The gains of phrases at one timestep, each with what it is taken from."""
    askings = [
        Asking(control, one["index"], partner, _number(asked), _number(under))
        for one in points
        for control, (asked, under, partner) in one["pairs"].items()
    ]
    rows: list[Row] = []
    for row in gain_rows(askings):
        least = row["control"] == "least"
        ends = {end: _known(row[end]) for end in ("low", "high")}
        name = "gain" if least else f"gain/{row['control']}"
        rows.append({"figure": name, "value": _known(row["gain"]), **ends, "n": int(float(row["n"]))})
        if not least:
            figure = f"cnr/{row['control']}"
            rows.append({"figure": figure, "value": _known(row["control_cnr"]), "n": int(float(row["n"]))})
    return rows


def mean_row(cells: Sequence[tuple[str, str, float]], macro: bool = False) -> dict[str, Value]:
    """Mean of what is defined, its 95 % interval over images (None where they are too few), their number.

    Args:
        cells: (image, class, value).
        macro: each class counts alike.
    """
    known = [cell for cell in cells if np.isfinite(cell[2])]
    values: NDArray[np.float64] = np.array([[value for _, _, value in known]])  # (1, N)
    if not known:
        return {"value": None, "low": None, "high": None, "n": 0}
    keys, labels = [key for key, _, _ in known], [label for _, label, _ in known]
    low, high = mean_interval(values, keys, labels if macro else None)
    mean = float((macro_mean(values, labels) if macro else micro_mean(values))[0])
    return {"value": mean, "low": _known(low), "high": _known(high), "n": len(known)}


def _number(value: Value) -> float:
    return float("nan") if value is None else float(value)


def _known(value: str | float) -> float | None:
    return float(value) if np.isfinite(float(value)) else None
