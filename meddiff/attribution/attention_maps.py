"""Cross-attention along a saved trajectory: maps of words by timestep and layer, of drawn images as of real ones.

Of a real image noised anew (:func:`meddiff.attribution.trajectory.renoised`) these are the maps of the grounding pass. Source:
spec/tradeoff.md section 5; by timestep and layer own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from meddiff.attribution.concepts import Concepts
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer
from meddiff.attribution.trajectory import Trajectory
from meddiff.models.latent_diffusion import LatentDiffusion


def cost(steps: int) -> int:
    """Evaluations of the U-Net: the pass with the text, once a step."""
    return steps


@torch.no_grad()
def attention_maps(
    model: LatentDiffusion,
    trajectory: Trajectory,
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
    with CrossAttentionRecorder(model.unet, layers) as recorder:
        maps = _passes(model, trajectory, groups, recorder, batch_size, on_progress)
    return torch.cat([one for one, _ in maps]), layers.layers


@torch.no_grad()
def concept_maps_of(
    model: LatentDiffusion,
    trajectory: Trajectory,
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
    trajectory: Trajectory,
    groups: Tensor,
    recorder: CrossAttentionRecorder,
    batch_size: int,
    on_progress: Callable[[int], object] | None,
) -> list[tuple[Tensor, Tensor]]:
    """(maps of words, maps of concepts) of each batch of steps."""
    text = model.encode_texts([trajectory.text])
    found = []
    for start in range(0, len(trajectory), batch_size):
        noisy = trajectory.noisy[start : start + batch_size].to(model.device, text.states.dtype)  # (b, C, h, w)
        times = trajectory.timesteps[start : start + batch_size].to(model.device)
        recorder.groups = groups.to(model.device).expand(len(noisy), -1, -1)  # (b, K, T)
        model.unet(noisy, times, **text.expand(len(noisy)).arguments())
        maps = recorder.take(noisy.shape[-2:])
        found.append((maps.float().cpu(), recorder.concept_maps.float().cpu()))
        if on_progress is not None:
            on_progress(len(noisy))
    return found
