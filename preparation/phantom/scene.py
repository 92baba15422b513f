"""A scene: everything one phantom is made of, before a pixel is rendered or a word written. Source: own."""

from dataclasses import dataclass, replace

import numpy as np

from common.draws import generator
from preparation.phantom.anatomy import OWN_NORMS, Anatomy, OutlineNorms, sample_anatomy
from preparation.phantom.findings import Finding, Hint, sample_finding


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
        address: parts for :func:`common.draws.generator`.
        anatomy: patient and projection; its ``view`` is "PA" or "AP".
        exposure: detector and display.
        findings: what is wrong, in the order of ``FINDINGS``; empty means "No Finding".
        confounders: names of confounders present.
    """

    address: tuple[object, ...]
    anatomy: Anatomy
    exposure: Exposure
    findings: tuple[Finding, ...] = ()
    confounders: tuple[str, ...] = ()

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
        """The same patient and exposure with every finding on the other side (the heart stays where it is)."""
        return replace(self, findings=tuple(finding.mirrored() for finding in self.findings))


def sample_exposure(rng: np.random.Generator, view: str) -> Exposure:
    """Exposure typical of ``view``: AP (portable) is flatter, more scattered and noisier."""
    ap = view == "AP"
    frame = [0.0, 0.0, 0.0, 0.0]
    if rng.uniform() < 0.2:
        for k in range(4):
            frame[k] = float(rng.uniform(0.01, 0.05)) if rng.uniform() < 0.4 else 0.0
    return Exposure(
        gamma=float(rng.uniform(0.8, 1.2)),
        level=float(rng.uniform(0.34, 0.50)),
        contrast=float(rng.uniform(3.2, 5.2) if ap else rng.uniform(4.0, 6.4)),
        scatter=float(rng.uniform(0.12, 0.30) if ap else rng.uniform(0.05, 0.20)),
        blur=float(rng.uniform(0.3, 0.7)) / 128,
        noise=float(rng.uniform(0.006, 0.013) if ap else rng.uniform(0.004, 0.010)),
        frame=(frame[0], frame[1], frame[2], frame[3]),
    )


def sample_scene(
    address: tuple[object, ...],
    labels: list[str] | tuple[str, ...],
    hints: dict[str, Hint] | None = None,
    confounders: tuple[str, ...] = (),
    norms: OutlineNorms = OWN_NORMS,
) -> Scene:
    """The scene of one phantom; a pure function of its arguments.

    Args:
        address: where every random draw of this phantom hangs.
        labels: findings to place (order matters not); empty for a healthy chest.
        hints: label -> side, zone, severity that a given text fixes.
        confounders: names of confounders present.
        norms: norms of the lung outlines.
    """
    view = "AP" if generator(*address, "view").uniform() < 0.42 else "PA"
    anatomy = sample_anatomy(generator(*address, "anatomy"), view, norms)
    exposure = sample_exposure(generator(*address, "exposure"), view)
    hints = hints or {}
    # the heart and effusions first: the others have to find room beside them
    first = [label for label in ("Cardiomegaly", "Pleural Effusion", "Pneumothorax") if label in labels]
    order = first + [label for label in sorted(labels) if label not in first]
    found: list[Finding] = []
    for label in order:
        rng = generator(*address, "finding", label)
        finding = sample_finding(rng, label, anatomy, tuple(found), hints.get(label))
        found.append(finding)
        if label == "Cardiomegaly":
            anatomy = replace(anatomy, clearance=finding.ratio)
    return Scene(address, anatomy, exposure, tuple(sorted(found, key=lambda f: f.label)), confounders)
