"""Files of made-up cohorts: tables, small pictures, damage, and what a folder holds."""

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from meddiff.common.draws import generator
from meddiff.shards.index import CACHE_NAME


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Path:
    """A csv in UTF-8 with ``columns``, compressed where the name ends in .gz; what a row lacks is an empty cell."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    data = stream.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_lines(path: Path, *lines: str) -> Path:
    """A text in UTF-8, each line with its line break."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*lines, ""]).encode())
    return path


def write_image(path: Path, *address: object, size: tuple[int, int] = (80, 72)) -> Path:
    """A smooth grey picture of its own, (width, height) pixels, drawn by ``address``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = generator("tree", *address).integers(0, 256, (6, 6)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def touch_images(folder: Path, names: Iterable[str]) -> None:
    """Empty files in ``folder``: the readers look at names alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def cut(path: Path) -> None:
    """Take the last eighth off a file: its first bytes still say that it is an image."""
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 8])


def listing(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below, "" for folders; the readers' cache is not a result."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.name != CACHE_NAME}
    return {n: "" if p.is_dir() else hashlib.sha256(p.read_bytes()).hexdigest() for n, p in found.items()}
