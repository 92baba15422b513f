"""What prototypes are worth: probes of activations, reconstruction, distances of pictures, grounding; each with its controls.

Source: Weng et al. 2026 (spec/patronus_and_visual_analysis.md, A8, C1); controls own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.common.progress import progress_bar
from meddiff.evaluation.feature_cache import Features, cache_folder, measure, real_features
from meddiff.evaluation.measurement import Row, Table
from meddiff.evaluation.prototype_grounding import COLUMNS as GROUNDING
from meddiff.evaluation.prototype_grounding import OWN, UNTRAINED, ground_prototypes, headline
from meddiff.evaluation.prototype_inputs import activations_of, inputs_of
from meddiff.evaluation.prototype_naming import labels_of
from meddiff.evaluation.prototype_pictures import (
    RECONSTRUCTION,
    KeptPictures,
    conditional,
    reconstruction_cost,
    reconstruction_figures,
    reconstruction_rows,
    some_of,
    unconditional,
)
from meddiff.evaluation.prototype_settings import Beside, PrototypesOptions
from meddiff.evaluation.provenance import model_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import grounding_samples
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.metrics.latent_quality import LatentQuality
from meddiff.models.feature_extractors import EXTRACTORS, build_extractor
from meddiff.models.patronus import Patronus
from meddiff.shards.dataset import LatentShardsDataset

Floats = NDArray[np.float64]
LATENTS = ("model", "seed", "images", "encoder", "figure", "value", "low", "high", "n")
FIDELITY = ("model", "seed", "images", "metric", "set", "reference", "value", "n", "protocol")
#: An encoder needs so many labelled images for its probe, and a Frechet distance so many pictures.
FEWEST = 50


@dataclass(frozen=True)
class Measured:
    """What all parts are of.

    Attributes:
        model: the model, under the weights that are meant.
        split: held-out images.
        indices: those of them that were encoded.
        values: (N, m), their activations.
        out: folder of what is kept; None keeps nothing.
        ranks: who shares the work.
    """

    model: Patronus
    split: LatentShardsDataset
    indices: Sequence[int]
    values: Floats
    out: Path | None
    ranks: Ranks


class Parts:
    """Parts of the measurement that need no picture of a single prototype.

    Attributes:
        options, beside, show_progress: of :class:`meddiff.evaluation.prototypes.Prototypes`.
    """

    options: PrototypesOptions
    beside: Beside
    show_progress: bool

    def _latents(self, measured: Measured) -> tuple[dict[str, float], dict[str, Table]]:
        """Latent AUROC, TAD and captured of the trained and of an untrained encoder."""
        split, indices, values = measured.split, measured.indices, measured.values
        inputs = inputs_of(split, self.options.seed)
        train = self.beside.train
        if train is not None and min(len(train), self.options.probed) > len(indices):
            split, indices = train, range(min(len(train), self.options.probed))
            inputs = inputs_of(split, self.options.seed)
            values = activations_of(measured.model.prototypes, inputs, indices)
        metadata = [split.metadata(index) for index in indices]
        labels = [one for one in labels_of(metadata) if one in FINDINGS] or labels_of(metadata)
        targets = torch.tensor([[float(name in one["labels"]) for name in labels] for one in metadata])
        counts = targets.sum(dim=0)
        asked = (counts > 1) & (counts < len(targets) - 1)  # (A,)
        if len(indices) < FEWEST or not bool(asked.any()):
            return {}, {}
        labels, targets = [name for name, one in zip(labels, asked.tolist(), strict=True) if one], targets[:, asked]
        patients = {name: place for place, name in enumerate(dict.fromkeys(str(one["patient_id"]) for one in metadata))}
        groups = torch.tensor([patients[str(one["patient_id"])] for one in metadata])
        if len(patients) == 1:  # not recorded
            groups = torch.arange(len(metadata))
        encoders = {"trained": values}
        if self.beside.untrained is not None:
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
                    row = {"encoder": name, "figure": one, "value": known(value), "n": len(metadata)}
                    low, high = (known(found.get(f"{one}_{end}", float("nan"))) for end in ("low", "high"))
                    rows.append({**row, "low": low, "high": high})
        tables = {"prototype_latents": Table(rows, LATENTS)}
        if self.options.published is not None:
            from meddiff.metrics.published_latents import beside_published

            tables["prototype_published"] = Table(beside_published(figures, self.options.published))
        return figures, tables

    def _reconstruction(self, measured: Measured) -> tuple[dict[str, float], dict[str, Table]]:
        model, split, options = measured.model, measured.split, self.options
        some = some_of(split, options.reconstructed, options.seed, "reconstructed")
        if len(some) < 2:
            return {}, {}
        cost = int(reconstruction_cost(len(some), options.steps))
        with progress_bar(cost, "pass", "reconstruction", self.show_progress and measured.ranks.is_first) as bar:
            rows = reconstruction_rows(model, split, some, options.steps, options.seed, options.batch_size, bar.update)
        return reconstruction_figures(rows), {"prototype_reconstruction": Table(rows, RECONSTRUCTION)}

    def _fidelity(self, measured: Measured) -> tuple[dict[str, float], dict[str, Table]]:
        options, number = self.options, self.options.drawn
        model, split, out = measured.model, measured.split, measured.out
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
                        "value": known(value),
                        "n": number,
                    }
                    | {"protocol": f"{extractor}/{EXTRACTORS[extractor].version}"}
                )
        return figures, {"prototype_fidelity": Table(rows, FIDELITY)}

    def _grounding(self, measured: Measured) -> tuple[dict[str, float], dict[str, Table]]:
        boxed, options = self.beside.grounding, self.options
        if boxed is None:
            return {}, {}
        try:
            samples, _ = grounding_samples(boxed, FINDINGS)
        except UserError:  # a cohort without boxes has everything else
            return {}, {}
        inputs, every = inputs_of(boxed, options.seed), range(len(boxed))
        encoders = {OWN: measured.model.prototypes}
        if self.beside.untrained is not None:
            encoders[UNTRAINED] = self.beside.untrained
        pairs = {name: (one, activations_of(one, inputs, every)) for name, one in encoders.items()}
        shown = self.show_progress and measured.ranks.is_first
        rows = ground_prototypes(boxed, samples, inputs, pairs, every, self.beside.train, options.seed, shown)
        return headline(rows), {"prototype_grounding": Table(rows, GROUNDING)}


def known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
