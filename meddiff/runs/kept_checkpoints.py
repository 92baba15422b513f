"""All whole checkpoints of a run in the order of training, where :mod:`.checkpoints` finds the newest. Source: own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.runs.checkpoints import candidates, images_of, read_checkpoint


@dataclass(frozen=True)
class Kept:
    """A checkpoint and how far the model in it had come."""

    file: Path
    images: int
    step: int


def kept_checkpoints(run: Path) -> tuple[list[Kept], list[str]]:
    """The checkpoints of a run folder, one a step; and a sentence for each that is not whole.

    Links are left out: what they lead to stands beside them.
    """
    return at_steps([file for file in candidates(run) if not file.is_symlink()])


def at_steps(files: Sequence[Path]) -> tuple[list[Kept], list[str]]:
    """Checkpoints by steps, the first of each step; and a sentence for each that is not whole."""
    found: dict[int, Kept] = {}
    problems = []
    for file in files:
        try:
            checkpoint = read_checkpoint(file)
        except UserError as error:
            problems.append(str(error))
            continue
        step = int(checkpoint.get("global_step", 0))
        found.setdefault(step, Kept(file, images_of(checkpoint), step))
    return [found[step] for step in sorted(found)], problems
