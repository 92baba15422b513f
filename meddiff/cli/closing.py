"""What a run says when it ends: where it is, and commands that work. Source: own."""

from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.outside import shell
from meddiff.runs import names
from meddiff.runs.checkpoints import broken, find_checkpoint


def ways_on(run: Path, written: str = "", draws: str = "", more: str = "") -> list[str]:
    """The lines that say how to go on with a run: only what works, each ready to be pasted.

    None where no checkpoint was written.

    Args:
        run: its folder.
        written: the checkpoint that was written last, which may lie outside of the folder; "" = none known.
        draws: what `lightning sample` is told of this model; "" where it draws nothing.
        more: appended to the command that goes on, such as `` --trainer.max_steps N``.
    """
    folder = shell(run)
    try:
        find_checkpoint(run, to_train=True, tell=False)  # it was told when the run began
        trained, drawn = f"lightning fit --resume {folder}", folder
    except UserError:
        if not written or not Path(written).exists() or broken(Path(written)):
            return []
        file = shell(written)
        trained, drawn = f"lightning fit -c {shell(run / names.CONFIG)} --ckpt_path {file}", file
    lines = [f"go on:  {trained}{more}"]
    if draws:
        lines.append(f"draw:   lightning sample --ckpt {drawn} {draws}")
    return lines


def drawing_arguments(module: object) -> str:
    """What ``lightning sample`` is told of what a module trained; "" where that draws nothing by itself."""
    model = getattr(module, "model", None)
    if not hasattr(model, "sample"):
        return ""
    if getattr(model, "reads_text", True):
        return '--prompts "Large right pleural effusion."'
    return "--num_images 16" if getattr(module, "prototype_dropout", 0) else ""
