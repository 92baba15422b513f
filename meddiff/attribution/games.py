"""The deletion and insertion games on a latent: does a map name the places that a denoising step needs?

Positions of the step's latent are taken away (deletion) or given back to an empty one (insertion), those with the highest
values of the map first, in equal chunks. After each chunk the U-Net is asked and the step taken without any scheduler; the
result is compared with that of the whole latent. Scores are DISTANCES, so the signs are not those of classifiers:

    deletion: the area under the curve is HIGH for a good map;  insertion: it is LOW for a good map.

Every curve is divided by the distance of the full deletion of the same image at the same step, which no map has a part in:
areas of several maps compare, where the published code stretched each method's mean curve by itself. Both are read against
:func:`gain` over a random order and over :mod:`meddiff.attribution.baselines`. Source: spec sections B6 to B8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.guidance import Asked, evaluations
from meddiff.attribution.substrates import SUBSTRATES, Substrate, address_noise, blurred, structureless
from meddiff.attribution.trajectory import Trajectory
from meddiff.attribution.views import View
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, check_ranges
from meddiff.models.latent_diffusion import LatentDiffusion

Result = Literal["previous", "x0"]


@dataclass(frozen=True)
class GameOptions:
    """How the games are played; :data:`PAPER` has the published choices but for its distance (of single images' moments).

    Attributes:
        chunks: that the positions are taken in.
        deletion: what stands where latents were taken away.
        insertion: what the insertion begins with.
        result: what is compared: the latent that the step leads to, or the clean estimate.
        guidance_scale: None takes the trajectory's.
        seed: of substrates, and of the order among equal values.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
    """

    chunks: int = 32
    deletion: Substrate = "renoised"
    insertion: Substrate = "renoised"
    result: Result = "previous"
    guidance_scale: float | None = None
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, allowed in {"deletion": SUBSTRATES, "insertion": SUBSTRATES, "result": get_args(Result)}.items():
            if getattr(self, name) not in allowed:
                told = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
                raise UserError(f"games: {name} is {getattr(self, name)!r}; it must be {told}.")
        check_ranges("games", self, chunks=COUNT, batch_size=COUNT, guidance_scale=NOT_NEGATIVE)


FAST = GameOptions()
PAPER = GameOptions(chunks=64, deletion="zero", insertion="blur", guidance_scale=7.5)
PRESETS = {"fast": FAST, "paper": PAPER}


@dataclass(frozen=True)
class Game:
    """Curves of one map at each of S steps; NaN where the full deletion changes nothing.

    Attributes:
        taken: (K + 1,), the share of positions taken away or given back.
        deletion: (S, K + 1), distances over that of the full deletion, from 0 to 1.
        insertion: (S, K + 1), likewise, down to 0.
    """

    taken: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_area(self) -> Tensor:
        """(S,) under the curve over the share taken; HIGH is good."""
        return torch.trapezoid(self.deletion, self.taken, dim=1)

    @property
    def insertion_area(self) -> Tensor:
        """(S,) under the curve over the share given back; LOW is good."""
        return torch.trapezoid(self.insertion, self.taken, dim=1)


def gain(game: Game, other: Game) -> tuple[Tensor, Tensor]:
    """How much better than ``other`` (a random order), in deletion and in insertion, (S,) each; above 0 is better in both."""
    return game.deletion_area - other.deletion_area, other.insertion_area - game.insertion_area


def cost(options: GameOptions, steps: int, guidance_scale: float = 7.5, maps: int = 1) -> int:
    """Evaluations of the U-Net for both games of ``maps`` maps of one trajectory, and for the whole latents.

    Args:
        guidance_scale: of the trajectory, where the options name none.
    """
    scale = guidance_scale if options.guidance_scale is None else options.guidance_scale
    return steps * (maps * 2 * options.chunks + 1) * evaluations(scale)


def play(
    model: LatentDiffusion,
    trajectory: Trajectory,
    maps: Mapping[str, Tensor],
    view: View,
    options: GameOptions = FAST,
    on_progress: Callable[[int], object] | None = None,
) -> dict[str, Game]:
    """Both games with several maps of one trajectory, on equal terms.

    Args:
        model: in eval mode, the one the trajectory is of.
        maps: name -> (S, h, w); what is no number comes last, and equal values come in a random order of their own.
        view: what distances are measured in, from :func:`meddiff.attribution.views.view`.
        on_progress: called with the evaluations just done.

    Raises:
        UserError: a map of another size, or more chunks than positions.
    """
    steps, size = len(trajectory), trajectory.noisy.shape[-2:]
    positions = size[0] * size[1]
    for name, values in maps.items():
        if values.shape != (steps, *size):
            raise UserError(f"games: {name} is {tuple(values.shape)} and must be {(steps, *size)}, one map a step.")
    if options.chunks > positions:
        raise UserError(
            f"games: chunks is {options.chunks}; these latents have {positions} positions, take as many at most."
        )
    player = _Player(model, trajectory, view, options, on_progress)
    marks = [round(k * positions / options.chunks) for k in range(options.chunks + 1)]
    taken = torch.tensor(marks, dtype=torch.float32) / positions  # (K + 1,)
    return {name: player.play(values, marks, taken) for name, values in maps.items()}


class _Player:
    """What all maps of a trajectory share: the text, the substrates, and the result of the whole latent."""

    def __init__(
        self,
        model: LatentDiffusion,
        trajectory: Trajectory,
        view: View,
        options: GameOptions,
        on_progress: Callable[[int], object] | None,
    ) -> None:
        self.model, self.path, self.view, self.options, self.on_progress = model, trajectory, view, options, on_progress
        self.scale = trajectory.guidance_scale if options.guidance_scale is None else options.guidance_scale
        self.asked = Asked(model, [trajectory.text], options.batch_size)
        device = model.device
        self.noisy, self.now, self.then = (
            getattr(trajectory, name).to(device) for name in ("noisy", "timesteps", "previous")
        )
        self.empty = {name: self._substrate(name) for name in (options.deletion, options.insertion)}
        # asked anew, not read: the last chunk of an insertion is then 0 and not a rounding
        self.whole = self._results(self.noisy, torch.arange(len(trajectory)))
        if on_progress is not None:
            on_progress(len(trajectory) * evaluations(self.scale))

    def _substrate(self, name: Substrate) -> Tensor:
        """(S, C, h, w)."""
        if name == "zero":
            return torch.zeros_like(self.noisy)
        if name == "blur":
            return blurred(self.noisy)
        shape, key, seed = tuple(self.noisy.shape[1:]), self.path.key, self.options.seed
        noise = torch.stack([address_noise(shape, "game", seed, key, t) for t in self.path.timesteps.tolist()])
        return structureless(
            self.model.noise_schedule, self.path.clean.to(self.model.device), self.now, noise.to(self.noisy)
        )

    @torch.no_grad()
    def _results(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Rows (B, D) of what latents (B, C, h, w) at steps (B,) lead to."""
        place = steps.to(self.now.device)
        output = self.asked.guided(latents, self.now[place], torch.zeros_like(steps), self.scale)
        if self.options.result == "x0":
            return self.view(self.model.noise_schedule.predicted_x0(latents, output, self.now[place]))
        return self.view(ddim_step(self.model.noise_schedule, output, latents, self.now[place], self.then[place]))

    def play(self, maps: Tensor, marks: list[int], taken: Tensor) -> Game:
        steps, chunks = len(self.path), self.options.chunks
        ranks = torch.stack([self._ranks(values, k) for k, values in enumerate(maps)]).to(
            self.noisy.device
        )  # (S, h, w)
        distances = torch.zeros(2, steps, chunks + 1)
        # deletion begins with the whole latent and insertion ends with it: nothing to ask there
        rows = [(game, s, k) for s in range(steps) for game in (0, 1) for k in range(1 - game, chunks + 1 - game)]
        size = max(1, self.options.batch_size // evaluations(self.scale))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            latents = torch.stack([self._latent(ranks, marks, *row) for row in part])  # (B, C, h, w)
            at = torch.tensor([s for _, s, _ in part])
            apart = (
                (self._results(latents, at) - self.whole[at.to(self.whole.device)]).double().square().mean(dim=1).sqrt()
            )
            for (game, s, k), distance in zip(part, apart.tolist(), strict=True):
                distances[game, s, k] = distance
            if self.on_progress is not None:
                self.on_progress(len(part) * evaluations(self.scale))
        full = distances[0, :, -1:]  # (S, 1)
        share = torch.where(full > 0, distances / full, torch.nan)  # (2, S, K + 1)
        return Game(taken, share[0], share[1])

    def _latent(self, ranks: Tensor, marks: list[int], game: int, step: int, chunk: int) -> Tensor:
        first = (ranks[step] < marks[chunk]).unsqueeze(0)  # (1, h, w)
        whole = self.noisy[step]
        if game == 0:
            return torch.where(first, self.empty[self.options.deletion][step], whole)
        return torch.where(first, whole, self.empty[self.options.insertion][step])

    def _ranks(self, values: Tensor, step: int) -> Tensor:
        """(h, w): 0 where the value is highest; equal ones in an order that is drawn, or a flat map would go row by row."""
        flat = np.nan_to_num(values.double().flatten().numpy(), nan=-np.inf)
        timestep = int(self.path.timesteps[step])
        among = generator("ties", self.options.seed, self.path.key, timestep).random(len(flat))
        order = np.lexsort((among, -flat))
        ranks = np.empty(len(flat), dtype=np.int64)
        ranks[order] = np.arange(len(flat))
        return torch.from_numpy(ranks).view(values.shape)
