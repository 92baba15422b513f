"""Tables 2 and 4: how good the images are. Source: Dombrowski et al. (AAAI 2024); spec/tradeoff.md sections 7 and 8."""

import math
from collections.abc import Sequence

import numpy as np

from meddiff.metrics.intervals import NONE, mean_interval, pair_interval
from meddiff.metrics.statistics import over_seeds
from meddiff.reports.paper import published as paper
from meddiff.reports.paper.cells import MACRO, MICRO, PAPER_MODELS, Cell, Table, number_cell
from meddiff.reports.paper.grounding_tables import Averages, evaluation_notes, phantom_notes, why_missing
from meddiff.reports.paper.pooling import Model, per_image, scores_of
from meddiff.runs.evaluation_folder import EvaluationFolder
from meddiff.runs.values import number

#: (metric of fidelity.csv, what it is, column of the published table 4)
DISTANCES = (
    ("fid_inception_paper", "FID (Inception), inputs normalised twice as in the paper", "fid"),
    ("fid_inception", "FID (Inception), standard", ""),
    ("fid_xrv512", "FID_XRV, 512 px", ""),
    ("fid_xrv224", "FID_XRV, 224 px", "fid_xrv"),
    ("fid_xrv_gap", "FID_XRV, globally pooled", ""),
    ("fd_domain", "FD, domain classifier", ""),
)
CONTROLS = {"real_vs_real": "real images", "autoencoder": "autoencoder", "untrained": "untrained", "noise": "noise"}
DIVERSITY = (("paper", "MS-SSIM %, prompts mixed as in the paper"), ("standard", "MS-SSIM %, within a prompt"))
PAPER_N = 5000
#: What stands in the column of sizes: distances are of images, similarities of pairs of them.
SIZES = "n images (MS-SSIM: n pairs)"


def distances(evaluation: EvaluationFolder, metric: str, control: str = "") -> list[float]:
    """The values of a metric in one evaluation, one a sampling seed."""
    rows = [row for row in evaluation.table("fidelity") if row.get("control", "") == control]
    return [v for row in rows if row.get("metric") == metric and (v := number(row.get("value"))) is not None]


def over_runs(values: Sequence[Sequence[float]], digits: int = 1) -> Cell:
    """Mean over seeds of training with their standard deviation; of a single training, over its sampling seeds."""
    runs = [run for run in values if len(run)]
    if len(runs) == 1:
        mean, std = over_seeds(runs[0])
    else:
        mean, std = over_seeds([over_seeds(run)[0] for run in runs])
    return number_cell(mean, digits, std)


def table2(models: Sequence[Model], intervals: bool) -> Table:
    """MS-COCO: FID and grounding AUROC."""
    table = Table("table2", "Table 2: MS-COCO", labels=2)
    found = [model for model in models if model.is_coco]
    if not found:
        table.missing = "Table 2 needs MS-COCO: a run trained and evaluated on the cohort mscoco."
        return table
    table.columns = ["model", "text encoder", "images", "FID, as in the paper", "FID, standard"]
    table.columns += ["AUROC %, macro", "AUROC %, micro", "n samples", "classes"]
    for model in found:
        fid = [
            over_runs([distances(one, metric) for one in model.evaluations])
            for metric in ("fid_inception_paper", "fid_inception")
        ]
        # Several captions of an image are averaged first, as the evaluation's own summary does.
        scores = per_image(scores_of([one.table("coco") for one in model.evaluations], ["auroc"]))
        averages = Averages(scores, "auroc", intervals)
        area = [averages.cell(kind, 100.0, 1) for kind in (MACRO, MICRO)]
        sizes = [Cell(len(scores.samples), digits=0), Cell(len(set(scores.classes)), digits=0)]
        table.add((model.label, model.side), [Cell(f"{model.images:,}"), *fid, *area, *sizes])
    for row in paper.published(2):
        steps = f"{int(row['steps']):,} steps"
        side = {"true": "frozen", "false": "learnable"}.get(row["frozen"], "base")
        cells = [Cell(steps), paper.printed(row["fid"]), Cell(), paper.printed(row["auroc"]), Cell(), Cell(), Cell()]
        table.add((f"paper: {row['model']}", side), cells)
    table.notes = [
        "The paper's AUROC of this table is a mean over classes (macro); that of table 1 a mean over samples (micro).",
        "A sample is a class in an image, the mean over the captions of the image that name the class.",
        *evaluation_notes(found, "fidelity"),
        *(model.describe() for model in found),
    ]
    return table


def table4(models: Sequence[Model], intervals: bool) -> Table:
    """Fidelity (Frechet distances) and diversity (MS-SSIM) beside their controls."""
    table = Table("table4", "Table 4: fidelity and diversity of drawn images")
    found = [model for model in models if not model.is_coco and _has_images(model)]
    if not found:
        table.missing = why_missing(models, 4, "fidelity")
        return table
    used = [row for model in found for one in model.evaluations for row in one.table("fidelity")]
    controls = [name for name in CONTROLS if any(row.get("control") == name for row in used)]
    heads = [*(m.label for m in found), *(f"control: {CONTROLS[c]}" for c in controls)]
    table.columns = ["measure", SIZES, *heads, *(f"paper: {name}" for name in PAPER_MODELS)]
    metrics = {row["metric"] for row in used if row.get("metric")}
    known = {metric: (label, column) for metric, label, column in DISTANCES}
    shown = [m for m in known if m in metrics or known[m][1]] + sorted(metrics - known.keys())
    for metric in shown:
        label, column = known.get(metric, (metric, ""))
        sizes = {int(n) for row in used if row.get("metric") == metric and (n := number(row.get("n"))) is not None}
        cells = [Cell("/".join(f"{n}" for n in sorted(sizes)))]
        cells += [over_runs([distances(one, metric) for one in m.evaluations], _digits(metric)) for m in found]
        for control in controls:
            values = [distances(one, metric, control) for model in found for one in model.evaluations]
            cells.append(number_cell(over_seeds([over_seeds(v)[0] for v in values])[0], _digits(metric)))
        table.add((label,), [*cells, *_printed("MIMIC", column)])
        if column:
            table.add((f"{label}, MS-CXR prompts",), [*(Cell() for _ in cells), *_printed("MS-CXR", column)])
    _diversity(table, found, len(controls), intervals)
    table.notes = [
        "The paper's FID is on 5,000 images; it normalised Inception's inputs twice, so it compares with the first row only.",
        "The paper's FID_XRV took images at 512 px, which its network shrank to 224 px inside: compare the 224 px row.",
        "The paper's code mixed the prompts of the images it compared by MS-SSIM, and its MS-CXR distances are probably a "
        "second draw from the MIMIC prompts.",
    ]
    if any((number(row.get("n")) or PAPER_N) < PAPER_N for row in used):
        table.notes.append("Frechet distances grow as n shrinks: compare them with the controls at the same n.")
    for part in ("fidelity", "diversity"):
        table.notes += evaluation_notes(found, part)
    table.notes += phantom_notes(found) + [model.describe() for model in found]
    return table


def _digits(metric: str) -> int:
    return 4 if metric.startswith("kid") else 1


def _printed(prompts: str, column: str) -> list[Cell]:
    cells = {
        row["model"]: paper.printed(row[column]) for row in paper.published(4) if column and row["prompts"] == prompts
    }
    return [cells.get(name, Cell()) for name in PAPER_MODELS]


def _has_images(model: Model) -> bool:
    return any(one.table("fidelity") or one.table("diversity") for one in model.evaluations)


def _diversity(table: Table, models: Sequence[Model], blanks: int, intervals: bool) -> None:
    """MS-SSIM in percent: mean over pairs; the interval is over what is independent, prompts or images."""
    for protocol, label in DIVERSITY:
        columns = [_similarity(model, protocol, intervals) for model in models]
        sizes = sorted({n for n, _ in columns if n})
        cells = [Cell("/".join(map(str, sizes))), *(cell for _, cell in columns), *(Cell() for _ in range(blanks))]
        printed = "ms_ssim_percent" if protocol == "paper" else ""
        table.add((label,), [*cells, *_printed("MIMIC", printed)])
        if printed:
            table.add((f"{label}, MS-CXR prompts",), [*(Cell() for _ in cells), *_printed("MS-CXR", printed)])


def _similarity(model: Model, protocol: str, intervals: bool) -> tuple[int, Cell]:
    """Number of pairs with a value, and their mean: over seeds with deviation, over groups with interval.

    The pairs of a prompt are a group. Sets of the paper's protocol share images, and so are none: there, images are.
    """
    runs = [
        [
            (f"{place}|", row.get("group", ""), row.get("pair", ""), value)
            for row in one.table("diversity")
            if row.get("protocol") == protocol and (value := number(row.get("value"))) is not None
        ]
        for place, one in enumerate(model.evaluations)
    ]
    pairs = [pair for run in runs for pair in run]
    if not pairs:
        return 0, Cell()
    mean, std = over_seeds([math.fsum(value for *_, value in run) / len(run) for run in runs if run])
    values, interval = np.asarray([value for *_, value in pairs]), NONE
    if intervals and protocol == "paper":
        images = [[run + key for key in pair.split("|")] for run, _, pair, _ in pairs]
        if all(len(two) == 2 for two in images):
            interval = pair_interval(values, [a for a, _ in images], [b for _, b in images])
    elif intervals:
        interval = mean_interval(values[None], [group for _, group, _, _ in pairs])
    return len(pairs), number_cell(mean, 1, std, interval, 100.0)
