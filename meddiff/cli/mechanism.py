"""What ``lightning evaluate mechanism`` needs beside other measurements: the stages of a training, and its printing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.evaluation.measurement import Result, Value
from meddiff.evaluation.mechanism import Course, Mechanism, Stage, is_start
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.runs.kept_checkpoints import Kept, at_steps, kept_checkpoints
from meddiff.runs.open_run import OpenRun, open_run

if TYPE_CHECKING:
    from meddiff.runs.opened import Opened

#: Rows of the printed table -> the figure of each.
PRINTED = {
    "attention on words": "attention/words",
    "on the end token": "attention/end",
    "on padding": "attention/padding",
    "CNR of the finding's word": "cnr/finding/finding",
    "of the end token": "cnr/end/finding",
    "of the finding's word, on the confounder": "cnr/finding/confounder",
    "of the end token, on the confounder": "cnr/end/confounder",
    "finding's word moved": "moved/finding",
    "end token moved": "moved/end",
    "denied or not, from the finding's word": "probe/denied/finding",
    "from the end token": "probe/denied/end",
    "side, from the finding's word": "probe/side/finding",
    "side, from the end token": "probe/side/end",
}


def several_checkpoints(options: Namespace) -> list[Kept]:
    """The checkpoints that ``--ckpt`` names; the last of them is from now on the one that is evaluated.

    Raises:
        UserError: one is not whole, or they lie in the folders of several runs.
    """
    files = [Path(one).expanduser() for one in options.ckpt or ()]
    found, problems = at_steps(files)
    if problems:
        raise UserError(problems[0])
    if len({file.resolve().parent for file in files}) > 1:
        raise UserError("--ckpt names checkpoints of several folders: one evaluation is of one run.")
    options.ckpt = str(found[-1].file) if found else None
    return found


def started_from(run: "Opened") -> LatentDiffusion | None:
    """The model before it was trained; None, and a sentence, where that is not known any more."""
    _, arguments = run.facts.section("model")
    try:
        if isinstance(run, OpenRun) and arguments.get("init_seed", 0) is None:  # what is drawn is drawn as it was then
            before: LatentDiffusion | None = model_of(run.start(init_seed=run.facts.seed))
        else:
            before = run.before()
    except UserError as error:  # the sources may be gone; everything but the movement can still be measured
        print(terminal(f"without the weights that the run started from: {error}"))
        return None
    if before is not None and not is_start(before, run.model):
        print(
            "without the weights that the run started from: its text encoder was frozen, and what its sources hold today is "
            "another one"
        )
        return None
    return before


def course_of(run: "Opened", options: Namespace, chosen: Sequence[Kept]) -> Course:
    """Every stage that is there: the weights that the run started from, then its checkpoints.

    Args:
        chosen: the checkpoints to take; empty takes all that the run kept.
    """
    data, folder = run.data, run.facts.run
    if folder is not None and not chosen:
        chosen, problems = kept_checkpoints(folder)
        for problem in problems:
            print(terminal(f"passed over: {problem}"))
    before = started_from(run)
    moved = {"vae": options.vae} if options.vae else {}

    def opened(kept: Kept) -> LatentDiffusion:
        return open_run(None, kept.file, options.get("shards"), options.device, **moved).model

    stages = [] if before is None else [Stage(0, 0, lambda: before)]
    stages += [
        Stage(one.images, one.step, lambda one=one: opened(one))  # type: ignore[misc]
        for one in chosen
        if one.images > 0 and one.images < run.images
    ]
    newest = next((one.step for one in chosen if one.images == run.images), 0)
    if run.images > 0 or not stages:
        stages.append(Stage(run.images, newest, lambda: run.model))
    counted = {shard.split: data.manifest.samples(shard.split) for shard in data.manifest.shards}
    held_out = [data.dataset(name) for name in sorted(counted) if counted[name] and name != data.train_split]
    trained = data.dataset(data.train_split) if counted.get(data.train_split) else None
    return Course(stages, None if before is None else before.text_encoder, trained, held_out)


def mechanism_of(run: "Opened", options: Namespace, chosen: Sequence[Kept]) -> Mechanism:
    """The measurement over :func:`course_of`; what cannot be measured of the cohort is said before the first pass."""
    found = Mechanism(options["mechanism"], course_of(run, options, chosen), show_progress=True)
    if (reason := found.without_probe()) is not None:
        print(reason)
    return found


def mechanism_text(result: Result) -> str:
    """Markdown: a column a checkpoint."""
    cells: dict[int, Mapping[str, Value]] = {}
    for row in result.tables["mechanism"].rows:
        cells[int(row["images"] or 0)] = {**cells.get(int(row["images"] or 0), {}), str(row["figure"]): row["value"]}
    heads = " | ".join(f"{images:,} images" for images in cells)
    lines = ["", f"| | {heads} |", "|---|" + "---|" * len(cells)]
    for title, figure in PRINTED.items():
        values = [one.get(figure) for one in cells.values()]
        if any(value is not None for value in values):
            shown = ["" if value is None else f"{float(value):.2f}" for value in values]
            lines.append(f"| {title} | " + " | ".join(shown) + " |")
    return "\n".join(lines)
