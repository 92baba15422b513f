"""Cross-attention along a saved trajectory, of the prompt's words and of other concepts, one pass a step. Source: own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from meddiff.attribution.cam_targets import check_same_weights
from meddiff.attribution.concepts import Concepts
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer, MeanOverLayers
from meddiff.attribution.trajectory import Trajectory
from meddiff.models.latent_diffusion import LatentDiffusion


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of S steps.

    Attributes:
        words: (S, K, h, w), or (S, L, K, h, w) with every layer by itself.
        concepts: (S, C, h, w) or (S, L, C, h, w); C is 0 without concepts.
        layers: paths of the L layers in the order in which they ran; empty for their mean.
    """

    words: Tensor
    concepts: Tensor
    layers: tuple[str, ...]


def cost(steps: int) -> int:
    """Evaluations of the U-Net: one of each step, concepts or not."""
    return steps


@torch.no_grad()
def attention_maps(
    model: LatentDiffusion,
    trajectory: Trajectory,
    groups: Tensor,
    concepts: Concepts | None = None,
    each_layer: bool = False,
    batch_size: int = 16,
) -> AttentionMaps:
    """Maps of words and concepts at each step, out of the pass with the text.

    Args:
        model: in eval mode.
        trajectory: of this model; its steps are not walked again.
        groups: (K, L) weights over tokens, one row a word (:func:`meddiff.attribution.token_roles.word_groups`).
        concepts: of :func:`meddiff.attribution.concepts.encode_concepts` by this model's tower.
        each_layer: keep layers apart; else their mean.
        batch_size: steps at a time; changes results by rounding only.

    Raises:
        UserError: a trajectory of another model, or a U-Net without cross-attention.
    """
    mine, theirs = (EachLayer(), EachLayer()) if each_layer else (MeanOverLayers(), MeanOverLayers())
    text, size = model.encode_texts([trajectory.text]), trajectory.noisy.shape[-2:]
    words, others = [], []
    with CrossAttentionRecorder(model.unet, mine, concepts, theirs) as recorder:
        for start in range(0, len(trajectory), batch_size):
            steps = trajectory.at(range(start, min(start + batch_size, len(trajectory))))
            recorder.groups = groups.to(model.device).expand(len(steps), -1, -1)
            noisy = steps.noisy.to(model.device, text.states.dtype)
            output = model.unet(noisy, steps.timesteps.to(model.device), **text.expand(len(steps)).arguments()).sample
            check_same_weights(steps, None, output)
            words.append(recorder.take(size).cpu())
            others.append(recorder.concept_maps.cpu())
    found = torch.cat(words)
    layers = tuple(mine.layers) if isinstance(mine, EachLayer) else ()
    empty = found[..., :0, :, :]
    return AttentionMaps(found, empty if concepts is None else torch.cat(others), layers)
