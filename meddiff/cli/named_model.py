"""The model that ``lightning evaluate`` and ``lightning sample`` are told to open, and the point it leaves on the curve."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.progress import doing
from meddiff.runs import names

if TYPE_CHECKING:
    from meddiff.evaluation.measurement import Result
    from meddiff.runs.evaluations import EvaluationWriter
    from meddiff.runs.opened import Opened

#: Parts whose figures stand in a run's row of the trade-off, and what their names begin with there.
SIDES = ("grounding", "fidelity")


def add_model_arguments(parser: ArgumentParser) -> None:
    """``--model`` and what goes with it, ``--vae``."""
    parser.add_argument(
        "--model",
        type=dict[str, Any] | str | None,
        default=None,
        help="Published model: diffusers folder, single file, hub:ORG/NAME, or {checkpoint: FILE, ema: true, ...}.",
    )
    parser.add_argument(
        "--vae", type=str | None, default=None, help="Autoencoder, if it has moved or --model has none."
    )
    parser.add_argument(
        "--text_encoder",
        type=dict[str, Any] | str | None,
        default=None,
        help="Text encoder, instead of --model's own: a source, or {checkpoint: SOURCE, max_length: 128, ...}.",
    )
    parser.add_argument(
        "--prediction_type",
        type=Literal["epsilon", "v_prediction"] | None,
        default=None,
        help="What --model's U-Net predicts; else its scheduler says so, or it is measured.",
    )


def reading(run: "Opened") -> AbstractContextManager[None]:
    """A line with a clock while a model is built."""
    return doing(terminal(f"reading {run.file}"), stays=False)


def open_named(options: Namespace) -> "Opened":
    """What ``--run``, ``--ckpt`` or ``--model`` names.

    Raises:
        UserError: none or several of them, or what is there does not fit.
    """
    from meddiff.runs.open_model import open_model
    from meddiff.runs.open_run import open_run

    run, shards = options.get("run"), options.get("shards")
    if sum(one is not None for one in (run, options.ckpt, options.model)) != 1:
        several = "" if "run" not in options else "either --run RUN (its newest checkpoint), "
        raise UserError(f"Give {several}--ckpt FILE or --model FOLDER_OR_FILE: exactly one of them.")
    if options.model is None:
        for flag in ("text_encoder", "prediction_type"):
            if options[flag] is not None:
                raise UserError(f"--{flag} goes with --model: a run or checkpoint of this suite says it itself.")
        moved = {"vae": options.vae} if options.vae else {}
        return open_run(run, options.ckpt, shards, options.device, **moved)
    if "shards" in options and shards is None:
        raise UserError(f"--model {options.model} needs --shards DIR to be evaluated on.")
    return open_model(options.model, shards, options.vae, options.text_encoder, options.prediction_type, options.device)


def leave_point(writer: "EvaluationWriter", part: str, result: "Result") -> None:
    """Let ``lightning report`` read the evaluation of a published model beside runs: its point of the trade-off at image 0,
    under the names of a run's row, its phrases and its controls."""
    from meddiff.runs.tables import read_table, update_controls, write_table

    if part == "controls":
        update_controls(writer.folder, "grounding", result.controls)
    if part not in SIDES:
        return
    file = writer.folder / names.TRADEOFF
    before: dict[str, object] = {name: value for row in read_table(file) for name, value in row.items()}
    other = {name: value for name, value in before.items() if not name.startswith(f"{part}/")}
    # a run's row has no impressions: those are of Table 7
    figures = {f"{part}/{name}": value for name, value in result.figures.items() if not name.startswith("impressions/")}
    write_table(file, [{**other, "step": 0, "images": 0, **figures}], ("step", "images"))
    if part == "fidelity" and result.controls:
        update_controls(writer.folder, part, result.controls)
    table = result.tables.get("grounding")
    if part == "grounding" and table is not None:
        phrases = writer.folder / names.GROUNDING / f"{names.by_images(0)}.csv"
        phrases.parent.mkdir(exist_ok=True)
        write_table(phrases, table.rows, [name for name in table.first if name not in ("model", "images", "seed")])
