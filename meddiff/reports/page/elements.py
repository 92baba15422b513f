"""The pieces of HTML that every part of the report is made of. Source: own."""

from collections.abc import Iterable, Sequence

from meddiff.reports.page.wording import esc
from meddiff.runs.folder import Run


def section(anchor: str, title: str, how_to_read: str, body: str) -> str:
    """A titled section with one sentence that says how to read it."""
    return f'<section id="{anchor}"><h2>{esc(title)}</h2><p class="how">{esc(how_to_read)}</p>{body}</section>'


def figure(chart: str, text: str) -> str:
    """A chart with the words below it."""
    return f'<figure class="box"><div class="scroll">{chart}</div><figcaption>{esc(text)}</figcaption></figure>'


def nothing(text: str) -> str:
    """What stands where a part of the run is missing."""
    return f'<p class="nothing">{esc(text)}</p>'


def swatch(position: int, runs: Sequence[Run]) -> str:
    """The colour of a run and its name; nothing for a single run."""
    return f'<span class="swatch r{position}"></span>{esc(runs[position].name)}' if len(runs) > 1 else ""


def tabs(name: str, panels: Sequence[tuple[str, str]]) -> str:
    """One panel as it is; several behind tabs (all of them one below the other without script)."""
    if len(panels) == 1:
        return panels[0][1]
    buttons = "".join(
        f'<button role="tab" id="{name}-tab-{i}" aria-controls="{name}-{i}" aria-selected="{"true" if i == 0 else "false"}"'
        f"{'' if i == 0 else ' tabindex=-1'}>{esc(title)}</button>"
        for i, (title, _) in enumerate(panels)
    )
    bodies = "".join(
        f'<div role="tabpanel" id="{name}-{i}" aria-labelledby="{name}-tab-{i}">{body}</div>'
        for i, (_, body) in enumerate(panels)
    )
    return f'<div class="tabs"><div role="tablist" aria-label="{esc(name)}">{buttons}</div>{bodies}</div>'


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], caption: str = "") -> str:
    """A table whose first column names the row; cells are text."""
    top = "".join(f"<th>{esc(text)}</th>" for text in head)
    body = "".join(
        f'<tr><th scope="row">{esc(name)}</th>{"".join(f"<td>{esc(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="box scroll"><table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
