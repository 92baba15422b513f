"""Does a classifier find in an image what its prompt asked for? Table 5: AUROC by class, drawn images and real ones.

Source: Dombrowski et al. 2024, Table 5; spec/tradeoff.md section 7.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.common.places import locate
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.evaluation.drawing import draw_prompts, folder_needed, read_images, signed
from meddiff.evaluation.feature_cache import stored_images
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.not_finite import without_figures
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.classifier import ClassifierAUROC
from meddiff.metrics.functional.class_auroc import exact_label_sets
from meddiff.models.autoencoder import NotFiniteImages
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER, load_classifier, xrv_input
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.models.xrv import at_operating_points, load_xrv, read_operating_points, xrv_scores
from meddiff.shards.dataset import LatentShardsDataset

T = TypeVar("T")
FIRST = ("source", "class", "key", "label", "score")
#: torchxrayvision's name of an output, where it differs from the paper's.
OUTPUTS = {"Pleural Effusion": "Effusion"}


@dataclass(frozen=True)
class ClassifierOptions:
    """Options of ``lightning evaluate classifier``."""

    split: str = "fidelity"
    """Split of the shards: held-out images whose impressions are the prompts; must carry images."""
    classifier: str = DEFAULT_CLASSIFIER
    """Folder of a phantom classifier, or torchxrayvision's densenet121-res224-all as .safetensors."""
    per_class: int = 50
    """Images drawn for each class and for No Finding."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of prompts and initial noise."""

    def __post_init__(self) -> None:
        check_ranges("classifier", self, batch_size=COUNT)
        if self.per_class < 1:
            raise UserError(f"classifier: per_class is {self.per_class}; at least one image a class is needed.")


def plain(logits: Tensor) -> Tensor:
    """Probabilities of logits without operating points."""
    return logits.sigmoid()


@dataclass(frozen=True)
class Judge:
    """A classifier.

    Attributes:
        classes: names of the findings it knows.
        scores: (B, 3, H, W) in [-1, 1] -> (B, C) logits of those.
        probabilities: logits -> (B, C) in [0, 1], as they are published.
    """

    classes: tuple[str, ...]
    scores: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor] = plain


def load_judge(weights: str, device: torch.device) -> Judge:
    """The classifier at ``weights``.

    Scores are logits: sigmoid and operating points of the published one are rising functions, which AUROC does not see.

    Raises:
        UserError: nothing there, or none of the eight findings among its outputs.
    """
    phantom = not weights.endswith(".safetensors")
    if not locate(weights).exists():
        raise UserError(f"No classifier at {weights}: give the folder of a phantom classifier or a .safetensors file.")
    model = (load_classifier(weights) if phantom else load_xrv(weights)).to(device)
    places = {name: place for place, name in enumerate(model.pathologies)}
    columns = {one: places.get(one, places.get(OUTPUTS.get(one, one))) for one in FINDINGS}
    known = {one: column for one, column in columns.items() if column is not None}
    if not known:
        raise UserError(f"The classifier at {weights} has none of {', '.join(FINDINGS)} among its outputs.")
    picked = list(known.values())

    @torch.no_grad()
    def scores(images: Tensor) -> Tensor:
        logits: Tensor = model(xrv_input(images)) if phantom else xrv_scores(model, images)
        return logits[:, picked].float()

    if phantom:
        return Judge(tuple(known), scores)
    points = read_operating_points(weights)
    return Judge(tuple(known), scores, lambda logits: at_operating_points(logits, points[picked].to(logits.device)))


class Classifier:
    """AUROC by class of a classifier on drawn images, and beside them on real ones.

    For a finding the positives are images labelled exactly [finding] (drawn: from the impression of such an image), the
    negatives images labelled exactly [No Finding]; a negative has one row for each class.

    Args:
        options: what is measured.
        show_progress: draw progress bars.
    """

    def __init__(self, options: ClassifierOptions = ClassifierOptions(), show_progress: bool = False) -> None:
        self.options, self.show_progress = options, show_progress

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a missing classifier."""
        load_judge(self.options.classifier, torch.device("cpu"))

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        options, way = self.options, self.options.sampling or model.sampling
        return float(options.per_class * (len(FINDINGS) + 1) * way.forward_passes)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Draw what is missing and classify; table ``classifier``.

        Figures: ``classifier_auc`` (mean over classes that have one), ``CLASS/auc`` and ``CLASS/n`` (positives; of No
        Finding the negatives) for drawn images, and the same names with ``_real`` behind for real ones.

        Raises:
            UserError: no classifier, no image with a single label, or images of other settings in the way.
        """
        options, place = self.options, folder_needed(out, "classifier")
        judge = load_judge(options.classifier, model.device)
        labels = [list(split.metadata(i)["labels"]) for i in range(len(split))]
        exact = {one: [i for i, names in enumerate(labels) if names == [one]] for one in (*judge.classes, NO_FINDING)}
        if not exact[NO_FINDING] or not any(exact[one] for one in judge.classes):
            what = NO_FINDING if not exact[NO_FINDING] else "one finding"
            raise UserError(
                f"The split {split.split!r} of {split.folder} has no image labelled exactly with {what}: AUROC needs both."
            )
        folder = place / "images" / "classifier"
        prompts, wanted = class_prompts(split, exact, options)
        with undisturbed(model), model.weights(options.ema):
            borrow = [place / "images" / "fidelity"]
            try:
                draw_prompts(model, folder, prompts, options, borrow=borrow, show_progress=self.show_progress)
            except NotFiniteImages as error:
                return without_figures(error, "classifier", ("classifier_auc",), FIRST)
        keys, singles = list(prompts), sorted(i for indices in exact.values() for i in indices)
        parts, real = _parts(keys, options.batch_size), stored_images(split)
        drawn_scores = self._classify(judge, (signed(read_images(folder, part)) for part in parts), model, len(parts))
        parts_real = _parts(singles, options.batch_size)
        real_scores = self._classify(judge, (real(part) for part in parts_real), model, len(parts_real))
        rows, figures = _score("drawn", judge, keys, [[wanted[key]] for key in keys], drawn_scores)
        more, beside = _score(
            "real", judge, [split.keys[i] for i in singles], [labels[i] for i in singles], real_scores
        )
        figures |= {f"{name}_real": value for name, value in beside.items()}
        return Result(figures, {"classifier": Table(rows + more, FIRST)})

    def _classify(self, judge: Judge, batches: Iterable[Tensor], model: LatentDiffusion, count: int) -> Tensor:
        """(N, C) scores on the CPU."""
        found = []
        with progress_bar(count, "batch", "classifying", self.show_progress) as bar:
            for images in batches:
                found.append(judge.scores(images.to(model.device)).cpu())
                bar.update()
        return torch.cat(found)


def class_prompts(
    dataset: LatentShardsDataset, exact: dict[str, list[int]], options: ClassifierOptions
) -> tuple[dict[str, str], dict[str, str]]:
    """Key -> prompt and key -> label of the images to draw, ``per_class`` each.

    Images are taken in an order drawn by (seed, key); a class with fewer goes round again under KEY#1, KEY#2, ...
    """
    prompts: dict[str, str] = {}
    wanted: dict[str, str] = {}
    for label, indices in exact.items():
        order = sorted(indices, key=lambda i: float(generator(options.seed, "classifier", dataset.keys[i]).random()))
        for number in range(options.per_class if order else 0):
            turn, place = divmod(number, len(order))
            key = dataset.keys[order[place]] + (f"#{turn}" if turn else "")
            prompts[key] = str(dataset.metadata(order[place])["impression"])
            wanted[key] = label
    return prompts, wanted


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _score(
    source: str, judge: Judge, keys: Sequence[str], labels: Sequence[Sequence[str]], scores: Tensor
) -> tuple[list[Row], dict[str, float]]:
    """The rows of one source of images, and its averages."""
    metric = ClassifierAUROC(judge.classes, NO_FINDING)
    metric.update(scores, labels)
    found = metric.compute()
    positive, negative = exact_label_sets(labels, judge.classes, NO_FINDING)
    rows: list[Row] = [
        {"source": source, "class": name, "key": key, "label": int(positive[i, c]), "score": float(scores[i, c])}
        for c, name in enumerate(judge.classes)
        for i, key in enumerate(keys)
        if positive[i, c] or negative[i, c]
    ]
    summary = {"classifier_auc": found["macro"]}
    for name in judge.classes:
        summary |= {f"{name}/auc": found[name], f"{name}/n": found[f"{name}/n"]}
    return rows, {**summary, f"{NO_FINDING}/n": found[f"{NO_FINDING}/n"]}
