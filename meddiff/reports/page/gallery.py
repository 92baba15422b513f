"""Galleries: word maps over their X-rays, and samples beside real images, with a slider over evaluations. Source: own.

The newest evaluation stands in the page itself; the others are in a JSON block that the slider reads.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from meddiff.reports.page.media import PAGE_BYTES, Media, affordable, boxes_of, media_of, size_of
from meddiff.reports.page.wording import compact, count_text, esc, value_text
from meddiff.runs import names
from meddiff.runs.folder import Entry, Run
from meddiff.runs.values import number

#: tiles of one gallery at most; the page says how many were left out
MAX_TILES = 48


@dataclass
class Cell:
    """One run's picture in a tile, at each position of the slider (None: the run has none there)."""

    frames: list[tuple[str, str] | None]  # (data URI, note)


@dataclass
class Tile:
    """One X-ray or prompt: a reference picture and a cell for every run."""

    caption: str
    size: tuple[float, float]
    base: str | None
    base_label: str
    alt: str
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    mask: str | None = None
    transparent: bool = False
    cells: list[Cell] = field(default_factory=list)


@dataclass
class Gallery:
    """Tiles of one kind.

    Attributes:
        what: what the runs' pictures are.
        positions: numbers of images the slider stops at.
        left_out: sentences about what is not shown.
    """

    name: str
    what: str
    tiles: list[Tile]
    positions: list[int]
    left_out: list[str]


Key = tuple[str, ...]


def _keyed(entries: list[Entry], parts: tuple[str, ...]) -> dict[Key, Entry]:
    """Entries by what they show; several that show the same are numbered."""
    found: dict[Key, Entry] = {}
    for entry in entries:
        base = tuple(str(entry.get(part) or "") for part in parts)
        repeat = 0
        while (*base, str(repeat)) in found:
            repeat += 1
        found[(*base, str(repeat))] = entry
    return found


def _collect(
    runs: Sequence[Run],
    kind: str,
    stored: Sequence[dict[int, list[Entry]]],
    parts: tuple[str, ...],
    pictures: tuple[str, ...],
    build: Callable[[Media, Entry], Tile],
    frame: Callable[[Media, Entry], tuple[str, str] | None],
) -> Gallery | None:
    """One tile for everything any run shows in its newest evaluation, with every run's picture of it."""
    medias = [media_of(run, kind) for run in runs]
    budget = PAGE_BYTES // (2 * len(runs))
    kept = [affordable(media, found, pictures, budget) for media, found in zip(medias, stored, strict=True)]
    keyed = [
        {images: _keyed(found[images], parts) for images in keep} for found, keep in zip(stored, kept, strict=True)
    ]
    positions = sorted({images for keep in kept for images in keep})
    if not positions:
        return None
    left_out = []
    for run, found, keep in zip(runs, stored, kept, strict=True):
        missing = len([images for images, entries in found.items() if entries]) - len(keep)
        if missing:
            left_out.append(
                f"{run.name}: {missing} more evaluations are in {kind} of its media folder, left out to keep this page small."
            )
    tiles: dict[Key, Tile] = {}
    for media, of_run, keep in zip(medias, keyed, kept, strict=True):
        for key, entry in of_run[keep[-1]].items() if keep else ():
            if key not in tiles:
                tiles[key] = build(media, entry)
    if len(tiles) > MAX_TILES:
        left_out.append(f"The first {MAX_TILES} of {len(tiles)} are shown.")
    shown = dict(list(tiles.items())[:MAX_TILES])
    for key, tile in shown.items():
        for media, of_run in zip(medias, keyed, strict=True):
            tile.cells.append(Cell(_frames(positions, of_run, key, partial(frame, media))))
    return Gallery(kind, "word map" if kind == names.ATTENTION else "drawn", list(shown.values()), positions, left_out)


def _frames(
    positions: Sequence[int],
    of_run: dict[int, dict[Key, Entry]],
    key: Key,
    frame: Callable[[Entry], tuple[str, str] | None],
) -> list[tuple[str, str] | None]:
    """A run's pictures of one thing; where the run was not evaluated it shows its evaluation before, and says so."""
    frames: list[tuple[str, str] | None] = []
    before: tuple[str, str] | None = None
    for position in positions:
        if position in of_run:
            entry = of_run[position].get(key)
            shown = frame(entry) if entry is not None else None
            before = None if shown is None else (shown[0], f"{shown[1]} (at {compact(position)})".strip())
            frames.append(shown)
        else:
            frames.append(before)
    return frames


def marked(phrase: str, word: str) -> str:
    """The phrase, escaped, with the word marked; of several words each."""
    words = [re.escape(part) for part in re.split(r"[\s,/|]+", word) if len(part) > 1]
    if not words:
        return esc(phrase)
    pieces = re.split(rf"((?<!\w)(?:{'|'.join(words)}))", phrase, flags=re.IGNORECASE)
    return "".join(f"<mark>{esc(piece)}</mark>" if place % 2 else esc(piece) for place, piece in enumerate(pieces))


def attention_gallery(runs: Sequence[Run]) -> Gallery | None:
    """Word maps over their X-rays; None if there are none."""

    def build(media: Media, entry: Entry) -> Tile:
        picture, overlay = media.picture(entry.get("image")), media.picture(entry.get("map"))
        mask = media.picture(entry.get("mask"))
        name, word, phrase = (str(entry.get(part) or "") for part in ("class", "word", "phrase"))
        caption = f"<strong>{esc(name or word)}</strong> <span class=phrase>{marked(phrase, word)}</span>"
        caption += f" <code>{esc(entry.get('key') or '')}</code>"
        return Tile(
            caption,
            size_of(entry, picture),
            picture.uri if picture else None,
            "X-ray",
            f"{name}: map of the word {word}",
            boxes_of(entry),
            mask.uri if mask else None,
            bool(overlay and overlay.transparent),
        )

    def frame(media: Media, entry: Entry) -> tuple[str, str] | None:
        picture, cnr = media.picture(entry.get("map")), number(entry.get("cnr"))
        return (picture.uri, "" if cnr is None else f"CNR {value_text(cnr)}") if picture else None

    return _collect(
        runs,
        names.ATTENTION,
        [run.attention for run in runs],
        ("key", "class", "word", "phrase"),
        ("map",),
        build,
        frame,
    )


def sample_gallery(runs: Sequence[Run]) -> Gallery | None:
    """Drawn images beside the real image of the same prompt; None if there are none."""

    def build(media: Media, entry: Entry) -> Tile:
        real = media.picture(entry.get("real"))
        drawn = media.picture(entry.get("image"))
        prompt = str(entry.get("prompt") or "")
        caption = f"<span class=phrase>{esc(prompt) if prompt else 'no prompt'}</span>"
        if entry.get("key"):
            caption += f" <code>{esc(entry['key'])}</code>"
        return Tile(caption, size_of({}, real or drawn), real.uri if real else None, "real", f"sample for: {prompt}")

    def frame(media: Media, entry: Entry) -> tuple[str, str] | None:
        picture = media.picture(entry.get("image"))
        return (picture.uri, str(entry.get("sampler") or "")) if picture else None

    return _collect(
        runs, names.SAMPLES, [run.samples for run in runs], ("key", "prompt", "sampler"), ("image",), build, frame
    )


def _marks(tile: Tile) -> str:
    """Boxes and mask outline, in pixels of the image."""
    drawn = []
    if tile.mask:
        drawn.append(_image(tile, tile.mask, 'class="mask" filter="url(#outline)"'))
    for x, y, bw, bh in tile.boxes:
        place = f'x="{x:g}" y="{y:g}" width="{bw:g}" height="{bh:g}"'
        drawn.append(f'<rect class="roi halo" {place}/><rect class="roi" {place}/>')
    return "".join(drawn)


def _svg(tile: Tile, picture: str, alt: str) -> str:
    w, h = tile.size
    return (
        f'<svg class="xray" viewBox="0 0 {w:g} {h:g}" role="img" aria-label="{esc(alt)}">{picture}{_marks(tile)}</svg>'
    )


def _image(tile: Tile, uri: str | None, extra: str = "") -> str:
    w, h = tile.size
    source = f'href="{uri}"' if uri else "hidden"  # an empty address would be this page's own
    return f'<image {extra} {source} width="{w:g}" height="{h:g}" preserveAspectRatio="none"/>'


def gallery_html(gallery: Gallery, runs: Sequence[Run]) -> str:
    """The tiles, the slider if there is more than one evaluation, and the data it reads."""
    tiles, data = [], []
    for number_, tile in enumerate(gallery.tiles):
        base_id = f"{gallery.name}-{number_}"
        panels = []
        if not tile.base and any(other.base for other in gallery.tiles):
            panels.append(f'<div class="panel"><div class="absent">no {tile.base_label}<br>image</div></div>')
        elif tile.base:
            picture = _image(tile, tile.base, f'id="{base_id}"')
            panels.append(
                f'<div class="panel">{_svg(tile, picture, tile.base_label)}<div class="note">{tile.base_label}</div></div>'
            )
        for position, (run, cell) in enumerate(zip(runs, tile.cells, strict=True)):
            uris = list(dict.fromkeys(frame[0] for frame in cell.frames if frame is not None))
            latest = cell.frames[-1]
            data.append(
                {
                    # The newest is in the page already.
                    "uris": [None if latest is not None and uri == latest[0] else uri for uri in uris],
                    "at": [None if frame is None else [uris.index(frame[0]), frame[1]] for frame in cell.frames],
                }
            )
            under = f'<use href="#{base_id}"/>' if tile.transparent and tile.base else ""
            drawn = under + _image(tile, latest[0] if latest else None, 'class="frame"')
            swatch = f'<span class="swatch r{position}"></span>{esc(run.name)}'
            name = f"<span>{swatch if len(runs) > 1 else gallery.what}</span>"
            panels.append(
                f'<div class="panel r{position}" data-cell="{len(data) - 1}">{_svg(tile, drawn, f"{tile.alt}, {run.name}")}'
                f'<div class="note">{name}<span class="value">{esc(latest[1]) if latest else "none"}</span></div></div>'
            )
        tiles.append(
            f'<figure class="tile"><div class="panels">{"".join(panels)}</div><figcaption>{tile.caption}</figcaption></figure>'
        )
    last = gallery.positions[-1]
    head = f'<output class="at">{count_text(last)} images</output>'
    if len(gallery.positions) > 1:
        stops = json.dumps([f"{count_text(images)} images" for images in gallery.positions])
        head = (
            f'<label class="slider">Evaluation <span class="tick">{compact(gallery.positions[0])}</span>'
            f'<input type="range" min="0" max="{len(gallery.positions) - 1}" value="{len(gallery.positions) - 1}" '
            f'step="1" data-stops="{esc(stops)}" aria-label="evaluation, in training images">'
            f'<span class="tick">{compact(last)}</span></label>{head}'
        )
    block = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    notes = "".join(f'<p class="muted">{esc(text)}</p>' for text in gallery.left_out)
    columns = sum((1 if any(tile.base for tile in gallery.tiles) else 0, len(runs)))
    return (
        f'<div class="gallery columns-{min(columns, 4)}"><div class="controls-row">{head}</div>'
        f'<div class="tiles">{"".join(tiles)}</div>{notes}'
        f'<script type="application/json">{block}</script></div>'
    )
