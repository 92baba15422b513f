"""A scene: everything one phantom is made of, before a pixel is rendered or a word written. Source: own."""

from dataclasses import dataclass, replace

from meddiff.phantoms.anatomy import Anatomy
from meddiff.phantoms.findings import Finding


@dataclass(frozen=True)
class Exposure:
    """How the detector and the display turn density into grey.

    Attributes:
        gamma: exponent of the display curve, 1 is linear.
        level: density shown as middle grey.
        contrast: slope of the film curve.
        scatter: share of scattered radiation, 0..1.
        blur: detector blur, sigma as a fraction of the image.
        noise: quantum noise, standard deviation as a fraction of the grey range at middle grey.
        frame: widths of the collimated (black) borders left, right, top, bottom, as fractions of the image.
    """

    gamma: float
    level: float
    contrast: float
    scatter: float
    blur: float
    noise: float
    frame: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """One phantom. ``address`` seeds its texture, vessels and noise; two scenes with one address share them.

    Attributes:
        address: parts for :func:`meddiff.common.draws.generator`.
        anatomy: patient and projection; its ``view`` is "PA" or "AP".
        exposure: detector and display.
        findings: what is wrong, in the order of ``FINDINGS``; empty means "No Finding".
        confounders: names of confounders present.
        domain: "chest" or "source".
        shift: distance of the pixels from a plain chest, 0..1.
        take: number of the exposure of this patient; another one has other noise.
    """

    address: tuple[object, ...]
    anatomy: Anatomy
    exposure: Exposure
    findings: tuple[Finding, ...] = ()
    confounders: tuple[str, ...] = ()
    domain: str = "chest"
    shift: float = 0.0
    take: int = 0

    @property
    def labels(self) -> list[str]:
        return [finding.label for finding in self.findings]

    def finding(self, label: str) -> Finding | None:
        """The finding of class ``label``, None where it is absent."""
        return next((one for one in self.findings if one.label == label), None)

    def without(self, *labels: str) -> "Scene":
        """The same phantom, patient and noise included, without these findings (all of them when none is named)."""
        return replace(self, findings=tuple(f for f in self.findings if labels and f.label not in labels))

    def without_confounders(self, *names: str) -> "Scene":
        """The same phantom without these confounders (all of them when none is named)."""
        return replace(self, confounders=tuple(c for c in self.confounders if names and c not in names))

    def mirrored(self) -> "Scene":
        """The same patient, exposed again, with every finding on the other side (the heart stays where it is)."""
        return replace(self, findings=tuple(finding.mirrored() for finding in self.findings), take=self.take + 1)
