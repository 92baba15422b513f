"""Options of a measurement of prototypes, and what a model is compared with. Source: own."""

from dataclasses import dataclass, field

from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.prototype_pictures import (
    Prior,
)
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.prototypes import PrototypeEncoder
from meddiff.shards.dataset import LatentShardsDataset


@dataclass(frozen=True)
class PrototypesOptions:
    """Options of ``lightning evaluate prototypes``."""

    split: str = "fidelity"
    """Held-out split: names, ranges, probes, views, reconstruction and distances."""
    grounding: str | None = "grounding"
    """Split with boxes; null leaves grounding out."""
    samples: int = 1000
    """Images of the split that are encoded, at most."""
    probed: int = 10_000
    """Images of the training split that teach and test the probes, in folds, as published: an encoder has seen them without
    their labels. Where these are fewer than those of ``split``, as with 0, it takes the latter."""
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
        ranges = {
            "samples": COUNT,
            "probed": some,
            "shown": some,
            "views": COUNT,
            "natural": some,
            "steps": steps,
            "batch_size": COUNT,
        }
        check_ranges("prototypes", self, **ranges, reconstructed=some, drawn=some)


@dataclass
class Beside:
    """What a model is compared with and on; None is left out.

    Attributes:
        train: split of training, which probes are taught and tested on, and where boxes of the location prior are counted.
        grounding: split with boxes.
        untrained: an encoder of the same shape with random weights.
        prior: draws activations without an image.
    """

    train: LatentShardsDataset | None = None
    grounding: LatentShardsDataset | None = None
    untrained: PrototypeEncoder | None = None
    prior: Prior | None = None
