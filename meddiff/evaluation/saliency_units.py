"""What is asked in a measurement of maps by timestep: options, what maps are compared with, one asking. Source: own."""

from dataclasses import dataclass, field

from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.saliency_tools import Tool, build_tools
from meddiff.evaluation.samples import GroundingSample
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

#: What the attention of the network with random weights is called in the tables.
UNTRAINED = "untrained"


@dataclass(frozen=True)
class SaliencyOptions:
    """Options of ``lightning explain``."""

    split: str = "grounding"
    """Split whose phrases and images are looked at."""
    tools: list[str] = field(default_factory=lambda: ["attention"])
    """Which tools make maps."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    timesteps: int = 10
    """How many of the paper's 40 timesteps."""
    slow_samples: int = 16
    """At most so many phrases for tools that take hundreds of passes for one map."""
    slow_timesteps: int = 4
    """At most so many timesteps for them."""
    shown: int = 6
    """Of so many phrases, balanced over classes, the maps are kept to be drawn."""
    paper: bool = False
    """Tools as they were published instead of as they are safe; docs/visual_analysis.md says where the two differ."""
    batch_size: int = 64
    """Forward passes at once; changes no result."""
    seed: int = 0
    """Of noise, subset and masks."""

    def __post_init__(self) -> None:
        steps = Range(1, 40, whole=True)
        ranges = {"samples": COUNT, "timesteps": steps, "slow_samples": COUNT, "slow_timesteps": steps}
        check_ranges("saliency", self, **ranges, shown=Range(0, 1000, whole=True), batch_size=COUNT)
        build_tools(self.tools)


@dataclass
class Beside:
    """What the maps are compared with; None is left out.

    Attributes:
        train: split of training, where boxes of the location prior are counted.
        untrained: the same network with random weights.
    """

    train: LatentShardsDataset | None = None
    untrained: LatentDiffusion | None = None


@dataclass
class Unit:
    """One tool asked by one phrase, and by one that asks for an absent finding (None: the image has them all).

    Attributes:
        source: name in the ledger.
        shown: its maps are kept.
    """

    source: str
    tool: Tool
    sample: GroundingSample
    absent: GroundingSample | None
    timesteps: list[int]

    shown: bool = False

    @property
    def address(self) -> str:
        """Name in the ledger."""
        return "|".join((self.source, self.sample.key, self.sample.label, self.sample.phrase))

    @property
    def cost(self) -> float:
        """U-Net evaluations."""
        return self.tool.cost(len(self.timesteps)) * (1 if self.absent is None else 2)
