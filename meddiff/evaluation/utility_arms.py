"""The arms of utility: what a classifier is trained on, for how many steps, in which order; and its training.

All arms take the same number of optimiser steps (not epochs: those would give an arm with more images more steps), except the
control ``real_twice``. Of one seed all arms begin with the same weights and see captions in the same order, so that they are
compared in pairs. Source: spec/evaluation_beyond.md section 5; the order and the draws own.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import generator, torch_seed
from meddiff.metrics.functional.class_auroc import class_auroc
from meddiff.models.domain_classifier import build_classifier, xrv_input
from meddiff.models.weights.reading import State

if TYPE_CHECKING:
    from torchxrayvision.models import DenseNet

#: Weights are drawn from torch's own generator, of which there is one.
_DRAWING = threading.Lock()
#: Images looked at at once when nothing is trained.
LOOKS = 64
WEIGHT_DECAY = 0.02


@dataclass(frozen=True)
class Phase:
    """Steps on one source of images: ``real``, ``synthetic``, ``both`` (half a batch each) or ``shuffled`` (real images, labels
    dealt out anew)."""

    source: str
    share: float


#: name -> what it is trained on, one phase after the other; shares of the number of steps.
ARMS: dict[str, tuple[Phase, ...]] = {
    "real": (Phase("real", 1.0),),
    "synthetic": (Phase("synthetic", 1.0),),
    "real_and_synthetic": (Phase("both", 1.0),),
    "synthetic_then_real": (Phase("synthetic", 0.5), Phase("real", 0.5)),
    "shuffled": (Phase("shuffled", 1.0),),
    "real_twice": (Phase("real", 2.0),),
}
#: Arms that are measured, and the controls they are read against.
CONTROLS = ("shuffled", "real_twice")


def plan(arm: str, steps: int) -> list[tuple[str, int]]:
    """(source, optimiser steps) of each phase.

    Example:
        >>> plan("synthetic_then_real", 201), plan("real_and_synthetic", 200), plan("real_twice", 200)
        ([('synthetic', 100), ('real', 101)], [('both', 200)], [('real', 400)])
    """
    phases = ARMS[arm]
    counts = [int(steps * phase.share) for phase in phases]
    counts[-1] = int(steps * sum(phase.share for phase in phases)) - sum(counts[:-1])
    return [(phase.source, count) for phase, count in zip(phases, counts, strict=True)]


def batches(
    seed: int, source: str, start: int, steps: int, n: int, size: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The images of each step: of every image once before any comes again.

    Args:
        start: steps of this arm before these.
        n: images of a source.
        size: of a batch.

    Yields:
        (``real``, ``synthetic``, ``shuffled``, or ``both``: the first half real), (size,) places.
    """
    parts = [("", size)] if source != "both" else [("", size - size // 2), ("beside", size // 2)]
    for step in range(start, start + steps):
        yield source, np.concatenate([_places(seed, name, step * many, many, n) for name, many in parts])


def _places(seed: int, name: str, start: int, many: int, n: int) -> NDArray[np.int64]:
    """Places ``start`` to ``start + many`` of an endless stream of permutations."""
    if not many:
        return np.empty(0, np.int64)
    first, last = start // n, (start + many - 1) // n
    orders = [generator(seed, "utility order", name, epoch).permutation(n) for epoch in range(first, last + 1)]
    found: NDArray[np.int64] = np.concatenate(orders)[start - first * n :][:many]
    return found


def shuffled_labels(labels: Tensor, seed: int) -> Tensor:
    """Label rows dealt out anew among images: what a classifier learns that cannot learn anything."""
    return labels[torch.from_numpy(generator(seed, "utility labels shuffled").permutation(len(labels)))]


@dataclass(frozen=True)
class Pictures:
    """Images for a classifier, and their labels.

    Attributes:
        images: (N, 1, side, side) in [-1, 1], float16.
        labels: (N, C) bool.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """How every classifier is trained.

    Attributes:
        network: arguments of ``torchxrayvision.models.DenseNet``.
        begin: weights to begin with, but for the last layer's; None draws them.
    """

    network: Mapping[str, object]
    classes: Sequence[str]
    steps: int
    batch: int
    learning_rate: float
    checks: int
    begin: State | None = None


@dataclass(frozen=True)
class Trained:
    """A classifier that was trained.

    Attributes:
        scores: (N, C) logits on the test images.
        validation: macro AUROC of the chosen weights on real validation images.
        step: after how many steps these were the weights.
    """

    scores: Tensor
    validation: float
    step: int


def macro(scores: Tensor, labels: Tensor) -> float:
    """Mean AUROC of the classes that have positives and negatives; NaN where none has."""
    areas = class_auroc(scores, labels, ~labels)
    known = areas[areas.isfinite()]
    return float(known.mean()) if len(known) else float("nan")


def train_arm(
    arm: str,
    seed: int,
    recipe: Recipe,
    sources: Mapping[str, Pictures],
    validation: Pictures,
    test: Pictures,
    device: torch.device,
    on_step: Callable[[], object] = lambda: None,
) -> Trained:
    """Train one classifier, choose among its checks on real validation images, score the test images once.

    Args:
        sources: ``real`` and ``synthetic``: images of the same captions in the same order.
        on_step: called after every optimiser step.
    """
    model = new_network(recipe, seed).to(device)
    labels = {"real": sources["real"].labels, "synthetic": sources["synthetic"].labels}
    labels["shuffled"] = shuffled_labels(labels["real"], seed)
    images = {**{name: one.images for name, one in sources.items()}, "shuffled": sources["real"].images}
    best, chosen, done = float("-inf"), deepcopy(model.state_dict()), 0
    at = 0
    phases = plan(arm, recipe.steps)
    with torch.enable_grad():
        for number, (source, steps) in enumerate(phases):
            if not steps:
                continue
            optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
            rates = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=0.1
            )
            last = number == len(phases) - 1  # an arm is chosen from its last phase: before that it is another arm
            looks = {steps - round(i * steps / recipe.checks) for i in range(recipe.checks)} if last else set()
            model.train()
            every = batches(seed, source, done, steps, len(images["real"]), recipe.batch)
            for step, (name, places) in enumerate(every, 1):
                some, wanted = _batch(name, torch.from_numpy(places), images, labels, recipe.batch)
                logits = model(xrv_input(some.to(device).float()))  # (B, C)
                loss = F.binary_cross_entropy_with_logits(logits, wanted.to(device).float())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                rates.step()
                on_step()
                if step in looks:
                    found = macro(scored(model, validation.images, device), validation.labels)
                    if found >= best:
                        best, chosen, at = found, deepcopy(model.state_dict()), done + step
                    model.train()
            done += steps
    model.load_state_dict(chosen)
    return Trained(scored(model, test.images, device), best, at)


def _batch(
    source: str, places: Tensor, images: Mapping[str, Tensor], labels: Mapping[str, Tensor], size: int
) -> tuple[Tensor, Tensor]:
    """(B, 1, side, side) and (B, C)."""
    if source != "both":
        return images[source][places], labels[source][places]
    real = size - size // 2
    parts = (("real", places[:real]), ("synthetic", places[real:]))
    return tuple(torch.cat([of[name][some] for name, some in parts]) for of in (images, labels))  # type: ignore[return-value]


@torch.no_grad()
def scored(model: "DenseNet", images: Tensor, device: torch.device) -> Tensor:
    """(N, C) logits on the CPU, in eval mode."""
    model.eval()
    parts = [images[start : start + LOOKS] for start in range(0, len(images), LOOKS)]
    return torch.cat([model(xrv_input(part.to(device).float())).float().cpu() for part in parts])


def new_network(recipe: Recipe, seed: int) -> "DenseNet":
    """A classifier whose weights depend on ``seed`` alone, and on what it begins with."""
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "utility weights"))
        model = build_classifier(dict(recipe.network), list(recipe.classes))
    if recipe.begin is not None:
        model.load_state_dict({**model.state_dict(), **recipe.begin})
    return model
