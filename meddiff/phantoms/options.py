"""What a phantom cohort is made of: the options of ``lightning prepare phantom``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from meddiff.common.errors import UserError
from meddiff.common.findings import CONFOUNDERS, FINDINGS
from meddiff.common.ranges import check_finite_fields

SPLITS = ("train", "val", "grounding", "fidelity")
DEFAULT_CORRELATION = 0.7


@dataclass(frozen=True)
class PhantomOptions:
    """Options of a phantom cohort; equal options give equal bytes, whatever process renders which phantom.

    Raises:
        UserError: when an option is out of its range.
    """

    n: int = 2000
    """Number of phantoms over all splits."""
    seed: int = 0
    """The one seed of the cohort."""
    resolution: int = 128
    """Width and height in pixels, a multiple of 8."""
    text: str = "grammar"
    """Source of the impressions: "grammar" (own) or "open-i" (real reports out of torchxrayvision)."""
    domain: str = "chest"
    """"chest", or "source": other objects on other pixels described by the same words, to pretrain a base model on."""
    shift: float | None = None
    """Distance of the pixels from plain chest phantoms, 0..1; by default 0 for "chest" and 1 for "source"."""
    confounders: tuple[str, ...] = ()
    """Confounders as NAME:FINDING[:CORRELATION] (tube, marker, pacemaker, text, site; correlation 0.7 by default)."""
    outlines: str = "auto"
    """Lung outlines: "measured" (torchxrayvision's v7 masks), "own", or "auto" (measured if installed)."""
    boxes: str = "auto"
    """Places of findings: "measured" (NIH, RSNA and VinBigData box statistics), "own", or "auto"."""
    aligned: bool = False
    """One framing for all: the thorax upright in the middle at one scale. Patients differ still."""
    mirrored_pairs: bool = False
    """Let every odd phantom mirror the even one before it: same patient, findings and words on the other side."""
    normal: float = 0.38
    """Share of phantoms labelled "No Finding"."""
    multiple: float = 0.45
    """Share of the abnormal phantoms that carry two or more findings."""
    val: float = 0.05
    """Validation split: a fraction of n below 1, a count from 1 on."""
    grounding: float = 0.1
    """Grounding split (confounders uncorrelated): a fraction of n below 1, a count from 1 on."""
    fidelity: float = 0.1
    """Fidelity split (confounders uncorrelated): a fraction of n below 1, a count from 1 on."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"A phantom cohort needs at least one phantom, n is {self.n}.")
        if self.resolution % 8 or not 32 <= self.resolution <= 1024:
            raise UserError(f"The resolution must be a multiple of 8 between 32 and 1024, not {self.resolution}.")
        for name, choices in (
            ("text", ("grammar", "open-i")),
            ("domain", ("chest", "source")),
            ("outlines", ("auto", "measured", "own")),
            ("boxes", ("auto", "measured", "own")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        check_finite_fields("phantom", self)
        for name in ("normal", "multiple") + (() if self.shift is None else ("shift",)):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")
        for name in ("val", "grounding", "fidelity"):
            if getattr(self, name) < 0:
                raise UserError(f"The split {name} cannot be negative: {getattr(self, name)}.")
        if self.sizes()["train"] < 0:
            raise UserError(f"The splits val, grounding and fidelity together are larger than n = {self.n}.")
        if self.domain == "source" and self.text == "open-i":
            raise UserError("The source domain has no reports: use --text grammar with --domain source.")
        # a list out of YAML is as good as a tuple, but options are also a dictionary key
        object.__setattr__(self, "confounders", tuple(self.confounders))
        seen = [name for name, _, _ in self.parsed_confounders()]
        if len(set(seen)) < len(seen):
            raise UserError(f"Each confounder can be given once only: {', '.join(self.confounders)}.")

    @property
    def strength(self) -> float:
        """The effective domain shift, 0..1."""
        return self.shift if self.shift is not None else float(self.domain == "source")

    def told(self) -> dict[str, object]:
        """All options by name, as manifests hold them (:func:`as_before`)."""
        return as_before(asdict(self))

    def sizes(self) -> dict[str, int]:
        """Number of phantoms in each split, in the order of their indices."""
        even = 2 if self.mirrored_pairs else 1
        counts = {}
        for name in SPLITS[1:]:
            value = getattr(self, name)
            count = round(value if value >= 1 else value * self.n)
            counts[name] = count // even * even  # a pair never straddles two splits
        return {"train": self.n - sum(counts.values()), **counts}

    def parsed_confounders(self) -> list[tuple[str, str, float]]:
        """``(confounder, finding, correlation)`` of every entry of :attr:`confounders`."""
        return [parse_confounder(text) for text in self.confounders]


def as_before(options: Mapping[str, object]) -> dict[str, object]:
    """Options by name without those that came later and are off: their images, and every digest of them, are those of before.

    Example:
        >>> as_before({"n": 8, "aligned": False}), as_before({"n": 8, "aligned": True})
        ({'n': 8}, {'n': 8, 'aligned': True})
    """
    return {name: value for name, value in options.items() if name != "aligned" or value}


def parse_confounder(text: str) -> tuple[str, str, float]:
    """Read ``NAME:FINDING[:CORRELATION]``, for instance ``pacemaker:cardiomegaly:0.9``; case and spaces are free.

    Raises:
        UserError: unknown confounder or finding, or a correlation outside [-1, 1].
    """
    parts = [part.strip() for part in text.split(":")]
    if len(parts) not in (2, 3):
        raise UserError(f"Write a confounder as NAME:FINDING[:CORRELATION], not {text!r}.")
    name = parts[0].lower()
    if name not in CONFOUNDERS:
        raise UserError(f"Unknown confounder {parts[0]!r} in {text!r}; there are {', '.join(CONFOUNDERS)}.")
    findings = {_plain(finding): finding for finding in FINDINGS}
    if _plain(parts[1]) not in findings:
        raise UserError(f"Unknown finding {parts[1]!r} in {text!r}; there are {', '.join(FINDINGS)}.")
    try:
        correlation = float(parts[2]) if len(parts) == 3 else DEFAULT_CORRELATION
    except ValueError:
        raise UserError(f"The correlation {parts[2]!r} in {text!r} is not a number.") from None
    if not -1 <= correlation <= 1:
        raise UserError(f"The correlation in {text!r} must lie between -1 and 1.")
    return name, findings[_plain(parts[1])], correlation


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")
