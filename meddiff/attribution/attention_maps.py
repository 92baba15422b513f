"""Cross-attention along a saved trajectory: maps of words by timestep and layer, of drawn images as of real ones.

Of a real image noised anew (:func:`meddiff.attribution.trajectory.renoised`) these are the maps of the grounding pass. Source:
spec/tradeoff.md section 5; by timestep and layer own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.attribution.concepts import Concepts
from meddiff.attribution.grounding_pass import GroundingItem, item_noise
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer, LayerReducer
from meddiff.models.latent_diffusion import LatentDiffusion


class Path(Protocol):
    """What the U-Net is given at S steps; a :class:`meddiff.attribution.trajectory.Trajectory` is one."""

    @property
    def text(self) -> str: ...
    @property
    def noisy(self) -> Tensor: ...
    @property
    def timesteps(self) -> Tensor: ...


class Noisy(NamedTuple):
    """Inputs of the U-Net and nothing of what it made of them.

    Attributes:
        text: the prompt.
        noisy: (S, C, h, w).
        timesteps: (S,) int64.
    """

    text: str
    noisy: Tensor
    timesteps: Tensor


def noised(model: LatentDiffusion, item: GroundingItem, timesteps: Sequence[int], seed: int = 0) -> Noisy:
    """A real image noised to each timestep, with the grounding pass's noise; no evaluation of the U-Net."""
    times = torch.tensor(list(timesteps), device=model.device)
    noise = torch.stack([item_noise(seed, item.key, t, item.latents.shape) for t in timesteps])  # (S, C, h, w)
    latents = item.latents.to(model.device).expand_as(noise)
    noisy = model.noise_schedule.add_noise(latents, noise.to(model.device), times)
    return Noisy(item.text, noisy.cpu(), times.cpu())


def cost(steps: int) -> int:
    """Evaluations of the U-Net: the pass with the text, once a step."""
    return steps


@torch.no_grad()
def attention_maps(
    model: LatentDiffusion,
    trajectory: Path,
    groups: Tensor,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> tuple[Tensor, list[str]]:
    """Maps of K words in each of L layers at each of S steps.

    Args:
        model: in eval mode.
        groups: (K, T) weights over tokens, one row a map.
        batch_size: steps at a time; changes results by rounding only.
        on_progress: called with the number of steps just done.

    Returns:
        (S, L, K, h, w) float32 on the CPU, and the layers' names in the order in which they run.
    """
    layers = EachLayer()
    maps = recorded(model, trajectory, groups, layers, batch_size, on_progress)
    return maps, layers.layers


@torch.no_grad()
def recorded(
    model: LatentDiffusion,
    path: Path,
    groups: Tensor,
    reducer: LayerReducer,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Maps (S, ...) float32 on the CPU as a reducer gives them, one row a step; other arguments as :func:`attention_maps`."""
    with CrossAttentionRecorder(model.unet, reducer) as recorder:
        maps = _passes(model, path, groups, recorder, batch_size, on_progress)
    return torch.cat([one for one, _ in maps])


@torch.no_grad()
def concept_maps_of(
    model: LatentDiffusion,
    trajectory: Path,
    concepts: Concepts,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Maps (S, C, h, w) of concepts that the prompt need not hold, a mean over layers; arguments as :func:`attention_maps`."""
    groups = torch.zeros(1, model.text_encoder.tokenizer.max_length)  # no word: a map that nobody takes
    with CrossAttentionRecorder(model.unet, concepts=concepts) as recorder:
        maps = _passes(model, trajectory, groups, recorder, batch_size, on_progress)
    return torch.cat([one for _, one in maps])


def _passes(
    model: LatentDiffusion,
    trajectory: Path,
    groups: Tensor,
    recorder: CrossAttentionRecorder,
    batch_size: int,
    on_progress: Callable[[int], object] | None,
) -> list[tuple[Tensor, Tensor]]:
    """(maps of words, maps of concepts) of each batch of steps."""
    text = model.encode_texts([trajectory.text])
    found = []
    for start in range(0, len(trajectory.noisy), batch_size):
        noisy = trajectory.noisy[start : start + batch_size].to(model.device, text.states.dtype)  # (b, C, h, w)
        times = trajectory.timesteps[start : start + batch_size].to(model.device)
        recorder.groups = groups.to(model.device).expand(len(noisy), -1, -1)  # (b, K, T)
        model.unet(noisy, times, **text.expand(len(noisy)).arguments())
        maps = recorder.take(noisy.shape[-2:])
        found.append((maps.float().cpu(), recorder.concept_maps.float().cpu()))
        if on_progress is not None:
            on_progress(len(noisy))
    return found
