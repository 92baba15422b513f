"""The patient and the projection: numbers that say where lungs, heart, diaphragm, ribs and outline lie.

*Body frame.* x = 0 is the midline, x > 0 the patient's left (the right of the image, as radiographs are hung),
y = 0 the apex of the lungs and y grows downwards; the unit is half the width of the thorax. An :class:`Anatomy`
also says how the body frame sits in the image (centre, scale, rotation), so one scene renders at any resolution.

Source: own proportions after textbook norms (cardiothoracic ratio below 0.5 in PA, right dome higher than left,
AP: magnified heart, higher diaphragm); the lung outline may follow measured masks, see :mod:`.statistics`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from meddiff.phantoms.fields import Field, pixel_grid

Side = Literal["right", "left"]
SIDES: tuple[Side, Side] = ("right", "left")

#: Heights (fractions of the height of the lung) at which the outline has its knots.
HEIGHTS = np.array([0.0, 0.03, 0.10, 0.25, 0.50, 0.75, 1.02])
#: Normal lateral and medial border at HEIGHTS, in body units from the midline (medial: without the heart).
LATERAL = np.array([0.42, 0.57, 0.71, 0.85, 0.96, 1.00, 0.99])
MEDIAL = np.array([0.38, 0.27, 0.21, 0.19, 0.19, 0.20, 0.22])

#: Borders are splines in the square root of the height: an apex is round, so its borders are smooth in that variable.
_FINE = np.linspace(0.0, float(np.sqrt(HEIGHTS[-1])), 65)


@lru_cache(maxsize=1)
def _spline() -> NDArray[np.float64]:
    """Matrix (65, 7) from values at :data:`HEIGHTS` to values at ``_FINE``."""
    matrix = CubicSpline(np.sqrt(HEIGHTS), np.eye(len(HEIGHTS)))(_FINE)
    return np.asarray(matrix)


def sign(side: Side) -> int:
    """Direction of ``side`` along x: the patient's left is on the right of the image."""
    return 1 if side == "left" else -1


@dataclass(frozen=True)
class Lung:
    """Outline of one lung in body units.

    Attributes:
        lateral, medial: distance of the borders from the midline at :data:`HEIGHTS`.
        base: y of the costophrenic angle.
        dome: height of the diaphragm's dome above the costophrenic angle.
    """

    lateral: tuple[float, ...]
    medial: tuple[float, ...]
    base: float
    dome: float


@dataclass(frozen=True)
class Heart:
    """Heart silhouette: an ellipse tilted towards the left, its width given by the cardiothoracic ratio.

    Attributes:
        ratio: cardiothoracic ratio (transverse width of heart / width of thorax).
        lean: part of the width that lies left of the midline.
        tilt: angle of the long axis below the horizontal, radians.
        aspect: short axis / long axis.
    """

    ratio: float
    lean: float
    tilt: float
    aspect: float


@dataclass(frozen=True)
class Anatomy:
    """One patient and how the tube sees them. Lengths in body units, see the module's text."""

    view: str
    centre: tuple[float, float]
    """Image position (unit coordinates) of the point between the lungs."""
    scale: float
    """Half the width of the thorax as a fraction of the image."""
    rotation: float
    """Radians, clockwise in the image."""
    right: Lung
    left: Lung
    heart: Heart
    clearance: float
    """Cardiothoracic ratio that findings keep clear of; constant when the heart's own finding is taken away."""
    ribs: tuple[float, float, float]
    """Spacing, phase and contrast of the ribs."""
    spine: tuple[float, float]
    """Lateral curve of the spine (scoliosis) and contrast of the vertebrae."""
    clavicle: tuple[float, float]
    """y of the medial end, rise towards the shoulder."""
    wall: float
    """Thickness of the chest wall."""
    shoulder: float
    """y of the shoulders (raised arms in AP bring them up)."""
    breast: float
    """Density of the breast shadows, 0 for none."""
    bubble: tuple[float, float]
    """Size and place of the gastric bubble, size 0 for none."""
    hilum: float
    """Height of the hila as a fraction of the lung."""

    def lung(self, side: Side) -> Lung:
        return self.left if side == "left" else self.right

    @property
    def height(self) -> float:
        """y of the lower costophrenic angle."""
        return max(self.left.base, self.right.base)

    def border(self, side: Side, which: Literal["lateral", "medial"], y: Field | float) -> NDArray[np.float64]:
        """Distance from the midline of a border of the lung at body height ``y`` (any shape)."""
        lung = self.lung(side)
        values = _spline() @ np.array(getattr(lung, which))
        distance: NDArray[np.float64] = np.interp(np.sqrt(np.maximum(np.asarray(y) / lung.base, 0)), _FINE, values)
        return distance

    def heart_ellipse(self, ratio: float | None = None) -> tuple[float, float, float, float, float]:
        """``(x, y, long, short, tilt)`` of the heart; ``ratio`` replaces the cardiothoracic ratio."""
        heart = self.heart
        half = ratio if ratio is not None else heart.ratio  # the thorax is 2 wide, so ratio = half width
        cosine, sine = np.cos(heart.tilt), np.sin(heart.tilt)
        long = half / np.sqrt(cosine**2 + (heart.aspect * sine) ** 2)
        short = heart.aspect * long
        drop = np.sqrt((long * sine) ** 2 + (short * cosine) ** 2)
        floor = self.left.base - 0.45 * self.left.dome
        return half * (2 * heart.lean - 1), float(floor - drop), float(long), float(short), heart.tilt

    def heart_border(self, side: Side, y: float, ratio: float) -> float:
        """Distance from the midline of the heart's border at height ``y``; negative where there is no heart."""
        x0, y0, long, short, tilt = self.heart_ellipse(ratio)
        # points of the ellipse at this height: solve the quadratic form for x
        c, s = np.cos(tilt), np.sin(tilt)
        a = (c / long) ** 2 + (s / short) ** 2
        b = 2 * c * s * (1 / long**2 - 1 / short**2) * (y - y0)
        k = ((s / long) ** 2 + (c / short) ** 2) * (y - y0) ** 2 - 1
        root = b * b - 4 * a * k
        if root <= 0:
            return -1.0
        x = x0 + (-b + sign(side) * np.sqrt(root)) / (2 * a)
        return float(sign(side) * x)

    def dome_at(self, side: Side, distance: Field | float) -> NDArray[np.float64]:
        """y of the diaphragm at a distance from the midline (any shape)."""
        lung = self.lung(side)
        peak = 0.5
        outward = (np.asarray(distance) - peak) / (1.0 - peak)
        return lung.base - lung.dome * (1 - np.where(outward > 0, outward**2, 0.25 * outward**2))

    def locate(self, side: Side, u: float, v: float) -> tuple[float, float]:
        """Body coordinates of a lung-local point: ``u`` 0 medial .. 1 lateral, ``v`` 0 apex .. 1 diaphragm.

        The medial border is the mediastinum or the heart (at its ``clearance``), so the point lies in visible lung.
        """
        y = v * self.lung(side).base
        for _ in range(3):  # the floor depends on the place across, which depends on the height
            inner = max(float(self.border(side, "medial", y)), self.heart_border(side, y, self.clearance))
            outer = float(self.border(side, "lateral", y))
            inner = min(inner, outer - 0.08)
            across = inner + u * (outer - inner)
            y = v * float(self.dome_at(side, across))
        return sign(side) * across, y

    def body_grid(self, resolution: int) -> tuple[Field, Field]:
        """Body coordinates ``(x, y)`` of every pixel, each (resolution, resolution)."""
        px, py = pixel_grid(resolution)
        dx, dy = (px - np.float32(self.centre[0])) / self.scale, (py - np.float32(self.centre[1])) / self.scale
        c, s = np.float32(np.cos(self.rotation)), np.float32(np.sin(self.rotation))
        middle = np.float32(self.height / 2)
        return (c * dx + s * dy).astype(np.float32), (-s * dx + c * dy + middle).astype(np.float32)

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit image coordinates of body points (..., 2)."""
        c, s = np.cos(self.rotation), np.sin(self.rotation)
        x, y = points[..., 0], points[..., 1] - self.height / 2
        across, down = c * x - s * y, s * x + c * y
        return np.stack([across * self.scale + self.centre[0], down * self.scale + self.centre[1]], -1)

    def enlarged(self, ratio: float) -> "Anatomy":
        """The same patient with another cardiothoracic ratio."""
        return replace(self, heart=replace(self.heart, ratio=ratio))


@dataclass(frozen=True)
class OutlineNorms:
    """Mean and covariance of the outline of the lungs, either :data:`OWN_NORMS` or measured from masks.

    The vector is (lateral x 7, medial x 7, height, dome) for the right lung and then for the left one, in body units.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    """Matrix (32, k) that turns k standard normal numbers into a deviation."""
    source: str

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """One outline (32,), at most two deviations from the mean along each direction."""
        outline: NDArray[np.float64] = self.mean + self.spread @ np.clip(
            rng.standard_normal(self.spread.shape[1]), -2, 2
        )
        return outline


def own_norms() -> OutlineNorms:
    """Outline norms without any data: own constants, with wide/narrow, long/short and pointed/round as directions."""
    right = np.concatenate([LATERAL, MEDIAL, [1.72, 0.30]])
    left = np.concatenate([LATERAL, MEDIAL, [1.78, 0.27]])
    spread = np.zeros((32, 6))
    for start in (0, 16):
        spread[start : start + 7, 0] = np.linspace(0.05, 0.0, 7)  # shape of the apex
        spread[start + 7 : start + 14, 1] = 0.02  # width of the mediastinum
        spread[start + 14, 2] = 0.13  # depth of inspiration
        spread[start + 15, 3] = 0.05  # height of the domes
    spread[14, 4], spread[30, 4] = -0.05, 0.03  # one dome against the other
    spread[0:7, 5], spread[16:23, 5] = -0.02, 0.02  # rotation of the patient
    return OutlineNorms(np.concatenate([right, left]), spread, "own")


OWN_NORMS = own_norms()


def sample_anatomy(rng: np.random.Generator, view: str, norms: OutlineNorms = OWN_NORMS) -> Anatomy:
    """A healthy patient (cardiothoracic ratio normal) in the geometry of ``view`` ("PA" or "AP")."""
    ap = view == "AP"
    vector = norms.draw(rng)
    squash = rng.uniform(0.78, 0.92) if ap else rng.uniform(0.95, 1.06)  # AP is taken lying or sitting: shallow breath

    def lung(part: NDArray[np.float64]) -> Lung:
        lateral = np.clip(part[:7], 0.3, 1.1)
        medial = np.minimum(np.clip(part[7:14], 0.1, 0.6), lateral - np.array([0.02, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3]))
        return Lung(
            tuple(lateral.tolist()),
            tuple(medial.tolist()),
            float(np.clip(part[14], 1.2, 2.2) * squash),
            float(np.clip(part[15], 0.15, 0.5)),
        )

    right, left = lung(vector[:16]), lung(vector[16:])
    # framing varies as much as between departments: from the whole trunk to a thorax that fills or leaves the picture
    scale = float(rng.uniform(0.26, 0.48))
    room = np.minimum((0.5 - 0.70 * scale, 0.5 - 0.35 * scale * max(right.base, left.base)), 0.25)
    shift = rng.uniform(-room, room)
    ratio = float(rng.uniform(0.43, 0.51) if ap else rng.uniform(0.38, 0.46))
    return Anatomy(
        view=view,
        centre=(float(0.5 + shift[0]), float(0.5 + shift[1])),
        scale=scale,
        rotation=float(np.clip(rng.normal(0, 0.09 if ap else 0.05), -0.2, 0.2)),
        right=right,
        left=left,
        heart=Heart(
            ratio,
            float(rng.uniform(0.62, 0.72)),
            float(rng.uniform(0.6, 0.95)),
            float(rng.uniform(0.62, 0.76)),
        ),
        clearance=ratio,
        ribs=(float(rng.uniform(0.165, 0.20) * squash), float(rng.uniform()), float(rng.uniform(0.6, 1.25))),
        spine=(float(rng.normal(0, 0.03)), float(rng.uniform(0.6, 1.3))),
        clavicle=(float(rng.uniform(0.10, 0.22) if ap else rng.uniform(0.18, 0.32)), float(rng.uniform(0.05, 0.3))),
        wall=float(rng.uniform(0.08, 0.28)),
        shoulder=float(rng.uniform(-0.25, 0.0) if ap else rng.uniform(-0.05, 0.2)),
        breast=float(rng.uniform(0.25, 1.0) if rng.uniform() < 0.45 else 0.0),
        bubble=(float(rng.uniform(0.08, 0.2) if rng.uniform() < 0.45 else 0.0), float(rng.uniform(0.35, 0.7))),
        hilum=float(rng.uniform(0.42, 0.5)),
    )
