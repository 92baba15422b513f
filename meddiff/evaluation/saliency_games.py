"""Deletion and insertion with the maps that a measurement kept: does a map name the places that a step needs?

All kinds of maps of a phrase play on one trajectory, beside a random order and a map of the middle; a map that plays no better
than these names nothing. Distances are of latents, over that of the full deletion. Source: Park, Ju and Lee (2024), spec
section B6; :mod:`meddiff.attribution.games`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.attribution import games
from meddiff.attribution import trajectory as paths
from meddiff.attribution.baselines import centre_prior, random_order
from meddiff.attribution.grounding_pass import GroundingItem
from meddiff.attribution.trajectory import Trajectory, renoised
from meddiff.attribution.views import view
from meddiff.common.progress import progress_bar
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Row, Table
from meddiff.evaluation.saliency import Saliency
from meddiff.evaluation.saliency_maps import Kept
from meddiff.evaluation.saliency_scores import mean_row
from meddiff.evaluation.saliency_tools import GUIDANCE
from meddiff.evaluation.saliency_units import UNTRAINED, Unit
from meddiff.evaluation.samples import GroundingSample, evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("tool", "timestep", "game", "taken", "value", "low", "high", "n")
#: What maps are read against: an order that is drawn, and the middle of the image.
RANDOM, CENTRE = "random", "centre"
#: Parts that the positions are taken in.
CHUNKS = 16
AREA = "area"


class Played(TypedDict):
    """One line of the ledger: the curves of all maps of one phrase.

    ``curves``: tool -> timestep -> game -> distances at each share taken.
    """

    address: str
    key: str
    label: str
    tools: list[str]
    taken: list[float]
    curves: dict[str, dict[str, dict[str, list[float]]]]


def games_cost(measured: Saliency, split: LatentShardsDataset, phrases: int) -> float:
    """U-Net evaluations of :func:`play_games`."""
    steps = len(measured.slow_steps)
    maps = len(measured.options.tools) + ("attention" in measured.options.tools) + 2
    number = len(phrases_of(measured, split, phrases))
    return float(number * (paths.cost(steps) + games.cost(options_of(measured), steps, GUIDANCE, maps)))


def options_of(measured: Saliency) -> games.GameOptions:
    """Chunks and substrates of the preset."""
    seed, batch_size = measured.options.seed, measured.options.batch_size
    if measured.options.paper:
        return replace(games.PAPER, seed=seed, batch_size=batch_size)
    return games.GameOptions(chunks=CHUNKS, seed=seed, batch_size=batch_size)


def phrases_of(measured: Saliency, split: LatentShardsDataset, phrases: int) -> dict[str, list[Unit]]:
    """At most so many phrases that are shown, and what was asked of each."""
    found: dict[str, list[Unit]] = {}
    for unit in measured.units(split):
        if unit.shown and unit.source != UNTRAINED:
            found.setdefault(unit.address.partition("|")[2], []).append(unit)
    return dict(list(found.items())[:phrases])


def play_games(
    measured: Saliency, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, phrases: int
) -> dict[str, Table]:
    """Tables ``saliency_games``: a row a tool, timestep, game and share taken; ``area`` is the area under the curve.

    Call it after :meth:`Saliency.run`, which keeps the maps; phrases without time are left out, as there.
    """
    options = measured.options
    about = {"seed": options.seed, "paper": options.paper}
    ledger: Ledger[Played] = open_ledger(out, "saliency_games.jsonl", model, split, about, Played)
    there = phrases_of(measured, split, phrases)
    with ledger:
        found = {one["address"]: one for one in ledger.entries}
        with progress_bar(len(there), "phrase", "deletion and insertion", measured.show_progress) as bar:
            for address, units in there.items():
                kept = {unit.source: one for unit in units if (one := measured.kept.get(unit.address)) is not None}
                tools = sorted(maps_at(kept, measured.slow_steps))
                old = found.get(address)
                if tools and (old is None or old["tools"] != tools) and measured.go_on():
                    found[address] = _play(measured, model, split, units[0].sample, kept, address)
                    ledger.add(found[address])
                bar.update()
    return {"saliency_games": Table(game_rows([found[one] for one in there if one in found]), FIRST)}


def maps_at(kept: dict[str, Kept], timesteps: Sequence[int]) -> dict[str, Tensor]:
    """Kind of map -> (S, h, w) at these timesteps; kinds that lack one are left out."""
    found: dict[str, Tensor] = {}
    for one in kept.values():
        if set(timesteps) <= set(one.timesteps):
            places = [one.timesteps.index(step) for step in timesteps]
            found |= {
                channel.tool: torch.from_numpy(maps[places])
                for channel, maps in one.maps.items()
                if channel.layer == "all"
            }
    return found


def _play(
    measured: Saliency,
    model: LatentDiffusion,
    split: LatentShardsDataset,
    sample: GroundingSample,
    kept: dict[str, Kept],
    address: str,
) -> Played:
    steps, seed = measured.slow_steps, measured.options.seed
    latents = evaluation_latents(split, sample.index, seed)
    item = GroundingItem(sample.key, latents, sample.phrase, torch.empty(0, 0))
    with undisturbed(model):
        path: Trajectory = renoised(model, [item], steps, seed, GUIDANCE, measured.options.batch_size)[0]
        size = (int(latents.shape[1]), int(latents.shape[2]))
        maps = maps_at(kept, steps)
        tools = sorted(maps)
        maps |= {RANDOM: random_order(sample.key, steps, size, seed), CENTRE: centre_prior(size, len(steps))}
        played = games.play(model, path, maps, view(model, "latent"), options_of(measured))
    curves = {
        name: {
            str(step): {"deletion": one.deletion[i].tolist(), "insertion": one.insertion[i].tolist()}
            for i, step in enumerate(steps)
        }
        for name, one in played.items()
    }
    taken = played[RANDOM].taken.tolist()
    return {
        "address": address, "key": sample.key, "label": sample.label, "tools": tools, "taken": taken, "curves": curves,
    }  # fmt: skip


def game_rows(played: Sequence[Played]) -> list[Row]:
    """Means over phrases with their intervals over images; ``taken`` is a share, or ``area``."""
    cells: dict[tuple[str, int, str, str | float], list[tuple[str, str, float]]] = {}
    for one in played:
        for tool, steps in one["curves"].items():
            for step, both in steps.items():
                for game, values in both.items():
                    for taken, value in zip(one["taken"], values, strict=True):
                        place = (tool, int(step), game, round(taken, 4))
                        cells.setdefault(place, []).append((one["key"], one["label"], value))
                    area = float(torch.trapezoid(torch.tensor(values), torch.tensor(one["taken"])))
                    cells.setdefault((tool, int(step), game, AREA), []).append((one["key"], one["label"], area))
    return [
        {"tool": tool, "timestep": step, "game": game, "taken": taken, **mean_row(values)}
        for (tool, step, game, taken), values in cells.items()
    ]
