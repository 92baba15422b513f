"""Prototypes on phantoms: rows of measured runs into docs/results/patronus.csv, and out of the rows the page and its picture.

    lightning evaluate prototypes --run RUN; lightning evaluate shortcut --run BIASED --balanced BALANCED
    python tools/patronus_results.py collect RUN ...    # rows of both, in the place of those of the same runs
    python tools/patronus_results.py page               # tables of the page, and the picture

A tool and no verb of the command: it writes one page of this repository.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
from rows_and_page import fill, verbs_of

from meddiff.common.errors import UserError
from meddiff.common.outside import markdown_cell
from meddiff.metrics.over_seeds import over_seeds
from meddiff.reports.experiment.picture import write_chart
from meddiff.reports.experiment.rows import RUNS, name_of, settings_of, strength
from meddiff.reports.experiment.rows import collect as rows_of_words
from meddiff.reports.page.charts import LIGHT
from meddiff.reports.page.report import open_runs
from meddiff.runs.folder import Run
from meddiff.runs.tables import read_table, write_table
from meddiff.runs.values import nested, number

ROOT = Path(__file__).resolve().parents[1]
PAGE, ROWS = ROOT / "docs" / "results" / "patronus.md", ROOT / "docs" / "results" / "patronus.csv"
WORDS = ROOT / "docs" / "results" / RUNS
PICTURE = ROOT / "docs" / "img" / "shortcut_on_phantoms.svg"
RUN = ("name", "cohort", "kind", "confounders", "seed", "images")
PHANTOMS = "phantoms"
COLUMNS = (*RUN, "protocol", "finding", "confounder", "of", "figure", "value", "low", "high", "n")
ARMS = ("frozen", "learnable")
NONE = "No run has been collected yet, so nothing is claimed here."
#: Figures of the first table with what each is read against.
BESIDE = {
    "latent_auroc": "latent_auroc_untrained",
    "captured": "captured_untrained",
    "named_share": "named_share_shuffled",
    "variation_mse": "variation_mse_zero",
    "reconstruction_mse": "reconstruction_mse_zero",
    "prototype_cnr": "prototype_cnr_prior",
    "fd_conditional_heldout_domain": "fd_real_vs_real_domain",
    "fd_unconditional_domain": "fd_real_vs_real_domain",
    "dead_share": None,
    "duplicates": None,
}
#: Figures of words and prototypes side by side: column of runs.csv, or figure of prototypes -> what it is.
JOINED = {
    "grounding/macro_cnr": "macro CNR of words",
    "controls/gain": "grounding gain of words",
    "grounding/own_beats_other": "own finding first",
    "fidelity/fd_domain": "Frechet distance, drawn of words alone",
    "prototype_cnr": "CNR of the best prototype of a finding",
    "prototype_cnr_absent": "... of the best one of an absent finding",
    "prototype_cnr_prior": "... of the usual place, which never looks",
    "latent_auroc": "AUROC of a probe of prototypes",
    "latent_auroc_untrained": "... of an untrained encoder",
    "variation_mse": "error of a picture drawn from fresh noise",
    "variation_mse_zero": "... told no prototypes",
}
Row = Mapping[str, str]


def told(run: Run) -> dict[str, object]:
    """Which run it is, as the columns of :data:`RUN` say; ``images`` is that of a row."""
    parts = [f"words, {run.facts.encoder}"] if run.facts.reads_text else []
    parts += ["prototypes"] if nested(run.config, "model", "init_args", "prototypes") is not None else []
    found = strength(nested(run.config, "data", "init_args", "phantom", "confounders"))
    kind = " and ".join(parts)
    # phantoms may lie in any folder: what makes them phantoms are their options
    phantom = nested(run.config, "data", "init_args", "phantom")
    cohort = Path(str(nested(run.config, "data", "init_args", "shards"))).name if phantom is None else PHANTOMS
    about = {"name": run.config.get("name", ""), "cohort": cohort, "kind": kind}
    return {**about, "confounders": found, "seed": run.facts.seed}


def collect(runs: Sequence[Path], file: Path) -> int:
    """Rows of runs into ``file``, in the place of those of the same runs; how many runs had any.

    Raises:
        UserError: not run folders, or none of them was measured.
    """
    rows: list[dict[str, object]] = []
    found = 0
    for run in open_runs(runs):
        about = told(run)
        figures = [{"of": "prototypes", **cells} for cells in run.evaluated("prototype_figures")]
        bounds = {
            cells["figure"]: cells for cells in run.evaluated("prototype_latents") if cells["encoder"] == "trained"
        }
        bounds |= {
            f"{cells['figure']}_untrained": cells
            for cells in run.evaluated("prototype_latents")
            if cells["encoder"] == "untrained"
        }
        figures = [{**cells, **_ends(bounds.get(cells["figure"], {}))} for cells in figures]
        shortcut = run.evaluated("shortcut")
        rows += [{**cells, **about} for cells in [*figures, *shortcut, *_words(run)]]
        found += bool(figures or shortcut)
    if not found:
        raise UserError("None of these runs was measured: `lightning evaluate prototypes --run RUN` measures one.")
    new = {tuple(str(row.get(name, "")) for name in RUN) for row in rows}
    kept = [dict(row) for row in read_table(file) if tuple(row.get(name, "") for name in RUN) not in new]
    every = sorted([*kept, *rows], key=lambda row: [str(row.get(name, "")) for name in (*RUN, "of", "figure")])
    write_table(file, every, COLUMNS, only=True)
    return found


def _words(run: Run) -> list[dict[str, object]]:
    """Figures of the words of a run that has prototypes, too, after its last image."""
    if not run.facts.reads_text or nested(run.config, "model", "init_args", "prototypes") is None:
        return []
    last = run.evaluations[-1].images
    cells = rows_of_words(run).runs[name_of(run), last]
    about = {"of": "words", "images": last, "protocol": settings_of(run, last)["protocol"]}
    return [{**about, "figure": name, "value": cells[name]} for name in JOINED if cells.get(name)]


def _ends(cells: Row) -> dict[str, str]:
    return {name: cells[name] for name in ("low", "high", "n") if cells.get(name)}


def mean(rows: Sequence[Row], digits: int = 2) -> str:
    """``0.31 [0.20, 0.42]``, over seeds; without an interval below three."""
    values = np.array([value for row in rows if (value := number(row.get("value"))) is not None])
    if not len(values):
        return ""
    one = over_seeds(values)
    ends = f" [{one.low:.{digits}f}, {one.high:.{digits}f}]" if np.isfinite(one.low) else ""
    return f"{one.mean:.{digits}f}{ends}"


def prototypes(rows: Sequence[Row], phantoms: bool = True) -> str:
    """A line a figure with what it is read against, two columns a length of training; means over seeds.

    Args:
        phantoms: of runs on phantoms, or of all others.
    """
    lengths: dict[int, list[Row]] = {}
    for row in rows:
        if (row["of"], row["kind"]) == ("prototypes", "prototypes") and phantoms == (row["cohort"] == PHANTOMS):
            lengths.setdefault(int(row["images"]), []).append(row)
    if not lengths:
        return NONE
    seeds = {images: len({row["seed"] for row in some}) for images, some in sorted(lengths.items())}
    heads = [f"{images:,} images, {number} seed{'s' * (number > 1)}" for images, number in seeds.items()]
    lines = ["| figure | " + " | ".join(f"{head} | against" for head in heads) + " | read against |"]
    lines.append("|---" * (2 + 2 * len(heads)) + "|")
    for figure, against in BESIDE.items():
        cells = [
            mean([row for row in some if row["figure"] == name], 5 if "mse" in figure else 2) if name else ""
            for _, some in sorted(lengths.items())
            for name in (figure, against)
        ]
        if not any(cells[::2]):
            continue
        lines.append(f"| {figure} | " + " | ".join(cells) + f" | {against or ''} |")
    return "\n".join(lines)


def setting(row: Row) -> tuple[str, str, str]:
    """What runs of a line of the second table have in common: kind of model, pair, correlation."""
    return row["kind"], f"{row['confounder']} with {row['finding']}", row["confounders"]


def indices(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """(kind, pair, correlation) -> the rows of the index, one a seed."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["of"] == "index" and number(row.get("value")) is not None:
            found.setdefault(setting(row), []).append(row)
    return dict(sorted(found.items()))


def shortcuts(rows: Sequence[Row]) -> str:
    """A line a kind of model and correlation: what the edit moved, what leaked, and the index, by seed and over seeds."""
    found = indices(rows)
    if not found:
        return NONE
    lines = [
        "| model | pair | correlation | finding moved by | leak | leak, balanced | index, seed by seed | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kind, pair, dial), runs in found.items():
        of = {
            name: [row for row in rows if (row["of"], row["figure"]) == name and setting(row) == (kind, pair, dial)]
            for name in (("biased", "moved"), ("biased", "leak"), ("balanced", "leak"))
        }
        each = "; ".join(
            f"{float(row['value']):.2f} [{float(row['low']):.2f}, {float(row['high']):.2f}]"
            for row in sorted(runs, key=lambda row: row["seed"])
        )
        cells = [mean(some) for some in of.values()]
        # balanced runs one against another, in a ring: their differences sum to 0 whatever they are
        whole = "" if number(dial) == 0 else mean(runs)
        lines.append(
            f"| {markdown_cell(kind)} | {markdown_cell(pair)} | {markdown_cell(dial)} | "
            + " | ".join([*cells, each, whole])
            + " |"
        )
    return "\n".join(lines)


def joined(rows: Sequence[Row], words: Sequence[Row]) -> str:
    """Words alone, words beside prototypes, and the difference paired by seed, for both encoders.

    Args:
        words: rows of runs.csv; those of the same experiment, protocol, length and seeds are the models without prototypes.
    """
    both = [row for row in rows if row["kind"].endswith(" and prototypes")]
    measured = [row for row in both if row["of"] == "words"]
    if not measured:
        return NONE
    like = {"base": "phantom_base", "weights": "min-SNR 5", "prompt": "impression", "unet_rate": "0.002"}
    protocols, lengths = ({row[name] for row in measured} for name in ("protocol", "images"))
    alone = [
        row
        for row in words
        if row["protocol"] in protocols and row["images"] in lengths and row["train_images"] == row["images"]
        if all(row[name] == value for name, value in like.items()) and row["confounders"] == measured[0]["confounders"]
        if row["rate"] in ("0", row["unet_rate"])
    ]
    lines = ["| figure |" + "".join(f" {arm}, words alone | and prototypes | difference |" for arm in ARMS)]
    lines.append("|---" * (1 + 3 * len(ARMS)) + "|")
    for figure, what in JOINED.items():
        digits, cells = (5 if "mse" in figure else 2), []
        for arm in ARMS:
            here = {
                row["seed"]: row["value"]
                for row in both
                if row["figure"] == figure and row["kind"].startswith(f"words, {arm}")
            }
            there = {row["seed"]: row[figure] for row in alone if row["encoder"] == arm and row.get(figure)}
            seeds = sorted(here.keys() & there.keys())
            apart = [{"value": str(float(here[seed]) - float(there[seed]))} for seed in seeds]
            shown = [[{"value": one[seed]} for seed in sorted(here) if seed in one] for one in (there, here)]
            cells += [mean(some, digits) for some in (*shown, apart)]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], target: Path) -> bool:
    """The index by correlation, a point a seed with its interval over images; False where there is none."""
    points = [
        {"kind": kind, "rho": float(dial), **{name: float(row[name]) for name in ("value", "low", "high")}}
        for (kind, _, dial), runs in indices(rows).items()
        for row in runs
        if number(dial) is not None and all(number(row.get(name)) is not None for name in ("value", "low", "high"))
    ]
    if not points:
        return False
    x = alt.X("rho:Q", title="correlation in training", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart().encode(x=x, xOffset=alt.XOffset("kind:N"), color=alt.Color("kind:N", title=None))
    layers = [
        alt.Chart().mark_rule(strokeDash=[4, 3], opacity=0.6).encode(y=alt.datum(0)),
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title="shortcut index"), y2="high"),
        base.mark_point(filled=True, size=50).encode(y="value:Q"),
    ]
    chart = alt.layer(*layers, data=alt.Data(values=points)).properties(width=420, height=240)
    chart = chart.configure(font="Liberation Sans, Arial, sans-serif", background=LIGHT["card"])
    write_chart(chart, target)
    return True


def page(file: Path, out: Path, picture: Path) -> None:
    """The parts of the page that are made, out of the rows."""
    rows = read_table(file)
    shown = f"![shortcut index by correlation](../img/{picture.name})" if draw(rows, picture) else NONE
    parts = {
        "joined": joined(rows, read_table(WORDS)),
        "xrays": prototypes(rows, phantoms=False),
        "prototypes": prototypes(rows),
        "shortcuts": shortcuts(rows),
        "picture": shown,
    }
    fill(out, parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    return verbs_of(
        arguments,
        "Rows and page of prototypes on phantoms.",
        {"rows": ROWS, "page": PAGE, "picture": PICTURE},
        collect,
        page,
    )


if __name__ == "__main__":
    sys.exit(main())
