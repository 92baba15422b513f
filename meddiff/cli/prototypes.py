"""What ``lightning evaluate prototypes`` and ``shortcut`` need beside other measurements: twins, prices, pictures, printing."""

from typing import TYPE_CHECKING

from jsonargparse import Namespace

from meddiff.cli.told_to_draw import prior_network
from meddiff.common.errors import UserError
from meddiff.common.outside import markdown_cell, terminal
from meddiff.evaluation.measurement import Result, Value
from meddiff.evaluation.prototype_inputs import patronus, untrained_encoder
from meddiff.evaluation.prototype_media import shown_prototypes, write_pictures
from meddiff.evaluation.prototype_pictures import Prior
from meddiff.evaluation.prototypes import Beside, Prototypes
from meddiff.evaluation.shortcut import Shortcut
from meddiff.models.patronus import Patronus
from meddiff.runs import names

if TYPE_CHECKING:
    from meddiff.evaluation.measurement import Measurement
    from meddiff.runs.opened import Opened
    from meddiff.shards.dataset import LatentShardsDataset

#: Figures that are printed with what they are read against.
BESIDE = {
    "latent_auroc": "latent_auroc_untrained",
    "tad": "tad_untrained",
    "captured": "captured_untrained",
    "named_share": "named_share_shuffled",
    "reconstruction_mse": "reconstruction_mse_zero",
    "variation_mse": "variation_mse_zero",
    "prototype_cnr": "prototype_cnr_prior",
}


def prototypes_of(run: "Opened", options: Namespace) -> Prototypes:
    """The measurement with everything that it is compared with: splits with boxes, an encoder of random weights, a prior."""
    data, model, wanted = run.data, patronus(run.model), options["prototypes"]
    beside = Beside(untrained=untrained_encoder(model.prototypes))
    if data.manifest.samples(data.train_split):
        beside.train = data.dataset(data.train_split)
    if options.prior is not None:
        beside.prior = prior_of(options.prior, model)
    if wanted.grounding is not None and data.has_split(wanted.grounding):
        beside.grounding = data.dataset(wanted.grounding)
    return Prototypes(wanted, beside, show_progress=True)


def prior_of(run: str, model: Patronus) -> Prior:
    """What a trained prior draws; errors as :func:`meddiff.cli.told_to_draw.prior_network`."""
    known = prior_network(run, model)
    return lambda keys, seed: known.sample(keys, seed)


def shortcut_of(run: "Opened", options: Namespace) -> Shortcut:
    """The measurement with the balanced model, and the pair that the run's data couple.

    Raises:
        UserError: no such run.
    """
    from meddiff.runs.open_run import open_run

    balanced = None
    if options.balanced is not None:
        moved = {"vae": options.vae} if options.vae else {}
        balanced = open_run(options.balanced, None, None, options.device, **moved).model
    return Shortcut(options["shortcut"], balanced, coupled_pair(run), show_progress=True)


def coupled_pair(run: "Opened") -> tuple[str, str] | None:
    """Finding and confounder that the run's data couple most; None where they say nothing of it."""
    from meddiff.phantoms.options import parse_confounder

    data = run.data
    pair = getattr(data, "finding", None), getattr(data, "confounder", None)
    if all(isinstance(one, str) and one for one in pair):
        return str(pair[0]), str(pair[1])
    told = data.manifest.options.get("confounders")
    try:
        found = [parse_confounder(str(one)) for one in (told if isinstance(told, list | tuple) else ())]
    except UserError:
        return None
    strongest = max(found, key=lambda one: abs(one[2]), default=None)
    return None if strongest is None else (strongest[1], strongest[0])


def leave_pictures(measurement: "Measurement", result: Result, run: "Opened", split: "LatentShardsDataset") -> None:
    """Pictures of prototypes into the run's media, where the report finds them."""
    if not isinstance(measurement, Prototypes) or run.report_folder is None:
        return
    folder = run.report_folder / names.MEDIA / names.PROTOTYPES
    with run.model.weights(measurement.options.ema):
        number = write_pictures(folder, run.images, shown_prototypes(patronus(run.model), split, measurement), result)
    if number:
        print(terminal(f"lightning report {run.report_folder} shows {number} prototypes"))


def prototypes_text(result: Result) -> str:
    """Markdown: figures beside their controls, then a line a prototype that was raised."""
    lines = ["", "| figure | value | read against | value |", "|---|---|---|---|"]
    figures = result.figures
    for name, other in BESIDE.items():
        if name in figures:
            against = (other, _text(figures[other])) if other in figures else ("", "")
            lines.append(f"| {name} | {_text(figures[name])} | {against[0]} | {against[1]} |")
    table = result.tables.get("prototype_published")
    if table is not None and table.rows:
        columns = list(table.rows[0])
        lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += [
            "| " + " | ".join(markdown_cell(str(row.get(one) or "")) for one in columns) + " |" for row in table.rows
        ]
    raised = [row for row in result.tables["prototypes"].rows if row.get("after") is not None]
    head = ("prototype", "name", "AUROC", "adjusted p", "before", "after", "odd", "half at t", "of blur alone")
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in raised:
        numbers = [_text(row.get(one)) for one in ("auroc", "p", "before", "after", "odd", "t_half", "t_half_low_pass")]
        cells = [str(row["prototype"]), markdown_cell(str(row.get("name") or "unnamed")), *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shortcut_text(result: Result) -> str:
    """Markdown: what each model's edit moved and leaked, and the index."""
    rows = result.tables["shortcut"].rows
    pair = f"{rows[0]['finding']} is edited, {rows[0]['confounder']} is looked for."
    lines = ["", pair, "", "| of | figure | value | 95 % interval | N | edited |", "|---|---|---|---|---|---|"]
    for row in rows:
        ends = "" if row["low"] is None else f"{_text(row['low'])} to {_text(row['high'])}"
        cells = (row["of"], row["figure"], _text(row["value"]), ends, row.get("n"), row.get("edited") or "")
        lines.append("| " + " | ".join(markdown_cell(str(one)) for one in cells) + " |")
    return "\n".join(lines)


def _text(value: Value) -> str:
    return "" if value is None else f"{float(value):.3g}"
