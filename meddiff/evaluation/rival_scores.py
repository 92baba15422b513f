"""Scores of rival maps: the same of every preset, on the image's own finding and on one that it does not have; their averages.

A phrase without a defined score is left out of its average and counted (published code counts it as 0). Intervals are over
images. Controls stand in the same table: ``blind`` answers every question with the map of the image's own phrase, so it has the
CNR of ``words`` and no gain; ``centre`` and ``class_prior`` never look; ``planted`` knows the answer. Source: own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NotRequired

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.common.draws import generator
from meddiff.evaluation.gain import Elsewhere, Gains
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.priors import Predictor, middle
from meddiff.evaluation.rival_maps import Answer, Asking, OnProgress
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import grounding_gain, multi_threshold_iou, resize_maps
from meddiff.metrics.gain_summary import LEAST
from meddiff.metrics.grounding import locate_maps
from meddiff.metrics.intervals import mean_interval
from meddiff.metrics.published_means import squared_counts_mean
from meddiff.metrics.statistics import macro_mean, micro_mean
from meddiff.models.latent_diffusion import LatentDiffusion

#: What every map is scored by; ``miou_biovil`` is the mean IoU at .1, .2, .3, .4 and .5 of the map in 0..1.
SCORES = ("cnr", "auroc", "top1", "miou_biovil")
FIRST = (
    "preset",
    "kind",
    "n",
    "undefined",
    "n_images",
    "evaluations",
    "seconds",
    "cnr",
    "cnr_low",
    "cnr_high",
    "macro_cnr",
)
SCORED = ("preset", "key", "class", "phrase", *SCORES, "absent_cnr")
#: Presets that are the suite's own, and those that see no image or no word.
OWN, CONTROLS = ("words", "layers"), ("blind", "centre", "class_prior", "planted")
#: Standard deviation of what the planted answer has beside its box.
TEXTURE = 0.05


class Scores(TypedDict):
    """Of one map; None is undefined."""

    cnr: float | None
    auroc: float | None
    top1: float | None
    miou_biovil: float | None
    absent_cnr: float | None
    elsewhere: dict[str, list[float | None]]


class Entry(TypedDict):
    """One line of the ledger: a phrase, asked and scored."""

    address: str
    made: str
    scores: dict[str, Scores]
    seconds: float
    difference: NotRequired[list[float | None]]
    noise: NotRequired[list[list[float | None]]]
    groups: NotRequired[list[list[str | int]]]
    counts: NotRequired[list[int]]


class Planted:
    """Answers whose reason is known, without a forward pass.

    Args:
        usual: answers a sample with the usual place of its class.
        seed: of the texture.
    """

    name, each = "controls", 0.0
    presets: tuple[str, ...] = ("centre", "class_prior", "planted")

    def __init__(self, usual: Predictor, seed: int) -> None:
        self.usual, self.seed, self.middle = usual, seed, middle()

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """None."""
        return 0.0

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """The middle of the image, the usual place of the asked class, and the place of the finding if it is there."""
        found = []
        for image, phrase, _ in askings:
            draw = generator(self.seed, "planted answer", image.key, phrase.label, phrase.phrase)
            place = torch.from_numpy(image.box_mask()).double() if image is phrase else torch.zeros(image.size).double()
            prior = resize_maps(self.usual(phrase).heat[None].double(), image.size)[0]
            maps = (
                self.middle(image).heat,
                prior,
                place + TEXTURE * torch.from_numpy(draw.standard_normal(image.size)),
            )
            found.append(Answer(dict(zip(self.presets, maps, strict=True))))
        return found


def score(sample: GroundingSample, heat: Tensor, absent: Tensor | None, elsewhere: Elsewhere) -> Scores:
    """A map (H, W) on its boxes, on other places, and that of an absent finding on the same boxes.

    A map may be NaN around a window that it sees: what lies outside is neither inside nor outside of a box.
    """
    window = seen(heat)
    maps, box = heat[window][None], torch.from_numpy(sample.box_mask())[window][None]
    found = {name: float(value) for name, value in locate_maps(maps, box).items()}
    found["miou_biovil"] = float(multi_threshold_iou(maps, box)) if bool(box.any()) else math.nan
    under = math.nan
    if absent is not None:
        under = float(grounding_gain(maps, box, control_maps=absent[window][None]).control)
    places: dict[str, list[float | None]] = {}
    for name, (mask, _) in elsewhere.items():
        pair = grounding_gain(maps, box, control_places=torch.from_numpy(mask)[window][None])
        places[name] = [_known(float(pair.asked)), _known(float(pair.control))]
    cnr, auroc, top1, miou = (_known(found[name]) for name in SCORES)
    return Scores(cnr=cnr, auroc=auroc, top1=top1, miou_biovil=miou, absent_cnr=_known(under), elsewhere=places)


def seen(heat: Tensor) -> tuple[slice, slice]:
    """The window around all finite values of a map (H, W); all of it where there are none.

    Example:
        >>> seen(torch.tensor([[torch.nan, 1.0], [torch.nan, 2.0]]))
        (slice(0, 2, None), slice(1, 2, None))
    """
    finite = heat.isfinite()
    if not bool(finite.any()):
        return slice(0, heat.shape[0]), slice(0, heat.shape[1])
    rows, columns = (finite.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def blind(words: Scores) -> Scores:
    """What a map gets that answers every question as it answers the image's own phrase, where ``words`` was asked another."""
    return Scores(**{**words, "absent_cnr": None if words["absent_cnr"] is None else words["cnr"]})


def phrase_row(sample: GroundingSample, preset: str, scores: Scores) -> Row:
    """A row of ``rival_scores``."""
    about: dict[str, Value] = {"preset": preset, "key": sample.key, "class": sample.label, "phrase": sample.phrase}
    return about | {name: scores[name] for name in (*SCORES, "absent_cnr")}  # type: ignore[literal-required]


def summary_row(
    preset: str,
    scored: Sequence[tuple[GroundingSample, Scores, Elsewhere]],
    evaluations: float,
    seconds: float,
    phrases: int,
) -> dict[str, Value]:
    """A row of ``rivals``.

    Args:
        scored: the phrases that have a map.
        evaluations: of the U-Net, of one map.
        seconds: of one map.
        phrases: how many were asked.
    """
    kind = (
        "own" if preset in OWN else "control" if preset in CONTROLS else "baseline" if preset == "biovil_t" else "rival"
    )
    defined = sum(one["cnr"] is not None for _, one, _ in scored)
    images = {sample.index for sample, one, _ in scored if one["cnr"] is not None}
    row: dict[str, Value] = {"preset": preset, "kind": kind, "n": float(defined), "undefined": float(phrases - defined)}
    row |= {"n_images": float(len(images)), "evaluations": evaluations, "seconds": seconds}
    keys, classes = [sample.key for sample, _, _ in scored], [sample.label for sample, _, _ in scored]
    for name in SCORES:
        values = np.array([[_number(one[name]) for _, one, _ in scored]])  # type: ignore[literal-required]
        low, high = mean_interval(values, keys, share=name == "top1") if scored else (math.nan, math.nan)
        row |= {name: float(micro_mean(values)[0]), f"{name}_low": low, f"{name}_high": high}
        row[f"macro_{name}"] = float(macro_mean(values, classes)[0]) if scored else math.nan
        if name == "cnr":
            row["squared_counts_cnr"] = squared_counts_mean(values[0].tolist(), classes)
    gains = Gains()
    for sample, one, elsewhere in scored:
        gains.add("absent", sample, one["cnr"], one["absent_cnr"])
        gains.add_scores(sample, one["elsewhere"], elsewhere)
    for gain in gains.rows():
        if gain["control"] in ("absent", LEAST):
            prefix = "gain" if gain["control"] == LEAST else "gain_absent"
            row |= {prefix: gain["gain"], f"{prefix}_low": gain["low"], f"{prefix}_high": gain["high"]}
    return {name: _known(value) if isinstance(value, float) else value for name, value in row.items()}


def figures(rows: Sequence[Mapping[str, Value]]) -> dict[str, float]:
    """``PRESET/NAME``: means, gains and costs of the rows of ``rivals``."""
    names = ("n", "evaluations", *SCORES, "macro_cnr", "gain_absent", "gain")
    return {
        f"{row['preset']}/{name}": float(value)
        for row in rows
        for name in names
        if (value := row.get(name)) is not None
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
