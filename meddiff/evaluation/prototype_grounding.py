"""Do the prototypes of a finding lie on the finding? Their activation maps, scored like attention, with the same controls.

Nobody told the model what a prototype is about. So images are dealt into two halves by patient: in one half the prototype
is looked for that grows most with a finding (by signed AUROC), on the other half its map is scored on the boxes of the
finding, and the other way round. Rows of the table, by ``source``:

- ``prototype``: the map of the best prototype of the phrase's finding
- ``absent``: the map of the best prototype of a finding that the image does not have, on the same box; ``gain/absent``,
  what of the CNR is not had that way
- ``random``: any prototype
- ``untrained``: the same search and score with an encoder of random weights: what a patch detector finds without training
- ``prior``: only where the finding usually is

Source: own (spec/patronus_and_visual_analysis.md, C1); scores those of :mod:`meddiff.evaluation.grounding_scores`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.prototype_maps import maps_on_input
from meddiff.common.draws import generator
from meddiff.common.progress import progress_bar
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.gain import absent_findings
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.priors import usual_place
from meddiff.evaluation.prototype_naming import aurocs, best_of, labels_of
from meddiff.evaluation.saliency_scores import FIGURES, MACRO, MICRO, mean_row
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import resize_maps
from meddiff.models.prototypes import PrototypeEncoder
from meddiff.shards.dataset import LatentShardsDataset

Floats = NDArray[np.float64]
#: An image's latents (or pixels) (C, h, w) by its index.
Inputs = Callable[[int], Tensor]
#: (image, finding, value)
Cells = list[tuple[str, str, float]]
COLUMNS = ("model", "seed", "images", "source", "class", "figure", "value", "low", "high", "n")
OWN, ABSENT, RANDOM, UNTRAINED, PRIOR = "prototype", "absent", "random", "untrained", "prior"


@dataclass(frozen=True)
class Half:
    """What was looked for in one half of the images, to be scored on the other.

    Attributes:
        best: finding -> its prototype; findings that no prototype grows with are missing.
        scored: indices of the images of the other half.
    """

    best: Mapping[str, int]
    scored: frozenset[int]


def halves(
    split: LatentShardsDataset, indices: Sequence[int], activations: Floats, findings: Sequence[str], seed: int = 0
) -> list[Half]:
    """Both ways of naming on one half and scoring on the other; images of one patient stay together.

    Args:
        indices: of the images; activations: (N, m) in their order.
    """
    metadata = [split.metadata(index) for index in indices]
    who = [str(one["patient_id"] or split.keys[index]) for one, index in zip(metadata, indices, strict=True)]
    order = sorted(set(who), key=lambda name: float(generator(seed, "half", name).random()))
    first = set(order[: len(order) // 2])
    inside = np.array([name in first for name in who])
    flags = np.array([[name in one["labels"] for name in findings] for one in metadata])
    found = []
    for named in (inside, ~inside):
        areas = aurocs(activations[named], flags[named]) if named.any() else np.full((1, len(findings)), np.nan)
        best = {name: one[0] for column, name in enumerate(findings) if (one := best_of(areas, column))}
        found.append(Half(best, frozenset(np.asarray(indices)[~named].tolist())))
    return found


def source_cells(
    encoder: PrototypeEncoder,
    inputs: Inputs,
    asked: Sequence[tuple[GroundingSample, int | None]],
    told: Callable[[int], object],
) -> list[dict[str, float]]:
    """Scores of each sample by the map of a prototype; NaN where there is none.

    Args:
        asked: samples with the number of a prototype.
        told: called with 1 for each of them.
    """
    device = encoder.vectors.device
    rows = []
    for sample, prototype in asked:
        told(1)
        if prototype is None:
            rows.append(dict.fromkeys(FIGURES, float("nan")))
            continue
        with torch.no_grad():
            x0 = inputs(sample.index)[None].to(device)
            heat = encoder.maps(x0)[0, prototype].cpu()  # (H', W')
            size = (int(x0.shape[-2]), int(x0.shape[-1]))
        full = resize_maps(maps_on_input(heat, encoder.layers, size)[None], sample.size)[0]  # (H, W)
        with one_core():
            rows.append(localisation(full, torch.from_numpy(sample.box_mask())))
    return rows


def ground_prototypes(
    split: LatentShardsDataset,
    samples: Sequence[GroundingSample],
    inputs: Inputs,
    encoders: Mapping[str, tuple[PrototypeEncoder, Floats]],
    indices: Sequence[int],
    train: LatentShardsDataset | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> list[Row]:
    """The table of the module's head.

    Args:
        samples: phrases with boxes.
        encoders: ``prototype`` and perhaps ``untrained`` -> encoder and its activations (N, m) of ``indices``.
        train: split of training, where boxes of the location prior are counted.
    """
    findings = labels_of([split.metadata(index) for index in indices])
    absent = {id(one): other.label for one, other in absent_findings(split, samples)}
    rows: list[Row] = []
    number = (len(encoders) + 2) * len(samples)
    with progress_bar(number, "map", "prototypes on findings", show_progress) as bar:
        for name, (encoder, activations) in encoders.items():
            both = halves(split, indices, activations, findings, seed)
            of = {index: half.best for half in both for index in half.scored}
            own = source_cells(
                encoder, inputs, [(one, of.get(one.index, {}).get(one.label)) for one in samples], bar.update
            )
            rows += _rows(name, samples, own)
            if name != OWN:
                continue
            other = source_cells(
                encoder,
                inputs,
                [(one, of.get(one.index, {}).get(absent.get(id(one), ""))) for one in samples],
                bar.update,
            )
            rows += _rows(ABSENT, samples, other)
            gains = [mine["cnr"] - theirs["cnr"] for mine, theirs in zip(own, other, strict=True)]
            rows += _figure_rows(OWN, "gain/absent", samples, gains)
            draws = [generator(seed, "any prototype", one.key, one.label) for one in samples]
            anyone = [(one, int(draw.integers(encoder.m))) for one, draw in zip(samples, draws, strict=True)]
            rows += _rows(RANDOM, samples, source_cells(encoder, inputs, anyone, bar.update))
    usual = usual_place(train, samples, findings)
    with one_core():
        place = [localisation(usual(one).heat, torch.from_numpy(one.box_mask())) for one in samples]
    return rows + _rows(PRIOR, samples, place)


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """``grounding/prototype_cnr`` and its controls: micro means that are defined."""
    figures: dict[str, float] = {}
    for row in rows:
        if row["class"] != MICRO or row["value"] is None:
            continue
        suffix = "" if row["source"] == OWN else f"_{row['source']}"
        figure = str(row["figure"]).replace("/", "_")
        figures[f"prototype_{figure}{suffix}"] = float(row["value"])
    return figures


def _rows(source: str, samples: Sequence[GroundingSample], scores: Sequence[Mapping[str, float]]) -> list[Row]:
    return [row for figure in FIGURES for row in _figure_rows(source, figure, samples, [one[figure] for one in scores])]


def _figure_rows(source: str, figure: str, samples: Sequence[GroundingSample], values: Sequence[float]) -> list[Row]:
    cells: Cells = [(one.key, one.label, value) for one, value in zip(samples, values, strict=True)]
    rows: list[Row] = []
    for label in (MICRO, MACRO, *sorted({one.label for one in samples})):
        chosen = [cell for cell in cells if label in (MICRO, MACRO, cell[1])]
        rows.append({"source": source, "class": label, "figure": figure, **mean_row(chosen, macro=label == MACRO)})
    return rows
