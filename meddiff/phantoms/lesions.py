"""How findings change the chest: air displaced, air added, lines drawn; and the exact mask of each. Source: own.

Every function takes the lung coordinates of a :class:`~meddiff.phantoms.chest.Chest` and returns fields (H, W).
A finding changes pixels only where its effect is not zero, and its mask is where the effect passes a fixed share
of its own maximum, so masks are exact by construction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.phantoms.anatomy import sign
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.fields import Field, octaves, ramp
from meddiff.phantoms.findings import Finding, Site


@dataclass
class Effect:
    """What one site does to the picture; None where it does nothing of the kind.

    Attributes:
        fill: 0..1, share of the air displaced by fluid or tissue.
        lucent: 0..1, lung replaced by free air (markings vanish, the field darkens).
        line: 0..1, thin dense line.
        congestion: 0..1, how far vessels are widened and emphasised.
        mask: bool (H, W).
    """

    mask: NDArray[np.bool_]
    fill: Field | None = None
    lucent: Field | None = None
    line: Field | None = None
    congestion: Field | None = None


def ellipse(chest: Chest, site: Site) -> tuple[Field, Field, Field]:
    """Local coordinates ``(a, b)`` in half axes of the site and their radius; ``a`` runs along the tilted long axis."""
    x0, y0 = chest.anatomy.locate(site.side, site.u, site.v)
    dx, dy = (chest.x - np.float32(x0)) * sign(site.side), chest.y - np.float32(y0)
    c, s = np.float32(np.cos(site.angle)), np.float32(np.sin(site.angle))
    a, b = (c * dx - s * dy) / np.float32(site.width), (s * dx + c * dy) / np.float32(site.height)
    return a, b, np.sqrt(a * a + b * b)


def _noise(chest: Chest, site: Site, size: float, count: int = 2) -> Field:
    """Unit noise whose largest blobs are ``size`` body units wide."""
    cells = max(2, round(1.0 / (size * chest.anatomy.scale)))
    return octaves(generator(site.seed, "texture"), chest.resolution, tuple(cells * 2**k for k in range(count)), 0.6)


def _finish(chest: Chest, site: Site, fill: Field, share: float) -> Effect:
    """Clip a filling to the visible lung of the site and take its mask at ``share`` of its maximum."""
    fill = fill * chest.visible(site.side)
    peak = float(fill.max())
    return Effect(fill > max(share * peak, 1e-3), fill=fill)


def consolidation(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Dense lobar patch: irregular edge, one straight border where it meets a fissure."""
    _, b, radius = ellipse(chest, site)
    noise = _noise(chest, site, 0.22)
    edge = ramp(1.0 - radius + 0.22 * noise, 0.18)
    flat = 0.45 if site.seed % 2 else -0.45  # the fissure cuts the lower border of upper lobes, the upper of lower ones
    flat = abs(flat) if site.zone == "upper" else -abs(flat) if site.zone == "lower" else flat
    edge *= ramp((flat - b) * np.float32(np.sign(flat)), 0.06)
    return _finish(chest, site, np.float32(site.strength) * edge * (0.92 + 0.08 * np.tanh(noise)), 0.4)


def opacity(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Ill-defined hazy round patch, densest in the middle."""
    radius = ellipse(chest, site)[2]
    radius = radius * (1 + 0.14 * _noise(chest, site, 0.3))
    haze = np.clip(1.25 - radius, 0, 1) ** 2
    haze = haze * (3 - 2 * np.sqrt(haze))  # smoothstep of the falling radius
    return _finish(chest, site, np.float32(site.strength) * haze, 0.3)


def pneumonia(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Patchy airspace focus: many small blotches inside a soft window; the mask is the window."""
    radius = ellipse(chest, site)[2] + 0.12 * _noise(chest, site, 0.4, 1)
    window = ramp(1.0 - radius, 0.22) * chest.visible(site.side)
    blotches = np.clip(0.55 + 0.5 * _noise(chest, site, 0.10), 0.08, 1.0)
    return Effect(window > 0.3, fill=np.float32(site.strength) * window * blotches)


def atelectasis(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Plate-like bands, slightly bowed; a second, parallel one when it is severe."""
    a, b, _ = ellipse(chest, site)
    bow = np.float32(0.8 * np.sin(site.seed % 7))
    ends = ramp(1.0 - np.abs(a), 0.15)
    plate = ends * ramp(1.0 - np.abs(b + bow * (a * a - 0.5)), 0.5)
    if finding.severity == "severe":
        plate = np.maximum(plate, ends * ramp(0.8 - np.abs(b + bow * (a * a - 0.5) + 3.4), 0.5))
    return _finish(chest, site, np.float32(site.strength) * plate, 0.35)


def edema(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Perihilar haze thinning towards the periphery, with widened vessels."""
    radius = ellipse(chest, site)[2]
    noise = _noise(chest, site, 0.35, 3)
    haze = np.clip(1.1 - radius + 0.12 * noise, 0, 1)
    haze = haze * haze * (3 - 2 * haze) * np.clip(0.82 + 0.25 * noise, 0.3, 1.15)
    haze = np.clip(haze - 0.06, 0, 1)  # no tail too faint to call it edema
    effect = _finish(chest, site, np.float32(site.strength) * haze, 0.15)
    effect.congestion = chest.visible(site.side) * effect.mask
    return effect


def effusion(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Fluid filling the costophrenic angle, with a meniscus that climbs the lateral wall."""
    lung = chest.anatomy.lung(site.side)
    across = chest.across
    level = lung.base - np.float32(site.height) * (0.30 + 0.70 * across * across * across)
    level = level + np.float32(np.tan(site.angle) * 0.1) * (across - 1)
    return _finish(chest, site, np.float32(site.strength) * ramp(chest.y - level, 0.035), 0.5)


def pneumothorax(chest: Chest, site: Site, finding: Finding) -> Effect:
    """Free air between the wall and a thin pleural line: a crescent over the apex or along the lateral wall."""
    height = chest.y / np.float32(chest.anatomy.lung(site.side).base)
    if finding.place == "apical":
        start, end = np.float32(site.width), np.float32(site.v)
        line = np.sqrt(np.clip((height - start) / (end - start), 0, 1))  # across-position of the pleura, 0 at the top
        line = line * 0.9 + 0.1 * np.clip((height - start) / (end - start), 0, 2)
    else:
        middle, half = np.float32(site.v / 2 + 0.02), np.float32(site.v / 2)
        bulge = np.clip(1 - ((height - middle) / half) ** 2, 0, 1)
        line = 1 - np.float32(site.width) * np.sqrt(bulge) - np.where(bulge > 0, 0.0, -0.1)
    gap = (chest.across - line).astype(np.float32)
    room = chest.visible(site.side)
    softness = 0.02
    lucent = ramp(gap, softness) * room
    pleura = np.clip(1 - np.abs(gap) / 0.045, 0, 1) * room * (lucent > 0.02)
    return Effect(lucent > 0.3, lucent=np.float32(site.strength) * lucent, line=pleura)


EFFECTS = {
    "Atelectasis": atelectasis,
    "Consolidation": consolidation,
    "Edema": edema,
    "Lung Opacity": opacity,
    "Pleural Effusion": effusion,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
}
