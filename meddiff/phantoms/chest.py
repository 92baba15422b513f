"""The healthy chest on the pixel grid: lungs, heart, bones, vessels and soft tissue as fields. Source: own.

Fields are in units of *display density*: roughly 0 for air outside the patient, 0.25 for lung, 0.6 for soft tissue
and 1 for spine behind the heart; they add up like attenuation along the ray does in a logarithmic detector.
"""

from copy import copy
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from meddiff.common.draws import generator
from meddiff.phantoms.anatomy import _FINE, SIDES, Anatomy, Side, _spline, sign
from meddiff.phantoms.fields import Field, octaves, ramp

EDGE = 0.018  # half width of anatomical edges, body units
#: Half width of the body at heights below the apex, before the chest wall is added (neck, shoulders, axilla, flank).
_BODY_Y = np.array([-1.2, -0.55, -0.38, -0.22, -0.08, 0.08, 0.25, 0.5, 0.75, 1.0, 1.4, 1.9, 2.6])
_BODY_D = np.array([0.36, 0.38, 0.46, 0.80, 1.15, 1.38, 1.50, 1.50, 1.20, 1.07, 1.04, 1.07, 1.10])


class Chest:
    """Fields of one patient at one resolution, computed when first asked for.

    Args:
        anatomy: the patient.
        resolution: pixels along each side.
        seed: address of the patient's own texture and vessels.
    """

    def __init__(self, anatomy: Anatomy, resolution: int, seed: tuple[object, ...]) -> None:
        self.anatomy, self.resolution, self.seed = anatomy, resolution, seed
        self.x, self.y = anatomy.body_grid(resolution)
        self.is_left = self.x > 0
        self.distance: Field = np.abs(self.x)
        base: Field = np.where(self.is_left, np.float32(anatomy.left.base), np.float32(anatomy.right.base))
        root: Field = np.sqrt(np.clip(self.y / base, 0, 1.02)).astype(np.float32)
        # both lungs through one table: the left one is shifted along the axis
        axis = np.concatenate([_FINE, _FINE + 2])
        root = root + np.float32(2) * self.is_left
        spline = _spline()

        def border(right: tuple[float, ...], left: tuple[float, ...]) -> Field:
            values = np.concatenate([spline @ np.array(right), spline @ np.array(left)])
            distance: Field = np.interp(root, axis, values).astype(np.float32)
            return distance

        self.lateral = border(anatomy.right.lateral, anatomy.left.lateral)
        self.medial = border(anatomy.right.medial, anatomy.left.medial)
        #: 0 at the medial, 1 at the lateral border of the lung, beyond that outside.
        self.across: Field = (self.distance - self.medial) / np.maximum(self.lateral - self.medial, np.float32(0.05))
        outward = self.distance * np.float32(2.0) - np.float32(1.0)
        curve = outward * outward * np.where(outward > 0, np.float32(1), np.float32(0.25))
        dome = np.where(self.is_left, np.float32(anatomy.left.dome), np.float32(anatomy.right.dome))
        self.floor: Field = base - dome * (1 - curve)

    def with_heart(self, ratio: float) -> "Chest":
        """The same patient with another cardiothoracic ratio; everything that is not heart or lung is shared."""
        other = copy(self)
        other.anatomy = self.anatomy.enlarged(ratio)
        for name in ("heart", "_open", "air"):
            other.__dict__.pop(name, None)
        return other

    @cached_property
    def solid(self) -> Field:
        """Density of soft tissue, column and bones: all that neither breathes nor beats."""
        return self.body + self.centre + self.bones

    @cached_property
    def lungs(self) -> Field:
        """0..1, both lung fields including what the heart hides."""
        inside = np.minimum(self.lateral - self.distance, self.distance - self.medial)
        inside = np.minimum(np.minimum(inside, self.floor - self.y), self.y)
        return ramp(inside, EDGE)

    def heart_field(self, ratio: float | None = None) -> Field:
        """0..1, heart silhouette with a cardiothoracic ratio of ``ratio`` (default: the patient's own)."""
        x0, y0, long, short, tilt = self.anatomy.heart_ellipse(ratio)
        c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dy = self.x - np.float32(x0), self.y - np.float32(y0)
        a, b = (c * dx + s * dy) / np.float32(long), (-s * dx + c * dy) / np.float32(short)
        return ramp((1 - np.sqrt(a * a + b * b)) * np.float32(short), 0.03)

    @cached_property
    def heart(self) -> Field:
        """0..1, heart silhouette of the patient as rendered."""
        return self.heart_field()

    @cached_property
    def mediastinum(self) -> Field:
        """0..1, great vessels: aortic knob on the left, outflow tract and vena cava above the heart."""
        h = np.float32(self.anatomy.height)
        knob = ramp(0.17 - np.hypot(self.x - 0.14, self.y - 0.34 * h), 0.03)
        tract = ramp(1 - np.hypot((self.x - 0.08) / 0.27, (self.y - 0.54 * h) / (0.24 * h)), 0.12)
        return np.maximum(knob, tract)

    @cached_property
    def _open(self) -> Field:
        return self.lungs * (1 - self.heart) * (1 - self.mediastinum)

    def visible(self, side: Side) -> Field:
        """0..1, lung of ``side`` that neither heart nor mediastinum hides."""
        seen: Field = self._open * (self.is_left if side == "left" else ~self.is_left)
        return seen

    @cached_property
    def air(self) -> Field:
        """Thickness of air along the ray, about 0..1: deepest in the middle of each lung, more at the bases."""
        u = np.clip(self.across, 0, 1)
        depth = 0.62 + 0.38 * np.sqrt(np.maximum(4 * u * (1 - u), 0))
        thickness: Field = self._open * depth * np.clip(0.80 + 0.28 * self.y, 0.75, 1.1)
        return thickness

    @cached_property
    def body(self) -> Field:
        """Soft tissue: thickness of the trunk, shoulders, neck, breasts, abdomen with stomach bubble."""
        anatomy = self.anatomy
        half = np.interp(self.y - anatomy.shoulder, _BODY_Y, _BODY_D + anatomy.wall).astype(np.float32)
        inside = half - self.distance
        tissue: Field = ramp(inside, EDGE) * (0.28 + 0.26 * np.sqrt(np.clip(inside / 0.45, 0, 1)))
        # upper arms beside the trunk, further out when the patient holds them away
        arm = np.float32(0.21) - np.abs(self.distance - np.float32(1.34 + anatomy.wall) - 0.16 * (self.y - 0.3))
        arm = ramp(np.minimum(arm, self.y - np.float32(0.1 + anatomy.shoulder)), EDGE)
        tissue = np.maximum(tissue, arm * np.float32(0.44))
        below = ramp(self.y - self.floor, EDGE * 1.5) * ramp(inside - 0.04, 0.08)
        abdomen = 0.12 + 0.08 * np.clip(self.y - self.floor, 0, 1)
        size, place = anatomy.bubble
        if size:
            top = anatomy.left.base - anatomy.left.dome
            gas = ramp(1 - np.hypot((self.x - place) / (1.6 * size), (self.y - top - 0.06 - size) / size), 0.3)
            abdomen = abdomen - 0.25 * gas
        tissue += below * abdomen
        if anatomy.breast:
            for s in (-1, 1):
                r = np.hypot((self.x - s * 0.62) / 0.45, (self.y - 0.72 * anatomy.height) / (0.24 * anatomy.height))
                tissue += np.float32(0.09 * anatomy.breast) * ramp(1 - r, 0.35)
        return tissue

    @cached_property
    def centre(self) -> Field:
        """Mediastinum, spine and trachea: the bright column in the middle with its dark airway."""
        anatomy = self.anatomy
        curve, contrast = anatomy.spine
        x = self.x - np.float32(curve) * np.sin(1.6 * self.y)
        spine = ramp(0.155 - np.abs(x), 0.03)
        discs = np.cos(self.y * np.float32(2 * np.pi / 0.195) + np.float32(anatomy.ribs[1] * 6))
        column = spine * (0.085 + np.float32(0.024 * contrast) * discs + 0.02 * np.cos(x * 20) ** 2)
        # soft tissue between the lungs, thinner above the arch
        width = ramp(0.30 - self.distance, 0.16) * (0.09 + 0.05 * np.clip(self.y, -0.3, 1))
        airway = ramp(0.07 - np.abs(x - 0.01), 0.025) * ramp(0.44 * anatomy.height - self.y, 0.1)
        middle: Field = column + width - 0.13 * airway
        return middle

    @cached_property
    def bones(self) -> Field:
        """Ribs (behind and in front), clavicles, scapulae and heads of the humeri."""
        anatomy = self.anatomy
        d, y = self.distance, self.y
        spacing, phase, contrast = anatomy.ribs
        wall = self.lateral + np.float32(0.07)
        cage = ramp(wall - d, 0.03) * ramp(y + 0.05, 0.04) * np.clip(1 - 2.5 * (y - self.floor), 0.15, 1)
        # one phase field draws all ribs of a layer: whole numbers are their centre lines
        outer = np.maximum(d - 0.62, 0)
        behind = (y + 0.10 * np.cos(2.6 * d) - 0.12 * d - 1.1 * outer * outer) / np.float32(spacing) + phase
        front = (y - 0.55 * (1.05 - d)) / np.float32(spacing * 1.25) - 0.6 * phase
        posterior = self._rib(behind, 0.20) * ramp(d - 0.12, 0.05)
        anterior = self._rib(front, 0.20) * ramp(d - 0.42, 0.14) * ramp(y - 0.22, 0.05)
        bone = cage * (np.float32(0.085 * contrast) * posterior + np.float32(0.05 * contrast) * anterior)
        level, rise = anatomy.clavicle
        line = level - np.float32(rise) * (d - 0.1) - 0.06 * np.sin(np.clip(d - 0.1, 0, 1.1) * 5)
        clavicle = ramp(0.045 - np.abs(y - line), 0.018) * ramp(d - 0.10, 0.03) * ramp(1.12 - d, 0.04)
        bone += 0.10 * clavicle
        inner = 0.86 if anatomy.view == "AP" else 1.03  # arms down in AP: the scapulae overlie the lungs
        blade = np.abs((d - inner) - 0.28 * (y - 0.35) ** 2)
        bone += 0.05 * ramp(0.03 - blade, 0.02) * ramp(0.5 - np.abs(y - 0.45), 0.08)
        bone += 0.10 * ramp(0.15 - np.hypot(d - 1.28, y - 0.12 - anatomy.shoulder), 0.03)
        return bone

    @staticmethod
    def _rib(phase: Field, half: float) -> Field:
        """Profile across a rib, brighter at its cortical edges."""
        offset = np.abs(phase - np.round(phase))
        return ramp(half - offset, 0.06) * (0.55 + 0.45 * np.minimum((offset / half) ** 2, 1))

    @cached_property
    def vessels(self) -> Field:
        """0..1, pulmonary vessels branching out of the hila, thinning towards the periphery."""
        rng = generator(*self.seed, "vessels")
        over = 4 if self.resolution <= 256 else 2
        canvas = Image.new("L", (self.resolution * over,) * 2)
        draw = ImageDraw.Draw(canvas)
        unit = self.anatomy.scale * self.resolution * over  # pixels of the canvas per body unit
        for side in SIDES:
            for points, width in reversed(self._tree(rng, side)):
                pixels = max(1, round(width * unit))
                tone = int(min(255, 50 + 205 * min(1.0, width / 0.05)))
                lines = self.anatomy.to_image(points) * (self.resolution * over)
                for line in lines.reshape(-1, 4).tolist():
                    draw.line(line, fill=tone, width=pixels)
        small = canvas.reduce(over)
        return np.asarray(small, np.float32) / np.float32(255)

    def _tree(self, rng: np.random.Generator, side: Side) -> list[tuple[NDArray[np.float64], float]]:
        """Generations of branches: ``(ends (n, 2, 2) in body units, width)``, from the hilum outwards."""
        height = self.anatomy.lung(side).base
        hilum = np.array([0.20, self.anatomy.hilum * height + (0.03 if side == "right" else -0.02)])
        count = 8
        angle = np.linspace(-1.3, 1.45, count) + rng.normal(0, 0.12, count)
        start = hilum + rng.normal(0, 0.03, (count, 2))
        mirror = np.array([sign(side), 1.0])
        generations = []
        for width, length in ((0.046, 0.24), (0.030, 0.22), (0.020, 0.20), (0.013, 0.2)):
            n = len(angle)
            reach = length * rng.uniform(0.6, 1.3, n) * (1 + 0.4 * np.abs(np.sin(angle)))
            stop = start + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]
            generations.append((np.stack([start * mirror, stop * mirror], axis=1), width))
            spread = rng.uniform(0.2, 0.7, n)
            fork = rng.uniform(size=n) < (0.7 if n < 20 else 0.4)
            turn = rng.choice(np.array([-1.0, 1.0]), n)
            angle = np.concatenate([angle - spread * turn * 0.5, (angle + spread * turn)[fork]])
            start = np.concatenate([stop, stop[fork]])
        return generations

    @cached_property
    def texture(self) -> Field:
        """Unit noise with the falling spectrum of tissue, the same for every rendering of this patient."""
        return octaves(generator(*self.seed, "texture"), self.resolution, (5, 10, 20, 40), 0.62)
