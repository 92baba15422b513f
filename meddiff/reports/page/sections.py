"""What the templates ask about the runs: counts, controls, differences, commands. Nothing here is HTML. Source: own."""

import os
import shlex
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from meddiff.reports.page.derived import asked_n, exclusions, fidelity_n, over_runs, phrases_n, rows_of
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import (
    CONTROLS,
    DASH,
    GAIN,
    GAINS,
    QUESTIONS,
    count_text,
    gain_name,
    parts,
    value_text,
)
from meddiff.runs import names
from meddiff.runs.folder import Run
from meddiff.runs.values import number

#: runs up to which each has columns and tables of its own
SIDE_BY_SIDE = 8
#: what is asked of pairs of things in an image, not of phrases
PAIRS = ("own_beats_other", "confounder_cnr")
#: what a row of gains has
GAIN_PARTS = ("gain", "low", "high", "cnr", "control_cnr", "n")
#: where both averages exist, the macro one and both of the CNR
GROUNDING_COLUMNS = ("macro_cnr", "cnr", "macro_auroc", "macro_top1", "macro_miou")


def one_n(counts: Iterable[int | None], unit: str) -> str:
    """``N = 500 images``: every N that occurs; that it is not recorded if none is known."""
    known = sorted({n for n in counts if n})
    return f"N = {' / '.join(f'{n:,}' for n in known)} {unit}" if known else f"N of {unit} not recorded"


def n_of(tables: Tables, key: str) -> str:
    """The N behind a name."""
    room, _, name = key.partition("/")
    if room == "fidelity":
        return one_n(map(fidelity_n, tables.found), "images")
    return one_n((asked_n(run, name) for run in tables.found), "pairs" if name in PAIRS else "phrases")


def phrases_text(tables: Tables) -> str:
    """``N = 312 phrases of 8 classes in 250 images`` of a single run, else N alone."""
    rows = [row for run in tables.found for row in run.phrases if number(row.get("cnr")) is not None]
    if len(tables.found) > 1 or not rows:
        return one_n(map(phrases_n, tables.found), "phrases")
    classes, images = (len({row.get(name) for row in rows}) for name in ("class", "key"))
    return f"N = {len(rows):,} phrases of {classes} classes in {images:,} images"


def spread(values: Sequence[float]) -> str:
    """A value if all agree, else their mean and its ends."""
    if not values:
        return DASH
    mean, low, high = over_runs(values)
    same = len(values) == 1 or high - low <= 1e-6 * abs(mean)
    return value_text(mean) if same else f"{value_text(mean)} ({value_text(low)} to {value_text(high)})"


def control(run: Run, key: str) -> tuple[str, float | None]:
    """What a headline figure must be read against: its name and value."""
    room, _, name = key.partition("/")
    if key == GAIN:
        return "without grounding", 0.0
    if room == "grounding":
        return "location prior", run.control(room, "prior", name)
    return "real against real", run.control(room, name, "real_vs_real")


def ends(tables: Tables, encoder: str, key: str) -> tuple[list[float], list[float]]:
    """First (where there is more than one) and newest values of all runs with one encoder."""
    found = [run.series(key) for who, run in zip(tables.who, tables.found, strict=True) if who.encoder == encoder]
    return [series[0][1] for series in found if len(series) > 1], [series[-1][1] for series in found if series]


def controls(tables: Tables) -> dict[str, tuple[list[str], list[tuple[str, list[list[float]]]]]]:
    """Side -> the figures that have controls, and each control with its values in all runs, a list a figure."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {"grounding": {}, "fidelity": {}}
    for row in rows_of(tables.controls):
        if isinstance(value := row["value"], float):
            found[str(row["side"])].setdefault((str(row["control"]), str(row["key"])), []).append(value)
    result = {}
    for side, cells in found.items():
        there = sorted({key for _, key in cells})
        keys = there if side == "fidelity" else [k for name in GROUNDING_COLUMNS if (k := f"grounding/{name}") in there]
        rows = [
            (CONTROLS.get(name, name.replace("_", " ")), [cells.get((name, key), []) for key in keys])
            for name in dict.fromkeys(name for name, _ in cells)
        ]
        if keys:
            result[side] = keys, [row for row in rows if any(row[1])]
    return result


def gains(run: Run) -> list[tuple[str, list[str]]]:
    """Each gain: its name; gain, 95 % interval, CNR, CNR under the control, number of askings. The least is first.

    Of ``lightning evaluate controls`` if it was measured, with all controls that the cohort has; else of the newest evaluation.
    """
    rows = []
    for name in ("least", *GAINS):
        cells = {part: run.control("grounding", "gain", name, part) for part in GAIN_PARTS}
        if cells["gain"] is not None:
            ends = interval_text(cells["low"], cells["high"])
            count = count_text(cells["n"]) if name != "least" else DASH
            texts = [value_text(cells[part]) for part in ("gain", "cnr", "control_cnr")]
            rows.append((gain_name(name), [texts[0], ends, *texts[1:], count]))
    if rows or not run.series(GAIN):
        return rows
    values = run.series(GAIN)[-1][0].values
    for name in ("least", *GAINS):
        value = values.get(GAIN if name == "least" else f"{GAIN}_{name}")
        if value is not None:
            ends = interval_text(*(values.get(f"{GAIN}_{end}") for end in ("low", "high"))) if name == "least" else DASH
            rows.append((gain_name(name), [value_text(value), ends, DASH, DASH, DASH]))
    return rows


def gain_table(tables: Tables) -> tuple[list[str], list[list[str]]]:
    """Of several runs: the names of their gains, and for each run each with its interval; no names where nobody has any."""
    found = [dict(gains(run)) for run in tables.found]
    names = list(dict.fromkeys(name for one in found for name in one))
    return names, [
        [f"{one[name][0]} {one[name][1].strip(DASH)}".strip() if name in one else DASH for name in names]
        for one in found
    ]


def gain_under_all(run: Run) -> str:
    """Grounding gain under all controls of the cohort, ``0.110 [0.02, 0.20]``; "" where it was not measured."""
    gain, low, high = (run.control("grounding", "gain", "least", part) for part in GAIN_PARTS[:3])
    return "" if gain is None else f"{value_text(gain)} {interval_text(low, high).strip(DASH)}".strip()


def gains_by_encoder(tables: Tables) -> str:
    """The same of all runs: of one run an encoder with its interval, of several the mean with its ends; "" if none was."""
    found: dict[str, list[Run]] = {}
    for who, run in zip(tables.who, tables.found, strict=True):
        if gain_under_all(run):
            found.setdefault(who.encoder, []).append(run)
    said = []
    for encoder, runs in found.items():
        values = [value for run in runs if (value := run.control("grounding", "gain", "least", "gain")) is not None]
        said.append(f"{encoder} {gain_under_all(runs[0]) if len(runs) == 1 else spread(values)}")
    return ", ".join(said).removeprefix("other ")


def interval_text(low: float | None, high: float | None) -> str:
    """``[0.02, 0.31]``, or a dash."""
    return DASH if low is None or high is None else f"[{value_text(low)}, {value_text(high)}]"


def way(run: Run, key: str) -> float | None:
    """How much of the way from the untrained model (or the first evaluation) to real against real is done, in percent."""
    series, name = run.series(key), key.partition("/")[2]
    near, far = (run.control("fidelity", name, control) for control in ("real_vs_real", "untrained"))
    far = far if far is not None else series[0][1] if len(series) > 1 else None
    return 100 * (far - series[-1][1]) / (far - near) if series and None not in (near, far) and far != near else None  # type: ignore[operator]


def own_page(run: Run, out: Path) -> str:
    """Where the run's own report lies, as seen from the page; "" if there is none."""
    page, out = (run.path / names.REPORT).resolve(), out.resolve()
    return Path(os.path.relpath(page, out.parent)).as_posix() if page.is_file() and page != out else ""


def differences(tables: Tables) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: a value a run, of many runs how many have which."""
    rows = []
    for key in tables.differing:
        values = [str(one.get(key, DASH)) for one in tables.settings]
        if len(values) > SIDE_BY_SIDE:
            counted = [f"{value} ({values.count(value)} runs)" for value in dict.fromkeys(values)]
            more = len(counted) - SIDE_BY_SIDE
            values = [", ".join(counted[:SIDE_BY_SIDE]) + (f", and {more} more values" if more > 0 else "")]
        rows += [(key, values)] if key not in ("name", "command") else []
    return rows


def asked(tables: Tables) -> list[str]:
    """What else the maps were asked: exact masks, the end token, confounders, other findings of the image."""
    found = [key for key in tables.keys if parts(key.partition("/")[2])[2] and key.count("/") == 1]
    return found + [key for name in QUESTIONS if (key := f"grounding/{name}") in tables.keys]


def left_out(tables: Tables) -> list[str]:
    """What was not grounded, and why, a sentence for all runs of which the same is true."""
    sentences: dict[str, list[str]] = {}
    for run in tables.found:
        if reasons := exclusions(run):
            why = "; ".join(f"{why} ({n:,})" for why, n in reasons)
            text = f"{sum(n for _, n in reasons):,} phrases were left out of grounding or cut: {why}."
            sentences.setdefault(text, []).append(run.name)
    if len(tables.found) == 1:
        return list(sentences)
    return [
        f"{whose[0] if len(whose) == 1 else f'{len(whose)} runs each'}: {text}" for text, whose in sentences.items()
    ]


def facts(run: Run) -> dict[str, object]:
    """The settings that matter most; templates leave out what is not known."""
    newest = run.evaluations[-1] if run.evaluations else None
    speed, mfu = (median([v for _, v in run.logged(f"throughput/{name}")]) for name in ("images_per_s", "mfu"))
    reached = f"{count_text(newest.images)} images, step {count_text(newest.step)}" if newest else "none"
    model, data = ("model", "init_args"), ("data", "init_args")
    return {
        "folder": run.path,
        "newest evaluation": reached,
        "steps wanted": run.setting("trainer", "max_steps"),
        "batch size": run.setting(*data, "batch_size"),
        "learning rate": run.setting(*model, "learning_rate"),
        "precision": run.setting("trainer", "precision"),
        "seed": run.config.get("seed_everything"),
        "data": run.setting("data", "class_path"),
        "speed": None if speed is None else f"{value_text(speed)} images/s (median)",
        "model FLOP utilisation": None if mfu is None else f"{100 * mfu:.1f} % (median)",
        "last row logged": run.updated,
    }


def command_of(run: Run) -> str:
    """The command that made the run if its config says so, else one that repeats it."""
    if run.published:
        return f"lightning evaluate all --model {shlex.quote(str(run.published.get('run')))} --shards DIR"
    command = run.config.get("command")
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command) if command else f"lightning fit -c {shlex.quote(str(run.path / names.CONFIG))}"


def median(values: Sequence[float]) -> float | None:
    """The middle value."""
    return statistics.median(values) if values else None
