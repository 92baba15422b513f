"""Small inline SVG charts: scales, axes, labels that do not overlap. No dependency, no script. Source: own.

Colours come from the page (CSS classes), so one drawing serves light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from meddiff.reports.page.wording import MINUS, esc

FONT = 12.0
#: bold text is this much wider
BOLD = 1.1
SHAPES = 4

Rect = tuple[float, float, float, float]  # left, top, right, bottom
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Values ``low``..``high`` onto pixels ``start``..``end``; ``start > end`` turns it round."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, number: int = 5) -> list[float]:
        """Round values inside, about ``number`` of them."""
        if self.log:
            found: list[float] = []
            for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
                powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                found = [m * 10.0**p for p in powers for m in steps if self.low <= m * 10.0**p <= self.high]
                if len(found) >= min(number, 4):
                    return found
            if len(found) >= 2:
                return found
        step = nice_step((self.high - self.low) / max(1, number))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def nice_step(size: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= size * 0.999)


def limits(values: Sequence[float], include: Sequence[float] = (), log: bool = False, pad: float = 0.07) -> Point:
    """The range of an axis: all values, ``include`` too, and a margin (none below an included lowest value)."""
    every = [*values, *include] or [0.0, 1.0]
    low, high = min(every), max(every)
    if log:
        ratio = (high / low) ** pad if high > low else 1.3
        return low / ratio, high * ratio
    margin = (high - low) * pad or max(abs(high) * 0.1, 0.1)
    floor = low if low in include and low < high else low - margin
    return floor, high + margin


def tick_text(value: float) -> str:
    """0.25, 1,000, 0.0005: as short as it is exact."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", MINUS)


def text_width(text: str, size: float = FONT) -> float:
    """An upper estimate for the page's sans-serif fonts."""
    return size * sum(0.32 if c in " ,.:;|il'·" else 0.6 if not c.isupper() else 0.7 for c in text)


def element(width: int, height: int, describe: str, parts: Sequence[str]) -> str:
    """A chart of finished parts, with a description for readers who cannot see it."""
    start = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{esc(describe)}">'
    return start + "".join(parts) + "</svg>"


def _overlap(a: Rect, b: Rect) -> float:
    if a[2] <= b[0] or b[2] <= a[0]:
        return 0.0
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


class Plot:
    """One chart.

    Args:
        width: in px of the view box.
        height: the same.
        x: its range; pixels are set here.
        y: the same.
        describe: what the chart shows, for readers who cannot see it.
        right: px left free for labels that stand beside the ends of curves.
    """

    def __init__(
        self,
        width: int,
        height: int,
        x: Point,
        y: Point,
        x_title: str,
        y_title: str,
        describe: str,
        x_log: bool = False,
        y_log: bool = False,
        reverse_x: bool = False,
        x_text: Callable[[float], str] = tick_text,
        right: float = 16.0,
    ) -> None:
        self.width, self.height = width, height
        heights = Scale(*y, height - 46.0, 14.0, log=y_log)
        texts = [tick_text(value) for value in heights.ticks(max(3, int((height - 60) / 48)))]
        frame = (34.0 + max(map(text_width, texts), default=24.0), 14.0, width - right, height - 46.0)
        self.frame: Rect = frame
        ends = (frame[2], frame[0]) if reverse_x else (frame[0], frame[2])
        self.x, self.y = Scale(*x, *ends, log=x_log), heights
        self.describe = describe
        self._grid: list[str] = []
        self._marks: list[str] = []
        self._tops: list[str] = []
        self._labels: list[tuple[int, str, str, list[Point]]] = []
        self._solid: list[Rect] = []
        self._soft: list[Rect] = []
        self._axes(x_title, y_title, x_text)

    def _axes(self, x_title: str, y_title: str, x_text: Callable[[float], str]) -> None:
        left, top, right, bottom = self.frame
        for value in self.y.ticks(max(3, int((bottom - top) / 48))):
            at = self.y(value)
            kind = "zero" if value == 0 else "grid"
            self._grid.append(f'<line class="{kind}" x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self._grid.append(
                f'<text class="tick" x="{left - 8:.1f}" y="{at + 4:.1f}" text-anchor="end">{tick_text(value)}</text>'
            )
        for value in self.x.ticks(max(3, int((right - left) / 90))):
            at = self.x(value)
            self._grid.append(
                f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>'
            )
            self._grid.append(
                f'<text class="tick" x="{at:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{x_text(value)}</text>'
            )
        self._grid.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (top + bottom) / 2
        self._grid.append(
            f'<text class="title" x="{(left + right) / 2:.1f}" y="{self.height - 8}" text-anchor="middle">{esc(x_title)}</text>'
            f'<text class="title" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">{esc(y_title)}</text>'
        )

    def line(self, points: Sequence[Point], kind: str, run: int) -> None:
        """A path through values."""
        at = [(self.x(a), self.y(b)) for a, b in points]
        if len(at) > 1:
            path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
            self._marks.append(f'<path class="{kind} r{run}" d="{path}"/>')
        for (x0, y0), (x1, y1) in pairwise(at):
            pieces = max(1, int(math.hypot(x1 - x0, y1 - y0) / 8)) if len(at) < 60 else 1
            for piece in range(pieces):
                a, b = x0 + (x1 - x0) * piece / pieces, y0 + (y1 - y0) * piece / pieces
                self._soft.append((a - 3, b - 3, a + 3, b + 3))

    def mark(self, value: Point, run: int, tip: str, kind: str = "", size: float = 4.5) -> None:
        """A point with a tooltip; the shape tells runs apart as well as the colour does."""
        a, b = self.x(value[0]), self.y(value[1])
        attributes = f'class="mark {kind} r{run}"'
        inside = f"<title>{esc(tip)}</title>"
        shape = run % SHAPES
        if shape == 0:
            drawn = f'<circle {attributes} cx="{a:.1f}" cy="{b:.1f}" r="{size}">{inside}</circle>'
        else:
            s = size * 1.15
            corners = {
                1: ((-s, -s), (s, -s), (s, s), (-s, s)),
                2: ((0, -s * 1.3), (s * 1.3, 0), (0, s * 1.3), (-s * 1.3, 0)),
                3: ((0, -s * 1.25), (s * 1.2, s * 0.9), (-s * 1.2, s * 0.9)),
            }[shape]
            text = " ".join(f"{a + dx:.1f},{b + dy:.1f}" for dx, dy in corners)
            drawn = f'<polygon {attributes} points="{text}">{inside}</polygon>'
        self._tops.append(drawn)
        self._solid.append((a - size - 1, b - size - 1, a + size + 1, b + size + 1))

    def label(self, value: Point, text: str, kind: str = "", rank: int = 1) -> None:
        """Text beside a point; of rank 0 it is always drawn, else left out where there is no room."""
        a, b = self.x(value[0]), self.y(value[1])
        w, near = text_width(text) * (BOLD if "strong" in kind else 1.0), 9.0
        places = [(a + near, b + 4), (a - near - w, b + 4), (a - w / 2, b - near), (a - w / 2, b + near + 9)]
        places += [(a + 6, b - 8), (a + 6, b + 17), (a - 6 - w, b - 8), (a - 6 - w, b + 17)]
        if rank == 0:
            places += [
                (a - w / 2, b - near - 16),
                (a - w / 2, b + near + 25),
                (a + near + 14, b - 20),
                (a - near - 14 - w, b - 20),
            ]
        self._labels.append((rank, text, f"label {kind}", places))

    def beside(self, value: Point, text: str, kind: str = "") -> None:
        """Text in the free margin to the right of a curve's end, moved up or down where others stand."""
        b = self.y(value[1])
        places = [(self.frame[2] + 6, b + 4 + dy) for n in range(8) for dy in ((14 * n, -14 * n) if n else (0,))]
        self._labels.append((0, text, f"label {kind}", places))

    def across(self, value: float, text: str, run: int | None = None) -> None:
        """A dashed horizontal line with its name."""
        at, (left, _, right, _) = self.y(value), self.frame
        self._reference(f'x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"', text, run)
        w = text_width(text)
        starts = [left + 6, right - 4 - w, (left + right - w) / 2, left + (right - left - w) / 4]
        self._labels.append((-1, text, self._kind(run), [(s, at + dy) for dy in (-5, 14) for s in starts]))

    def upright(self, value: float, text: str, run: int | None = None) -> None:
        """A dashed vertical line with its name."""
        at, (_, top, _, bottom) = self.x(value), self.frame
        self._reference(f'x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"', text, run)
        w = text_width(text)
        heights = [bottom - 8, top + 12, bottom - 24, top + 28, (top + bottom) / 2]
        self._labels.append((-1, text, self._kind(run), [(s, h) for h in heights for s in (at - w - 6, at + 6)]))

    @staticmethod
    def _kind(run: int | None) -> str:
        return "label ref" if run is None else f"label ref r{run}"

    def _reference(self, ends: str, text: str, run: int | None) -> None:
        extra = "" if run is None else f" r{run}"
        self._grid.append(f'<line class="ref{extra}" {ends}><title>{esc(text)}</title></line>')

    def _place(self) -> list[str]:
        drawn, taken = [], list(self._solid)
        for rank, text, kind, places in sorted(self._labels, key=lambda item: item[0]):
            w, best = text_width(text) * (BOLD if "strong" in kind else 1.0), None
            for order, (a, b) in enumerate(places):
                box = (a, b - 11, a + w, b + 3)
                left, top, right, bottom = self.frame
                outside = (
                    max(0.0, left - box[0])
                    + max(0.0, box[2] - max(right, self.width - 12))
                    + max(0.0, top - 4 - box[1])
                )
                outside += max(0.0, box[3] - bottom)
                hard = sum(_overlap(box, other) for other in taken) + 40 * outside
                soft = sum(_overlap(box, other) for other in self._soft)
                cost = 10 * hard + soft + order
                if best is None or cost < best[0]:
                    best = (cost, hard, (a, b), box)
            if best is None or (rank > 0 and best[1] > 0):
                continue
            _, _, (a, b), box = best
            a = min(max(a, 2.0), self.width - 2.0 - w)
            taken.append(box)
            drawn.append(f'<text class="{kind}" x="{a:.1f}" y="{b:.1f}">{esc(text)}</text>')
        return drawn

    def svg(self) -> str:
        """The chart as an element."""
        inside = [*self._grid, *self._marks, *self._tops, *self._place()]
        return element(self.width, self.height, self.describe, inside)
