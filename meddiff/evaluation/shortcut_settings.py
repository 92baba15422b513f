"""Options of a measurement of shortcuts. Source: own."""

from dataclasses import dataclass, field
from typing import Literal

from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, POSITIVE, Range, check_ranges
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.sampling import SamplingOptions


@dataclass(frozen=True)
class ShortcutOptions:
    """Options of ``lightning evaluate shortcut``."""

    finding: str | None = None
    """What is edited; null takes what the run's data couple with a confounder."""
    confounder: str | None = None
    """What may come with it: a confounder, a second finding, a view; null takes what the run's data couple."""
    split: str = "fidelity"
    """Held-out split with pictures in which the two are independent: half of it teaches the scorers, half is edited."""
    by: Literal["auto", "prototypes", "words"] = "auto"
    """How the finding is put in; auto takes prototypes where the model has any, else words."""
    samples: int = 200
    """Images that are edited, at most."""
    edit: Literal["top", "means"] = "top"
    """Which prototypes are moved: those that grow most with the finding, from end to end of their own ranges, or all of them by
    the difference of the means of images with and without it."""
    top: int = 2
    """Prototypes that ``edit: top`` raises and lowers together."""
    scale: float = 1.0
    """Of ``edit: means``, how many such differences up, and as many down; ``odd`` says how far from real images that leads."""
    steps: int = 20
    """Timesteps of inversion and of drawing."""
    sampling: SamplingOptions | None = None
    """How images are drawn for words; null takes the model's own."""
    features: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """One feature extractor and its weights, that the scorers look through: domain, xrv224, inception, ..."""
    batch_size: int = 16
    """Images at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of halves, captions and noise."""

    def __post_init__(self) -> None:
        steps = Range(2, 1000, whole=True)
        check_ranges("shortcut", self, samples=COUNT, top=COUNT, steps=steps, scale=POSITIVE, batch_size=COUNT)
        if len(self.features) != 1:
            raise UserError("shortcut: features names one extractor, such as {domain: assets/phantom_classifier}.")
