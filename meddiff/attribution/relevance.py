"""How much each token of the prompt matters for the prediction, at every step: gradient-weighted attention, rolled out.

One forward and one backward pass with the text at each step of a trajectory; the tower is run once, and its backward pass,
which starts from the U-Net's, at each step. Source: Park et al. 2024, spec section B5; corrected as section B7 says: layers in
the order in which they run, the conditional half and the prompt's own text side alone, resizing in two dimensions, guarded
quotients.

Three things are reported of each token. ``sums``: its column of R_iq summed over pixels, in units of the target. ``share``: of
all tokens' sums (the softmax of their logarithms; a softmax of the sums themselves would hang on the target's unit).
``minmax``: from 0 to 1 over the words' tokens, as published; the first of the words always has 1, however little that is.

**Unit.** R_iq multiplies layers, so a target a hundred times as large would not give sums a hundred times as large, but
another order of layers: the first ones overrule the last (or, with rows of length 1, the other way round). So by default the
gradients of a step are divided by one number, the row sums of its self-attention layers, averaged over pixels and added up:
then all layers together at most multiply relevance by about e. The sums are multiplied by it again.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from meddiff.attribution.cam_targets import Target, asking, check_same_weights
from meddiff.attribution.relevance_capture import Layer, attention_gradients, weighted_by_gradient
from meddiff.attribution.rollout import Rollout, rolled_text
from meddiff.attribution.tower_attention import tower_attention
from meddiff.attribution.trajectory import Trajectory
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.tower import Conditioning


@dataclass(frozen=True)
class RelevanceOptions:
    """How relevance is rolled out.

    Attributes:
        unit: divide a step's gradients by one number, so that results do not hang on the target's unit (above).
        unit_rows: bring each pixel's relevance to length 1 after each self-attention, as the paper does.
        text_side: what tokens took from one another inside the text tower.
    """

    unit: bool = True
    unit_rows: bool = False
    text_side: bool = True

    @classmethod
    def paper(cls) -> Self:
        """As published, with ``Target("sum_eps")``; what was wrong stays corrected."""
        return cls(unit=False, unit_rows=True)


@dataclass(frozen=True)
class Relevance:
    """Relevance of the L tokens of a prompt at S steps.

    Attributes:
        sums: (S, L) float32, in units of the target.
        maps: (S, K, h, w) float32, R_iq averaged over each group's tokens as its weights say.
        layers: paths of the U-Net's attention layers in the order in which they ran.
        note: empty, or a sentence on what the text tower does not show.
    """

    sums: Tensor
    maps: Tensor
    layers: tuple[str, ...]
    note: str

    @property
    def share(self) -> Tensor:
        """(S, L): of the sum over all tokens, special ones among them; 0 where nothing is relevant."""
        total = self.sums.sum(dim=1, keepdim=True)
        return torch.where(total > 0, self.sums / torch.where(total > 0, total, 1.0), 0.0)

    def minmax(self, tokens: Tensor) -> Tensor:
        """(S, L): from 0 to 1 over ``tokens`` (L,) bool, those of words; NaN elsewhere, and where they are all alike."""
        inside = self.sums[:, tokens]  # (S, W)
        found = torch.full_like(self.sums, torch.nan)
        if inside.shape[1]:
            low, high = inside.amin(dim=1, keepdim=True), inside.amax(dim=1, keepdim=True)
            apart = high > low
            found[:, tokens] = torch.where(apart, (inside - low) / torch.where(apart, high - low, 1.0), torch.nan)
        return found


def cost(steps: int) -> int:
    """Evaluations of the U-Net: forward and backward, 3, of each step."""
    return 3 * steps


def relevance(
    model: LatentDiffusion,
    trajectory: Trajectory,
    groups: Tensor,
    options: RelevanceOptions = RelevanceOptions(),
    target: Target = Target(),  # noqa: B008 (frozen dataclass)
) -> Relevance:
    """Relevance of each token at each step.

    Args:
        model: in eval mode, frozen or not; its parameters and their gradients stay as they are.
        trajectory: of this model. Its text is encoded again, its steps are not walked again.
        groups: (K, L) weights over tokens, one row a map, such as a word's of :mod:`meddiff.attribution.token_roles`.

    Raises:
        UserError: groups of another number of tokens, a target that cannot be asked, a trajectory of another model.
    """
    tower, size = model.text_encoder, (trajectory.noisy.shape[-2], trajectory.noisy.shape[-1])
    length = tower.tokenizer.max_length
    if groups.ndim != 2 or groups.shape[1] != length:
        raise UserError(
            f"relevance: groups are {tuple(groups.shape)}; give (K, {length}), a weight for each of the text's tokens."
        )
    begins = asking(model, trajectory, target)
    sums, maps, order = [], [], tuple[str, ...]()
    with torch.inference_mode(False), torch.enable_grad(), attention_gradients(model.unet) as captured:
        tokens = tower.tokenizer.tokenize([trajectory.text])[0].to(model.device)
        with tower_attention(tower) as inside:
            states = tower(tokens)  # (1, L, D), with a graph also where the tower is frozen
        with torch.no_grad():  # what else the U-Net is told beside the text
            told = replace(model.encode_tokens(tokens), states=states.detach(), mask=tower.mask(tokens))
        for step in range(len(trajectory)):
            captured.layers.clear()
            one = trajectory.at([step])
            into_text = _backward(model, one, begins.conditional[step : step + 1], told)
            text = _text_side(states, into_text, inside.layers if options.text_side else [])
            rolled, unit = _rolled(captured.layers, text, size, length, options)
            order = tuple(layer.name for layer in captured.layers)
            sums.append((rolled.sum(dim=0) * unit).cpu())  # (L,)
            maps.append((groups.to(rolled) @ rolled.T * unit).unflatten(1, size).cpu())  # (K, h, w)
    return Relevance(torch.stack(sums), torch.stack(maps), order, inside.note if options.text_side else "")


def _backward(model: LatentDiffusion, step: Trajectory, slope: Tensor, text: Conditioning) -> Tensor:
    """Run one step forward and back, so that each attention layer has its product; dy/d(states of the text), (1, L, D)."""
    given = [
        step.noisy.to(model.device, text.states.dtype, copy=True).requires_grad_(),  # reaches every layer's attention
        text.states.clone().requires_grad_(),
    ]
    output = model.unet(given[0], step.timesteps.to(model.device), **replace(text, states=given[1]).arguments()).sample
    check_same_weights(step, None, output)
    return torch.autograd.grad(output, given, slope.to(output))[1]


def _text_side(states: Tensor, slope: Tensor, layers: list[Tensor]) -> list[Tensor]:
    """The weighted attention (L, L) of the tower's layers, where y changes by ``slope`` (1, L, D) with its states."""
    if not layers:
        return []
    found = torch.autograd.grad(states, layers, slope, retain_graph=True, allow_unused=True)
    return [
        weighted_by_gradient(layer.detach(), own)[0]
        for layer, own in zip(layers, found, strict=True)
        if own is not None
    ]


def _rolled(
    layers: list[Layer], text: list[Tensor], size: tuple[int, int], tokens: int, options: RelevanceOptions
) -> tuple[Tensor, float]:
    """R_iq (N, L), and the number that its gradients were divided by."""
    products = [(layer.cross, layer.weighted[0]) for layer in layers if layer.weighted is not None]
    unit = 1.0
    if options.unit:
        # of self-attention: these multiply; without any (or without relevance) nothing does
        growth = sum(float(weighted.sum(dim=1).mean()) for cross, weighted in products if not cross)
        unit = growth or 1.0
    device = products[0][1].device
    rollout = Rollout(size, rolled_text([one / unit for one in text], tokens, device), options.unit_rows)
    for cross, weighted in products:
        (rollout.cross_attention if cross else rollout.self_attention)(weighted / unit)
    return rollout.relevance, unit
