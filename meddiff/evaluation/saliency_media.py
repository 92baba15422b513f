"""The maps that a measurement kept, as pictures: for the report's explorer with its slider over timesteps, and as panels.

Pictures of patients stay in the run folder. Source: own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from meddiff.attribution.overlay import overlay
from meddiff.attribution.strips import panels
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import file_in, file_part
from meddiff.evaluation.measurement import Value
from meddiff.evaluation.saliency import Saliency
from meddiff.evaluation.saliency_maps import Kept
from meddiff.evaluation.saliency_tools import ALL, Channel
from meddiff.evaluation.saliency_units import UNTRAINED, Unit
from meddiff.metrics.functional import contrast_to_noise_ratio, pointing_game, resize_maps
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.members import png_bytes

#: Colours of a picture that is stored by the hundred.
COLOURS = 96
Pixels = NDArray[np.uint8]


def shown_units(measured: Saliency, split: LatentShardsDataset) -> list[tuple[Unit, Kept]]:
    """What was kept, tool by tool."""
    units = [unit for unit in measured.units(split) if unit.shown and unit.source != UNTRAINED]
    return [(unit, kept) for unit in units if (kept := measured.kept.get(unit.address)) is not None]


def write_pictures(folder: Path, images: int, measured: Saliency, split: LatentShardsDataset) -> int:
    """``IMAGES.json`` and the overlays of every tool at every timestep; returns how many phrases have any.

    Args:
        folder: ``RUN/media/saliency``.
        images: trained on.
    """
    entries: list[dict[str, object]] = []
    for unit, kept in shown_units(measured, split):
        sample, image = unit.sample, split.image(unit.sample.index)
        stem = f"{images:09d}-{sample.key}-{file_part(sample.label)}"
        base, mask = f"{stem}-image.png", None
        _write(folder, base, image)
        masks = split.masks(sample.index)
        if sample.label in masks:
            mask = f"{stem}-mask.png"
            _write(folder, mask, masks[sample.label].astype(np.uint8) * 255)
        box = torch.from_numpy(sample.box_mask())
        for channel, maps in _whole(kept):
            full = resize_maps(torch.from_numpy(maps), sample.size)  # (S, H, W)
            boxes = box.expand(len(full), -1, -1)
            cnr, hits = (score(full, boxes).tolist() for score in (contrast_to_noise_ratio, pointing_game))
            for place, timestep in enumerate(kept.timesteps):
                name = f"{stem}-{channel.tool}-{timestep:04d}.png"
                _write(folder, name, overlay(image, full[place].numpy()), COLOURS)
                entries.append(
                    {"key": sample.key, "class": sample.label, "phrase": sample.phrase, "tool": channel.tool}
                    | {"timestep": timestep, "image": base, "map": name, "mask": mask}
                    | {"word": sample.label.lower(), "size": [sample.size[1], sample.size[0]]}
                    | {"boxes": sample.boxes.tolist(), "cnr": _known(cnr[place]), "hit": _known(hits[place])}
                )
    write_json(folder / f"{images:09d}.json", entries)
    return len({(one["key"], one["class"], one["phrase"]) for one in entries})


def write_panels(folder: Path, measured: Saliency, split: LatentShardsDataset) -> list[Path]:
    """:func:`sheets_of` as PNG files of the folder."""
    written = []
    for name, sheet in sheets_of(measured, split).items():
        written.append(folder / f"{name}.png")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_open(written[-1]) as stream:
            stream.write(png_bytes(sheet))
    return written


def sheets_of(measured: Saliency, split: LatentShardsDataset) -> dict[str, Image.Image]:
    """Phrases by timesteps of every kind of map, and layers by timesteps of the first phrase, by name."""
    sheets: dict[str, Image.Image] = {}
    found = shown_units(measured, split)
    tools = list(dict.fromkeys(channel.tool for _, kept in found for channel, _ in _whole(kept)))
    for tool in tools:
        some = [(unit, kept) for unit, kept in found if Channel(tool) in kept.maps]
        rows = [(unit.sample.phrase, _drawn(split, unit, kept.maps[Channel(tool)])) for unit, kept in some]
        sheets[f"{tool}_phrases_by_timestep"] = _sheet(rows, some[0][1].timesteps)
        layered = next((one for one in some if any(c.tool == tool and c.layer != ALL for c in one[1].maps)), None)
        if layered is not None:
            unit, kept = layered
            of_tool = {channel.layer: maps for channel, maps in kept.maps.items() if channel.tool == tool}
            lines = [(layer, _drawn(split, unit, maps)) for layer, maps in of_tool.items()]
            sheets[f"{tool}_layers_by_timestep"] = _sheet(lines, kept.timesteps)
    return sheets


def _sheet(rows: Sequence[tuple[str, list[Pixels]]], timesteps: Sequence[int]) -> Image.Image:
    return panels([row for _, row in rows], [title for title, _ in rows], [f"t = {one}" for one in timesteps])


def _drawn(split: LatentShardsDataset, unit: Unit, maps: NDArray[np.float32]) -> list[Pixels]:
    full = resize_maps(torch.from_numpy(maps), unit.sample.size)  # (S, H, W)
    return [overlay(split.image(unit.sample.index), one.numpy()) for one in full]


def _whole(kept: Kept) -> list[tuple[Channel, NDArray[np.float32]]]:
    return [(channel, maps) for channel, maps in kept.maps.items() if channel.layer == ALL]


def _write(folder: Path, name: str, pixels: Pixels, colours: int = 0) -> None:
    picture = Image.fromarray(pixels)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_open(file_in(folder, name)) as stream:
        stream.write(png_bytes(picture.quantize(colours) if colours else picture))


def _known(value: float) -> Value:
    return value if value == value else None
