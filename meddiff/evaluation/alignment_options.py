"""What can be asked of ``lightning evaluate alignment``. Source: own."""

from dataclasses import dataclass

from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.sampling import SamplingOptions


@dataclass(frozen=True)
class AlignmentOptions:
    """Options of ``lightning evaluate alignment``."""

    split: str = "fidelity"
    """Split of the shards with held-out images, whose impressions are the prompts; must carry images."""
    classifier: str = DEFAULT_CLASSIFIER
    """Folder of a phantom classifier, or torchxrayvision's densenet121-res224-all as .safetensors."""
    samples: int | None = None
    """Images drawn; as many others set the thresholds (the split must hold twice as many). Null takes half of the split, at
    most 5,000."""
    candidates: int = 32
    """Sets of labels that a prompt's own is ranked among, its own included; fewer where the prompts have fewer."""
    biovil_t: str | None = None
    """Folder of BioViL-T's encoders as TorchScript (docs/rivals.md), for the cosine of image and prompt; null measures none."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of the initial noise, the shuffled prompts and the candidates."""

    def __post_init__(self) -> None:
        check_ranges("alignment", self, samples=COUNT, batch_size=COUNT, candidates=Range(2, whole=True))
