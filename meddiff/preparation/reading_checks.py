"""What a cohort's reader has found, checked before anything is written. Source: own."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from meddiff.common.errors import UserError
from meddiff.common.outside import inside, terminal
from meddiff.preparation.records import Reading, Record, Rejected


def check_reading(reading: Reading) -> None:
    """What every reader promises.

    Raises:
        UserError: no image left, a key twice, a patient in two splits, boxes that are fractions.
    """
    split_of: dict[str, Record] = {}
    before = ""
    for record in reading.records:
        if record.key == before:
            raise UserError(
                f"{reading.cohort}: image {record.key!r} occurs twice; every image needs a name of its own."
            )
        before = record.key
        other = split_of.setdefault(record.patient_id, record)
        if other.split != record.split:
            raise UserError(
                f"{reading.cohort}: patient {record.patient_id!r} is in two splits, {other.split} ({other.key}) and "
                f"{record.split} ({record.key}); a patient must be in one."
            )
    boxes = [(box.x, box.y, box.w, box.h) for record in reading.records for box in record.boxes]
    if boxes and max(map(max, boxes)) <= 1:
        raise UserError(
            f"{reading.cohort}: all {len(boxes)} boxes look like fractions of the image (such as {boxes[0]}); boxes must be in "
            "pixels: multiply x and w by the image's width, y and h by its height."
        )
    if not reading.records:
        print_funnel(reading.funnel.rows())
        raise UserError(
            f"{reading.cohort}: no image of {reading.root} is left; the funnel above says which rule took them."
        )


def limit_reading(reading: Reading, limit: int) -> None:
    """At most ``limit`` images of each split, the first by key; the others are listed as left out."""
    taken: dict[str, int] = {}
    kept = []
    for record in reading.records:
        taken[record.split] = taken.get(record.split, 0) + 1
        if taken[record.split] <= limit:
            kept.append(record)
        else:
            reading.rejected.append(Rejected(record.key, f"beyond --limit {limit}", record.split))
    reading.records = kept
    reading.options["limit"] = limit
    reading.funnel.keep(f"beyond --limit {limit}", len(kept))


def refuse_links_out(reading: Reading) -> None:
    """One look at each file, so that a link out of the root is no surprise after hours.

    Raises:
        UserError: an image, a mask, or a folder of them, is a link that leads out of the root.
    """
    files = [record.path for record in reading.records]
    files += [mask for record in reading.records for mask in record.attributes.get("mask_files", {}).values()]
    for folder in sorted({PurePosixPath(path).parent.as_posix() for path in files}):
        inside(reading.root, folder)
    for path in files:
        if _is_link(reading.root / path):
            inside(reading.root, path)


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # a name longer than any file's: told as an unreadable image
        return False


def print_funnel(rows: Sequence[tuple[str, int, int]]) -> None:
    """A line a rule: how many it removed and how many are left."""
    rows = [(terminal(rule), left, removed) for rule, left, removed in rows]
    width = max(len(rule) for rule, _, _ in rows)
    print(f"{'rule':<{width}}{'removed':>12}{'left':>12}")
    for rule, left, removed in rows:
        print(f"{rule:<{width}}{f'{removed:,}' if removed else '':>12}{left:>12,}")
