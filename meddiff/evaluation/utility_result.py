"""Figures and tables of utility, of the logits that classifiers gave the test images.

An AUROC is a mean over test images (:func:`meddiff.metrics.functional.class_auroc.macro_auroc_by_image`), so that an arm is
compared with ``real`` seed by seed and image by image. Source: own.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.common.findings import FINDINGS
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.utility_arms import CONTROLS, plan
from meddiff.metrics.functional.class_auroc import class_auroc, macro_auroc_by_image
from meddiff.metrics.over_seeds import over_seeds, paired

FIRST = ("arm", "auroc", "low", "high", "gain", "gain_low", "gain_high", "p", "seeds", "steps", "n_train", "n_test")
RUNS = ("arm", "classifier_seed", "auroc", "validation", "step")
CLASSES = ("arm", "class", "auroc", "positives", "n")
#: The arm whose gain is the gain: drawn images beside real ones.
GAINING = "real_and_synthetic"


class Entry(TypedDict):
    """One line of the ledger: a classifier that was trained, on what, and its logits on the test images."""

    arm: str
    seed: int
    made: str
    validation: float | None
    step: int
    scores: list[list[float]]


def utility_result(
    entries: Sequence[Entry], labels: Tensor, patients: Sequence[str], counted: Sequence[int], steps: int
) -> Result:
    """Figures and tables of logits on the test images.

    Args:
        entries: of every arm as many, in the order of seeds.
        labels: (N, C) bool, of the test images.
        patients: of the test images.
        counted: columns that the macro mean is over.
    """
    by_arm: dict[str, list[Entry]] = {}
    for entry in entries:
        by_arm.setdefault(entry["arm"], []).append(entry)
    logits = {arm: [torch.tensor(one["scores"], dtype=torch.float64) for one in some] for arm, some in by_arm.items()}
    by_image = {
        arm: np.stack([macro_auroc_by_image(one, labels, counted).numpy() for one in some])
        for arm, some in logits.items()
    }  # (S, N) each: the mean over N is the AUROC
    rows: list[Row] = []
    of_classes: list[Row] = []
    of_runs: list[Row] = []
    figures: dict[str, float] = {}
    for arm, values in by_image.items():
        level = over_seeds(values, patients, address=("utility", arm))
        gain = over_seeds(paired(values, by_image["real"]), patients, address=("utility gain", arm))
        took = sum(count for _, count in plan(arm, steps))
        row: dict[str, str | float] = {
            "arm": arm,
            "auroc": level.mean,
            "low": level.low,
            "high": level.high,
            "seeds": float(level.seeds),
        }
        row |= {"steps": float(took), "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "p": gain.p}
        if arm == "real":
            row |= dict.fromkeys(("gain", "gain_low", "gain_high", "p"), math.nan)
        rows.append(row)
        figures[f"utility_{arm}_auroc"] = level.mean
        if arm not in ("real", "shuffled"):
            figures[f"utility_gain_{arm}"] = gain.mean
        if arm == GAINING:
            figures |= {"utility_gain": gain.mean, "utility_gain_low": gain.low, "utility_gain_high": gain.high}
        areas = torch.stack([class_auroc(one, labels, ~labels) for one in logits[arm]]).mean(dim=0)
        for c, name in enumerate(FINDINGS):
            cells = (arm, name, float(areas[c]), float(labels[:, c].sum()), float(len(labels)))
            of_classes.append(dict(zip(CLASSES, cells, strict=True)))
        for one, per_image in zip(by_arm[arm], values, strict=True):
            chosen = math.nan if one["validation"] is None else one["validation"]
            cells = (arm, one["seed"], float(per_image.mean()), chosen, one["step"])  # type: ignore[assignment]
            of_runs.append(dict(zip(RUNS, cells, strict=True)))
    figures |= {"seeds": float(len(by_arm["real"])), "classes": float(len(counted))}
    shown = {arm: {"utility_auroc": figures[f"utility_{arm}_auroc"]} for arm in CONTROLS if arm in by_arm}
    controls: dict[str, object] = {
        arm: {name: value if math.isfinite(value) else None for name, value in one.items()}
        for arm, one in shown.items()
    }
    tables = {"utility": Table(rows, FIRST), "utility_classes": Table(of_classes, CLASSES)}
    return Result(figures, {**tables, "utility_runs": Table(of_runs, RUNS)}, controls)
