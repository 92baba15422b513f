"""What a Patronus has learned: what its prototypes are about, where and when they are drawn, and what they are worth.

Tables:

- ``prototypes``: a row a prototype: range, dead, alike to another; its name with a signed AUROC and a p adjusted for all
  tries; where it was raised, the activation before and after, how odd the edited vector is, and t_half, the timestep of its
  emergence
- ``prototype_emergence``: the curves, with their controls (:mod:`meddiff.attribution.emergence`)
- ``prototype_latents``: latent AUROC, TAD and captured attributes, with the untrained encoder and published values beside
- ``prototype_reconstruction`` and ``prototype_fidelity``: :mod:`meddiff.evaluation.prototype_pictures`
- ``prototype_grounding``: :mod:`meddiff.evaluation.prototype_grounding`

Source: Weng et al. 2026 (spec/patronus_and_visual_analysis.md, A7, A8, C1); controls own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.attribution.prototype_statistics import HIGH, own_levels, spread_of
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.feature_cache import Features, cache_folder, measure, real_features
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.progress import progress_bar
from meddiff.evaluation.prototype_drawings import EMERGENCE, Raised, drawing_cost, raise_prototypes
from meddiff.evaluation.prototype_grounding import COLUMNS as GROUNDING
from meddiff.evaluation.prototype_grounding import OWN, UNTRAINED, ground_prototypes, headline
from meddiff.evaluation.prototype_inputs import activations_of, inputs_of, patronus
from meddiff.evaluation.prototype_naming import Named, concepts_of, labels_of, name_prototypes, one_a_patient
from meddiff.evaluation.prototype_pictures import (
    RECONSTRUCTION,
    KeptPictures,
    Prior,
    conditional,
    reconstruction_cost,
    reconstruction_figures,
    reconstruction_rows,
    some_of,
    unconditional,
)
from meddiff.evaluation.provenance import model_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.metrics.functional.prototype_use import prototype_likeness, prototype_use
from meddiff.metrics.latent_quality import LatentQuality
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import EXTRACTORS, build_extractor, missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.models.prototypes import PrototypeEncoder
from meddiff.shards.dataset import LatentShardsDataset

Floats = NDArray[np.float64]
FIRST = ("model", "seed", "images", "prototype", "name", "kind", "auroc", "p", "spread", "dead", "alike")
LATENTS = ("model", "seed", "images", "encoder", "figure", "value", "low", "high", "n")
FIDELITY = ("model", "seed", "images", "metric", "set", "reference", "value", "n", "protocol")
#: An encoder needs so many labelled images for its probe, and a Frechet distance so many pictures.
FEWEST = 50


@dataclass(frozen=True)
class PrototypesOptions:
    """Options of ``lightning evaluate prototypes``."""

    split: str = "fidelity"
    """Held-out split: names, ranges, probes, views, reconstruction and distances."""
    grounding: str | None = "grounding"
    """Split with boxes; null leaves grounding out."""
    samples: int = 1000
    """Images of the split that are encoded, at most."""
    shown: int = 32
    """Prototypes that are raised: those that vary most and double no other. Each costs views x steps evaluations."""
    views: int = 8
    """Images that each prototype is raised in."""
    natural: int = 3
    """Real images shown of each prototype, those with most of it."""
    steps: int = 20
    """Timesteps of inversion and of drawing."""
    reconstructed: int = 64
    """Images that are drawn again; 0 leaves reconstruction out."""
    drawn: int = 200
    """Pictures of a Frechet distance (the split must hold twice as many); 0 leaves distances out."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights of the distances: domain, inception, xrv224, ..."""
    published: str | None = None
    """Data set whose published values are printed beside: celeba, fmnist, cifar10, ffhq."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of choices and noise."""

    def __post_init__(self) -> None:
        steps, some = Range(2, 1000, whole=True), Range(0, 10**7, whole=True)
        ranges = {"samples": COUNT, "shown": some, "views": COUNT, "natural": some, "steps": steps, "batch_size": COUNT}
        check_ranges("prototypes", self, **ranges, reconstructed=some, drawn=some)


@dataclass
class Beside:
    """What a model is compared with and on; None is left out.

    Attributes:
        train: split of training, where boxes of the location prior are counted.
        grounding: split with boxes.
        untrained: an encoder of the same shape with random weights.
        prior: draws activations without an image.
    """

    train: LatentShardsDataset | None = None
    grounding: LatentShardsDataset | None = None
    untrained: PrototypeEncoder | None = None
    prior: Prior | None = None


class Prototypes:
    """Everything about prototypes that a page shows.

    Args:
        options: what is measured.
        beside: what it is compared with.
        show_progress: draw progress bars.

    Attributes:
        raised: after a run, the pictures of the prototypes that were raised.
        natural: after a run, prototype -> indices of the real images with most of it.
    """

    def __init__(
        self,
        options: PrototypesOptions = PrototypesOptions(),
        beside: Beside | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.beside, self.show_progress = options, beside or Beside(), show_progress
        self.raised = Raised([], [], [])
        self.natural: dict[int, list[int]] = {}

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split that is too small, missing weights, and a data set without published values."""
        options = self.options
        if len(split) < 2:
            raise UserError(f"The split {split.split!r} of {split.folder} holds {len(split)} images: name another one.")
        if options.drawn and len(split) < 2 * options.drawn:
            raise UserError(
                f"The split {split.split!r} of {split.folder} holds {len(split)} images, and prototypes.drawn "
                f"{options.drawn} needs {2 * options.drawn}: set it to {len(split) // 2} or less, or to 0."
            )
        if options.drawn and (problems := missing_extractors(options.weights)):
            raise UserError(problems[0])
        if options.published is not None:
            from meddiff.metrics.published_latents import datasets

            if options.published not in datasets():
                raise UserError(
                    f"There are no published values of {options.published!r}: there are {', '.join(datasets())}."
                )

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net evaluations of one run; encoding costs none."""
        options = self.options
        shown = min(options.shown, patronus(model).m)
        cost = drawing_cost(min(options.views, len(split)), shown, options.steps)
        cost += reconstruction_cost(min(options.reconstructed, len(split)), options.steps)
        return cost + options.drawn * options.steps * (1 if self.beside.prior is None else 2)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """The tables of the module's head, and their figures.

        Raises:
            UserError: as :meth:`check`; a model without prototypes; results of other settings are in the way.
        """
        self.check(split)
        found = patronus(model)
        with undisturbed(model), model.weights(self.options.ema):
            return self._measured(found, split, out, ranks)

    # ---- parts --------------------------------------------------------------------------------------------------

    def _measured(self, model: Patronus, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        options, inputs = self.options, inputs_of(split, self.options.seed)
        indices = some_of(split, options.samples, options.seed, "encoded")
        values = activations_of(model.prototypes, inputs, indices)  # (N, m)
        use = prototype_use(torch.from_numpy(values))
        first = first_alike(values, use.dead.numpy())
        figures = {
            "dead_share": use.dead_share,
            "duplicates": float(np.mean(first != np.arange(model.m))),
            "usage_entropy": use.entropy,
            "mean_cosine": prototype_likeness(model.prototypes.vectors.detach()).mean_cosine,
        }
        named, control = self._named(split, indices, values)
        if named:
            figures["named_share"] = float(np.mean([one.is_name for one in named]))
            figures["named_share_shuffled"] = float(np.mean([one.is_name for one in control]))
        spread = use.spread.numpy()
        candidates = [
            one for one in np.argsort(-spread, kind="stable").tolist() if first[one] == one and not use.dead[one]
        ]
        chosen = sorted(candidates[: options.shown])
        order = np.argsort(-values, axis=0, kind="stable")[: options.natural]  # (k, m)
        self.natural = {one: [indices[place] for place in order[:, one].tolist()] for one in chosen}
        views = some_of(split, options.views, options.seed, "raised")
        self.raised = raise_prototypes(
            *(model, split, views, chosen, values, spread_of(values), options.steps, options.seed),
            *(options.batch_size, out, ranks, self.show_progress, options.ema),
        )
        tables = {
            "prototypes": Table(self._rows(values, spread, use.dead.tolist(), first, named), FIRST),
            "prototype_emergence": Table(self.raised.rows(), EMERGENCE),
        }
        halves = [when for one in self.raised.entries if (when := self.raised.when(one)["t_half"]) is not None]
        if halves:
            figures["t_half"] = float(np.median(halves))
        if self.raised.entries:
            figures["odd"] = float(np.median([one["odd"] for one in self.raised.entries]))
            gained = [one["after"] - one["before"] for one in self.raised.entries]
            figures["raised_by"] = float(np.mean(gained))
        for part in (self._latents, self._reconstruction, self._fidelity, self._grounding):
            more, table = part(model, split, indices, values, out, ranks)
            figures |= more
            tables |= table
        rows: list[Row] = [{"figure": name, "value": _known(value)} for name, value in figures.items()]
        return Result(
            figures, {**tables, "prototype_figures": Table(rows, ("model", "seed", "images", "figure", "value"))}
        )

    def _named(
        self, split: LatentShardsDataset, indices: Sequence[int], values: Floats
    ) -> tuple[list[Named], list[Named]]:
        kept = one_a_patient(split, indices)
        place = {index: row for row, index in enumerate(indices)}
        concepts, flags = concepts_of([split.metadata(index) for index in kept])
        return name_prototypes(values[[place[index] for index in kept]], concepts, flags, self.options.seed)

    def _rows(
        self, values: Floats, spread: Floats, dead: Sequence[bool], first: NDArray[np.int64], named: Sequence[Named]
    ) -> list[Row]:
        raised = {one["prototype"]: one for one in self.raised.entries}
        levels = own_levels(values, HIGH)
        rows: list[Row] = []
        for number in range(values.shape[1]):
            row: dict[str, str | float | int | None] = {"prototype": number, "spread": float(spread[number])}
            row |= {"mean": float(values[:, number].mean()), "level": float(levels[number]), "dead": int(dead[number])}
            row["alike"] = int(first[number]) if first[number] != number else None
            if named:
                one = named[number]
                row |= {"name": one.text, "kind": one.concept.kind, "concept": one.concept.name, "n": one.images}
                row |= {"auroc": one.auroc, "p": one.p}
            if number in raised:
                entry = raised[number]
                row |= {"before": entry["before"], "after": entry["after"], "odd": entry["odd"]}
                row |= self.raised.when(entry)
            rows.append(row)
        return rows

    def _latents(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        indices: Sequence[int],
        values: Floats,
        out: Path | None,
        ranks: Ranks,
    ) -> tuple[dict[str, float], dict[str, Table]]:
        """Latent AUROC, TAD and captured of the trained and of an untrained encoder."""
        metadata = [split.metadata(index) for index in indices]
        labels = [one for one in labels_of(metadata) if one in FINDINGS] or labels_of(metadata)
        targets = torch.tensor([[float(name in one["labels"]) for name in labels] for one in metadata])
        labels = [
            name for name, column in zip(labels, targets.T, strict=True) if 1 < float(column.sum()) < len(column) - 1
        ]
        if len(indices) < FEWEST or not labels:
            return {}, {}
        targets = torch.tensor([[float(name in one["labels"]) for name in labels] for one in metadata])  # (N, A)
        patients = {name: place for place, name in enumerate(dict.fromkeys(str(one["patient_id"]) for one in metadata))}
        groups = torch.tensor([patients[str(one["patient_id"])] for one in metadata])
        if len(patients) == 1:  # not recorded
            groups = torch.arange(len(metadata))
        encoders = {"trained": values}
        if self.beside.untrained is not None:
            inputs = inputs_of(split, self.options.seed)
            encoders["untrained"] = activations_of(self.beside.untrained, inputs, indices)
        figures: dict[str, float] = {}
        rows: list[Row] = []
        for name, some in encoders.items():
            metric = LatentQuality(labels, sync_on_compute=False)
            metric.update(torch.from_numpy(some), targets, torch.arange(len(metadata)), groups)
            found = metric.compute()
            suffix = "" if name == "trained" else f"_{name}"
            figures |= {f"{one}{suffix}": found[one] for one in ("latent_auroc", "tad", "captured")}
            ends = [one for one in found if one.endswith(("_low", "_high"))]
            for one, value in found.items():
                if one not in ends:
                    row = {"encoder": name, "figure": one, "value": _known(value), "n": len(metadata)}
                    low, high = (_known(found.get(f"{one}_{end}", float("nan"))) for end in ("low", "high"))
                    rows.append({**row, "low": low, "high": high})
        tables = {"prototype_latents": Table(rows, LATENTS)}
        if self.options.published is not None:
            from meddiff.metrics.published_latents import beside_published

            tables["prototype_published"] = Table(beside_published(figures, self.options.published))
        return figures, tables

    def _reconstruction(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        indices: Sequence[int],
        values: Floats,
        out: Path | None,
        ranks: Ranks,
    ) -> tuple[dict[str, float], dict[str, Table]]:
        options = self.options
        some = some_of(split, options.reconstructed, options.seed, "reconstructed")
        if len(some) < 2:
            return {}, {}
        cost = int(reconstruction_cost(len(some), options.steps))
        with progress_bar(cost, "pass", "reconstruction", self.show_progress and ranks.is_first) as bar:
            rows = reconstruction_rows(model, split, some, options.steps, options.seed, options.batch_size, bar.update)
        return reconstruction_figures(rows), {"prototype_reconstruction": Table(rows, RECONSTRUCTION)}

    def _fidelity(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        indices: Sequence[int],
        values: Floats,
        out: Path | None,
        ranks: Ranks,
    ) -> tuple[dict[str, float], dict[str, Table]]:
        options, number = self.options, self.options.drawn
        if not number:
            return {}, {}
        extractors = {name: build_extractor(name, path, model.device) for name, path in options.weights.items()}
        order = some_of(split, 2 * number, options.seed, "distances")
        reference, others = order[0::2], order[1::2]
        folder = None if out is None else cache_folder(split.folder, out)

        def real(some: Sequence[int]) -> Features:
            arguments = (options.weights, extractors, model.device, options.batch_size, folder)
            return real_features(split, some, *arguments, show_progress=self.show_progress)

        made: dict[str, object] = {"model": model_digest(model), "steps": options.steps, "seed": options.seed}
        ways = {"conditional": conditional(model, split, options.steps, options.seed)}
        if self.beside.prior is not None:
            ways["unconditional"] = unconditional(model, split, self.beside.prior, options.steps, options.seed)
        drawn = {}
        for name, way in ways.items():
            place = None if out is None else out / "images" / name
            images = KeptPictures(split, way, {**made, "way": name}, place).images()
            size = (model.device, options.batch_size, f"{name} pictures", self.show_progress)
            drawn[name] = measure(extractors, images, others, *size)
        sets = {"reference": real(reference), "others": real(others), **drawn}
        asked = [("conditional", "reference", "conditional_heldout"), ("conditional", "others", "cond_teststate")]
        asked += [("unconditional", "reference", "unconditional"), ("others", "reference", "real_vs_real")]
        figures: dict[str, float] = {}
        rows: list[Row] = []
        for some, against, suffix in asked:
            for extractor in options.weights if some in sets else ():
                metric = FrechetFeatureDistance(sync_on_compute=False)
                metric.update(sets[against][extractor], real=True)
                metric.update(sets[some][extractor], real=False)
                kind = EXTRACTORS[extractor].frechet
                value = metric.compute()["frechet"]
                figures[f"{kind}_{suffix}_{extractor}"] = value
                rows.append(
                    {
                        "metric": f"{kind}_{suffix}",
                        "set": some,
                        "reference": against,
                        "value": _known(value),
                        "n": number,
                    }
                    | {"protocol": f"{extractor}/{EXTRACTORS[extractor].version}"}
                )
        return figures, {"prototype_fidelity": Table(rows, FIDELITY)}

    def _grounding(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        indices: Sequence[int],
        values: Floats,
        out: Path | None,
        ranks: Ranks,
    ) -> tuple[dict[str, float], dict[str, Table]]:
        boxed, options = self.beside.grounding, self.options
        if boxed is None:
            return {}, {}
        try:
            samples, _ = grounding_samples(boxed, FINDINGS)
        except UserError:  # a cohort without boxes has everything else
            return {}, {}
        inputs, every = inputs_of(boxed, options.seed), range(len(boxed))
        encoders = {OWN: model.prototypes}
        if self.beside.untrained is not None:
            encoders[UNTRAINED] = self.beside.untrained
        pairs = {name: (one, activations_of(one, inputs, every)) for name, one in encoders.items()}
        shown = self.show_progress and ranks.is_first
        rows = ground_prototypes(boxed, samples, inputs, pairs, every, self.beside.train, options.seed, shown)
        return headline(rows), {"prototype_grounding": Table(rows, GROUNDING)}


def first_alike(values: Floats, dead: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each prototype the first live one that finds the same in images (correlated activations, of either sign), its own
    number where none does: (N, m) -> (m,).

    Example:
        >>> some = np.array([[0.0, 1.0, 5.0], [1.0, 3.0, 2.0], [2.0, 5.0, 9.0]])
        >>> first_alike(some, np.zeros(3, bool)).tolist()
        [0, 0, 2]
    """
    first = np.arange(values.shape[1])
    centred = values - values.mean(axis=0)
    pairs = prototype_likeness(torch.from_numpy(centred.T)).pairs
    for one, other in sorted((min(a, b), max(a, b)) for a, b, _ in pairs):
        if not dead[one] and not dead[other] and first[one] == one and first[other] == other:
            first[other] = one
    return first


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
