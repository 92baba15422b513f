"""The charts of the report: the trade-off, its parts over training, the loss, classes beside the prior. Source: own."""

import math
from collections.abc import Sequence

from meddiff.reports.page.derived import ClassRow
from meddiff.reports.page.svg import Plot, element, limits, nice_step, text_width, tick_text
from meddiff.reports.page.wording import compact, count_text, esc, label, short_label, value_text
from meddiff.runs.folder import Evaluation, Run
from meddiff.runs.values import number

#: evaluations labelled with their number of images, besides the first and the last
LABELS = 5
#: points a curve of the loss is reduced to
LOSS_POINTS = 240
LOG_RATIO = 8.0
#: with more runs, or longer names, colours and the legend stand for the names
NAMED_RUNS, NAMED_LENGTH = 3, 26
#: px between starting points that count as one
NEAR = 28.0


def _tip(run: Run, evaluation: Evaluation, keys: Sequence[str]) -> str:
    lines = [f"{run.name}: {count_text(evaluation.images)} images, step {count_text(evaluation.step)}"]
    lines += [f"{label(key)}: {value_text(evaluation.values[key])}" for key in keys if key in evaluation.values]
    return "\n".join(lines)


def common_controls(runs: Sequence[Run], *names: str) -> list[tuple[float, int | None]]:
    """A control's value for each run; once, without a run, if all that have it agree."""
    found = [(value, position) for position, run in enumerate(runs) if (value := run.control(*names)) is not None]
    if found and all(math.isclose(value, found[0][0], rel_tol=1e-6) for value, _ in found):
        return [(found[0][0], None)]
    return list(found)


def _control_text(name: str, runs: Sequence[Run], run: int | None, value: float) -> str:
    return f"{name} {value_text(value)}" if run is None else f"{name} {value_text(value)} ({runs[run].name})"


def tradeoff(runs: Sequence[Run], quality: str, grounding: str, n_images: str, n_phrases: str) -> str | None:
    """The path of every run from step 0: grounding upwards, image quality to the right; None without such points.

    Args:
        runs: to overlay.
        quality: key of the horizontal axis, a distance (less is better).
        grounding: key of the vertical axis.
        n_images: N of the distance, for the axis.
        n_phrases: N of the grounding metric.
    """
    paths = [[e for e in run.evaluations if quality in e.values and grounding in e.values] for run in runs]
    points = [(e.values[quality], e.values[grounding]) for path in paths for e in path]
    if not points:
        return None
    extractor = quality.removeprefix("fidelity/")
    real = common_controls(runs, "fidelity", extractor, "real_vs_real")
    distances = [a for a, _ in points]
    everything = [*distances, *(value for value, _ in real)]
    log = min(everything) > 0 and max(everything) / min(everything) > LOG_RATIO
    prior = common_controls(runs, "grounding", "prior", grounding.removeprefix("grounding/"))
    heights = [b for _, b in points] + [value for value, _ in prior]
    plot = Plot(
        860,
        460,
        limits(distances, [value for value, _ in real], log, pad=0.09),
        limits(heights, [0.0]),
        f"{label(quality)}{n_images}{', log scale' if log else ''}; better images →",
        f"{label(grounding)}{n_phrases}; better grounding →",
        f"{label(grounding)} against {label(quality)} over training: " + _summary(runs, paths, quality, grounding),
        x_log=log,
        reverse_x=True,
    )
    for value, whose in prior:
        plot.across(value, _control_text("location prior", runs, whose, value), whose)
    for value, whose in real:
        plot.upright(value, _control_text("real against real", runs, whose, value), whose)
    starts: list[tuple[float, float]] = []
    for position, (run, path) in enumerate(zip(runs, paths, strict=True)):
        at = [(e.values[quality], e.values[grounding]) for e in path]
        plot.line(at, "line", position)
        every = max(1, math.ceil((len(path) - 1) / (LABELS + 1)))
        for place, (evaluation, point) in enumerate(zip(path, at, strict=True)):
            first, last = place == 0, place == len(path) - 1
            kind = "start" if first else "end" if last else ""
            plot.mark(point, position, _tip(run, evaluation, (grounding, quality)), kind, _size(path, first or last))
            if first:
                # Runs that start from the same weights need the word once.
                pixel = plot.x(point[0]), plot.y(point[1])
                if all(math.dist(pixel, other) > NEAR for other in starts):
                    text = "step 0" if evaluation.images == 0 else compact(evaluation.images)
                    plot.label(point, text, f"r{position}", 0)
                starts.append(pixel)
            elif last:
                plot.label(point, _end_text(runs, run, evaluation.images), f"strong r{position}", 0)
            elif place % every == 0 and len(runs) <= NAMED_RUNS:
                plot.label(point, compact(evaluation.images), f"r{position}")
    return plot.svg()


def _size(path: Sequence[Evaluation], end: bool = False) -> float:
    """Of a point: smaller where there are many."""
    return 6.5 if end else 4.5 if len(path) <= 40 else 2.6


def _end_text(runs: Sequence[Run], run: Run, images: int) -> str:
    """A path's end: the number of images, and the run's name where that helps and fits."""
    text = f"{compact(images)} images"
    return f"{run.name}, {text}" if 1 < len(runs) <= NAMED_RUNS and len(run.name) <= NAMED_LENGTH else text


def _summary(runs: Sequence[Run], paths: Sequence[Sequence[Evaluation]], x: str, y: str) -> str:
    parts = []
    for run, path in zip(runs, paths, strict=True):
        if path:
            first, last = path[0].values, path[-1].values
            start, end = (f"{value_text(point[y])} at {value_text(point[x])}" for point in (first, last))
            parts.append(f"{run.name} from {start} to {end}")
    return "; ".join(parts)


def over_training(runs: Sequence[Run], key: str, control: Sequence[str], control_name: str, n: str) -> str | None:
    """One metric against images trained on, with its control; None if no run has it."""
    series = [run.series(key) for run in runs]
    values = [value for one in series for _, value in one]
    if not values:
        return None
    controls = common_controls(runs, *control)
    images = [float(e.images) for one in series for e, _ in one]
    reach = [*values, *(value for value, _ in controls)]
    log = key.startswith("fidelity/") and min(reach) > 0 and max(reach) / min(reach) > LOG_RATIO
    base = [] if log else [0.5 if key.endswith("auroc") else 0.0]
    plot = Plot(
        540,
        290,
        limits(images, [0.0, _planned(runs)] if max(images) == 0 else [0.0]),
        limits(reach, base, log),
        "training images",
        f"{short_label(key)}{n}{', log' if log else ''}",
        f"{label(key)} over training, last value {value_text(values[-1])}",
        y_log=log,
        x_text=compact,
    )
    for value, whose in controls:
        plot.across(value, _control_text(control_name, runs, whose, value), whose)
    for position, (run, one) in enumerate(zip(runs, series, strict=True)):
        plot.line([(e.images, value) for e, value in one], "line", position)
        for e, value in one:
            plot.mark((e.images, value), position, _tip(run, e, (key,)), size=_size([e for e, _ in one]))
        if one:
            plot.label((one[-1][0].images, one[-1][1]), value_text(one[-1][1]), f"strong r{position}", 0)
    return plot.svg()


def _planned(runs: Sequence[Run]) -> float:
    """Images the longest run will train on, as far as its configuration tells."""
    wanted = [(number(run.setting("trainer", "max_steps")) or 0) * (run.images_per_step or 0) for run in runs]
    return max([*wanted, 1000.0])


def _reduced(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of equally long stretches, LOSS_POINTS at most."""
    size = math.ceil(len(points) / LOSS_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[p] for p in points]
    return [(sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part)) for part in parts]


def loss(runs: Sequence[Run]) -> tuple[str, int] | None:
    """Training (line) and validation loss (points) against images, and how many logged values a point averages."""
    train, val = [run.logged("train/loss") for run in runs], [run.logged("val/loss") for run in runs]
    size = max((math.ceil(len(one) / LOSS_POINTS) for one in train), default=1)
    curves = [_reduced(one) for one in train]
    values = [b for one in [*curves, *val] for _, b in one]
    if not values:
        return None
    log = min(values) > 0 and max(values) / min(values) > 4
    known = all(run.images_per_step for run in runs if run.rows)
    plot = Plot(
        1120,
        300,
        limits([a for one in [*curves, *val] for a, _ in one], [0.0], pad=0.02),
        limits(values, log=log),
        "training images" if known else "training steps",
        f"loss{', log scale' if log else ''}",
        f"training and validation loss, last value {value_text(values[-1])}",
        y_log=log,
        x_text=compact,
        right=118,
    )
    for position, run in enumerate(runs):
        plot.line(curves[position], "line thin", position)
        plot.line(val[position], "line dashed", position)
        for a, b in val[position]:
            plot.mark((a, b), position, f"{run.name}: {count_text(a)} images\nvalidation loss: {value_text(b)}", size=4)
        for points, what in ((curves[position], "train"), (val[position], "validation")):
            if points:
                plot.beside(points[-1], f"{what} {value_text(points[-1][1])}", f"r{position}")
    return plot.svg(), max(1, size)


def class_bars(runs: Sequence[Run], classes: Sequence[tuple[str, Sequence[ClassRow | None]]]) -> str:
    """A bar a run for the CNR of every class, whiskers for its 95 % interval, a tick for the location prior."""
    bar, gap = 13, 16
    rows = [row for _, of_runs in classes for row in of_runs if row is not None]
    reach = [v for row in rows for v in (row.value, row.low, row.high, row.prior) if v is not None]
    low, high = limits(reach, [0.0], pad=0.05)
    left = max(text_width(f"{name}  N 0000") for name, _ in classes) + 14
    width, block = 860, len(runs) * (bar + 3)
    height = len(classes) * (block + gap) + 44

    def x(value: float) -> float:
        return left + (width - 24 - left) * (value - low) / (high - low)

    parts, bottom = [], height - 38
    step = nice_step((high - low) / 7)
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        at = x(i * step)
        parts.append(f'<line class="{"axis" if i == 0 else "grid"}" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{tick_text(round(i * step, 12))}</text>'
        )
    for place, (name, of_runs) in enumerate(classes):
        top = 10 + place * (block + gap)
        n = max((row.n for row in of_runs if row is not None), default=0)
        count = f' <tspan class="tick">N {n}</tspan>' if n else ""
        parts.append(
            f'<text class="label" x="{left - 12:.1f}" y="{top + block / 2 + 3:.1f}" text-anchor="end">{esc(name)}{count}</text>'
        )
        for position, row in enumerate(of_runs):
            if row is None or row.value is None:
                continue
            at, zero = x(row.value), x(0.0)
            y = top + position * (bar + 3)
            parts.append(
                f'<rect class="bar r{position}" x="{min(at, zero):.1f}" y="{y}" width="{max(1.0, abs(at - zero)):.1f}" '
                f'height="{bar}" rx="2">'
                f"<title>{esc(row.tip(name, runs[position].name))}</title></rect>"
            )
            if row.low is not None and row.high is not None:
                mid = y + bar / 2
                parts.append(f'<path class="whisker r{position}" d="M{x(row.low):.1f} {mid}H{x(row.high):.1f}"/>')
            if row.prior is not None:
                parts.append(f'<path class="prior r{position}" d="M{x(row.prior):.1f} {y - 3}V{y + bar + 3}"/>')
    middle = f'x="{(left + width - 24) / 2:.1f}" y="{height - 4}" text-anchor="middle"'
    parts.append(f'<text class="title" {middle}>CNR, no unit; more is better →</text>')
    return element(width, height, "CNR of every class", parts)
