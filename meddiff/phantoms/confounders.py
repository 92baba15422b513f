"""Things in the picture that are no finding but travel with one: tube, marker, pacemaker, text label, site frame.

Each is drawn as a coverage (0..1, H x W); its mask is where the coverage (letters: of their plate) passes a quarter.
Tubes and pacemakers are in the beam, so they add density and are blurred and noisy like the rest; markers, text and
the site's frame are put on the finished picture. What they look like is drawn from the phantom's address and from
nothing about findings, so a confounder says no more about a finding than the dial makes it say. Source: own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import CubicSpline

from meddiff.common.draws import generator
from meddiff.phantoms.anatomy import Anatomy
from meddiff.phantoms.fields import Field

#: Confounders in the beam and the density they add; all others are overlays.
DENSITY = {"tube": 0.30, "pacemaker": 0.48}
#: Grey values (0..1) of the overlays, and of the plate that letters stand on (as burned-in annotations do).
GREY = {"marker": 0.97, "text": 0.93, "site": 0.96}
PLATE = 0.04
#: Smallest share of the picture a confounder covers, judged on one grid so that every resolution shows the same one.
SMALLEST = 0.004
JUDGED = 64
_TEXTS = ("PORTABLE", "SUPINE", "ERECT", "SEMI-ERECT", "ICU", "WARD 4", "STAT", "BEDSIDE", "UPRIGHT", "MOBILE")


class _Canvas:
    """A supersampled drawing surface in unit image coordinates."""

    def __init__(self, resolution: int) -> None:
        self.over = 4 if resolution <= 256 else 2
        self.size = resolution * self.over
        self.image = Image.new("L", (self.size, self.size))
        self.draw = ImageDraw.Draw(self.image)
        self.plate = Image.new("L", (self.size, self.size))

    def line(self, points: NDArray[np.float64], width: float) -> None:
        """A smooth line through unit coordinates (n, 2); ``width`` is a fraction of the image."""
        knots = np.arange(len(points))
        curve = CubicSpline(knots, points)(np.linspace(0, len(points) - 1, 12 * len(points)))
        flat = [(float(x), float(y)) for x, y in curve * self.size]
        self.draw.line(flat, fill=255, width=max(1, round(width * self.size)), joint="curve")

    def text(self, x: float, y: float, text: str, height: float) -> None:
        """``text`` with its upper left corner at (x, y) and letters ``height`` high, kept inside the image."""
        font = ImageFont.load_default(max(6, round(height * self.size)))
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=font, stroke_width=0)
        margin = 0.015 * self.size
        x0 = min(max(margin, x * self.size), self.size - margin - (right - left)) - left
        y0 = min(max(margin, y * self.size), self.size - margin - (bottom - top)) - top
        self.draw.text((x0, y0), text, fill=255, font=font)
        pad = 0.008 * self.size
        box = (x0 + left - pad, y0 + top - pad, x0 + right + pad, y0 + bottom + pad)
        ImageDraw.Draw(self.plate).rectangle(box, fill=255)

    def coverage(self) -> tuple[Field, Field]:
        """Coverage of what was drawn and of the plates behind letters, each (H, W)."""
        drawn, plate = (
            np.asarray(image.reduce(self.over), np.float32) / np.float32(255) for image in (self.image, self.plate)
        )
        return drawn, plate


def _tube(canvas: _Canvas, rng: np.random.Generator, anatomy: Anatomy) -> None:
    """Endotracheal or feeding tube, or a central line from either side of the neck."""
    h, kind = anatomy.height, rng.integers(3)
    wobble = rng.normal(0, 0.02, 4)
    if kind == 0:  # endotracheal: ends above the carina
        points = [(wobble[0], -0.7), (wobble[1], -0.2), (0.01, 0.15 * h), (0.02, rng.uniform(0.24, 0.36) * h)]
        width = 0.05
    elif kind == 1:  # feeding tube: through the oesophagus into the stomach
        points = [(wobble[0], -0.7), (wobble[1], 0.1 * h), (0.03, 0.45 * h), (0.06 + wobble[2], 0.85 * h)]
        points += [(0.22, 1.05 * h), (0.45, rng.uniform(1.02, 1.12) * h)]
        width = 0.036
    else:  # central line: neck or collar bone to the superior vena cava
        s = rng.choice((-1, 1))
        points = [(s * rng.uniform(0.3, 0.9), -0.3), (s * 0.35, 0.0), (s * 0.12, 0.17 * h), (-0.14, 0.32 * h)]
        points += [(-0.15, rng.uniform(0.42, 0.55) * h)]
        width = 0.036
    canvas.line(anatomy.to_image(np.array(points, float)), width * anatomy.scale)


def _pacemaker(canvas: _Canvas, rng: np.random.Generator, anatomy: Anatomy) -> None:
    """Generator under one collar bone and one or two leads into the heart."""
    h = anatomy.height
    s = 1 if rng.uniform() < 0.75 else -1
    x, y = s * rng.uniform(0.62, 0.8), rng.uniform(0.14, 0.26) * h
    w, t, turn = rng.uniform(0.12, 0.15), rng.uniform(0.10, 0.13), rng.uniform(-0.5, 0.5)
    phase = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    # a superellipse: a rounded box
    a = w * np.sign(np.cos(phase)) * np.abs(np.cos(phase)) ** 0.5
    b = t * np.sign(np.sin(phase)) * np.abs(np.sin(phase)) ** 0.5
    outline = np.stack([x + np.cos(turn) * a - np.sin(turn) * b, y + np.sin(turn) * a + np.cos(turn) * b], 1)
    canvas.draw.polygon([tuple(p) for p in (anatomy.to_image(outline) * canvas.size).tolist()], fill=255)
    for tip in ((0.28, 0.86), (-0.14, 0.66))[: int(rng.integers(1, 3))]:
        lead = [(x, y), (s * 0.42, 0.10 * h), (s * 0.08 - 0.05, 0.22 * h), (-0.13, 0.45 * h)]
        lead += [(-0.10, 0.6 * h), (tip[0] + rng.normal(0, 0.04), tip[1] * h)]
        canvas.line(anatomy.to_image(np.array(lead)), 0.03 * anatomy.scale)


def _marker(canvas: _Canvas, rng: np.random.Generator, anatomy: Anatomy) -> None:
    """Lead letter L or R in the upper corner of its side."""
    left = rng.uniform() < 0.6
    x = rng.uniform(0.84, 0.92) if left else rng.uniform(0.03, 0.10)
    canvas.text(x, rng.uniform(0.03, 0.16), "L" if left else "R", rng.uniform(0.085, 0.12))


def _text(canvas: _Canvas, rng: np.random.Generator, anatomy: Anatomy) -> None:
    """Burned-in words along one of the corners."""
    words = _TEXTS[int(rng.integers(len(_TEXTS)))]
    x = rng.uniform(0.02, 0.08) if rng.uniform() < 0.5 else rng.uniform(0.5, 0.7)
    y = rng.uniform(0.02, 0.07) if rng.uniform() < 0.5 else rng.uniform(0.88, 0.93)
    canvas.text(x, y, words, rng.uniform(0.055, 0.075))


def _site(canvas: _Canvas, rng: np.random.Generator, anatomy: Anatomy) -> None:
    """Frame of one site's cassette: a grey border with notches at regular distances, thicker on two sides."""
    n = canvas.size
    thin, thick = round(0.014 * n), round(rng.uniform(0.03, 0.045) * n)
    canvas.draw.rectangle((0, 0, n, thick), fill=255)
    canvas.draw.rectangle((0, n - thin, n, n), fill=255)
    canvas.draw.rectangle((0, 0, thick, n), fill=255)
    canvas.draw.rectangle((n - thin, 0, n, n), fill=255)
    for k in range(1, 8):
        at = k * n // 8
        canvas.draw.line((at, thick, at, thick + round(0.02 * n)), fill=255, width=max(1, round(0.012 * n)))


_DRAW: dict[str, Callable[[_Canvas, np.random.Generator, Anatomy], None]] = {
    "tube": _tube,
    "pacemaker": _pacemaker,
    "marker": _marker,
    "text": _text,
    "site": _site,
}


@dataclass
class Overlay:
    """One confounder in one picture: ``cover`` and ``plate`` 0..1 (H, W), ``mask`` bool (H, W)."""

    name: str
    cover: Field
    plate: Field

    @property
    def mask(self) -> NDArray[np.bool_]:
        return np.maximum(self.cover, self.plate) > 0.25

    def add_density(self, density: Field) -> None:
        """Put a thing in the beam into the density, in place; nothing for overlays."""
        if self.name in DENSITY:
            density += np.float32(DENSITY[self.name]) * self.cover

    def paint(self, grey: Field) -> None:
        """Put an overlay onto grey values 0..1, in place; nothing for things in the beam."""
        if self.name in GREY:
            grey += self.plate * (np.float32(PLATE) - grey)
            grey += self.cover * (np.float32(GREY[self.name]) - grey)


def overlay(name: str, anatomy: Anatomy, address: tuple[object, ...], resolution: int) -> Overlay:
    """Confounder ``name`` (one of ``options.CONFOUNDERS``) of the phantom at ``address``.

    Framing can cut off the neck or a shoulder; what would lie outside the picture is drawn again elsewhere.
    """
    for attempt in range(12):
        canvas = _Canvas(JUDGED)
        _DRAW[name](canvas, generator(*address, "confounder", name, attempt), anatomy)
        if Overlay(name, *canvas.coverage()).mask.mean() >= SMALLEST:
            break
    canvas = _Canvas(resolution)
    _DRAW[name](canvas, generator(*address, "confounder", name, attempt), anatomy)
    return Overlay(name, *canvas.coverage())
