"""Which artefact does each control of the grounding gain catch, and which none? Maps of graders whose every reason is known.

``python tools/planted_graders.py`` draws phantoms (a grounding split, images with several findings, mirrored pairs), lets each
grader answer every question as a model would be asked it, and prints the CNR, the gain under each control and the least of
them, with all controls and with those that a real cohort has. A grader is asked for a finding on an image by a phrase; maps are
16 x 16, as those of a small U-Net, and carry noise of their own. The table is in ``docs/controls.md``. Source: own.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.draws import generator
from meddiff.evaluation.gain import Gains, absent_findings, other_places
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.mirrored_twins import score_twins
from meddiff.evaluation.own_first import gain_over_others
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.gain_summary import GAIN_CONTROLS, LEAST, nearest_zero
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.render import render
from meddiff.shards.sample import CohortSample
from meddiff.shards.schema import SampleMetadata

Heat = NDArray[np.float64]
#: Pixels of a phantom and of a map along one side; noise of a map, over a signal of 0 to 1.
SIZE, SIDE, NOISE = 64, 16, 0.25


class Drawn:
    """Phantoms of one kind, with all that a measurement asks of a split."""

    def __init__(self, **options: bool | float) -> None:
        n = int(options.pop("n"))
        wanted = {"n": n, "grounding": n, "val": 0, "fidelity": 0, "normal": 0.0, "resolution": SIZE, **options}
        self.cohort = PhantomCohort(PhantomOptions(**wanted))
        self.phantoms: list[CohortSample] = list(self.cohort)

    def metadata(self, sample: int) -> SampleMetadata:
        """Labels and patient of one image."""
        one = self.phantoms[sample]
        return cast(SampleMetadata, {"labels": one.labels, "patient_id": one.patient_id})

    @cached_property
    def samples(self) -> list[GroundingSample]:
        """What can be asked."""
        return [
            GroundingSample(
                i,
                one.key,
                phrase.label,
                phrase.text,
                np.array([(b.x, b.y, b.w, b.h) for b in phrase.boxes]),
                (SIZE, SIZE),
            )
            for i, one in enumerate(self.phantoms)
            for phrase in one.phrases
            if phrase.boxes
        ]

    def lungs(self, image: int) -> Heat:
        """Lungs of one patient, (H, W) 0 to 1."""
        scene = self.cohort.scene(image)
        return np.asarray(Chest(scene.anatomy, SIZE, scene.address).lungs, np.float64)

    @cache  # noqa: B019 (a split lives as long as the program)
    def mirrored(self, image: int) -> Mapping[str, Heat]:
        """Where the findings of an image would lie on the patient's other side."""
        found = render(self.cohort.scene(image).mirrored(), SIZE).masks
        return {name: mask.astype(np.float64) for name, mask in found.items()}

    def side(self, image: int, label: str) -> str:
        """``left``, ``right`` or ``both``, of a finding."""
        sites = self.phantoms[image].attributes["findings"][label]["sites"]
        sides = {str(site[0]) for site in sites}
        return sides.pop() if len(sides) == 1 and label != "Cardiomegaly" else "both"


@dataclass(frozen=True)
class Question:
    """A finding that a grader is asked for.

    Attributes:
        split, image: where.
        label: what.
        side: what the phrase says of its side: that of the image it was written of.
        named: what the phrase names, in whatever order.
    """

    split: Drawn
    image: int
    label: str
    side: str
    named: tuple[str, ...]

    @property
    def masks(self) -> Mapping[str, Heat]:
        """Findings of the image, 0 and 1."""
        found = self.split.phantoms[self.image].masks
        return {name: mask.astype(np.float64) for name, mask in found.items() if name in QUERY_WORDS}

    @property
    def asked(self) -> Heat:
        """The mask of what is asked for; empty where it is not there."""
        return self.masks.get(self.label, np.zeros((SIZE, SIZE)))


Grader = Callable[[Question], Heat]


def question(split: Drawn, image: GroundingSample, phrase: GroundingSample) -> Question:
    """The phrase of one sample asked of the image of another, or of its own."""
    text = phrase.phrase.lower()
    named = tuple(name for name, words in QUERY_WORDS.items() if any(word in text for word in words))
    return Question(split, image.index, phrase.label, split.side(phrase.index, phrase.label), named)


def half(side: str) -> Heat:
    """The half of the picture on one side of the patient, whose right is on the left."""
    columns = np.arange(SIZE) < SIZE / 2
    chosen = columns if side == "right" else ~columns if side == "left" else np.ones(SIZE, bool)
    return np.tile(chosen.astype(np.float64), (SIZE, 1))


def graders(seed: int = 9) -> dict[str, Grader]:
    """Name -> what it lights up, (H, W) 0 to 1."""
    train = Drawn(n=400, seed=seed)
    usual: dict[str, Heat] = {}
    for one in train.phantoms:
        for name in one.labels:
            usual[name] = usual.get(name, np.zeros((SIZE, SIZE))) + one.masks[name]
    usual = {name: (heat + heat[:, ::-1]) / (heat + heat[:, ::-1]).max() for name, heat in usual.items()}
    y, x = np.mgrid[-2.0 : 2.0 : SIZE * 1j, -2.0 : 2.0 : SIZE * 1j]
    middle = np.exp(-(x**2 + y**2) / 2)

    def union(masks: Sequence[Heat]) -> Heat:
        return np.max([np.zeros((SIZE, SIZE)), *masks], axis=0)

    def organ(at: Question) -> Heat:
        return usual["Cardiomegaly"] if at.label == "Cardiomegaly" else at.split.lungs(at.image)

    return {
        "perfect": lambda at: at.asked,
        "noise": lambda at: np.zeros((SIZE, SIZE)),
        "saliency: every finding, whatever the word": lambda at: union(list(at.masks.values())),
        "every finding, if the one asked for is there": lambda at: union(
            list(at.masks.values()) if at.label in at.masks else []
        ),
        "centre prior": lambda at: middle,
        "location prior of the class": lambda at: usual[at.label],
        "location prior, if the one asked for is there": lambda at: usual[at.label] * (at.label in at.masks),
        "anatomy: the lungs, whatever the word": lambda at: at.split.lungs(at.image),
        "anatomy: the organ of the word": organ,
        "anatomy: anything but the lungs": lambda at: 1 - at.split.lungs(at.image),
        "its place on both sides": lambda at: np.maximum(at.asked, at.split.mirrored(at.image).get(at.label, at.asked)),
        "side only: the half that the phrase says": lambda at: half(at.side) if at.side != "both" else middle * 0,
        "text only: location prior on the side that the phrase says": lambda at: usual[at.label] * half(at.side),
        "end token: all that the phrase names": lambda at: union(
            [mask for name, mask in at.masks.items() if name in at.named]
        ),
    }


def maps_of(grader: Grader, questions: Sequence[Question], noise: float = NOISE) -> Tensor:
    """Maps (N, H, W) of one grader: its answers at 16 x 16, with noise of their own, brought to the image."""
    found = []
    for place, at in enumerate(questions):
        part = SIZE // SIDE
        coarse = grader(at).reshape(SIDE, part, SIDE, part).mean((1, 3))
        draw = generator("planted", at.split.cohort.options.seed, at.image, at.label, at.side, place)
        found.append(torch.from_numpy(coarse + noise * draw.standard_normal((SIDE, SIDE))))
    return resize_maps(torch.stack(found), (SIZE, SIZE))


@dataclass(frozen=True)
class Cohorts:
    """What a model on phantoms is measured on."""

    grounding: Drawn
    crowded: Drawn
    mirrored: Drawn


def cohorts(n: int = 160, seed: int = 0) -> Cohorts:
    """Phantoms of three kinds, of patients of their own."""
    return Cohorts(
        Drawn(n=n, seed=seed),
        Drawn(n=n, seed=seed + 1, multiple=1.0),
        Drawn(n=n, seed=seed + 2, multiple=0.2, mirrored_pairs=True),
    )


def gains_of(grader: Grader, on: Cohorts, noise: float = NOISE) -> dict[str, Row]:
    """control -> its row of the gain, the least among them; what ``lightning evaluate controls`` does with a model."""
    gains = Gains()
    split, samples = on.grounding, on.grounding.samples
    maps = maps_of(grader, [question(split, one, one) for one in samples], noise)
    for sample, heat, places in zip(samples, maps, other_places(split, samples), strict=True):
        gains.add_elsewhere(sample, heat, places)
    pairs = absent_findings(split, samples)
    absent = maps_of(grader, [question(split, one, other) for one, other in pairs], noise)
    own = {id(sample): heat for sample, heat in zip(samples, maps, strict=True)}
    gains.add_absent([one for one, _ in pairs], [own[id(one)] for one, _ in pairs], list(absent))
    split, samples = on.crowded, on.crowded.samples
    asked = {(one.key, one.label) for one in samples}
    maps = maps_of(grader, [question(split, one, one) for one in samples], noise)
    for sample, heat in zip(samples, maps, strict=True):
        masks = {name: mask for name, mask in split.phantoms[sample.index].masks.items() if name in QUERY_WORDS}
        gain_over_others(sample, heat, masks, asked, gains)
    split = on.mirrored
    sided = [one for one in split.samples if split.side(one.index, one.label) != "both"]
    twins = {(one.index, one.label): one for one in sided}
    flat = [
        twins[2 * pair + twin, label]
        for pair, label in sorted({(index // 2, label) for index, label in twins})
        for twin in (0, 1)
        if (2 * pair, label) in twins and (2 * pair + 1, label) in twins
    ]
    score_twins(flat, list(maps_of(grader, [question(split, one, one) for one in flat], noise)), gains)
    return {str(row["control"]): row for row in gains.rows()}


def least_of(rows: Mapping[str, Row], controls: Sequence[str]) -> float:
    """The least gain under some of the controls."""
    return nearest_zero([float(rows[name][part] or 0.0) for name in controls for part in ("gain", "cnr")])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What each control of the grounding gain catches.")
    parser.add_argument("--n", type=int, default=160, help="Phantoms of each kind.")
    parser.add_argument("--seed", type=int, default=0, help="Of the phantoms.")
    options = parser.parse_args()
    on = cohorts(options.n, options.seed)
    print("| grader | CNR | " + " | ".join(GAIN_CONTROLS) + " | **grounding gain** | of a real cohort |")
    print("|---" * (len(GAIN_CONTROLS) + 4) + "|")
    for name, grader in graders().items():
        rows = gains_of(grader, on)
        cells = [f"{rows['absent']['cnr']:.2f}", *(f"{rows[one]['gain']:.2f}" for one in GAIN_CONTROLS)]
        least = rows[LEAST]
        cells.append(f"**{least['gain']:.2f}** [{least['low']:.2f}, {least['high']:.2f}]")
        cells.append(f"{least_of(rows, ('absent', 'other_patient', 'mirrored_box')):.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
