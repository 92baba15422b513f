"""Pictures of a run as data URIs, within a budget: a page that is rewritten while training must stay small. Source: own."""

import base64
import struct
from pathlib import Path

from meddiff.runs.folder import Entry
from meddiff.runs.values import number

Size = tuple[float, float]
MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class Media:
    """Reads the pictures of one folder of a run, each once.

    Args:
        folder: ``RUN/media/attention`` or ``RUN/media/samples``; nothing outside it is read.
        pictures: data URI -> its place among all pictures of the page; grows.
    """

    def __init__(self, folder: Path, pictures: dict[str, int]) -> None:
        self.folder, self.pictures = folder.resolve(), pictures
        self._read: dict[object, tuple[int | None, Size | None]] = {}

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

    def picture(self, name: object) -> tuple[int | None, Size | None]:
        """Its place, None if there is none that can be shown; and its size, if the format tells it at once."""
        file = self.file(name)
        if file is not None and name not in self._read:
            content, uri = _read(file)
            size = (
                struct.unpack(">II", content[16:24]) if uri.startswith("data:image/png") and len(content) > 25 else None
            )
            self._read[name] = (self.pictures.setdefault(uri, len(self.pictures)), size) if uri else (None, None)
        return self._read.get(name, (None, None)) if file is not None else (None, None)


def data_uri(file: Path) -> str:
    """A picture as text; "" where it is none."""
    return _read(file)[1]


def _read(file: Path) -> tuple[bytes, str]:
    """The content of a file, and the same as text where it is a picture."""
    try:
        content = file.read_bytes()
    except OSError:
        return b"", ""
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    return content, f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else ""


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


def size_of(entry: Entry, file: Size | None) -> Size:
    """Width and height of an entry's image: as stated, else as in the file."""
    stated = _numbers(entry.get("size"))
    return (stated[0], stated[1]) if len(stated) == 2 and min(stated) > 0 else file or (1.0, 1.0)


def boxes_of(entry: Entry) -> list[list[float]]:
    """Boxes (x, y, w, h) of an entry; what is not four numbers is left out."""
    boxes = entry.get("boxes")
    return [found for box in (boxes if isinstance(boxes, list) else ()) if len(found := _numbers(box)) == 4]


def _numbers(values: object) -> list[float]:
    """Numbers as they are, or none."""
    found = [number(value) for value in values] if isinstance(values, list) else []
    return [value for value in found if value is not None] if None not in found else []
