"""Pictures of a run as data URIs, within a budget: a page that is rewritten while training must stay small. Source: own."""

import base64
import struct
from dataclasses import dataclass
from pathlib import Path

from meddiff.runs import names
from meddiff.runs.folder import Entry, Run
from meddiff.runs.values import number

MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A picture file: its data URI, and its size if the format tells it at once."""

    uri: str
    size: tuple[int, int] | None


class Media:
    """Reads the pictures of one folder of a run, each once.

    Args:
        folder: ``RUN/media/attention`` or ``RUN/media/samples``; nothing outside it is read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._read: dict[str, Picture | None] = {}

    def file(self, name: object) -> Path | None:
        """The file of that name, or None: no name, outside the folder, or not there."""
        if not isinstance(name, str) or not name or "\0" in name:
            return None
        path = (self.folder / name).resolve()
        return path if path.is_relative_to(self.folder) and path.is_file() else None

    def bytes_of(self, entry: Entry, names: tuple[str, ...]) -> int:
        """What the pictures of one entry add to the page."""
        files = {self.file(entry.get(name)) for name in names}
        return sum(file.stat().st_size for file in files if file is not None)

    def picture(self, name: object) -> Picture | None:
        """The picture, or None if there is none that can be shown."""
        if not isinstance(name, str):
            return None
        if name not in self._read:
            self._read[name] = self._load(name)
        return self._read[name]

    def _load(self, name: str) -> Picture | None:
        file = self.file(name)
        try:
            content = file.read_bytes() if file is not None else b""
        except OSError:
            return None
        kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
        if kind is None:
            return None
        size = struct.unpack(">II", content[16:24]) if kind == "image/png" and len(content) > 25 else None
        return Picture(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}", size)


def affordable(media: Media, found: dict[int, list[Entry]], names: tuple[str, ...], budget: int) -> list[int]:
    """Which evaluations fit into ``budget`` bytes: the newest always, then the first, then backwards from the newest."""
    order = sorted((images for images, entries in found.items() if entries), reverse=True)
    if len(order) > 2:
        order = [order[0], order[-1], *order[1:-1]]
    kept: list[int] = []
    for images in order:
        budget -= sum(media.bytes_of(entry, names) for entry in found[images])
        if kept and budget < 0:
            break
        kept.append(images)
    return sorted(kept)


def size_of(entry: Entry, picture: Picture | None) -> tuple[float, float]:
    """Width and height of an entry's image: as stated, else as in the file."""
    stated = entry.get("size")
    if isinstance(stated, list) and len(stated) == 2:
        w, h = number(stated[0]), number(stated[1])
        if w and h and w > 0 and h > 0:
            return w, h
    return picture.size if picture is not None and picture.size is not None else (1.0, 1.0)


def boxes_of(entry: Entry) -> list[tuple[float, float, float, float]]:
    """Boxes (x, y, w, h) of an entry; what is not four numbers is left out."""
    found = []
    boxes = entry.get("boxes")
    for box in boxes if isinstance(boxes, list) else []:
        values = [number(v) for v in box] if isinstance(box, list) else []
        if len(values) == 4 and all(v is not None for v in values):
            x, y, w, h = (float(v or 0.0) for v in values)
            found.append((x, y, w, h))
    return found


def media_of(run: Run, kind: str) -> Media:
    """The pictures of a run of one kind, ``attention`` or ``samples``."""
    return Media(run.path / names.MEDIA / kind)
