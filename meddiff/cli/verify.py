"""``lightning doctor --verify``: are files on the disk still what was written? Source: own."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.check_sums import SUFFIX, digest_of, read_sum, sum_file
from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.runs.checkpoints import SUFFIX as CHECKPOINT
from meddiff.shards.manifest import MANIFEST_NAME, Manifest


@dataclass(frozen=True)
class Claim:
    """What is known of a file: its check sum (None: nothing) and, of shards, its size."""

    file: Path
    sha256: str | None
    size: int | None = None


def claims_of(paths: Iterable[Path]) -> list[Claim]:
    """Every file that has a check sum or should have one: checkpoints, shards of manifests, and what has a sum beside it.

    Raises:
        UserError: nothing at a path, nothing to compare in a folder, or a manifest that cannot be read.
    """
    found: dict[Path, Claim] = {}
    for path in paths:
        if path.is_dir():
            claims = list(_in_folder(path))
        elif path.is_file() or path.is_symlink():
            claims = [_of_file(path)]
        else:
            raise UserError(f"Nothing at {path} to verify: give a run folder, a folder of shards or a file.")
        if not claims:
            raise UserError(f"{path} holds no checkpoint, no shards and no check sums: give a run folder or shards.")
        # of a file named twice the claim that says more
        found |= {claim.file: claim for claim in claims if claim.sha256 is not None or claim.file not in found}
    return list(found.values())


def _in_folder(folder: Path) -> Iterator[Claim]:
    for below, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(below)
        shards = _shards(here) if MANIFEST_NAME in files else {}
        yield from shards.values()
        summed = {name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX) and not name.startswith(".")}
        wanted = {name for name in files if name.endswith(CHECKPOINT) and not (here / name).is_symlink()}
        for name in sorted((summed | wanted) - shards.keys()):
            if not name.startswith("."):
                yield Claim(here / name, read_sum(here / name))


def _of_file(file: Path) -> Claim:
    if file.is_symlink():
        file = file.resolve()
    if file.name.endswith(SUFFIX):
        file = file.with_name(file.name.removesuffix(SUFFIX))
    if sum_file(file).is_file():
        return Claim(file, read_sum(file))
    shards = _shards(file.parent) if (file.parent / MANIFEST_NAME).is_file() else {}
    return shards.get(file.name, Claim(file, None))


def _shards(folder: Path) -> dict[str, Claim]:
    """Name -> claim of each shard a manifest lists."""
    records = Manifest.read(folder).shards
    return {one.name: Claim(folder / one.name, one.sha256, one.bytes) for one in records}


def verify(paths: list[Path]) -> None:
    """Compare files with their check sums, a line each.

    Raises:
        UserError: one differs, is missing or cannot be read.
    """
    from meddiff.common.progress import is_terminal, progress_bar

    claims = claims_of(paths)
    total = sum(claim.file.stat().st_size for claim in claims if claim.sha256 and claim.file.is_file())
    bad: list[Path] = []
    without: list[Path] = []
    with progress_bar(total, "B", "verify", is_terminal(sys.stderr)) as bar:
        for claim in claims:
            word = _compare(claim, bar.update)
            mark = "ok  " if word == "" else "    " if claim.sha256 is None else "BAD "
            bar.write(terminal(f"{mark} {claim.file}{f': {word}' if word else ''}"), file=sys.stdout)
            if claim.sha256 is None and not word.startswith("missing"):
                without.append(claim.file)
            elif word:
                bad.append(claim.file)
    print(f"\n{len(claims) - len(bad) - len(without)} as written, {len(bad)} not, {len(without)} without a check sum")
    if bad:
        raise UserError(
            f"{len(bad)} of {len(claims)} files are not what was written ({_names(bad)}): take an older checkpoint, or "
            "copy or prepare the shards again."
        )


def _compare(claim: Claim, on_bytes: Callable[[int], object]) -> str:
    """What is wrong with a file, "" if nothing is."""
    if not claim.file.is_file():
        return "missing"
    if claim.sha256 is None:
        return "has no check sum"
    if claim.sha256 == "":
        return f"{sum_file(claim.file).name} cannot be read"
    size = claim.file.stat().st_size
    if claim.size is not None and size != claim.size:
        return f"has {size:,} bytes, was written with {claim.size:,}"
    try:
        return "" if digest_of(claim.file, on_bytes) == claim.sha256 else "differs from its check sum"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _names(files: list[Path]) -> str:
    return ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
