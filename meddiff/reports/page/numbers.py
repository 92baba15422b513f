"""The report's tables of numbers: the controls, and everything that was measured. Source: own."""

from collections.abc import Sequence

from meddiff.reports.page.derived import change, fidelity_n, phrases_text
from meddiff.reports.page.elements import nothing, section, swatch, table
from meddiff.reports.page.subject import Subject
from meddiff.reports.page.wording import (
    CONTROLS,
    DASH,
    MINUS,
    compact,
    count_text,
    direction,
    esc,
    label,
    meaning,
    value_text,
)
from meddiff.runs.folder import Run
from meddiff.runs.values import number

#: where both averages exist, the macro one and both of the CNR
GROUNDING_COLUMNS = ("macro_cnr", "cnr", "macro_auroc", "macro_top1", "macro_miou")


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
