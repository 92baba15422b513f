"""The source domain: geometric shapes on textured ground, described by the same words for side, size and place.

A base model pretrained here knows what "small", "left" and "upper" look like and has seen neither a chest nor a
finding, as Stable Diffusion has seen few radiographs before it is fine-tuned. Every class of finding has a shape of
its own (:data:`meddiff.phantoms.lexicon.SHAPES`) at the site where the finding would be; two panels stand for the
lungs, so that left, right, upper and lower can be seen. The dial ``shift`` mixes the ground with a chest: at 0 the
shapes lie on an ordinary chest, at 1 nothing of it is left. Source: own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.phantoms.anatomy import sign
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.fields import Field, octaves, ramp
from meddiff.phantoms.findings import Finding, Site
from meddiff.phantoms.lesions import ellipse
from meddiff.phantoms.scene import Scene

#: Shapes are this much longer and wider than the findings whose sites they take: what a caption says then decides more
#: pixels, and a base model learns the words from fewer images.
SCALE = 1.5


@dataclass
class Shape:
    """One object: where it covers the ground (0..1, H x W), its grey value, and its mask."""

    cover: Field
    grey: Field | float
    mask: NDArray[np.bool_]


def ground(chest: Chest, seed: tuple[object, ...]) -> Field:
    """Textured ground 0..1 with two panels and nothing else, (H, W)."""
    rng = generator(*seed, "ground")
    noise = octaves(rng, chest.resolution, (4, 8, 16, 32), 0.75)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.18, 0.5)
    stripes = np.sin((np.cos(angle) * chest.x + np.sin(angle) * chest.y) * np.float32(2 * np.pi / period))
    level, weave = rng.uniform(0.35, 0.65), rng.uniform(0.01, 0.04)
    grey = np.float32(level) + np.float32(0.025) * noise + np.float32(weave) * stripes
    tone = np.float32(rng.choice((-0.16, 0.16)))
    field: Field = np.clip(grey + tone * panels(chest), 0.05, 0.95).astype(np.float32)
    return field


def panels(chest: Chest) -> Field:
    """0..1, two upright rectangles where the lungs would be."""
    h = np.float32(chest.anatomy.height)
    return ramp(np.minimum(0.40 - np.abs(chest.distance - 0.60), h / 2 - np.abs(chest.y - h / 2)), 0.02)


def disc(chest: Chest, ratio: float) -> Shape:
    """The disc between the panels; its radius is the cardiothoracic ratio that the heart would have."""
    x0, y0, long, _, _ = chest.anatomy.heart_ellipse(ratio)
    radius = np.hypot(chest.x - np.float32(x0), chest.y - np.float32(y0)) / np.float32(long)
    cover = ramp(1 - radius, 0.05)
    return Shape(cover, 0.12 + 0.1 * radius, cover > 0.5)


def shape(chest: Chest, site: Site, finding: Finding) -> Shape:
    """The shape that stands for ``finding`` at ``site``; it never crosses the midline."""
    half = (chest.is_left if site.side == "left" else ~chest.is_left).astype(np.float32)
    label, grey = finding.label, 0.93
    if label == "Pleural Effusion":  # wedge in the lower outer corner of the panel
        h = chest.anatomy.height
        rise = (chest.distance - 0.25) / 0.75 * np.float32(site.height) - (h - chest.y)
        cover = ramp(np.minimum(rise, np.minimum(1.0 - chest.distance, h - chest.y)), 0.02)
    elif label == "Pneumothorax":  # dark sickle in the upper outer part
        size = 0.22 + site.v * 0.25
        x0, y0 = sign(site.side) * 0.62, size + 0.05 + (0.4 if finding.place == "lateral" else 0.0)
        full = np.hypot(chest.x - x0, chest.y - y0)
        bite = np.hypot(chest.x - x0 + sign(site.side) * 0.35 * size, chest.y - y0 - 0.3 * size)
        cover = ramp(np.minimum(size - full, bite - 0.85 * size), 0.02)
        grey = 0.03
    else:
        a, b, radius = (np.float32(1 / SCALE) * field for field in ellipse(chest, site))
        if label == "Atelectasis":
            cover = ramp(1 - np.maximum(np.abs(a), np.abs(b)), 0.15)
        elif label == "Consolidation":
            cover = ramp(0.85 - np.maximum(np.abs(a), np.abs(b)), 0.05)
        elif label == "Pneumonia":
            checks = np.sign(np.sin(a * 9) * np.sin(b * 9)).astype(np.float32)
            cover = ramp(1 - radius, 0.05)
            return Shape(cover * half, 0.5 + 0.43 * checks, (cover * half) > 0.5)
        elif label == "Edema":
            cover = np.clip(1.1 - radius, 0, 1) ** 2 * np.float32(0.5 + site.strength / 2)
        else:
            cover = ramp(1 - radius, 0.06)
            return Shape(cover * half, 0.95 - 0.35 * np.clip(radius, 0, 1), (cover * half) > 0.5)
    cover = cover * half
    return Shape(cover, grey, cover > max(0.3 * float(cover.max()), 1e-3))


def picture(chest: Chest, scene: Scene, plain: Field) -> tuple[Field, dict[str, list[NDArray[np.bool_]]]]:
    """Grey values 0..1 and the masks of the sites of every finding.

    Args:
        chest: geometry of the scene, with the normal heart.
        scene: what to draw; ``scene.shift`` says how much of the ground is not chest.
        plain: the same chest without findings as grey values, (H, W).
    """
    share = np.float32(scene.shift)
    grey = (1 - share) * plain + share * ground(chest, scene.address)
    masks: dict[str, list[NDArray[np.bool_]]] = {}
    enlarged = scene.finding("Cardiomegaly")
    # the disc is always there, as the heart is: only its size is the finding
    shapes: list[tuple[str, Shape]] = [
        ("Cardiomegaly" if enlarged else "", disc(chest, enlarged.ratio if enlarged else scene.anatomy.heart.ratio))
    ]
    for finding in scene.findings:
        shapes += [(finding.label, shape(chest, site, finding)) for site in finding.sites]
    for label, one in shapes:
        grey = grey + one.cover * (one.grey - grey)
        if label:
            masks.setdefault(label, []).append(one.mask)
    noise = generator(*scene.address, "noise", scene.take).standard_normal(grey.shape, dtype=np.float32)
    # the chest's part of the ground brings its own noise
    return np.clip(grey + np.float32(scene.exposure.noise) * share * noise, 0, 1), masks
