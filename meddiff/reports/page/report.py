"""``report.html``: one self-contained page about one or several runs, from their folders alone.

No network, no dependency beyond PyYAML, and quick: a training callback writes it anew after every evaluation.
Source: own (issue 4); the trade-off it draws is Dombrowski et al. 2024, spec/tradeoff.md.
"""

from collections.abc import Sequence
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.reports.page import configuration, evidence, numbers, overview
from meddiff.reports.page.elements import swatch
from meddiff.reports.page.script import SCRIPT, SCRIPT_HASH
from meddiff.reports.page.style import STYLE
from meddiff.reports.page.subject import Subject
from meddiff.reports.page.wording import count_text, esc
from meddiff.runs import names
from meddiff.runs.folder import Run, distinct_names, read_run

#: Nothing may be loaded from anywhere, and no script may run but the page's own.
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {SCRIPT_HASH}; "
    "base-uri 'none'; form-action 'none'"
)
NAVIGATION = {
    "headline": "Numbers",
    "tradeoff": "Trade-off",
    "time": "Over training",
    "loss": "Loss",
    "classes": "Findings",
    "attention": "Attention",
    "samples": "Samples",
    "controls": "Controls",
    "numbers": "All numbers",
    "configuration": "Configuration",
}
#: draws the outline of a mask: its edge, dilated, in colour
OUTLINE = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true">'
    '<filter id="outline" color-interpolation-filters="sRGB"><feColorMatrix type="luminanceToAlpha"/>'
    '<feComponentTransfer result="mask"><feFuncA type="linear" slope="255"/></feComponentTransfer>'
    '<feMorphology operator="dilate" radius="0.7" result="wide"/>'
    '<feComposite in="wide" in2="mask" operator="out" result="edge"/>'
    '<feFlood flood-color="#4cc9ff"/><feComposite in2="edge" operator="in"/></filter></svg>'
)


def _head(runs: Sequence[Run]) -> str:
    title = " against ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs"
    newest = [run.evaluations[-1] for run in runs if run.evaluations]
    parts = []
    if len(runs) == 1:
        frozen = runs[0].setting("model", "init_args", "freeze_text_encoder")
        parts += [f"text encoder {'frozen' if frozen else 'learnable'}"] if isinstance(frozen, bool) else []
        if newest:
            times = len(runs[0].evaluations)
            parts.append(f"evaluated {times} time{'s' if times > 1 else ''}")
            parts.append(f"up to {count_text(newest[0].images)} images (step {count_text(newest[0].step)})")
        else:
            parts.append("not evaluated yet")
    else:
        parts.append(
            f"{len(runs)} runs, evaluated up to {count_text(max((e.images for e in newest), default=0))} images"
        )
    updated = max((run.updated for run in runs), default="")
    parts += [f"as of {updated}"] if updated else []
    legend = "".join(
        f'<button class="r{i}" data-run="r{i}" aria-pressed="true" title="show or hide">{swatch(i, runs)}</button>'
        for i in range(len(runs))
    )
    problems = [f"{run.path}: {problem}" for run in runs for problem in run.problems]
    return (
        '<header><div class="top"><div><p class="brand">What does image quality cost in understanding?</p>'
        f'<h1>{esc(title)}</h1><p class="meta">{esc(" · ".join(parts))}</p></div>'
        '<button id="theme" type="button" hidden aria-label="change the colour theme">Theme: auto</button></div>'
        + (f'<div class="legend">{legend}</div>' if len(runs) > 1 else "")
        + "".join(f'<p class="problem">{esc(problem)}</p>' for problem in problems)
        + "</header>"
    )


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    subject = Subject(runs)
    body = [
        overview.headline(subject),
        overview.tradeoff(subject),
        overview.over_training(subject),
        overview.loss(subject),
        evidence.classes(subject),
        evidence.attention(subject),
        evidence.samples(subject),
        numbers.controls(subject),
        numbers.all_numbers(subject),
        configuration.configuration(subject),
    ]
    links = "".join(
        f'<a href="#{anchor}">{text}</a>' for (anchor, text), part in zip(NAVIGATION.items(), body, strict=True) if part
    )
    title = ", ".join(run.name for run in runs)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{esc(title)}: fidelity and grounding</title><style>{STYLE}</style></head>\n<body>{OUTLINE}"
        f'{_head(runs)}<nav aria-label="sections"><div>{links}</div></nav>\n<main>'
        + "\n".join(part for part in body if part)
        + "</main>\n<footer>Written by <code>lightning report</code> from run folders alone; nothing is loaded from anywhere. "
        "A research tool: no number or map here is a diagnosis.</footer>"
        f'<div id="tip" role="status" hidden></div><script>{SCRIPT}</script></body></html>\n'
    )


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page about ``runs``, whole or not at all, and return where it is.

    Args:
        runs: run folders; with several, their curves lie over each other.
        out: the file; by default ``report.html`` in the first run's folder.

    Raises:
        UserError: no run, no such folder, not a run folder, or ``out`` is a folder.
    """
    if not runs:
        raise UserError("No run: `lightning report` wants one or more run folders (RUNS/NAME/TIME).")
    folders = list(dict.fromkeys(Path(run).resolve() for run in runs))
    named = {Path(run).resolve(): Path(run) for run in reversed(runs)}
    found = [read_run(named[folder]) for folder in folders]
    distinct_names(found)
    target = Path(out) if out is not None else found[0].path / names.REPORT
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file for the report, such as {target / names.REPORT}.")
    text = page(found)
    try:
        with atomic_open(target, "w") as stream:
            stream.write(text)
    except OSError as error:
        raise UserError(f"The report cannot be written to {target} ({error.strerror}).") from error
    return target
