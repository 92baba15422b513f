"""Pictures for the phrase explorer: word maps over their X-rays and samples beside real images, as data for the script.

The newest evaluation of every run that fits comes first, then its first, then the others. What does not fit
is said. Source: own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meddiff.reports.page.media import Media, affordable, boxes_of, media_of, size_of
from meddiff.reports.page.tables import Tables, Who
from meddiff.runs import names
from meddiff.runs.folder import Entry, Run
from meddiff.runs.values import number

#: cards of one gallery at most, and runs side by side at most
MAX_CARDS, MAX_RUNS = 48, 4
#: bytes of pictures of one kind, of a page of some runs and of a page of many
PAGE_BYTES, MANY_BYTES, MANY = 8_000_000, 1_800_000, 4

Json = dict[str, object]
Key = tuple[str, ...]


@dataclass
class Gallery:
    """What the script gets, and what stands beside it.

    Attributes:
        data: runs, stops (numbers of images), pictures (data URIs), cards.
        notes: sentences about what is not shown.
        elsewhere: positions of runs whose pictures are not here.
    """

    data: Json
    notes: list[str]
    elsewhere: list[int]


@dataclass
class _Pictures:
    """Data URIs, each once."""

    places: dict[str, int] = field(default_factory=dict)

    def place(self, media: Media, name: object) -> int | None:
        picture = media.picture(name)
        return None if picture is None else self.places.setdefault(picture.uri, len(self.places))


def word_maps(tables: Tables) -> Gallery | None:
    """Of ``RUN/media/attention``; None if there are none."""

    def frame(run: Run, images: int) -> Callable[[Entry], Json]:
        table = {(row.get("key"), row.get("class"), row.get("phrase")): row for row in run.phrases_at(images)}

        def of(entry: Entry) -> Json:
            row = table.get((str(entry.get("key")), str(entry.get("class")), str(entry.get("phrase"))), {})
            return {"cnr": number(entry.get("cnr")), "hit": number(row.get("top1"))}

        return of

    return _collect(tables, names.ATTENTION, ("key", "class", "word", "phrase"), "map", "image", frame)


def drawn_samples(tables: Tables) -> Gallery | None:
    """Of ``RUN/media/samples``; None if there are none."""
    return _collect(
        tables, names.SAMPLES, ("key", "prompt", "sampler"), "image", "real", lambda run, images: lambda entry: {}
    )


def _collect(
    tables: Tables,
    kind: str,
    parts: tuple[str, ...],
    picture: str,
    base: str,
    frame: Callable[[Run, int], Callable[[Entry], Json]],
) -> Gallery | None:
    """One card for everything any shown run has in its newest evaluation, with every shown run's picture at every stop."""
    stored = [run.attention if kind == names.ATTENTION else run.samples for run in tables.found]
    having = [place for place, found in enumerate(stored) if any(found.values())]
    if not having:
        return None
    chosen = _chosen(tables.who, having)
    budget = PAGE_BYTES if len(tables.found) <= MANY else MANY_BYTES
    medias = {place: media_of(tables.found[place], kind) for place in chosen}
    kept = {place: affordable(medias[place], stored[place], (picture,), budget // len(chosen)) for place in chosen}
    stops = sorted({images for keep in kept.values() for images in keep})
    notes = []
    for place in chosen:
        missing = sum(bool(entries) for entries in stored[place].values()) - len(kept[place])
        if missing:
            more = f"{missing} more evaluations are in {kind} of its media folder, left out to keep this page small."
            notes.append(f"{tables.found[place].name}: {more}")
    newest: dict[Key, list[tuple[Media, Entry]]] = {}
    for place in chosen:
        for key, entry in _keyed(stored[place][kept[place][-1]], parts).items() if kept[place] else ():
            newest.setdefault(key, []).append((medias[place], entry))
    pictures, cards = _Pictures(), dict[Key, Json]()
    for key, found in newest.items():
        budget -= sum(media.bytes_of(entry, (picture, base, "mask")) for media, entry in found)
        if cards and (budget < 0 or len(cards) == MAX_CARDS):
            notes.append(f"The first {len(cards)} of {len(newest)} are shown, to keep this page small.")
            break
        cards[key] = _card(*found[0], pictures, base) | {part: str(found[0][1].get(part) or "") for part in parts}
    for card in cards.values():
        card["cells"] = [[None] * len(stops) for _ in chosen]
    for column, place in enumerate(chosen):
        for images in kept[place]:
            measured = frame(tables.found[place], images)
            for key, entry in _keyed(stored[place][images], parts).items():
                shown = pictures.place(medias[place], entry.get(picture)) if key in cards else None
                if shown is not None:
                    cells = cards[key]["cells"]
                    assert isinstance(cells, list)
                    cells[column][stops.index(images)] = {"picture": shown, **measured(entry)}
    runs = [{"run": tables.who[place].run, "encoder": tables.who[place].encoder} for place in chosen]
    data: Json = {"runs": runs, "stops": stops, "pictures": list(pictures.places), "cards": list(cards.values())}
    return Gallery(data, notes, [place for place in having if place not in chosen])


def _chosen(who: Sequence[Who], having: Sequence[int]) -> list[int]:
    """The first run of each kind, frozen and learnable of the same captions beside one another."""
    firsts: dict[tuple[str, str], list[int]] = {}
    for place in having:
        firsts.setdefault((who[place].prompt, who[place].encoder), []).append(place)
    rounds = max(len(found) for found in firsts.values())
    order = [found[i] for i in range(rounds) for found in (firsts[key] for key in sorted(firsts)) if i < len(found)]
    return order[:MAX_RUNS] if len(order) > MAX_RUNS else list(having)


def _card(media: Media, entry: Entry, pictures: _Pictures, base: str) -> Json:
    under = media.picture(entry.get(base))
    return {
        "base": pictures.place(media, entry.get(base)),
        "mask": pictures.place(media, entry.get("mask")),
        "boxes": boxes_of(entry),
        "size": size_of(entry, under),
    }


def _keyed(entries: Sequence[Entry], parts: Sequence[str]) -> dict[Key, Entry]:
    """Entries by what they show; several that show the same are numbered."""
    found: dict[Key, Entry] = {}
    for entry in entries:
        base = tuple(str(entry.get(part) or "") for part in parts)
        repeat = 0
        while (*base, str(repeat)) in found:
            repeat += 1
        found[(*base, str(repeat))] = entry
    return found
