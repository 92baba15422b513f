"""What `lightning evaluate prototypes` and `shortcut` left in run folders: rows for the charts and tables, cards with pictures.

Pictures come from the run folder alone. Source: own; docs/patronus.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

from meddiff.common.outside import terminal
from meddiff.reports.page.derived import Columns, Row, columns
from meddiff.reports.page.media import Media, data_uri
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import value_text
from meddiff.runs import names
from meddiff.runs.folder import Entry, Run
from meddiff.runs.values import number

ROOM = "prototypes"
#: Curves of emergence -> what they are called.
CURVES = {"paired": "of the edit", "low_pass": "of blur alone", "random": "of a random prototype"}
#: Cards of a page at most, and bytes of their pictures.
MAX_CARDS, MAX_BYTES = 32, 4_000_000
#: Figures of the summary, each with the control that it is read against: key of the summary -> what it is.
FIGURES = {
    "latent_auroc": "latent AUROC (logistic probe)",
    "latent_auroc_untrained": "the same of the untrained encoder",
    "tad": "TAD",
    "tad_untrained": "of the untrained encoder",
    "captured": "captured attributes",
    "captured_untrained": "of the untrained encoder",
    "named_share": "share of prototypes with a name",
    "named_share_shuffled": "the same on shuffled labels",
    "variation_mse": "error of a picture from fresh noise, own prototypes",
    "variation_mse_zero": "without prototypes",
    "variation_mse_other": "with another image's prototypes",
    "reconstruction_mse": "error from inverted noise, own prototypes",
    "reconstruction_mse_zero": "without prototypes",
    "prototype_cnr": "CNR of the best prototype of a finding",
    "prototype_cnr_absent": "of the best one of an absent finding",
    "prototype_cnr_untrained": "of an untrained encoder",
    "prototype_cnr_prior": "of the usual place",
    "dead_share": "share of dead prototypes",
    "duplicates": "share of duplicates",
    "usage_entropy": "evenness of use, 0 to 1",
}
#: What of a row of ``shortcut`` is said: (of, figure) -> words.
SHORTCUT = {
    ("index", "index"): "shortcut index: leak of the biased model less that of the balanced one",
    ("biased", "leak"): "leak of the biased model",
    ("balanced", "leak"): "leak of the balanced model",
    ("biased", "moved"): "finding moved by its edit, biased model",
    ("balanced", "moved"): "finding moved by its edit, balanced model",
    ("scorers", "leak"): "leak of the scorers on real images",
    ("scorers", "own"): "AUROC of the finding's scorer",
    ("scorers", "other"): "AUROC of the confounder's scorer",
    ("scorers", "correlation"): "correlation of finding and confounder in the images that are judged",
    ("biased", "odd"): "oddness of the edited vectors, biased model",
    ("balanced", "odd"): "oddness of the edited vectors, balanced model",
}


class Card(NamedTuple):
    """One prototype as the page shows it.

    Attributes:
        key: of its curve, ``prototypes/12``.
        title, facts: texts.
        pictures: (what it shows, data URI), the edited one first.
    """

    key: str
    title: str
    facts: list[str]
    pictures: list[tuple[str, str]]


class Gallery(NamedTuple):
    """The cards of one run, and what is not shown."""

    run: str
    cards: list[Card]
    note: str


def emergence(run: Run) -> list[Row]:
    """One row a timestep: ``prototypes/N/CURVE`` with its ends."""
    found: dict[int, Row] = {}
    for cells in run.evaluated("prototype_emergence"):
        timestep, value, which = (number(cells.get(name)) for name in ("timestep", "value", "prototype"))
        if timestep is None or value is None or which is None or cells.get("curve") not in CURVES:
            continue
        row = found.setdefault(int(timestep), {"timestep": int(timestep)})
        key = f"{ROOM}/{int(which)}/{cells['curve']}"
        row |= {key: value, f"{key} low": number(cells.get("low")), f"{key} high": number(cells.get("high"))}
    return [found[timestep] for timestep in sorted(found)]


def table(tables: Tables) -> Columns:
    """The curves of the run whose cards are shown."""
    having = [
        (who, run) for who, run in zip(tables.who, tables.found, strict=True) if any(run.prototype_views.values())
    ]
    return columns(who.row() | row for who, run in having[:1] for row in emergence(run))


def keys_of(table: Columns) -> list[str]:
    """The curves among the columns of the table."""
    return [key for key in table if key.startswith(f"{ROOM}/") and not key.endswith((" low", " high"))]


def fields(key: str, table: Columns) -> dict[str, str]:
    """What the chart of one card draws: its curve and the controls that are there."""
    named = {"value": "paired", "blur": "low_pass", "chance": "random"}
    return {name: f"{key}/{curve}" for name, curve in named.items() if f"{key}/{curve}" in table}


def figures(run: Run) -> list[tuple[str, str]]:
    """(what it is, value) of the summary, controls below what they are read against."""
    rows = {row.get("figure", ""): row.get("value") for row in run.evaluated("prototype_figures")}
    found = [
        (text, value_text(number(rows[name]))) for name, text in FIGURES.items() if number(rows.get(name)) is not None
    ]
    distances = sorted(name for name in rows if name.startswith(("fid_", "fd_")))
    return found + [(name.replace("_", " "), value_text(number(rows[name]))) for name in distances]


def grounding(run: Run) -> list[dict[str, str]]:
    """Rows of ``prototype_grounding`` over all classes: CNR, AUROC and Top-1 of each source."""
    rows = [row for row in run.evaluated("prototype_grounding") if row.get("class") == "all"]
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        blank = dict.fromkeys(("cnr", "auroc", "top1", "gain/absent"), "")
        cell = found.setdefault(
            row.get("source", ""), {**blank, "source": row.get("source", ""), "n": row.get("n", "")}
        )
        cell[row.get("figure", "")] = interval_text(row)
    return list(found.values())


def shortcut(run: Run) -> list[dict[str, str]]:
    """What is said of edits: words, value with its interval, N and what was edited."""
    rows = {(row.get("of", ""), row.get("figure", "")): row for row in run.evaluated(names.SHORTCUT)}
    return [
        {
            "what": text,
            "value": interval_text(rows[at]),
            "n": rows[at].get("n", ""),
            "edited": rows[at].get("edited", ""),
        }
        for at, text in SHORTCUT.items()
        if at in rows
    ]


def pair(run: Run) -> str:
    """``pacemaker with Cardiomegaly``: what was looked for, and what was edited; empty where the table does not say."""
    row = next(iter(run.evaluated(names.SHORTCUT)), {})
    return f"{row['confounder']} with {row['finding']}" if row.get("confounder") and row.get("finding") else ""


def interval_text(row: dict[str, str]) -> str:
    """``0.42 (0.31 to 0.53)``; a dash where there is no number."""
    value, low, high = (number(row.get(name)) for name in ("value", "low", "high"))
    ends = f" ({value_text(low)} to {value_text(high)})" if low is not None and high is not None else ""
    return value_text(value) + ends


def runs_with(runs: Sequence[Run], table: str) -> list[Run]:
    """Those that have a table of their evaluation."""
    return [run for run in runs if run.evaluated(table)]


def gallery(runs: Sequence[Run]) -> Gallery | None:
    """Cards of the newest evaluation of the first run that has any; None if none has."""
    run = next((one for one in runs if any(one.prototype_views.values())), None)
    if run is None:
        return None
    images = max(images for images, entries in run.prototype_views.items() if entries)
    entries, media = run.prototype_views[images], Media(run.path / names.MEDIA / names.PROTOTYPES, {})
    cards: list[Card] = []
    budget = MAX_BYTES
    for entry in sorted(entries, key=_interest):
        files = [("image", media.file(entry.get("image"))), ("with more of it", media.file(entry.get("drawn")))]
        files.append(("patch", media.file(entry.get("patch"))))
        natural = entry.get("natural")
        for one in natural if isinstance(natural, list) else ():
            if isinstance(one, dict):
                files.append((f"most of it, {value_text(number(one.get('value')))}", media.file(one.get("image"))))
        there = [(text, file) for text, file in files if file is not None]
        budget -= sum(file.stat().st_size for _, file in there)
        if cards and (budget < 0 or len(cards) == MAX_CARDS):
            break
        pictures = [(text, uri) for text, file in there if (uri := data_uri(file))]
        cards.append(Card(f"{ROOM}/{_whole(entry)}", title_of(entry), facts_of(entry), pictures))
    note = (
        ""
        if len(cards) == len(entries)
        else f"The first {len(cards)} of {len(entries)} are shown, to keep this page small."
    )
    others = [one.name for one in runs if one is not run and any(one.prototype_views.values())]
    if others:
        note = f"{note} Those of {', '.join(others)} are in their own reports.".strip()
    return Gallery(run.name, cards, note)


def title_of(entry: Entry) -> str:
    """``Prototype 12: Edema (label, AUROC 0.83)``."""
    name, area = terminal(entry.get("name") or ""), number(entry.get("auroc"))
    if not name:
        return f"Prototype {_whole(entry)}: unnamed"
    return f"Prototype {_whole(entry)}: {name} ({terminal(entry.get('kind') or '')}, AUROC {value_text(area)})"


def facts_of(entry: Entry) -> list[str]:
    """What was measured of it, a sentence each; what is not known is left out."""
    cells = {
        name: number(entry.get(name)) for name in ("before", "after", "odd", "t_half", "t_half_low", "t_half_high", "p")
    }
    text = {name: value_text(value) for name, value in cells.items()}
    found = []
    if cells["after"] is not None:
        found.append(f"activation {text['before']} in the image, {text['after']} in the picture with more of it")
    if cells["t_half"] is not None:
        ends = f" ({text['t_half_low']} to {text['t_half_high']})" if cells["t_half_low"] is not None else ""
        found.append(f"half there at timestep {text['t_half']}{ends}")
    elif cells["after"] is not None:
        found.append("not raised beyond what images differ by")
    if cells["odd"] is not None:
        found.append(f"the edited vector lies {text['odd']} times as far out as that of a real image")
    if cells["p"] is not None and not entry.get("name"):
        found.append(f"nearest concept {terminal(entry.get('concept') or '')}, adjusted p {text['p']}")
    return found


def _interest(entry: Entry) -> tuple[bool, float, int]:
    """Named ones first, the clearest of them first."""
    return not entry.get("name"), -abs((number(entry.get("auroc")) or 0.5) - 0.5), _whole(entry)


def _whole(entry: Entry) -> int:
    return int(number(entry.get("prototype")) or 0)
