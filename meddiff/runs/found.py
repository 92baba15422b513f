"""Run folders below a folder, and whether anything of them has changed. Source: own."""

import os
from collections.abc import Iterator
from pathlib import Path

from meddiff.runs import names

#: RUNS/NAME/TIME, below a sweep once more.
DEPTH = 4
#: What a report reads, beside the newest files of these folders.
FILES = (names.CONFIG, names.METRICS, names.TRADEOFF, names.CONTROLS)
FOLDERS = (
    names.GROUNDING,
    names.EVALUATIONS,
    f"{names.MEDIA}/{names.ATTENTION}",
    f"{names.MEDIA}/{names.SAMPLES}",
)

#: Sizes and times; equal where nothing was written.
State = tuple[tuple[int, int] | None, ...]


def run_folders(parent: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Run folders in ``parent``, itself included, by name; links are not followed, so nothing outside is found."""
    if any((parent / mark).is_file() for mark in names.MARKS):
        yield parent
        return
    try:
        with os.scandir(parent) as entries:
            below = sorted(one.name for one in entries if one.is_dir(follow_symlinks=False) and one.name[0] != ".")
    except OSError:  # removed, or not ours to read
        return
    for name in below if depth > 0 else ():
        yield from run_folders(parent / name, depth - 1)


def state_of(run: Path) -> State:
    """What tells whether a run has written anything since: two states are equal if not."""
    found: list[tuple[int, int] | None] = []
    for name in (*FILES, *FOLDERS):
        try:
            stat = (run / name).stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except (OSError, ValueError):
            found.append(None)
    return tuple(found)
