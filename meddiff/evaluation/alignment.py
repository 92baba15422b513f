"""Do drawn images show what their prompts say? A classifier reads the images, and what it reads is held against the prompts.

Label agreement in four numbers: AUROC by class of the prompt's labels, Pearson of probabilities and labels, agreement at
thresholds that were found on other real images, and retrieval of the prompt's labels among other sets of labels. Each beside
the same of three controls: ``real`` images of the same prompts (the best there is), ``real_decoded`` (the same through the
autoencoder: the best of a latent model) and ``shuffled`` (the drawn images under each other's prompts: chance).
The label of a drawn image is that of its prompt. Only findings are read, neither side nor severity.
Source: spec/evaluation_beyond.md section 6; controls own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.evaluation.alignment_cosine import COSINE, CosineReader, add_cosine, prompt
from meddiff.evaluation.alignment_options import AlignmentOptions
from meddiff.evaluation.classifier import Judge, load_judge
from meddiff.evaluation.compared_sets import decoded
from meddiff.evaluation.feature_cache import Features, stored_images
from meddiff.evaluation.fidelity import half_of
from meddiff.evaluation.image_sets import Drawing, ImageSets
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional.alignment import (
    balanced_agreement,
    best_thresholds,
    label_pearson,
    label_set_scores,
    mean_over_sets,
    retrieved,
)
from meddiff.metrics.functional.class_auroc import class_auroc, macro_auroc_by_image
from meddiff.metrics.intervals import mean_interval
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

SETS = ("", "real", "real_decoded", "shuffled")
#: Of drawn images, by what they are called in the table; ``retrieval`` has ``chance`` beside it.
KINDS = ("auroc", "pearson", "agreement", "retrieval")
FIRST = ("control", "auroc", "low", "high", "pearson", "agreement", "retrieval", "chance", "n")
CLASSES = ("control", "class", "auroc", "positives", "n")
#: Prompts are dealt out anew so many times; a single time is as noisy as the figure itself.
SHUFFLES = 20
JUDGE = "judge"


class Alignment:
    """Label agreement of drawn images with their prompts.

    Args:
        options: what is measured.
        show_progress: draw progress bars.
    """

    def __init__(self, options: AlignmentOptions, show_progress: bool = False) -> None:
        self.options, self.show_progress = options, show_progress

    def number(self, split: LatentShardsDataset) -> int:
        """N, the number of images to draw."""
        return half_of(len(split), self.options.samples)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a missing classifier, a split that is too small, and prompts that all say the same."""
        n = self.number(split)
        if n < 2 or len(split) < 2 * n:
            raise UserError(
                f"alignment: {n} samples are asked for, and the split {split.split!r} of {split.folder} holds {len(split)} "
                f"images: it needs 2 samples or more, and twice as many images (set samples to {len(split) // 2} or less)."
            )
        judge = load_judge(self.options.classifier, torch.device("cpu"))
        if self.options.biovil_t is not None:
            CosineReader(locate(self.options.biovil_t), torch.device("cpu")).check(split, range(n, 2 * n))
        if len({_known(split, i, judge) for i in range(n, 2 * n)}) < 2:
            raise UserError(
                f"All {n} prompts of the split {split.split!r} of {split.folder} have the same labels: there is nothing to "
                "tell apart, take more samples."
            )

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run; less where other parts have drawn the same images."""
        way = self.options.sampling or model.sampling
        return float(self.number(split) * way.forward_passes)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``alignment``, a row for drawn images and each control, and ``alignment_classes``.

        Args:
            out: images go to ``images/alignment`` there, and are taken from ``images/fidelity`` or ``images/coverage`` where
                those fit.

        Raises:
            UserError: as :meth:`check`, or images of other settings in the way.
        """
        self.check(split)
        options, n = self.options, self.number(split)
        first, others = range(n), range(n, 2 * n)
        judge = load_judge(options.classifier, model.device)
        way = options.sampling or model.sampling
        drawing = Drawing(way, options.batch_size, options.seed)
        with undisturbed(model), model.weights(options.ema):
            show = self.show_progress and ranks.is_first
            cosine = None if options.biovil_t is None else CosineReader(locate(options.biovil_t), model.device)
            looks = {JUDGE: judge.scores} if cosine is None else {JUDGE: judge.scores, COSINE: cosine.images}
            sets = ImageSets(drawing, looks, model, split, out, ranks, show)
            sets.drawn("", "alignment", others, way, borrow=["fidelity", "coverage"])
            sets.other("reference", stored_images(split), first)
            sets.other("real", stored_images(split), others)
            sets.other("real_decoded", decoded(model, split).images, others)
        labels = {"reference": label_table(split, first, judge.classes), "": label_table(split, others, judge.classes)}
        keys, found = [split.keys[i] for i in others], sets.gathered()
        texts = None if cosine is None else cosine.texts([prompt(split, i) for i in others])
        return alignment_result(found, judge, labels[""], labels["reference"], keys, options, texts)


def label_table(split: LatentShardsDataset, indices: Sequence[int], classes: Sequence[str]) -> Tensor:
    """(N, C) bool: which findings each sample is labelled with."""
    rows = [split.metadata(i)["labels"] for i in indices]
    return torch.tensor([[one in names for one in classes] for names in rows], dtype=torch.bool)


def alignment_result(
    found: Mapping[str, Features | None],
    judge: Judge,
    labels: Tensor,
    reference_labels: Tensor,
    keys: Sequence[str],
    options: AlignmentOptions,
    texts: Tensor | None = None,
) -> Result:
    """Figures and tables of logits, and of cosines where there are any.

    Args:
        found: ``""`` (drawn), ``reference``, ``real`` and ``real_decoded`` -> (N, C) logits; None: an image was not finite.
        labels: (N, C) bool, of the prompts.
        reference_labels: (N, C) bool.
        keys: of the prompts.
        texts: (N, D) vectors of the prompts, beside which ``found`` has those of images; None measures no cosine.
    """
    reference = found["reference"]
    assert reference is not None
    thresholds = best_thresholds(reference[JUDGE], reference_labels)
    prior = judge.probabilities(reference[JUDGE]).double().mean(dim=0)  # (C,)
    asked = ask(labels, keys, options)
    dealt = orders(len(keys), options)
    rows: list[Row] = []
    of_classes: list[Row] = []
    figures: dict[str, float] = {}
    controls: dict[str, object] = {}
    for control in SETS:
        logits = (found["" if control == "shuffled" else control] or {}).get(JUDGE)
        row: dict[str, float] = dict.fromkeys(FIRST[1:], math.nan) | {"n": float(len(keys))}
        if logits is not None:
            turns = dealt.get(control, [list(range(len(keys)))])
            some = [agreement(judge, logits[order], asked, thresholds, prior) for order in turns]
            row |= {kind: math.fsum(one[kind] for one in some) / len(some) for kind in (*KINDS, "chance")}
            counted = _both_kinds(labels)
            if control != "shuffled":
                added = macro_auroc_by_image(logits, labels, counted)
                row["low"], row["high"] = mean_interval(added.numpy()[None], list(keys))
            areas = torch.stack([class_auroc(logits[order], labels, ~labels) for order in turns]).mean(dim=0)
            for c, name in enumerate(judge.classes):
                cells = (control, name, float(areas[c]), float(labels[:, c].sum()), float(len(keys)))
                of_classes.append(dict(zip(CLASSES, cells, strict=True)))
                if not control:
                    figures |= {f"{name}/alignment_classifier_auroc": float(areas[c]), f"{name}/n": cells[3]}
        rows.append({"control": control, **row})
        named = {f"alignment_classifier_{kind}": row[kind] for kind in KINDS}
        figures |= {f"{control}/{name}" if control else name: value for name, value in named.items()}
        if control:
            controls[control] = {name: value if math.isfinite(value) else None for name, value in named.items()}
        else:
            figures |= {"alignment_retrieval_chance": row["chance"], "n": float(len(keys))}
    tables = {"alignment": Table(rows, FIRST), "alignment_classes": Table(of_classes, CLASSES)}
    result = Result(figures, tables, controls)
    if texts is not None:
        add_cosine(result, found, texts, asked.own, dealt, keys, options)
    return result


@dataclass(frozen=True)
class Asked:
    """What the prompts say.

    Attributes:
        labels: (N, C) bool.
        sets: (M, C) bool, the different ones.
        own: (N,) which of them each prompt has.
        columns: (N, K) which of them it is ranked among, its own first.
    """

    labels: Tensor
    sets: Tensor
    own: Tensor
    columns: Tensor


def ask(labels: Tensor, keys: Sequence[str], options: AlignmentOptions) -> Asked:
    """The sets of labels of prompts, and the candidates of each.

    Args:
        labels: (N, C) bool.
        keys: of the prompts.
    """
    sets, own = labels.unique(dim=0, return_inverse=True)  # (M, C), (N,)
    rows = [candidates(len(sets), int(mine), key, options) for mine, key in zip(own, keys, strict=True)]
    return Asked(labels, sets, own, torch.stack(rows))


def agreement(judge: Judge, logits: Tensor, asked: Asked, thresholds: Tensor, prior: Tensor) -> dict[str, float]:
    """The four numbers of one set of images, and the chance of retrieval.

    Args:
        logits: (N, C).
        thresholds: (C,) logits.
        prior: (C,) mean probabilities of real images.
    """
    labels, probabilities = asked.labels, judge.probabilities(logits)
    areas = class_auroc(logits, labels, ~labels)[_both_kinds(labels)]
    scores = label_set_scores(probabilities, prior, asked.sets)  # (N, M)
    first = retrieved(scores.gather(1, asked.columns), torch.zeros(len(labels), dtype=torch.long)).first
    return {
        "auroc": float(areas.mean()) if len(areas) else math.nan,
        "pearson": label_pearson(probabilities, labels),
        "agreement": balanced_agreement(logits, labels, thresholds),
        "retrieval": mean_over_sets(first, asked.own.tolist()),
        "chance": 1.0 / asked.columns.shape[1],
    }


def candidates(sets: int, own: int, key: str, options: AlignmentOptions) -> Tensor:
    """(K,) numbers of sets of labels: the image's own, then others, drawn by the image's key."""
    order = generator(options.seed, "alignment candidates", key).permutation(sets)
    others = [int(place) for place in order if place != own][: options.candidates - 1]
    return torch.tensor([own, *others])


def orders(n: int, options: AlignmentOptions) -> dict[str, list[list[int]]]:
    """Control -> orders of the drawn images under the prompts."""
    return {"shuffled": [shuffled(n, options.seed, turn) for turn in range(SHUFFLES)]}


def shuffled(n: int, seed: int, turn: int) -> list[int]:
    """Numbers of 0 to n - 1 in an order in which none stands in its own place.

    Example:
        >>> order = shuffled(5, 0, 0)
        >>> sorted(order), any(place == number for place, number in enumerate(order))
        ([0, 1, 2, 3, 4], False)
    """
    ring = [int(one) for one in generator(seed, "alignment shuffled", turn).permutation(n)]
    found = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    return [found[place] for place in range(n)]


def _both_kinds(labels: Tensor) -> list[int]:
    """Columns that have positive and negative images."""
    return [c for c, row in enumerate(labels.T) if bool(row.any()) and not bool(row.all())]


def _known(split: LatentShardsDataset, index: int, judge: Judge) -> frozenset[str]:
    return frozenset(split.metadata(index)["labels"]) & frozenset(judge.classes)
