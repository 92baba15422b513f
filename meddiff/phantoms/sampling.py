"""Drawing scenes: view, patient, exposure and findings of one phantom, checked to be visible. Source: own."""

from dataclasses import replace
from typing import Any

import numpy as np

from meddiff.common.draws import generator
from meddiff.phantoms.anatomy import OWN_NORMS, OutlineNorms, sample_anatomy
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.findings import BoxNorms, Finding, Hint, sample_finding
from meddiff.phantoms.render import compose, diseased, film
from meddiff.phantoms.scene import Exposure, Scene

#: A scene is judged on this grid, whatever resolution it is rendered at later, so that one scene serves all of them.
JUDGED = 64
#: Every site of a finding covers at least this share of the picture ...
SMALLEST = 0.0015
#: ... and changes it by at least this much (mean over its mask, as a fraction of the grey range).
FAINTEST = 0.035
ATTEMPTS = 24
#: Framing of aligned phantoms: upright in the middle, a thorax that fills the picture.
ALIGNED: dict[str, Any] = {"centre": (0.5, 0.5), "scale": 0.42, "rotation": 0.0}


def sample_exposure(rng: np.random.Generator, view: str) -> Exposure:
    """Exposure typical of ``view``: AP (portable) is flatter, more scattered and noisier."""
    ap = view == "AP"
    frame = [0.0, 0.0, 0.0, 0.0]
    if rng.uniform() < 0.2:
        for k in range(4):
            frame[k] = float(rng.uniform(0.01, 0.05)) if rng.uniform() < 0.4 else 0.0
    return Exposure(
        gamma=float(rng.uniform(0.8, 1.2)),
        level=float(rng.uniform(0.30, 0.46)),
        contrast=float(rng.uniform(2.6, 4.4) if ap else rng.uniform(3.2, 5.4)),
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
    boxes: BoxNorms | None = None,
    twins: bool = False,
    aligned: bool = False,
) -> Scene:
    """The scene of one phantom; a pure function of its arguments.

    Scenes in which a finding cannot be seen (hidden by the heart, out of the picture) are drawn again.

    Args:
        address: where every random draw of this phantom hangs.
        labels: findings to place (order matters not); empty for a healthy chest.
        hints: label -> side, zone, severity that a given text fixes.
        confounders: names of confounders present.
        norms: norms of the lung outlines.
        boxes: measured places and sizes of findings; None for the own ones.
        twins: the mirrored scene has to be visible too.
        aligned: one framing for all.
    """
    best, most = None, -1.0
    for attempt in range(ATTEMPTS):
        scene = draw_scene(address, attempt, labels, hints or {}, confounders, norms, boxes, aligned)
        seen = min(visibility(scene), visibility(scene.mirrored()) if twins else 1.0)
        if seen >= 1:
            return scene
        if seen > most:
            best, most = scene, seen
    assert best is not None
    return best


def draw_scene(
    address: tuple[object, ...],
    attempt: int,
    labels: list[str] | tuple[str, ...],
    hints: dict[str, Hint],
    confounders: tuple[str, ...],
    norms: OutlineNorms,
    boxes: BoxNorms | None,
    aligned: bool = False,
) -> Scene:
    """One attempt at a scene, not judged; arguments as of :func:`sample_scene`."""
    view = "AP" if generator(*address, "view").uniform() < 0.42 else "PA"
    anatomy = sample_anatomy(generator(*address, "anatomy", attempt), view, norms)
    if aligned:
        anatomy = replace(anatomy, **ALIGNED)
    exposure = sample_exposure(generator(*address, "exposure", attempt), view)
    # the heart and effusions first: the others have to find room beside them
    first = [label for label in ("Cardiomegaly", "Pleural Effusion", "Pneumothorax") if label in labels]
    order = first + [label for label in sorted(labels) if label not in first]
    found: list[Finding] = []
    for label in order:
        rng = generator(*address, "finding", label, attempt)
        finding = sample_finding(rng, label, anatomy, tuple(found), hints.get(label), boxes)
        found.append(finding)
        if label == "Cardiomegaly":
            anatomy = replace(anatomy, clearance=finding.ratio)
    return Scene(address, anatomy, exposure, tuple(sorted(found, key=lambda f: f.label)), confounders)


def visibility(scene: Scene) -> float:
    """How well the least visible finding can be seen: 1 and more is enough."""
    if not scene.findings:
        return 1.0
    patient = Chest(scene.anatomy, JUDGED, scene.address)
    healthy = compose(patient, [], vessels=False)
    density, sites = diseased(scene, patient, vessels=False)
    change = np.abs(film(density, scene.exposure) - film(healthy, scene.exposure))
    worst = np.inf
    for label, masks in sites.items():
        for mask in masks:
            worst = min(worst, float(mask.mean()) / SMALLEST)
            if label != "Cardiomegaly" and mask.any():  # most of an enlarged heart was heart before
                worst = min(worst, float(change[mask].mean()) / FAINTEST)
    return worst
