"""Checkpoints of a run: which one is meant, what it holds, how far it had come. No Lightning. Source: own."""

import os
import pickletools
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from meddiff.common.check_sums import HashingStream, remove_sum, write_sum
from meddiff.common.errors import UserError
from meddiff.common.files import PART, atomic_open, remove_leftovers
from meddiff.common.outside import terminal
from meddiff.common.processes import is_first_process
from meddiff.runs import names

#: What ``torch.load(weights_only=True)`` gives of a checkpoint.
Checkpoint = dict[str, Any]

SUFFIX = ".ckpt"
#: How tensors of Stable Diffusion's original files are called.
FOREIGN = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
#: What a checkpoint must hold to be opened, and to be trained on.
TO_OPEN = ("state_dict", "hyper_parameters")
TO_TRAIN = ("state_dict", "optimizer_states", "global_step")
#: The part of a checkpoint in pieces (a folder) that is written last; the part that says how far it had come
#: (as in :mod:`meddiff.runs.pieces`, which needs torch).
_PIECES, _ABOUT = ".metadata", "meta.pt"
#: What a killed writer of such a folder leaves (:func:`part_of`).
_OF_PIECES = re.compile(rf"\..+\{SUFFIX}\{PART}(\.old)?", re.DOTALL)


class _NotWhole(Exception):
    """Why a file is no whole checkpoint, in a few words."""


def find_checkpoint(path: str | os.PathLike[str], to_train: bool = False, tell: bool = True) -> Path:
    """A ``.ckpt`` file as it is; of a folder the whole checkpoint with the most steps, at any depth below ``checkpoints/``.

    Steps are read from the files, not from their names or times. What is cut, empty, foreign or a link to nothing is
    passed over with a sentence on stderr. Only the index and the pickle of the candidates are read, never the tensors.

    Args:
        path: a checkpoint, a run folder, or a folder of checkpoints.
        to_train: only those that training can go on from (with the state of the optimiser).
        tell: print that sentence.

    Raises:
        UserError: nothing there, or nothing whole.
    """
    root = Path(os.path.expanduser(path))
    if root.is_file() or (root.suffix == SUFFIX and _is_folder_of_pieces(root)):
        return root
    found, passed = _newest(root, to_train)
    if found is None:
        if passed:
            raise UserError(f"No whole checkpoint at {path}: {_listed(passed, root)}.")
        raise UserError(f"No checkpoint at {path}: give a .ckpt file or a run folder that has checkpoints/*.ckpt.")
    if passed and tell and is_first_process():
        print(terminal(f"passed over {_listed(passed, root)}; taken: {found[1]} (step {found[0]})"), file=sys.stderr)
    return found[1]


def checkpoint_to_go_on(run: Path) -> str | None:
    """Where a requeued job goes on in its own run folder; None before its first whole checkpoint."""
    found, _ = _newest(run, to_train=True) if (run / names.CHECKPOINTS).is_dir() else (None, {})
    return str(found[1]) if found is not None else None


def is_own_checkpoint(file: Path) -> bool:
    """Whether a file is a checkpoint of this suite, by the texts in its pickle: no code of it runs, no tensor is read.

    An original Stable Diffusion file is called ``.ckpt`` too, and may be what Lightning wrote; its tensors have other names.
    What is cut off counts as one of this suite, whose reader names the whole one beside it.
    """
    if file.suffix != SUFFIX:
        return False
    found: set[str] = set()
    try:
        for _, value in _pickled(file):
            if isinstance(value, str):
                if value.startswith(FOREIGN):
                    return False
                found.add(value)
    except _NotWhole as reason:
        return "cut off" in str(reason) or "empty" in str(reason)
    return found.issuperset(TO_OPEN)


def whole_beside(file: Path) -> Path | None:
    """The whole checkpoint with the most steps in the folder of ``file``, for a sentence about ``file``."""
    folder = file.parent
    found, _ = _newest(folder, to_train=False) if folder.is_dir() else (None, {})
    return found[1] if found is not None else None


def broken(file: Path) -> str | None:
    """A sentence when ``file`` is no whole checkpoint, naming the one beside it to take instead; else None."""
    try:
        if file.is_dir():
            _steps_in_pieces(file)
        else:
            _load(file)
    except _NotWhole as reason:
        other = whole_beside(file)
        instead = f": take {other}" if other is not None and other != file else ""
        return f"{file} is not a whole checkpoint ({reason}){instead}."
    return None


def read_checkpoint(file: Path, to_train: bool = False) -> Checkpoint:
    """The content of a checkpoint of this suite; tensors of a file stay on disk until they are used.

    Args:
        to_train: of one in pieces with the optimiser's state, which is two thirds of it.

    Raises:
        UserError: not a checkpoint of this suite.
    """
    try:
        checkpoint = _read_pieces(file, to_train) if file.is_dir() else _load(file)
        _need(checkpoint, TO_OPEN)
    except _NotWhole as reason:
        other = whole_beside(file)
        instead = f"; a whole one is {other}" if other is not None and other != file else ""
        raise UserError(f"{file} is not a checkpoint of this suite ({reason}){instead}.") from reason
    return checkpoint


def write_checkpoint(content: Mapping[str, object], file: Path) -> None:
    """Write a checkpoint and the check sum beside it; a kill, a full disk or a power cut leaves the old one or the new one.

    Written beside the target and renamed, straight to the disk: neither a second copy in memory nor ``TMPDIR`` is used.
    The old check sum goes before the rename and the new one comes after it: a kill in between leaves a checkpoint without
    a sum, never one with a wrong one.

    Raises:
        OSError: not writable, or the disk is full; an older file of that name stays.
    """
    import torch

    with atomic_open(file) as stream:
        hashed = HashingStream(stream, hold_errors=True)
        try:
            torch.save(content, cast("IO[bytes]", hashed))  # it only writes
        finally:
            digest = hashed.finish()  # what went wrong first, not what torch made of it
        stream.flush()
        os.fsync(stream.fileno())
        remove_sum(file)
    write_sum(file, digest)


def part_of(path: Path) -> Path:
    """Where a checkpoint in pieces is written before it is whole: beside it, a name that nothing takes for a checkpoint."""
    return path.with_name(f".{path.name}{PART}")


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder of checkpoints and below: each may be as large as one."""
    for below, folders, _ in os.walk(folder) if is_first_process() else ():
        remove_leftovers(below)
        for name in [one for one in folders if one.startswith(".") and _OF_PIECES.fullmatch(one)]:
            shutil.rmtree(Path(below) / name, ignore_errors=True)
            folders.remove(name)


def images_of(checkpoint: Mapping[str, Any]) -> int:
    """Images the model of a checkpoint has been trained on; its optimiser steps where no data module was stored."""
    for value in checkpoint.values():
        if isinstance(value, dict) and "images_consumed" in value:
            return int(value["images_consumed"])
    return int(checkpoint.get("global_step", 0))


# ---- which one ------------------------------------------------------------------------------------------------------


def _newest(root: Path, to_train: bool) -> tuple[tuple[int, Path] | None, dict[Path, str]]:
    """(steps, file) of the best one if there is any, and why others were passed over."""
    passed: dict[Path, str] = {}
    ranked: list[tuple[int, bool, int, str, Path]] = []
    for file in candidates(root):
        try:
            steps = _steps_in_pieces(file) if file.is_dir() else _steps(file)
            # of equal steps: a file before a link to it, then the newer one
            ranked.append((steps, not file.is_symlink(), file.stat().st_mtime_ns, str(file), file))
        except _NotWhole as reason:
            passed[file] = str(reason)
    for steps, *_, file in sorted(ranked, reverse=True):
        try:
            if not file.is_dir():
                _need(_load(file), TO_TRAIN if to_train else TO_OPEN)
            return (steps, file), passed
        except _NotWhole as reason:
            passed[file] = str(reason)
    return None, passed


def candidates(root: Path) -> Iterator[Path]:
    """Everything called ``*.ckpt``: at any depth, but not in the run folders that lie in ``root``."""
    below = root / names.CHECKPOINTS
    if below.is_dir():
        yield from sorted(root.glob(f"*{SUFFIX}"))  # what Lightning writes when SLURM takes the machine away
        root = below
    for folder, folders, files in os.walk(root):
        if Path(folder) != root and names.CONFIG in files:
            folders.clear()
            continue
        pieces = {name for name in folders if name.endswith(SUFFIX) and _is_folder_of_pieces(Path(folder) / name)}
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in pieces)
        links = (name for name in files if name.endswith(SUFFIX) and not name.startswith("."))
        yield from (Path(folder) / name for name in sorted({*links, *pieces}))


def _steps(file: Path) -> int:
    """Optimiser steps as the beginning of the pickle has them: no code of it runs, and no tensor is read."""
    named = False
    for operation, value in _pickled(file):
        if named and isinstance(value, int) and "PUT" not in operation:
            return value
        named = named or value == "global_step"
    return 0  # weights alone


def _pickled(file: Path) -> Iterator[tuple[str, object]]:
    """(operation, value) of the pickle in a checkpoint, one after the other; nothing of it is executed."""
    if file.is_symlink() and not file.exists():
        raise _NotWhole("a link to nothing")
    try:
        if file.stat().st_size == 0:
            raise _NotWhole("empty")
        with zipfile.ZipFile(file) as archive:
            pickle = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if pickle is None:
                raise _NotWhole("not a checkpoint")
            with archive.open(pickle) as stream:
                yield from ((operation.name, value) for operation, value, _ in pickletools.genops(stream))
    except zipfile.BadZipFile:
        with file.open("rb") as stream:
            start = stream.read(4)
        raise _NotWhole("cut off" if start.startswith(b"PK") else "not a checkpoint") from None
    except (OSError, ValueError, EOFError, NotImplementedError) as error:
        raise _NotWhole(f"unreadable, {type(error).__name__}") from error


def _is_folder_of_pieces(folder: Path) -> bool:
    """Whether a folder is a checkpoint in pieces, or was to become one."""
    return (folder / _PIECES).exists() or (folder / _ABOUT).exists()


def _steps_in_pieces(folder: Path) -> int:
    """As :func:`_steps`, of a checkpoint that is a folder: whole once the parts that are written last are there."""
    if not (folder / _PIECES).is_file() or not (folder / _ABOUT).is_file():
        raise _NotWhole("cut off")
    content = _load(folder / _ABOUT)
    return int(content.get("global_step", 0))


def _read_pieces(folder: Path, to_train: bool) -> Checkpoint:
    from meddiff.runs.pieces import read_whole

    _steps_in_pieces(folder)
    try:
        return read_whole(folder, to_train)
    except UserError as error:
        raise _NotWhole(str(error)) from error


def _load(file: Path) -> Checkpoint:
    import torch

    if file.is_symlink() and not file.exists():
        raise _NotWhole("a link to nothing")
    try:
        if file.stat().st_size == 0:
            raise _NotWhole("empty")
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except _NotWhole:
        raise
    except Exception as error:  # torch raises whatever its parts do
        raise _NotWhole(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise _NotWhole("not a checkpoint")
    return content


def _need(checkpoint: Checkpoint, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise _NotWhole(f"has no {' and no '.join(missing)}")


def _listed(passed: Mapping[Path, str], root: Path) -> str:
    shown = [f"{os.path.relpath(file, root)} ({reason})" for file, reason in list(passed.items())[:3]]
    return ", ".join(shown) + (f" and {len(passed) - 3} more" if len(passed) > 3 else "")
