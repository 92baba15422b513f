"""One row a phrase: the scores of its word's map, and what they average to. Source: spec/tradeoff.md sections 5 and 6."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.words import Query
from meddiff.common.findings import CONFOUNDERS, FINDINGS
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import mean_iou, mixture_threshold, resize_maps
from meddiff.metrics.grounding import locate_maps
from meddiff.metrics.summary import summarise


def score_sample(
    sample: GroundingSample, query: Query, heat: Tensor, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Value]:
    """Scores of one sample's maps (word, end token), (2, h, w), brought to the size of the image.

    The maps are scored on the boxes, on the exact mask of the finding (``mask_*``), on the confounders in the image
    (``confounder/*``: does the word point at the pacemaker?), on its other findings (``other/*``) and on whatever else
    has a mask, such as lungs (``region/*``, in no average). The threshold of mIoU is fitted on the latents' grid,
    where the paper fits it too.
    """
    if not query.weights.any():
        heat = torch.full_like(heat, torch.nan)  # every word was cut off: undefined, and listed
    word, eos = resize_maps(heat, sample.size)  # (H, W) each
    box = torch.from_numpy(sample.box_mask())
    row: dict[str, Value] = {"key": sample.key, "class": sample.label, "phrase": sample.phrase}
    row |= {"words": " ".join(query.words), "cut": " ".join(query.truncated)}
    row |= localisation(word, box)
    row["miou"] = float(mean_iou(word[None], box[None], mixture_threshold(heat[:1])))
    row |= {f"eos_{name}": value for name, value in localisation(eos, box).items()}
    for name, mask in masks.items():
        found = localisation(word, torch.from_numpy(mask))
        if name == sample.label:
            row |= {f"mask_{kind}": value for kind, value in found.items()}
        elif name in CONFOUNDERS:
            row[f"confounder/{name}"] = found["cnr"]
        elif name not in FINDINGS:
            row[f"region/{name}"] = found["cnr"]
        elif not query.is_fallback:  # a phrase that does not name its finding has no word to compare
            row[f"other/{name}"] = found["cnr"]
    return row


def localisation(heat: Tensor, mask: Tensor) -> dict[str, float]:
    """CNR, AUROC and Top-1 of one map (H, W) on one mask (H, W)."""
    return {name: float(value) for name, value in locate_maps(heat[None], mask[None]).items()}


def grounding_summary(rows: Sequence[Row]) -> dict[str, float]:
    """Micro, macro and per-class averages; what the end token, the masks and the confounders say; counts."""
    summary = summarise(rows)
    for kind in ("mask", "eos"):
        names = ("cnr", "auroc", "top1")
        some = [
            {"class": row["class"], "miou": None, **{name: row[f"{kind}_{name}"] for name in names}}
            for row in rows
            if f"{kind}_cnr" in row
        ]
        if some:
            found = summarise(some)
            summary |= {f"{kind}_{name}": found[name] for name in (*names, "macro_cnr")}
    confounders = [cell for row in rows for name, cell in row.items() if name.startswith("confounder/")]
    beaten = [
        float(_number(row["mask_cnr"]) > _number(cell))
        for row in rows
        for name, cell in row.items()
        if name.startswith("other/")
    ]
    fallback = [float(not row["words"]) for row in rows]
    for name, values in (("confounder_cnr", confounders), ("own_beats_other", beaten), ("fallback", fallback)):
        defined = [number for number in map(_number, values) if number == number]
        if defined:
            summary[name] = sum(defined) / len(defined)
    return {name: value for name, value in summary.items() if value == value}


def unscored(rows: Sequence[Row]) -> list[Row]:
    """Rows without a CNR and rows whose words were cut off, each with its reason."""
    lost: list[Row] = [{**row, "reason": "map is constant or not a number"} for row in rows if row["cnr"] is None]
    return lost + [{**row, "reason": f"cut off by the context: {row['cut']}"} for row in rows if row["cut"]]


def _number(cell: Value) -> float:
    return float("nan") if cell is None else float(cell)
