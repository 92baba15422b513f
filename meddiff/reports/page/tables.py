"""The tables of the report: controls, all measured numbers, configuration. Source: own."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from meddiff.reports.page.names import DASH, MINUS, compact, count_text, direction, esc, label, meaning, value_text
from meddiff.reports.page.sections import Subject, nothing, section, swatch
from meddiff.reports.page.statistics import change, fidelity_n, median, phrases_text
from meddiff.runs.folder import Run, number

CONTROLS = {
    "prior": "location prior: only where the finding usually is",
    "centre": "centre prior: always the middle of the image",
    "random": "random maps",
    "shuffled_captions": "phrase of another image about the same class",
    "absent_finding": "asked for a finding that is not there",
    "base": "base weights, before training",
    "mirrored_own": "mirrored pairs: where the finding lies",
    "mirrored_twin": "mirrored pairs: where it lies in the twin",
    "real_vs_real": "real against other real images",
    "autoencoder": "real images through the autoencoder",
    "untrained": "untrained model",
    "noise": "noise",
}
#: where both averages exist, the macro one and both of the CNR
GROUNDING_COLUMNS = ("macro_cnr", "cnr", "macro_auroc", "macro_top1", "macro_miou")


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], caption: str = "") -> str:
    """A table whose first column names the row; cells are text."""
    top = "".join(f"<th>{esc(text)}</th>" for text in head)
    body = "".join(
        f'<tr><th scope="row">{esc(name)}</th>{"".join(f"<td>{esc(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="box scroll"><table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _control_name(name: str) -> str:
    return CONTROLS.get(name, name.replace("_", " "))


def _own_rows(run: Run, keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    changes = [change(run, key) for key in keys]
    rows = [("this run, newest evaluation", [value_text(c.value if c else None) for c in changes])]
    if any(c is not None and c.start is not None for c in changes):
        rows.append(("this run, first evaluation", [value_text(c.start if c else None) for c in changes]))
    return rows


def _grounding_controls(run: Run) -> str:
    found = run.controls.get("grounding")
    controls = (
        {name: values for name, values in found.items() if isinstance(values, dict)} if isinstance(found, dict) else {}
    )
    columns = [
        name
        for name in GROUNDING_COLUMNS
        if any(number(values.get(name)) is not None for values in controls.values()) or run.series(f"grounding/{name}")
    ]
    if not controls or not columns:
        return ""
    rows = _own_rows(run, [f"grounding/{name}" for name in columns])
    rows += [
        (_control_name(control), [value_text(number(values.get(name))) for name in columns])
        for control, values in controls.items()
    ]
    n = phrases_text(run)
    return table(
        ["grounding", *(label(f"grounding/{name}") for name in columns)],
        rows,
        f"Grounding{f', N = {n}' if n else ''}; more is better.",
    )


def _fidelity_controls(run: Run) -> str:
    found = run.controls.get("fidelity")
    controls = (
        {name: values for name, values in found.items() if isinstance(values, dict)} if isinstance(found, dict) else {}
    )
    if not controls:
        return ""
    keys = [f"fidelity/{name}" for name in controls]
    names = list(dict.fromkeys(name for values in controls.values() for name in values))
    rows = _own_rows(run, keys)
    rows += [(_control_name(name), [value_text(run.control("fidelity", c, name)) for c in controls]) for name in names]
    untrained = "untrained" in names
    closed = [_closed(run, name, untrained) for name in controls]
    if any(text != DASH for text in closed):
        start = "the untrained model" if untrained else "the first evaluation"
        rows.append((f"share of the way from {start} to real against real", closed))
    n = fidelity_n(run)
    caption = f"Distances to real images{f', N = {n:,} images' if n else ''}; less is better."
    return table(["fidelity", *(label(key) for key in keys)], rows, caption)


def _closed(run: Run, name: str, untrained: bool) -> str:
    """How much of the way from the untrained model (or the first evaluation) to real against real is done."""
    now, near = change(run, f"fidelity/{name}"), run.control("fidelity", name, "real_vs_real")
    if now is None or near is None:
        return DASH
    far = run.control("fidelity", name, "untrained") if untrained else now.start
    return DASH if far is None or far == near else f"{100 * (far - now.value) / (far - near):.0f} %".replace("-", MINUS)


def controls(subject: Subject) -> str:
    """What the numbers have to be compared with."""
    how = "A number means something only beside what needs no understanding of the image, and beside the best possible."
    parts = []
    for position, run in enumerate(subject.runs):
        body = _grounding_controls(run) + _fidelity_controls(run)
        if body:
            parts.append((f"<h3>{swatch(position, subject.runs)}</h3>" if len(subject.runs) > 1 else "") + body)
    return section("controls", "Controls", how, "".join(parts) or nothing("No controls have been measured yet."))


def all_numbers(subject: Subject) -> str:
    """Every measured name at every evaluation, folded away."""
    parts = []
    for position, run in enumerate(subject.runs):
        keys = sorted({key for evaluation in run.evaluations for key in evaluation.values})
        if not keys:
            continue
        head = ["name", "better", *(f"{compact(e.images)} images" for e in run.evaluations)]
        rows = []
        for key in keys:
            cells = [
                value_text(e.values.get(key)) if not key.endswith("/n") else count_text(e.values.get(key))
                for e in run.evaluations
            ]
            rows.append((key, [{1: "more", -1: "less", 0: DASH}[direction(key)], *cells]))
        title = swatch(position, subject.runs) or "Evaluations"
        parts.append(table(head, rows, title))
    if not parts:
        return ""
    terms = sorted({(label(key), meaning(key)) for key in subject.keys if meaning(key) and key.count("/") == 1})
    glossary = "".join(f"<dt>{esc(name)}</dt><dd>{esc(text)}</dd>" for name, text in terms)
    how = "Every name as it is logged, for every evaluation: the same names stand in tradeoff.csv and in W&B."
    inside = "".join(parts) + f'<dl class="facts">{glossary}</dl>'
    body = f"<details><summary>Show {len(subject.keys)} names</summary>{inside}</details>"
    return section("numbers", "All numbers", how, body)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists as they are."""
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found.update(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def command_of(run: Run) -> str:
    """The command that made the run if its config says so, else one that repeats it."""
    command = run.config.get("command")
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command) if command else f"lightning fit -c {shlex.quote(str(run.path / 'config.yaml'))}"


def _facts(run: Run) -> list[tuple[str, str]]:
    frozen = run.setting("model", "init_args", "freeze_text_encoder")
    newest = run.evaluations[-1] if run.evaluations else None
    speed = median([value for _, value in run.logged("throughput/images_per_s")])
    mfu = median([value for _, value in run.logged("throughput/mfu")])
    facts = [
        ("folder", str(run.path)),
        ("text encoder", {True: "frozen", False: "learnable"}.get(frozen, "") if isinstance(frozen, bool) else ""),
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
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def configuration(subject: Subject) -> str:
    """What differs between the runs, the main settings, the command, and config.yaml itself."""
    how = "What was run: the settings that matter most, how to run it again, and the whole resolved configuration."
    parts = []
    flats = [flat(run.config) for run in subject.runs]
    if len(flats) > 1:
        keys = list(dict.fromkeys(key for one in flats for key in one))
        differing = [key for key in keys if len({repr(one.get(key)) for one in flats}) > 1]
        rows = [(key, [str(one.get(key, DASH)) for one in flats]) for key in differing]
        if rows:
            parts.append("<h3>What differs</h3>" + table(["setting", *(run.name for run in subject.runs)], rows))
    for position, run in enumerate(subject.runs):
        facts = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in _facts(run))
        parts.append(f"<h3>{swatch(position, subject.runs)}</h3>" if len(subject.runs) > 1 else "")
        said = "Made by" if run.config.get("command") else "Run it again"
        parts.append(f'<dl class="facts">{facts}<dt>{said}</dt><dd><code>{esc(command_of(run))}</code></dd></dl>')
        if run.config_text:
            parts.append(f"<details><summary>config.yaml</summary><pre>{esc(run.config_text)}</pre></details>")
        else:
            parts.append(nothing("This run folder has no config.yaml."))
    return section("configuration", "Configuration", how, "".join(parts))
