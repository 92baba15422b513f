"""Options of utility: what a classifier is, what it is trained on, and for how long. Source: own."""

from dataclasses import dataclass, field

from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, POSITIVE, Range, check_ranges
from meddiff.evaluation.utility_arms import ARMS
from meddiff.models.sampling import SamplingOptions


@dataclass(frozen=True)
class UtilityOptions:
    """Options of ``lightning evaluate utility``."""

    split: str = "fidelity"
    """Split of the shards with the real images that classifiers are scored on; must carry images."""
    validation: str = "val"
    """Split with the real images by which one of the checks is chosen."""
    samples: int | None = None
    """Training images, and as many drawn for the captions of the same; null takes all, at most 400."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """What is trained on: real (always), synthetic, real_and_synthetic, synthetic_then_real, and the controls shuffled and
    real_twice."""
    seeds: int = 3
    """Classifiers of each arm; an interval needs three."""
    steps: int = 200
    """Optimiser steps of every arm (of real_twice twice as many)."""
    classifier_batch: int = 32
    """Images of a step."""
    learning_rate: float = 1e-2
    """Peak of a one-cycle cosine (AdamW)."""
    checks: int = 4
    """Looks at the validation images, evenly over the last phase of an arm."""
    side: int = 64
    """Images are brought to so many pixels (grey, antialiased)."""
    network: dict[str, int | list[int]] = field(
        default_factory=lambda: {"growth_rate": 8, "block_config": [2, 2, 2], "num_init_features": 16}
    )
    """torchxrayvision's DenseNet; configs/evaluation/utility_full.yaml has DenseNet-121."""
    initial: str | None = None
    """Weights that every classifier begins with, as .safetensors of the same network (the last layer is drawn); null draws all.
    Who pretrained on the patients of the test split measures nothing."""
    fewest: int = 20
    """Classes with fewer positive (or negative) test images are left out."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images drawn at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of captions, initial noise, weights and the order of images."""

    def __post_init__(self) -> None:
        counts = ("samples", "seeds", "steps", "classifier_batch", "checks", "side", "fewest", "batch_size")
        two = {"classifier_batch": Range(2, whole=True), "steps": Range(2, whole=True)}
        check_ranges("utility", self, **{**dict.fromkeys(counts, COUNT), **two}, learning_rate=POSITIVE)
        unknown = [name for name in self.arms if name not in ARMS]
        if unknown or "real" not in self.arms:
            raise UserError(
                f"utility: arms are {self.arms}; they must be among {', '.join(ARMS)}, and real is always one."
            )
