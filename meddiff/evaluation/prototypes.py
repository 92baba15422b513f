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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.attribution.prototype_statistics import HIGH, own_levels, spread_of
from meddiff.common.errors import UserError
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.prototype_drawings import EMERGENCE, Raised, drawing_cost, raise_prototypes
from meddiff.evaluation.prototype_inputs import activations_of, inputs_of, patronus
from meddiff.evaluation.prototype_naming import Named, concepts_of, name_prototypes, one_a_patient
from meddiff.evaluation.prototype_parts import Measured, Parts, known
from meddiff.evaluation.prototype_pictures import (
    reconstruction_cost,
    some_of,
)
from meddiff.evaluation.prototype_settings import Beside, PrototypesOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional.usage import prototype_likeness, prototype_use
from meddiff.models.feature_extractors import missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.shards.dataset import LatentShardsDataset

__all__ = ["Beside", "Prototypes", "PrototypesOptions", "first_alike"]

Floats = NDArray[np.float64]
FIRST = ("model", "seed", "images", "prototype", "name", "kind", "auroc", "p", "spread", "dead", "alike")


class Prototypes(Parts):
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
        options: PrototypesOptions = PrototypesOptions(),  # noqa: B008 (frozen dataclass)
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
        measured = Measured(model, split, indices, values, out, ranks)
        for part in (self._latents, self._reconstruction, self._fidelity, self._grounding):
            more, table = part(measured)
            figures |= more
            tables |= table
        rows: list[Row] = [{"figure": name, "value": known(value)} for name, value in figures.items()]
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
