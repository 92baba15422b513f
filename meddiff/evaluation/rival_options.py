"""What can be asked of ``lightning evaluate rivals``. Source: own."""

from dataclasses import dataclass, field

from meddiff.attribution.generated_attention import GUIDANCE, STEPS
from meddiff.attribution.inverted_attention import STEPS as INVERSION_STEPS
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, Range, check_ranges

#: All that need no weights but the model's.
PRESETS = (
    *("words", "layers", "lexical", "lexical_first", "concept_append", "concept_substitute", "concept_output"),
    *("bbm", "bbm_elementwise", "ldm_inversion", "ldm_inversion_uncut"),
)

#: A row of its own, where its files are given.
BASELINE = "biovil_t"


@dataclass(frozen=True)
class RivalsOptions:
    """Options of ``lightning evaluate rivals``."""

    split: str = "grounding"
    """Split of the shards."""
    samples: int | None = None
    """Number of phrases, balanced over classes; null takes all."""
    presets: list[str] = field(default_factory=lambda: list(PRESETS))
    """Which ways of making a map are compared."""
    timesteps: int = 10
    """How many of the paper's 40 timesteps, of all presets but bbm and ldm_inversion."""
    bbm_steps: int = STEPS
    """Denoising steps of bbm, for the real image and for the drawn one."""
    bbm_guidance: float = GUIDANCE
    """Guidance of the drawn image."""
    inversion_steps: int = INVERSION_STEPS
    """Steps of ldm_inversion: every 1000 // steps timesteps, so that 300 makes the published 334."""
    biovil_t: str | None = None
    """Folder of BioViL-T's encoders as TorchScript, for a baseline row; null has none."""
    batch_size: int = 64
    """Rows per forward pass; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of noise, subset and halves."""

    def __post_init__(self) -> None:
        if BASELINE in self.presets and self.biovil_t is None:
            raise UserError(
                "rivals: the preset biovil_t reads weights that come with no package: give their folder as --rivals.biovil_t, "
                "or take it out of --rivals.presets."
            )
        unknown = [name for name in self.presets if name not in (*PRESETS, BASELINE)]
        if unknown or not self.presets or len(set(self.presets)) < len(self.presets):
            named = ", ".join(self.presets) or "none"
            raise UserError(f"rivals: presets are {named}; name one or several of {', '.join(PRESETS)}, each once.")
        counts = {"samples": COUNT, "batch_size": COUNT}
        check_ranges("rivals", self, timesteps=Range(1, 40, whole=True), bbm_guidance=NOT_NEGATIVE, **counts)
