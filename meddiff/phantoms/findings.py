"""What can be wrong in a chest: where a finding sits, how large and how dense it is, and in which words.

A :class:`Finding` is one class in one phantom; its :class:`Site` s are the places it occupies (both lungs for a
bilateral effusion). Places are *lung-local* (``u`` 0 medial .. 1 lateral, ``v`` 0 apex .. 1 diaphragm), so moving a
finding to the other side is a change of ``side`` alone. Source: own; the frequencies are chosen so that a place
is typical of a class but never certain (see ``docs/phantoms.md`` for the location-only prior).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from meddiff.phantoms.anatomy import Anatomy, Side, sign

ZONES = ("upper", "middle", "lower")
SEVERITIES = ("mild", "moderate", "severe")
#: Borders between the zones along ``v``; places closer than ZONE_MARGIN to one are not drawn.
ZONE_EDGES = (0.0, 0.37, 0.65, 1.0)
ZONE_MARGIN = 0.03

#: label -> weights of (upper, middle, lower) zone.
ZONE_WEIGHTS = {
    "Atelectasis": (0.15, 0.25, 0.60),
    "Consolidation": (0.36, 0.30, 0.34),
    "Lung Opacity": (0.38, 0.31, 0.31),
    "Pneumonia": (0.28, 0.30, 0.42),
}
#: label -> probability that both sides are involved.
BILATERAL = {
    "Atelectasis": 0.18,
    "Consolidation": 0.15,
    "Lung Opacity": 0.15,
    "Pneumonia": 0.18,
    "Edema": 0.6,
    "Pleural Effusion": 0.2,
    "Pneumothorax": 0.0,
}


def zone_of(v: float) -> str:
    """Third of the lung at lung-local height ``v``."""
    return ZONES[int(np.searchsorted(ZONE_EDGES[1:3], v))]


@dataclass(frozen=True, eq=False)
class BoxNorms:
    """Places and sizes measured from real boxes (see :mod:`.statistics`).

    Attributes:
        places: (label, zone, index of the severity) -> ``(u, v, half width, half height)`` (n, 4).
        weights: label -> weights of the zones.
        source: where they are from.
    """

    places: dict[tuple[str, str, int], NDArray[np.float64]]
    weights: dict[str, tuple[float, float, float]]
    source: str


@dataclass(frozen=True)
class Site:
    """One place of a finding.

    Attributes:
        side: lung.
        u, v: lung-local centre (for effusion: ``v`` unused; for pneumothorax: where the pleural line ends).
        width, height: half axes in body units (effusion: ``height`` of the fluid; pneumothorax: ``width`` of the gap).
        angle: radians, rising towards the lateral side when positive.
        strength: 0..1, how much of the air is displaced (pneumothorax: added).
        seed: own stream of the texture and outline, so removing one finding leaves all others unchanged.
    """

    side: Side
    u: float
    v: float
    width: float
    height: float
    angle: float
    strength: float
    seed: int

    @property
    def zone(self) -> str:
        """Third of the lung, by height."""
        return zone_of(self.v)

    def mirrored(self) -> "Site":
        return replace(self, side="left" if self.side == "right" else "right")


@dataclass(frozen=True)
class Finding:
    """One class of finding in one phantom.

    Attributes:
        label: one of ``meddiff.shards.sample.FINDINGS``.
        severity: "mild", "moderate" or "severe" (for effusion and pneumothorax: small, moderate, large).
        sites: its places; empty for Cardiomegaly.
        ratio: cardiothoracic ratio, Cardiomegaly only.
        place: "apical" or "lateral" for a pneumothorax, "" otherwise (the zone of the site says it).
    """

    label: str
    severity: str
    sites: tuple[Site, ...] = ()
    ratio: float = 0.0
    place: str = ""

    @property
    def side(self) -> str:
        """ "right", "left", "bilateral", or "" for the heart."""
        sides = {site.side for site in self.sites}
        return "" if not sides else "bilateral" if len(sides) == 2 else next(iter(sides))

    @property
    def zone(self) -> str:
        """The zone all sites share, or "" when they do not or the class has none."""
        zones = {site.zone for site in self.sites}
        return next(iter(zones)) if self.zoned and len(zones) == 1 else ""

    @property
    def zoned(self) -> bool:
        """Whether the class is described by zones of the lung."""
        return self.label in ZONE_WEIGHTS

    def mirrored(self) -> "Finding":
        return replace(self, sites=tuple(site.mirrored() for site in self.sites))


@dataclass(frozen=True)
class Hint:
    """What a given text already says about a finding; empty strings leave the choice to the generator."""

    side: str = ""
    zone: str = ""
    severity: str = ""


def _size(rng: np.random.Generator, severity: str, small: float, large: float) -> float:
    """A size from the third of [small, large] that ``severity`` stands for, with a little room between the thirds."""
    step = (large - small) / 3
    return small + step * (SEVERITIES.index(severity) + float(rng.uniform(0.08, 0.92)))


def _zone_height(rng: np.random.Generator, zone: str) -> float:
    low, high = ZONE_EDGES[ZONES.index(zone)], ZONE_EDGES[ZONES.index(zone) + 1]
    low, high = max(low + ZONE_MARGIN, 0.14), min(high - ZONE_MARGIN, 0.93)
    return float(rng.uniform(low, high))


def sample_finding(
    rng: np.random.Generator,
    label: str,
    anatomy: Anatomy,
    taken: tuple[Finding, ...] = (),
    hint: Hint | None = None,
    norms: BoxNorms | None = None,
) -> Finding:
    """A finding of class ``label`` that avoids the places in ``taken`` as far as it can (12 tries).

    Args:
        rng: stream of this finding.
        label: one of ``meddiff.shards.sample.FINDINGS``.
        anatomy: the patient; gives distances between places.
        taken: findings already placed.
        hint: side, zone and severity that are already fixed, by a report for instance.
        norms: measured places and sizes; None for the own ones.
    """
    best, best_overlap = None, np.inf
    for _ in range(12):
        finding = _draw(rng, label, hint or Hint(), norms)
        overlap = _overlap(finding, taken, anatomy)
        if overlap < best_overlap:
            best, best_overlap = finding, overlap
        if overlap <= 0:
            break
    assert best is not None
    return best


def _draw(rng: np.random.Generator, label: str, hint: Hint, norms: BoxNorms | None) -> Finding:
    severity = hint.severity or SEVERITIES[rng.choice(3, p=(0.35, 0.38, 0.27))]
    if label == "Cardiomegaly":
        return Finding(label, severity, ratio=_size(rng, severity, 0.55, 0.76))
    one_side = ("right", "left")[rng.integers(2)]
    side = hint.side or ("bilateral" if rng.uniform() < BILATERAL[label] else one_side)
    sides: tuple[Side, ...] = ("right", "left") if side == "bilateral" else (side,)  # type: ignore[assignment]
    zone = hint.zone if label in ZONE_WEIGHTS else ""
    if label in ZONE_WEIGHTS and not zone:
        weights = norms.weights[label] if norms and label in norms.weights else ZONE_WEIGHTS[label]
        zone = ZONES[rng.choice(3, p=weights)]
    place = ("apical", "lateral")[rng.choice(2, p=(0.65, 0.35))] if label == "Pneumothorax" else ""
    if label == "Pneumothorax" and hint.zone:
        place = "apical" if hint.zone == "upper" else "lateral"
    sites = tuple(_site(rng, label, one, zone, severity, place) for one in sides)
    if norms:
        sites = tuple(_measured(rng, site, label, severity, norms) for site in sites)
    return Finding(label, severity, sites, place=place)


def _measured(rng: np.random.Generator, site: Site, label: str, severity: str, norms: BoxNorms) -> Site:
    """Place and size of ``site`` after a real box of the same class, zone and third of size, slightly moved."""
    boxes = norms.places.get((label, site.zone, SEVERITIES.index(severity)))
    if boxes is None:
        return site
    u, v, width, height = boxes[int(rng.integers(len(boxes)))]
    zone = ZONES.index(site.zone)
    v = np.clip(v + rng.normal(0, 0.02), ZONE_EDGES[zone] + ZONE_MARGIN, min(ZONE_EDGES[zone + 1] - ZONE_MARGIN, 0.93))
    u = float(np.clip(u + rng.normal(0, 0.05), 0.1, 0.9))
    width = float(np.clip(width, 0.08, 0.5))
    if label == "Atelectasis":  # the box of a plate says how long it is, not how thick
        return replace(site, u=u, v=float(v), width=float(np.clip(width * 1.3, 0.16, 0.46)))
    return replace(site, u=u, v=float(v), width=width, height=float(np.clip(height, 0.08, 0.5)))


def _site(rng: np.random.Generator, label: str, side: Side, zone: str, severity: str, place: str) -> Site:
    """Size, shape and density of one place; the numbers are half axes in body units (1 = half a thorax)."""
    seed = int(rng.integers(2**62))
    u = float(rng.uniform(0.15, 0.85))
    v = _zone_height(rng, zone) if zone else 0.0
    angle = float(rng.uniform(-0.6, 0.6))
    if label == "Atelectasis":
        width, height = _size(rng, severity, 0.16, 0.46), float(rng.uniform(0.030, 0.055))
        height *= 1.0 + 0.35 * SEVERITIES.index(severity)
        return Site(side, 0.25 + 0.5 * u, v, width, height, float(rng.uniform(-0.45, 0.45)), 0.9, seed)
    if label == "Consolidation":
        width, height = _size(rng, severity, 0.17, 0.42), _size(rng, severity, 0.16, 0.38)
        return Site(side, u, v, width, height, angle, float(rng.uniform(0.8, 1.0)), seed)
    if label == "Lung Opacity":
        width = _size(rng, severity, 0.10, 0.32)
        strength = float(rng.uniform(0.45, 0.75)) + 0.2 * (severity == "mild")  # small ones must be seen too
        return Site(side, u, v, width, width * float(rng.uniform(0.75, 1.25)), angle, strength, seed)
    if label == "Pneumonia":
        width = _size(rng, severity, 0.20, 0.42)
        return Site(side, u, v, width, width * float(rng.uniform(0.8, 1.2)), angle, float(rng.uniform(0.65, 0.9)), seed)
    if label == "Edema":
        spread = _size(rng, severity, 0.32, 0.62)
        strength = _size(rng, severity, 0.42, 0.85) * float(rng.uniform(0.8, 1.0))
        centre = float(rng.uniform(0.3, 0.75))
        return Site(side, float(rng.uniform(0.1, 0.5)), centre, spread, spread * 1.15, angle / 2, strength, seed)
    if label == "Pleural Effusion":
        return Site(side, 0.7, 0.9, 0.0, _size(rng, severity, 0.20, 1.0), angle / 2, 0.95, seed)
    if label == "Pneumothorax":
        end = _size(rng, severity, 0.30, 0.75) if place == "apical" else _size(rng, severity, 0.55, 0.98)
        gap = _size(rng, severity, 0.05, 0.16) if place == "apical" else _size(rng, severity, 0.14, 0.34)
        return Site(side, 0.9, end, gap, 0.0, 0.0, float(rng.uniform(0.5, 0.8)), seed)
    raise ValueError(f"unknown finding {label!r}")


def extent(site: Site, label: str, anatomy: Anatomy) -> tuple[float, float, float, float]:
    """Rough ellipse ``(x, y, half width, half height)`` of a site in body units, for keeping places apart."""
    base = anatomy.lung(site.side).base
    s = sign(site.side)
    if label == "Pleural Effusion":
        return s * 0.7, base - site.height / 2, 0.4, site.height / 2
    if label == "Pneumothorax":
        return s * 0.75, site.v * base / 2, 0.3, site.v * base / 2
    x, y = anatomy.locate(site.side, site.u, site.v)
    return x, y, site.width * 0.85, max(site.height, 0.1) * 0.85


def _overlap(finding: Finding, taken: tuple[Finding, ...], anatomy: Anatomy) -> float:
    """How badly a finding sits: largest relative overlap with ``taken`` (<= 0 apart, 1 concentric), 2 and more when a
    site leaves the picture. Edema is diffuse: its overlap is ignored."""
    worst = -np.inf
    for site in finding.sites:
        x, y, w, h = extent(site, finding.label, anatomy)
        corners = np.array([(x - w / 2, y), (x + w / 2, y), (x, y - h / 2), (x, y + h / 2)])
        outside = float(np.abs(anatomy.to_image(corners) - 0.5).max() - 0.5)
        worst = max(worst, 2 + outside if outside > 0 else -np.inf)
    if finding.label == "Edema":
        return worst
    for other in taken:
        for theirs in other.sites if other.label != "Edema" else ():
            for mine in finding.sites:
                x, y, w, h = extent(mine, finding.label, anatomy)
                p, q, r, t = extent(theirs, other.label, anatomy)
                worst = max(worst, 1 - np.hypot((x - p) / (w + r), (y - q) / (h + t)))
    return worst
