"""``report.html``: one self-contained page about one or a hundred runs, from their folders alone.

No network and no torch, and quick: a training callback writes it anew after every evaluation. HTML stands only in
``templates/`` (Jinja, autoescape), style and script are files in ``static/``, charts are Vega-Lite. Source: own; the
trade-off it draws is Dombrowski et al. 2024, spec/tradeoff.md.
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.reports.html import asset, environment, policy
from meddiff.reports.page import copied, gallery, prototypes, saliency, sections, trust, wording
from meddiff.reports.page.claim import claim
from meddiff.reports.page.derived import rows_of
from meddiff.reports.page.mechanism import KEYS
from meddiff.reports.page.tables import Tables
from meddiff.runs import names
from meddiff.runs.distinct_names import distinct_names
from meddiff.runs.folder import Run, read_run

#: tables that the script draws; the others are for whoever asks
DRAWN = (
    "evaluations",
    "means",
    "references",
    "published",
    "loss",
    "class_means",
    "word_means",
    "prompt_means",
    *("mechanism", "mechanism_means", "mechanism_timesteps"),
    "saliency",
)
Mode = Literal["file", "live"]


@cache
def _environment() -> Environment:
    found = environment("page")
    found.filters |= {"label": wording.label, "count": wording.count_text, "compact": wording.compact, "rows": rows_of}
    found.filters |= {"number": wording.value_text, "term": wording.term, "meaning": wording.meaning}
    found.filters["ends"] = lambda key, tables, encoder, place: sections.ends(tables, encoder, key)[place]
    found.filters["way"] = lambda key, run: sections.way(run, key)
    return found


def data(tables: Tables) -> dict[str, object]:
    """What the script draws, and draws anew when it changes: ``{table: columns}``."""
    return (
        {name: getattr(tables, name) for name in DRAWN} | tables.by_timestep | {"emergence": prototypes.table(tables)}
    )


def context(runs: Sequence[Run], out: Path) -> dict[str, object]:
    """Everything that the templates show.

    Args:
        runs: with names that differ.
        out: where the page will be, for links to other pages.
    """
    from meddiff.reports.page import charts, timestep_charts  # altair: a quarter of a second that only a page needs

    tables = Tables(runs)
    shown = data(tables)
    specs = {"tradeoff": charts.tradeoff(), "curve": charts.curve(), "loss": charts.loss()}
    if tables.mechanism:
        specs |= {"mechanism": charts.curve("mechanism", "mechanism_means"), "timesteps": charts.timesteps()}
    if tables.saliency:
        specs |= timestep_charts.all_of_them()
    if shown["emergence"]:
        specs["emergence"] = timestep_charts.emergence()
    for name, title in charts.DOTS.items():
        drawn = getattr(tables, f"{name}_means")
        places = len(set(drawn.get("what", []))), len(set(drawn.get("arm", [])))
        figure = wording.label(tables.cnr) if name == "prompt" else "CNR"
        specs[name] = charts.dots(f"{name}_means", title, figure, places[0] * (10 + 13 * places[1]))
    keys = {
        key: {"label": wording.label(key), "log": tables.is_log(key)}
        for key in (
            *tables.distances,
            *tables.groundings,
            *(KEYS if tables.mechanism else ()),
            *saliency.keys_of(tables.saliency),
            *prototypes.keys_of(prototypes.table(tables)),
        )
    }
    looked = {"x": tables.distance, "y": tables.cnr, "distances": tables.distances, "groundings": tables.groundings}
    links = [sections.own_page(run, out) for run in runs]
    galleries = {"attention": gallery.word_maps(tables), "samples": gallery.drawn_samples(tables)}
    galleries["saliency"] = gallery.timestep_maps(tables)
    return {
        **{"tables": tables, "runs": list(runs), "who": tables.who, "claim": claim(tables), "data": shown},
        **{"links": links, "galleries": galleries, "sections": sections, "wording": wording, "saliency": saliency},
        **{"prototypes": prototypes, "trust": trust, "copied": copied},
        "about": {"specs": specs, "keys": keys, "light": charts.LIGHT, **looked},
    }


def render(context: dict[str, object], mode: Mode = "file", script: str = "", style: str = "") -> str:
    """The whole page.

    Args:
        mode: "file" may load nothing at all; "live" may ask the server that it came from.
        script: JavaScript that runs behind the page's own.
        style: CSS behind the page's own.
    """
    css, own = asset("page/page.css") + style, [asset(f"page/{name}.js") for name in ("vega", "gallery", "page")]
    scripts = [*own, script] if script else own
    page = _environment().get_template("page.html")
    return page.render(context, mode=mode, policy=policy(css, scripts, mode == "live"), css=css, scripts=scripts)


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page about ``runs``, whole or not at all, and return where it is.

    Args:
        runs: run folders; with several, their curves lie over each other.
        out: the file; by default ``report.html`` in the first run's folder.

    Raises:
        UserError: no run, no such folder, not a run folder, or ``out`` is a folder.
    """
    found = open_runs(runs)
    target = Path(out) if out is not None else found[0].path / names.REPORT
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file for the report, such as {target / names.REPORT}.")
    text = render(context(found, target))
    try:
        with atomic_open(target, "w") as stream:
            stream.write(text)
    except OSError as error:
        raise UserError(f"The report cannot be written to {target} ({error.strerror}).") from error
    return target


def open_runs(runs: Sequence[Path]) -> list[Run]:
    """Run folders, each once, under names that differ.

    Raises:
        UserError: no run, no such folder, or not a run folder.
    """
    if not runs:
        raise UserError("No run: `lightning report` wants one or more run folders (RUNS/NAME/TIME).")
    named = {Path(os.path.realpath(run)): Path(run) for run in reversed(runs)}
    found = [read_run(named[folder]) for folder in dict.fromkeys(Path(os.path.realpath(run)) for run in runs)]
    distinct_names(found)
    return found
