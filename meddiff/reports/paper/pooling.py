"""The models that evaluations stand for, runs that differ only by their seed being one, and their scores by sample.

Nothing here imports torch. Source: own.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.metrics.statistics import mean_of_known
from meddiff.runs.evaluation_folder import EvaluationFolder
from meddiff.runs.values import number

#: (key, class, phrase)
Sample = tuple[str, str, str]


@dataclass
class Model:
    """The evaluations that differ by nothing but the training seed.

    Attributes:
        label: how tables call it.
        evaluations: one a seed, by seed.
    """

    label: str
    evaluations: list[EvaluationFolder]

    @property
    def about(self) -> dict[str, object]:
        """What the evaluations share."""
        return self.evaluations[0].about

    @property
    def images(self) -> int:
        """Images seen in training."""
        return self.evaluations[0].images

    @property
    def side(self) -> str:
        """``frozen`` or ``learnable`` text encoder; ``base`` before training; ``published`` as it came."""
        if self.evaluations[0].published:
            return "published"
        if not self.images:
            return "base"
        return "frozen" if self.about.get("freeze_text_encoder") else "learnable"

    @property
    def prompt(self) -> str:
        """Kind of text it was trained on."""
        return str(self.about.get("prompt", ""))

    @property
    def is_coco(self) -> bool:
        """Was it evaluated on MS-COCO?"""
        return str(self.about.get("cohort", "")).lower() == "mscoco"

    def describe(self) -> str:
        """One line below a table."""
        if self.evaluations[0].published:
            sums = self.about.get("sha256")
            unet = f", U-Net sha256 {str(sums['unet'])[:12]}" if isinstance(sums, dict) and sums.get("unet") else ""
            return (
                f"{self.label}: {self.about.get('model')} as published, not trained here{unet}, cohort "
                f"{self.about.get('cohort')}."
            )
        seeds = ", ".join(str(one.seed) for one in self.evaluations)
        return (
            f"{self.label}: {self.about.get('model')}, text encoder {self.side}, {self.prompt} prompts, "
            f"{self.images:,} images seen, cohort {self.about.get('cohort')}, "
            f"{'seed' if len(self.evaluations) == 1 else 'seeds'} {seeds}."
        )


@dataclass
class Samples:
    """What was measured.

    Attributes:
        samples: (N) key, class and phrase.
    """

    samples: list[Sample]

    @property
    def keys(self) -> list[str]:
        """Image of each sample."""
        return [sample[0] for sample in self.samples]

    @property
    def classes(self) -> list[str]:
        """Class of each sample."""
        return [sample[1] for sample in self.samples]


@dataclass
class Scores(Samples):
    """Per-sample scores of a model: the samples are those with a defined CNR in any seed.

    Attributes:
        values: metric -> (S, N), a row a seed, NaN where undefined.
        left_out: samples without a defined CNR in any seed.
    """

    values: dict[str, NDArray[np.float64]]
    left_out: int


def scores_of(tables: Sequence[Sequence[dict[str, str]]], metrics: Sequence[str]) -> Scores:
    """Scores by sample and seed; a sample without a defined CNR counts in no column of its seed."""
    keyed = [{(r.get("key", ""), r.get("class", ""), r.get("phrase", "")): r for r in rows} for rows in tables]
    defined = [{sample: row for sample, row in rows.items() if number(row.get("cnr")) is not None} for rows in keyed]
    places = {sample: place for place, sample in enumerate(sorted({sample for rows in defined for sample in rows}))}
    values = {name: np.full((len(tables), len(places)), np.nan) for name in metrics}
    for seed, rows in enumerate(defined):
        for sample, row in rows.items():
            for name in metrics:
                value = number(row.get(name))
                if value is not None:
                    values[name][seed, places[sample]] = value
    everything = {sample for rows in keyed for sample in rows}
    return Scores(list(places), values, len(everything) - len(places))


def per_image(scores: Scores) -> Scores:
    """The mean over the phrases of each (class, image), which then is one sample: an image with five captions is no five
    images."""
    places: dict[Sample, list[int]] = {}
    for place, (key, label, _) in enumerate(scores.samples):
        places.setdefault((key, label, ""), []).append(place)
    values = {
        name: np.stack([mean_of_known(table[:, some]) for some in places.values()], axis=1) if places else table
        for name, table in scores.values.items()
    }
    return Scores(list(places), values, scores.left_out)


def group_models(evaluations: Sequence[EvaluationFolder]) -> list[Model]:
    """Models in the order in which they were named, with labels that tell them apart.

    Evaluations of equal name, freezing, prompts, cohort, images and settings are seeds of one model; a folder named
    twice counts once, and a second run of the same seed is a model of its own. So is every published model.
    """
    groups: dict[str, list[EvaluationFolder]] = {}
    seen: set[Path] = set()
    for one in evaluations:
        if one.path.resolve() in seen:
            continue
        seen.add(one.path.resolve())
        shared = [one.about.get(k) for k in ("model", "freeze_text_encoder", "prompt", "cohort", "images", "sha256")]
        key = json.dumps([shared, one.settings], sort_keys=True, default=str)
        while key in groups and any(other.seed == one.seed for other in groups[key]):
            key += "+"
        groups.setdefault(key, []).append(one)
    models = [Model("", sorted(group, key=lambda one: one.seed)) for group in groups.values()]
    _label(models)
    return models


def _label(models: Sequence[Model]) -> None:
    """The shortest of side (of a published model its name), prompt, name, images, cohort, folder that makes labels differ."""
    parts = [
        lambda m: str(m.about.get("model")) if m.side == "published" else m.side,
        lambda m: m.prompt,
        lambda m: "" if m.side == "published" else str(m.about.get("model")),
        lambda m: f"{m.images:,} images",
        lambda m: str(m.about.get("cohort")),
        lambda m: m.evaluations[0].run.name,
    ]
    chosen = [parts[0]]
    for part in parts[1:]:
        labels = [_joined(p(model) for p in chosen) for model in models]
        if len(set(labels)) == len(labels):
            break
        if len({part(model) for model in models}) > 1:
            chosen.append(part)
    for place, model in enumerate(models):
        model.label = _joined(part(model) for part in chosen)
        if any(other.label == model.label for other in models[:place]):
            model.label += f" ({place + 1})"


def _joined(parts: Iterable[str]) -> str:
    return " ".join(part for part in parts if part)
