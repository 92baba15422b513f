"""A chart, a workspace and a report in W&B, for those who are logged in: what `lightning dashboard push` makes.

Everything but the last step, sending it, is built here without asking a server (W&B's own library checks it then).
Source: own; panels and queries as W&B's web editor writes them (spec/sweeps_dashboard.md 2).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.reports.page import charts
from meddiff.reports.page.wandb_preset import wandb_preset
from meddiff.reports.page.wording import COLUMNS, label
from meddiff.runs import names

if TYPE_CHECKING:
    from wandb_workspaces.reports import v2
    from wandb_workspaces.workspaces import Workspace

    Panel = (
        v2.LinePlot | v2.ScatterPlot | v2.ParallelCoordinatesPlot | v2.CustomChart | v2.MediaBrowser | v2.RunComparer
    )

CHART = "meddiff-tradeoff"
TITLE = "Image quality against grounding"
AXIS = "images"
CNR, AUROC, TOP1, DISTANCE = (
    "grounding/macro_cnr",
    "grounding/macro_auroc",
    "grounding/macro_top1",
    "fidelity/fd_domain",
)
#: The table's name in a run's summary.
TABLE = "tradeoff_table"
#: Runs that are drawn; W&B's own is 10.
MOST_RUNS = 100

#: What an id of a W&B run is made of.
WANDB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def push(runs: Sequence[Path], project: str, entity: str, distance: str = DISTANCE) -> list[str]:
    """Make the chart, the workspace and the report; returns their addresses, the chart's as ENTITY/NAME.

    Args:
        runs: run folders that are meant; none: every run of the project.
        project, entity: where they are.
        distance: the logged name of the Frechet distance that stands for image quality.

    Raises:
        UserError: the extra is not installed, nobody is logged in, or none of the runs was sent.
    """
    _need_extra()
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False):
            raise UserError("Nobody is logged in to W&B here: `wandb login` first.")
        ids = run_ids(runs)
        chart = wandb.Api().create_custom_chart(
            entity=entity,
            name=CHART,
            display_name=TITLE,
            spec_type="vega2",
            access="private",
            spec=tradeoff_preset(),
        )
        board = workspace(entity, project, chart, ids, distance)
        board.save()
        page = report(entity, project, chart, ids, distance)
        page.save()
    except wandb.errors.Error as error:
        raise UserError(f"W&B refused ({' '.join(str(error).split())}): look at entity, project and key.") from error
    return [str(chart), str(board.url), str(page.url)]


def run_ids(runs: Sequence[Path]) -> list[str]:
    """W&B's ids of run folders.

    Raises:
        UserError: a run has none, or lies on the disk only.
    """
    found = []
    for run in runs:
        file = run / names.WANDB_ID
        if not file.is_file():
            raise UserError(f"{run} was not logged to W&B (no {names.WANDB_ID}): leave it out.")
        name = file.read_text(encoding="utf-8", errors="replace").strip()
        if not WANDB_ID.fullmatch(name):
            raise UserError(f"{file} holds no id of a W&B run: put the run's own back, or leave the run out.")
        found.append(name)
        unsent = [folder for folder in (run / "wandb").glob("offline-run-*") if not any(folder.glob("*.wandb.synced"))]
        if unsent:
            raise UserError(f"{run} was not sent yet: `wandb sync {unsent[0]}` first.")
    return found


def workspace(entity: str, project: str, chart: str, ids: Sequence[str] = (), distance: str = DISTANCE) -> "Workspace":
    """The trade-off first, then each side, the words, the controls, the loss; runs grouped by text encoder.

    Args:
        chart: of the trade-off, ENTITY/NAME.
        ids: of the runs; none: all of the project.
    """
    _need_extra()
    from wandb_workspaces.workspaces import Config, Metric, RunsetSettings, Section, Workspace, WorkspaceSettings

    sections = [
        Section(name=name, panels=list(panels), is_open=i < 3)
        for i, (name, panels) in enumerate(panels_of(chart, distance).items())
    ]
    return Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=sections,
        settings=WorkspaceSettings(x_axis=AXIS, max_runs=MOST_RUNS),
        runset_settings=RunsetSettings(
            filters=[Metric("ID").isin(list(ids))] if ids else [],
            groupby=[Config("encoder"), Config("prompt")],
            pinned_columns=["config:encoder.value", "config:prompt.value", "summary:best_cnr", "summary:best_distance"],
        ),
    )


def report(entity: str, project: str, chart: str, ids: Sequence[str] = (), distance: str = DISTANCE) -> "v2.Report":
    """The same panels as a page with a sentence on how each is read."""
    _need_extra()
    from wandb_workspaces.reports import v2

    filters = f"ID in {list(ids)!r}" if ids else ""
    blocks: list[v2.TableOfContents | v2.H1 | v2.P | v2.PanelGrid] = [v2.TableOfContents()]
    for name, panels in panels_of(chart, distance).items():
        runset = v2.Runset(entity, project, filters=filters, groupby=["config.encoder"])
        blocks += [v2.H1(name), v2.P(READ[name]), v2.PanelGrid(runsets=[runset], panels=list(panels))]
    return v2.Report(project=project, entity=entity, title=TITLE, description=READ["Trade-off"], blocks=[*blocks])


#: How each section is read.
READ = {
    "Trade-off": "To the right images get better, upwards words point better at their findings; a path that goes right and "
    "down buys image quality with understanding.",
    "Words": "Does a word's attention lie on its finding? More is better; flat lines are the location prior, which looks at no "
    "image.",
    "Images": "How far are drawn images from real ones? Less is better; the flat line is real against other real images.",
    "Phrases": "Word maps with boxes and masks, and every phrase of the newest evaluation.",
    "Prototypes": "Of models that have any: what a linear probe reads of the findings (flat: of an untrained encoder), the "
    "error of a picture drawn of an image's prototypes (above: told none), whether they lie on findings (flat: the usual "
    "place).",
    "Runs": "The best of each run, by what it was made with.",
    "Training": "Loss and learning rates: that training goes on says little about words.",
}


def panels_of(chart: str, distance: str = DISTANCE) -> "dict[str, list[Panel]]":
    """Section -> panels. Only short, flat names of the configuration: a sweep's dotted ones W&B cannot tell from nested."""
    from wandb_workspaces.reports import v2

    words = {"distance": label(distance), "cnr": label(CNR)}
    return {
        "Trade-off": [
            v2.CustomChart(
                query={"summaryTable": {"tableKey": TABLE}}, chart_name=chart, chart_fields={name: name for name in COLUMNS},
                chart_strings=words, layout=v2.Layout(w=24, h=14)
            ),
        ],
        "Words": [
            _curve("macro CNR", [CNR, "grounding/prior/macro_cnr"]),
            _curve("macro AUROC", [AUROC, "grounding/prior/macro_auroc"]),
            _curve("macro Top-1 (pointing game)", [TOP1, "grounding/prior/macro_top1"]),
            _curve("own finding first", ["grounding/own_beats_other"]),
        ],
        "Images": [
            _curve("Frechet distance", [distance, f"fidelity/real_vs_real/{distance.partition('/')[2]}"]),
            v2.MediaBrowser(title="samples", media_keys=["fidelity/samples"]),
        ],
        "Phrases": [
            v2.MediaBrowser(title="word maps", media_keys=["grounding/attention"]),
            v2.MediaBrowser(title="phrases", media_keys=["grounding/phrases"]),
        ],
        "Prototypes": [
            _curve("AUROC of a probe of prototypes", ["prototypes/latent_auroc", "prototypes/latent_auroc_untrained"]),
            _curve("error from fresh noise", ["prototypes/variation_mse", "prototypes/variation_mse_zero"]),
            _curve("CNR of prototypes", ["grounding/prototype_cnr", "grounding/prototype_cnr_prior"]),
            _curve("dead prototypes, and names", ["prototypes/dead_share", "prototypes/named_share"]),
            v2.MediaBrowser(title="prototypes raised", media_keys=["prototypes/raised"]),
            v2.MediaBrowser(title="drawn again", media_keys=["prototypes/reconstructions"]),
        ],
        "Runs": [
            v2.ScatterPlot(
                title="best of each run", x=v2.SummaryMetric("best_distance"), y=v2.SummaryMetric("cnr_at_best_distance")
            ),
            v2.ParallelCoordinatesPlot(
                columns=[
                    v2.ParallelCoordinatesPlotColumn(v2.Config("freeze_text_encoder")),
                    v2.ParallelCoordinatesPlotColumn(v2.Config("prompt")),
                    v2.ParallelCoordinatesPlotColumn(v2.SummaryMetric("best_distance")),
                    v2.ParallelCoordinatesPlotColumn(v2.SummaryMetric("best_cnr")),
                ]
            ),
            v2.RunComparer(diff_only="split"),
        ],
        "Training": [
            _curve("loss", ["train/loss", "val/loss"]),
            _curve("learning rates", ["learning_rate/unet", "learning_rate/text_encoder"]),
        ],
    }  # fmt: skip


def _curve(title: str, keys: list[str]) -> "v2.LinePlot":
    from wandb_workspaces.reports import v2

    return v2.LinePlot(title=title, x=AXIS, y=[*keys], smoothing_type="none")


def tradeoff_preset() -> dict[str, object]:
    """The chart of the report as a spec of W&B's: its columns are ``${field:NAME}`` for NAME of :data:`COLUMNS`."""
    return wandb_preset(charts.tradeoff())


def _need_extra() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError("This needs W&B's library of workspaces: pip install 'meddiff-tradeoff[wandb]'.") from error
