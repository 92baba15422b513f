"""What stands in the sections of the page, as plain tables of text: templates lay it out, nothing here is HTML. Source: own."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meddiff.reports.page.derived import Row, Value, asked_n, exclusions, fidelity_n, over_runs, phrases_n, rows_of
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import (
    CONTROLS,
    DASH,
    MINUS,
    QUESTIONS,
    compact,
    count_text,
    direction,
    first_of,
    label,
    parts,
    value_text,
)
from meddiff.runs import names
from meddiff.runs.folder import Run
from meddiff.runs.values import number

#: runs up to which each has tables of its own
SIDE_BY_SIDE = 8
BETTER = {1: "more", -1: "less", 0: DASH}
#: what is asked of pairs of things in an image, not of phrases
PAIRS = ("own_beats_other", "confounder_cnr")
#: where both averages exist, the macro one and both of the CNR
GROUNDING_COLUMNS = ("macro_cnr", "cnr", "macro_auroc", "macro_top1", "macro_miou")


@dataclass(frozen=True)
class Cell:
    """A cell: text, the number by which its column sorts, whether it is the best or "good" or "bad", where it leads."""

    text: str
    value: float | None = None
    mood: str = ""
    href: str = ""
    encoder: str = ""


@dataclass(frozen=True)
class Table:
    """A table; a head that is a measured name becomes its label with a link to what it means."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = False


def texts(*cells: str) -> list[Cell]:
    """Cells of plain text."""
    return [Cell(cell) for cell in cells]


def figure(value: Value, digits: int | None = None, mood: str = "", sign: bool = False) -> Cell:
    """A number."""
    known = value if isinstance(value, int | float) else None
    return Cell(value_text(known, sign, digits), known, mood)


def one_n(counts: Iterable[int | None], unit: str) -> str:
    """``N = 500 images``: every N that occurs; that it is not recorded if none is known."""
    known = sorted({n for n in counts if n})
    return f"N = {' / '.join(f'{n:,}' for n in known)} {unit}" if known else f"N of {unit} not recorded"


def n_of(tables: Tables, key: str) -> str:
    """The N behind a name."""
    room, _, name = key.partition("/")
    if room == "grounding":
        return one_n([asked_n(run, name) for run in tables.found], "pairs" if name in PAIRS else "phrases")
    return one_n([fidelity_n(run) for run in tables.found], "images")


def cards(tables: Tables) -> list[dict[str, str]]:
    """Of a single run: the newest numbers, each with its control before it and its change since the first."""
    run, found = tables.found[0], []
    auroc, top1 = (
        first_of(tables.keys, (f"grounding/macro_{name}", f"grounding/{name}")) for name in ("auroc", "top1")
    )
    for key in (tables.cnr, auroc, top1, tables.distance):
        series, (room, _, name) = run.series(key), key.partition("/")
        said, where = (
            ("location prior", (room, "prior", name))
            if room == "grounding"
            else ("real against real", (room, name, "real_vs_real"))
        )
        control = run.control(*where)
        card = {"key": key, "n": n_of(tables, key), "value": DASH, "mood": "", "change": "not evaluated yet"}
        card["control"] = f"{said} {value_text(control)}" if control is not None else f"{said}: not measured"
        if series:
            (first, start), (last, value) = series[0], series[-1]
            gain = direction(key) * (value - start)
            since = "step 0" if first.images == 0 else f"{compact(first.images)} images"
            way = (
                "unchanged" if not gain else f"{'better' if gain > 0 else 'worse'} by {value_text(abs(value - start))}"
            )
            change = "first evaluation" if len(series) == 1 else f"{way} since {since} ({value_text(start)})"
            change += "" if last.images == run.evaluations[-1].images else f"; at {compact(last.images)} images"
            mood = "good" if gain > 0 else "bad" if gain < 0 else ""
            card |= {"value": value_text(value), "mood": mood, "change": change}
        found.append(card)
    return found


def leaderboard(tables: Tables, out: Path) -> Table:
    """One row a run, best values marked; a run with a page of its own is linked."""
    rows = rows_of(tables.runs)
    shown = [name for name in ("sweep", "prompt", "seed") if len({row[name] for row in rows}) > 1]
    wanted = {"cnr": 1, "best_cnr": 1, "gain": 1, "above_prior": 1, "distance": -1, "least_distance": -1}
    best = {
        name: max((v * way for row in rows if isinstance(v := row[name], float)), default=None)
        for name, way in wanted.items()
    }
    body = []
    for row, run in zip(rows, tables.found, strict=True):
        cells = [Cell(run.name, None, "", own_page(run, out), str(row["encoder"])), Cell(str(row["encoder"]))]
        cells += [Cell(str(row[name]), number(row[name])) for name in shown]
        cells.append(Cell(count_text(number(row["images"])), number(row["images"])))
        for name, way in wanted.items():
            value = row[name]
            top = isinstance(value, float) and value * way == best[name]
            signed = name in ("gain", "above_prior")
            cells.append(figure(value, 3 if way > 0 else None, "best" if top else "", signed))
        body.append(cells)
    cnr, distance = label(tables.cnr), label(tables.distance)
    head = [
        "run",
        "text encoder",
        *shown,
        "images",
        tables.cnr,
        "greatest",
        "gain",
        "above prior",
        tables.distance,
        "least",
    ]
    caption = (
        f"{cnr}: newest, greatest over training, by how much that is above the first evaluation and the location prior."
    )
    caption += f" {distance}: newest, least."
    return Table(head, body, f"{caption} {n_of(tables, tables.cnr)}, {n_of(tables, tables.distance)}.", sortable=True)


def own_page(run: Run, out: Path) -> str:
    """Where the run's own report lies, as seen from the page; "" if there is none."""
    page = run.path / names.REPORT
    return (
        Path(os.path.relpath(page.resolve(), out.resolve().parent)).as_posix()
        if page.is_file() and page.resolve() != out.resolve()
        else ""
    )


def differences(tables: Tables) -> Table | None:
    """Settings that are not the same in all runs; of many runs, how many have which value."""
    keys = [key for key in tables.differing if key not in ("name", "command")]
    if len(tables.found) <= SIDE_BY_SIDE:
        rows = [texts(key, *(str(one.get(key, DASH)) for one in tables.settings)) for key in keys]
        return Table(["setting", *(run.name for run in tables.found)], rows) if rows else None
    rows = []
    for key in keys:
        values = [str(one.get(key, DASH)) for one in tables.settings]
        counted = [f"{value} ({values.count(value)} runs)" for value in dict.fromkeys(values)]
        more = f", and {len(counted) - SIDE_BY_SIDE} more values" if len(counted) > SIDE_BY_SIDE else ""
        rows.append(texts(key, ", ".join(counted[:SIDE_BY_SIDE]) + more))
    return Table(["setting", "values"], rows) if rows else None


def _spread(values: Sequence[float]) -> str:
    """A value if all agree, else their mean and range."""
    if not values:
        return DASH
    mean, low, high = over_runs(values)
    return (
        value_text(mean)
        if len(values) == 1 or high - low <= 1e-6 * abs(mean)
        else f"{value_text(mean)} ({value_text(low)} to {value_text(high)})"
    )


def controls(tables: Tables) -> list[Table]:
    """What the figures are read against, above the figures themselves; of several runs the mean and its ends."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {"grounding": {}, "fidelity": {}}
    for row in rows_of(tables.controls):
        if isinstance(value := row["value"], float):
            found[str(row["side"])].setdefault((str(row["control"]), str(row["key"])), []).append(value)
    result = []
    for side, cells in found.items():
        wanted = (
            [f"grounding/{name}" for name in GROUNDING_COLUMNS]
            if side == "grounding"
            else sorted({key for _, key in cells})
        )
        keys = [key for key in wanted if any(one == key for _, one in cells)]
        if not keys:
            continue
        rows = [
            texts(CONTROLS.get(name, name.replace("_", " ")), *(_spread(cells.get((name, key), [])) for key in keys))
            for name in dict.fromkeys(name for name, _ in cells)
            if any((name, key) in cells for key in keys)
        ]
        for encoder in dict.fromkeys(who.encoder for who in tables.who):
            runs = [run for who, run in zip(tables.who, tables.found, strict=True) if who.encoder == encoder]
            whose = (
                "this run" if len(tables.found) == 1 else f"{encoder}, {len(runs)} run{'s' if len(runs) > 1 else ''}"
            )
            for place, said in ((0, "first evaluation"), (-1, "newest evaluation")):
                values = [
                    [run.series(key)[place][1] for run in runs if len(run.series(key)) > (place == 0)] for key in keys
                ]
                if any(values):
                    cell = [Cell(_spread(one), None, "strong" if place else "") for one in values]
                    rows.append([Cell(f"{whose}, {said}", None, "", "", encoder), *cell])
        if side == "fidelity" and len(tables.found) == 1:
            rows += _way(tables.found[0], keys)
        n = phrases_text(tables.found[0]) if side == "grounding" and len(tables.found) == 1 else n_of(tables, keys[0])
        unit = "Grounding, more is better" if side == "grounding" else "Distances to real images, less is better"
        result.append(Table([side, *keys], rows, f"{unit}. {n}."))
    return result


def _way(run: Run, keys: Sequence[str]) -> list[list[Cell]]:
    """How much of the way from the untrained model (or the first evaluation) to real against real is done."""
    cells, untrained = [], False
    for key in keys:
        series, name = run.series(key), key.partition("/")[2]
        near, far = (run.control("fidelity", name, control) for control in ("real_vs_real", "untrained"))
        untrained = untrained or far is not None
        far = far if far is not None else series[0][1] if len(series) > 1 else None
        known = series and near is not None and far is not None and far != near
        cells.append(f"{100 * (far - series[-1][1]) / (far - near):.0f} %".replace("-", MINUS) if known else DASH)  # type: ignore[operator]
    start = "the untrained model" if untrained else "the first evaluation"
    return [texts(f"share of the way from {start} to real against real", *cells)] if set(cells) != {DASH} else []


def phrases_text(run: Run) -> str:
    """``N = 312 phrases of 8 classes in 250 images``."""
    rows = [row for row in run.phrases if number(row.get("cnr")) is not None]
    if not rows:
        return one_n([phrases_n(run)], "phrases")
    classes, images = ({row.get(name) for row in rows} for name in ("class", "key"))
    return f"N = {len(rows):,} phrases of {len(classes)} classes in {len(images):,} images"


def classes(tables: Tables) -> Table:
    """Every class of every kind of run, its interval, where it began, and how far above the prior it is."""
    rows = rows_of(tables.class_means)
    arms, body = len({row["arm"] for row in rows}) > 1, []
    for row in sorted(rows, key=lambda row: (str(row["what"]), str(row["arm"]))):
        above = row["cnr"] - row["prior"] if isinstance(row["prior"], float) and isinstance(row["cnr"], float) else None
        interval = DASH if row["low"] is None else f"{figure(row['low'], 2).text} to {figure(row['high'], 2).text}"
        whose = (
            [
                Cell(
                    f"{row['arm']} ({row['runs']})" if row["runs"] != 1 else str(row["arm"]),
                    None,
                    "",
                    "",
                    str(row["encoder"]),
                )
            ]
            if arms
            else []
        )
        mood = "" if above is None else "good" if above > 0 else "bad"
        numbers = [figure(row["cnr"], 2), Cell(interval), figure(row["prior"], 2), figure(above, 2, mood, sign=True)]
        body.append([Cell(str(row["what"])), *whose, Cell(str(row["n"] or DASH), number(row["n"])), *numbers])
    head = [
        "finding",
        *(["runs"] if arms else []),
        "N phrases",
        "grounding/cnr",
        "95 % interval, or range over runs",
        "location prior",
        "above prior",
    ]
    return Table(head, body, sortable=True)


def questions(tables: Tables) -> Table | None:
    """What else the maps were asked: exact masks, the end token, confounders, other findings of the image."""
    asked = [key for key in tables.keys if parts(key.partition("/")[2])[2] and key.count("/") == 1]
    asked += [f"grounding/{name}" for name in QUESTIONS if f"grounding/{name}" in tables.keys]
    body = []
    for key in asked:
        for encoder in dict.fromkeys(who.encoder for who in tables.who):
            runs = [
                run
                for who, run in zip(tables.who, tables.found, strict=True)
                if who.encoder == encoder and run.series(key)
            ]
            if not runs:
                continue
            ends = [[run.series(key)[place][1] for run in runs] for place in (0, -1)]
            whose = [Cell(f"{encoder} ({len(runs)})", None, "", "", encoder)] if len(tables.found) > 1 else []
            n = n_of(tables, key).removeprefix("N = ") if asked_n(runs[0], key.partition("/")[2]) else DASH
            body.append([Cell(key), *whose, *texts(n, *map(_spread, ends), BETTER[direction(key)])])
    head = [
        "asked of the same maps",
        *(["runs"] if len(tables.found) > 1 else []),
        "N",
        "first evaluation",
        "newest",
        "better",
    ]
    return Table(head, body) if body else None


def left_out(tables: Tables) -> list[str]:
    """What was not grounded, and why, a sentence for all runs of which the same is true."""
    sentences: dict[str, list[str]] = {}
    for run in tables.found:
        reasons = exclusions(run)
        why = "; ".join(f"{why} ({n:,})" for why, n in reasons)
        if reasons:
            text = f"{sum(n for _, n in reasons):,} phrases were left out of grounding or cut: {why}."
            sentences.setdefault(text, []).append(run.name)
    if len(tables.found) == 1:
        return list(sentences)
    return [
        f"{whose[0] if len(whose) == 1 else f'{len(whose)} runs each'}: {text}" for text, whose in sentences.items()
    ]


def numbers(tables: Tables) -> list[Table]:
    """Every measured name at every evaluation, of runs that are few."""
    result = []
    for run in tables.found[:SIDE_BY_SIDE] if len(tables.found) <= SIDE_BY_SIDE else ():
        keys = sorted({key for evaluation in run.evaluations for key in evaluation.values})
        rows = [
            [Cell(key), Cell(BETTER[direction(key)])]
            + [Cell((count_text if key.endswith("/n") else value_text)(e.values.get(key))) for e in run.evaluations]
            for key in keys
        ]
        head = ["name", "better", *(f"{compact(e.images)} images" for e in run.evaluations)]
        result += [Table(head, rows, run.name)] if rows else []
    return result


def facts(run: Run, row: Row) -> list[tuple[str, str]]:
    """The settings that matter most, and how to run it again."""
    newest = run.evaluations[-1] if run.evaluations else None
    speed, mfu = (_median([v for _, v in run.logged(f"throughput/{name}")]) for name in ("images_per_s", "mfu"))
    found = [
        ("folder", str(run.path)),
        ("text encoder", row["encoder"] if row["encoder"] != "other" else ""),
        (
            "newest evaluation",
            f"{count_text(newest.images)} images, step {count_text(newest.step)}" if newest else "none",
        ),
        ("steps wanted", run.setting("trainer", "max_steps")),
        ("batch size", run.setting("data", "init_args", "batch_size")),
        ("learning rate", run.setting("model", "init_args", "learning_rate")),
        ("precision", run.setting("trainer", "precision")),
        ("seed", run.config.get("seed_everything")),
        ("data", run.setting("data", "class_path")),
        ("speed", f"{value_text(speed)} images/s (median)" if speed is not None else ""),
        ("model FLOP utilisation", f"{100 * mfu:.1f} % (median)" if mfu is not None else ""),
        ("last row logged", run.updated),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def command_of(run: Run) -> str:
    """The command that made the run if its config says so, else one that repeats it."""
    if run.published:
        return f"lightning evaluate all --model {shlex.quote(str(run.published.get('run')))} --shards DIR"
    command = run.config.get("command")
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command) if command else f"lightning fit -c {shlex.quote(str(run.path / names.CONFIG))}"


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else None
