"""Pictures for the phrase explorer: word maps over their X-rays and samples beside real images, as data for the script.

The newest evaluation of every run that fits comes first, then its first, then the others. What does not fit
is said. Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meddiff.common.outside import terminal
from meddiff.reports.page.media import Media, affordable, boxes_of, size_of
from meddiff.reports.page.saliency_wording import MAPS
from meddiff.reports.page.tables import Tables, Who
from meddiff.runs import names
from meddiff.runs.folder import Entry, Run
from meddiff.runs.values import number

#: cards of one gallery at most, and runs side by side at most
MAX_CARDS, MAX_RUNS = 48, 4
#: kinds of maps side by side at most
MAX_MAPS = 7
#: bytes of pictures of one kind, of a page of some runs and of a page of many
PAGE_BYTES, MANY_BYTES, MANY = 8_000_000, 1_800_000, 4

Json = dict[str, object]
Key = tuple[str, ...]
#: what a row of a per-sample table and an entry have in common
PHRASE = ("key", "class", "phrase")


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


def word_maps(tables: Tables) -> Gallery | None:
    """Of ``RUN/media/attention``; None if there are none."""
    return _collect(tables, names.ATTENTION, ("key", "class", "word", "phrase"), "map", "image")


def drawn_samples(tables: Tables) -> Gallery | None:
    """Of ``RUN/media/samples``; None if there are none."""
    return _collect(tables, names.SAMPLES, ("key", "prompt", "sampler"), "image", "real")


def timestep_maps(tables: Tables) -> Gallery | None:
    """Of ``RUN/media/saliency``: a card a phrase, its kinds of maps side by side, the slider over timesteps; None if there are
    none.

    Of the newest evaluation of the first run that has any; where it was trained with a frozen encoder and another of the same
    captions with a learnable one, or the other way round, that one's stand beside it, map by map. The others are said.
    """
    having = [place for place, run in enumerate(tables.found) if any(run.saliency_maps.values())]
    if not having:
        return None
    places, pictures, notes = _frozen_and_learnable(tables.who, having), dict[str, int](), list[str]()
    newest = {place: _newest(tables.found[place].saliency_maps) for place in places}
    medias = {p: Media(tables.found[p].path / names.MEDIA / names.SALIENCY, pictures) for p in places}
    budget = PAGE_BYTES // 2
    tools = list(dict.fromkeys(str(one.get("tool")) for entries in newest.values() for one in entries))[:MAX_MAPS]
    lines = [(tool, place) for tool in tools for place in places]
    everything = [one for entries in newest.values() for one in entries]
    stops = sorted({int(step) for one in everything if (step := number(one.get("timestep"))) is not None}, reverse=True)
    phrases: dict[Key, list[tuple[int, Entry]]] = {}
    for place, entries in newest.items():
        for one in entries:
            phrases.setdefault(tuple(str(one.get(part) or "") for part in PHRASE), []).append((place, one))
    cards: list[Json] = []
    for found in phrases.values():
        budget -= sum(medias[place].bytes_of(one, ("map",)) for place, one in found)
        if cards and (budget < 0 or len(cards) == MAX_CARDS):
            notes.append(f"The first {len(cards)} of {len(phrases)} phrases are shown, to keep this page small.")
            break
        first, entry = found[0]
        base, size = medias[first].picture(entry.get("image"))
        card: Json = {"base": base, "mask": medias[first].picture(entry.get("mask"))[0], "boxes": boxes_of(entry)}
        card |= {"size": size_of(entry, size)}
        card |= {part: terminal(entry.get(part) or "") for part in ("key", "class", "word", "phrase")}
        cells: list[list[Json | None]] = [[None] * len(stops) for _ in lines]
        for place, one in found:
            step, shown = number(one.get("timestep")), medias[place].picture(one.get("map"))[0]
            if step is not None and shown is not None and one.get("tool") in tools:
                cell: Json = {"picture": shown, "cnr": number(one.get("cnr")), "hit": number(one.get("hit"))}
                cells[lines.index((str(one.get("tool")), place))][stops.index(int(step))] = cell
        card["cells"] = cells
        cards.append(card)
    shown_lines = [
        {"run": _line(tool, place, places, tables.who), "encoder": tables.who[place].encoder} for tool, place in lines
    ]
    data: Json = {"runs": shown_lines, "stops": stops, "pictures": list(pictures), "cards": cards, "unit": "timestep"}
    return Gallery(data, notes, [place for place in having if place not in places])


def _newest(found: dict[int, list[Entry]]) -> list[Entry]:
    return found[max(images for images, entries in found.items() if entries)]


def _line(tool: str, place: int, places: Sequence[int], who: Sequence[Who]) -> str:
    said = MAPS.get(tool, terminal(tool))
    return f"{said}, {who[place].encoder}" if len(places) > 1 else said


def _frozen_and_learnable(who: Sequence[Who], having: Sequence[int]) -> list[int]:
    """The first run, and the first of the same captions whose encoder was the other; frozen comes first."""
    first = having[0]
    other = {"frozen": "learnable", "learnable": "frozen"}.get(who[first].encoder)
    found = [place for place in having if (who[place].prompt, who[place].encoder) == (who[first].prompt, other)]
    return sorted([first, *found[:1]], key=lambda place: who[place].encoder)


def _hits(run: Run, images: int) -> dict[Key, float | None]:
    """Whether the hottest pixel of a phrase lay inside, at one evaluation."""
    return {tuple(row.get(part, "") for part in PHRASE): number(row.get("top1")) for row in run.phrases_at(images)}


def _collect(tables: Tables, kind: str, parts: tuple[str, ...], picture: str, base: str) -> Gallery | None:
    """One card for everything any shown run has in its newest evaluation, with every shown run's picture at every stop."""
    stored = [run.attention if kind == names.ATTENTION else run.samples for run in tables.found]
    having = [place for place, found in enumerate(stored) if any(found.values())]
    if not having:
        return None
    chosen = _chosen(tables.who, having)
    budget = PAGE_BYTES if len(tables.found) <= MANY else MANY_BYTES
    pictures: dict[str, int] = {}
    medias = {place: Media(tables.found[place].path / names.MEDIA / kind, pictures) for place in chosen}
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
    cards = dict[Key, Json]()
    for key, found in newest.items():
        budget -= sum(media.bytes_of(entry, (picture, base, "mask")) for media, entry in found)
        if cards and (budget < 0 or len(cards) == MAX_CARDS):
            notes.append(f"The first {len(cards)} of {len(newest)} are shown, to keep this page small.")
            break
        media, entry = found[0]
        under, size = media.picture(entry.get(base))
        cards[key] = {"base": under, "mask": media.picture(entry.get("mask"))[0], "boxes": boxes_of(entry)}
        cards[key] |= {"size": size_of(entry, size or media.picture(entry.get(picture))[1])}
        cards[key] |= {part: terminal(entry.get(part) or "") for part in parts}
    cells = {key: [[None] * len(stops) for _ in chosen] for key in cards}
    for column, place in enumerate(chosen):
        for images in kept[place]:
            hits = _hits(tables.found[place], images) if kind == names.ATTENTION else {}
            for key, entry in _keyed(stored[place][images], parts).items():
                shown = medias[place].picture(entry.get(picture))[0] if key in cards else None
                if shown is not None:
                    hit = hits.get(tuple(str(entry.get(part)) for part in PHRASE))
                    cell: Json = {"picture": shown, "cnr": number(entry.get("cnr")), "hit": hit}
                    cells[key][column][stops.index(images)] = cell  # type: ignore[call-overload]
    for key, card in cards.items():
        card["cells"] = cells[key]
    runs = [{"run": terminal(tables.who[place].run), "encoder": tables.who[place].encoder} for place in chosen]
    data: Json = {"runs": runs, "stops": stops, "pictures": list(pictures), "cards": list(cards.values())}
    return Gallery(data, notes, [place for place in having if place not in chosen])


def _chosen(who: Sequence[Who], having: Sequence[int]) -> list[int]:
    """The first run of each kind, frozen and learnable of the same captions beside one another."""
    firsts: dict[tuple[str, str], list[int]] = {}
    for place in having:
        firsts.setdefault((who[place].prompt, who[place].encoder), []).append(place)
    rounds = max(len(found) for found in firsts.values())
    order = [found[i] for i in range(rounds) for found in (firsts[key] for key in sorted(firsts)) if i < len(found)]
    return order[:MAX_RUNS] if len(order) > MAX_RUNS else list(having)


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
