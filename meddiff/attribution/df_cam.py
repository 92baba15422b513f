"""DF-CAM: which places of a layer carry what the network is asked about, at every layer and step of a trajectory.

With A the features of a layer and y the target, alpha_k = mean over pixels of dy/dA_k, and the map is ReLU(sum_k alpha_k A_k):
Grad-CAM (Selvaraju et al. 2017) inside the U-Net. Source: Park et al. 2024, section "DF-CAM"; spec sections B3 and B8. Apart
from the paper's: the conditional half alone and a target that holds the prompt (``CamOptions.paper`` has theirs), and a layer
whose map is constant is left out of the sum (there 0 / 0 spoils it).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from meddiff.attribution.cam_targets import Asking, Target, asking, check_same_weights
from meddiff.attribution.plain_unet import layer_by_layer
from meddiff.attribution.trajectory import Trajectory
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.tower import Conditioning

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

#: Kinds of layers, and where they stand in the network.
KINDS = {
    "resnets": re.compile(r".*\.resnets\.\d+"),
    "attentions": re.compile(r".*\.attentions\.\d+"),
    "samplers": re.compile(r".*\.(down|up)samplers\.\d+"),
}
#: A map whose values differ by less than this share of the largest is constant: what differs is rounding.
CONSTANT = 1e-5


@dataclass(frozen=True)
class CamOptions:
    """How maps are made.

    Attributes:
        layers: kinds (``resnets``, ``attentions``, ``samplers``) or paths of modules such as ``up_blocks.1.resnets.0``.
        half: ``conditional`` looks at the pass with the text; ``combined`` at X_u + scale (X_c - X_u) of features and of
            gradients, as the paper does.
        batch_size: steps at a time; changes results by rounding only.
    """

    layers: tuple[str, ...] = ("resnets", "attentions", "samplers")
    half: Literal["conditional", "combined"] = "conditional"
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.half not in ("conditional", "combined"):
            raise UserError(f"half is {self.half!r}; it must be conditional or combined.")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; it must be at least 1.")

    @classmethod
    def paper(cls) -> Self:
        """As published, with ``Target("sum_eps")``."""
        return cls(half="combined")


@dataclass(frozen=True)
class CamMaps:
    """Maps of S steps and L layers.

    Attributes:
        layers: paths of the modules, in the order in which they run.
        maps: (S, L, h, w) float32 at the latents' size, not normalised.
        used: (S, L), False where a map is constant, so that it shows no place.
        total: (S, h, w), the sum of the used maps, each from 0 to 1; 0 where none is used.
        score: (S,), the target.
    """

    layers: tuple[str, ...]
    maps: Tensor
    used: Tensor
    total: Tensor
    score: Tensor


def cost(steps: int, options: CamOptions = CamOptions()) -> int:
    """Evaluations of the U-Net: forward and backward, 3, of each half of each step."""
    return 3 * steps * (2 if options.half == "combined" else 1)


def find_layers(unet: "UNet2DConditionModel", asked: Sequence[str]) -> tuple[str, ...]:
    """Paths of the modules that are asked for, by kind or by path.

    Raises:
        UserError: none, or a path that the network does not have.
    """
    names = [name for name, _ in unet.named_modules() if name]
    found: dict[str, None] = {}
    for one in asked:
        hits = [name for name in names if KINDS[one].fullmatch(name)] if one in KINDS else [one] if one in names else []
        if one not in KINDS and not hits:
            raise UserError(
                f"DF-CAM: this U-Net has no layer {one!r}: give {', '.join(KINDS)}, or a path such as mid_block."
            )
        found |= dict.fromkeys(hits)
    if not found:
        raise UserError(f"DF-CAM: this U-Net has no layers of the kinds {', '.join(asked)}: give paths of its modules.")
    return tuple(found)


@contextmanager
def watched(unet: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Context with the features of each layer's last pass, (B, C, h, w), in the order in which layers run."""
    features: dict[str, Tensor] = {}
    handles: list[RemovableHandle] = []

    def listen(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            first = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
            if not isinstance(first, Tensor) or first.ndim != 4:
                raise UserError(f"DF-CAM: {name} gives no image of features (B, C, h, w): name another layer.")
            features[name] = first

        handles.append(unet.get_submodule(name).register_forward_hook(hook))

    try:
        for name in layers:
            listen(name)
        yield features
    finally:
        for handle in handles:
            handle.remove()


def df_cam(
    model: LatentDiffusion,
    trajectory: Trajectory,
    options: CamOptions = CamOptions(),
    target: Target = Target(),  # noqa: B008 (frozen dataclass)
) -> CamMaps:
    """A map of every layer at every step.

    Args:
        model: in eval mode, frozen or not; its parameters and their gradients stay as they are.
        trajectory: of this model. Its text is encoded again, its steps are not walked again.

    Raises:
        UserError: layers that the network does not have, a target that cannot be asked, a trajectory of another model.
    """
    layers = find_layers(model.unet, options.layers)
    begins = asking(model, trajectory, target)
    size, found, order = trajectory.noisy.shape[-2:], [], tuple[str, ...]()
    with torch.inference_mode(False), layer_by_layer(model.unet), watched(model.unet, layers) as features:
        with torch.no_grad():
            texts = model.encode_texts([trajectory.text, ""])
        # a cache of texts may have been filled in inference mode, whose tensors no backward pass can use
        texts = replace(texts, states=texts.states.clone())
        for start in range(0, len(trajectory), options.batch_size):
            places = range(start, min(start + options.batch_size, len(trajectory)))
            features.clear()
            slopes = _backward(model, trajectory.at(places), _rows(begins, places), texts, options, features)
            order = tuple(features)
            row = []
            for name, slope in zip(order, slopes, strict=True):
                values = features[name].detach().float()
                slope = torch.zeros_like(values) if slope is None else slope.float()
                if options.half == "combined":
                    values, slope = (_combined(x, trajectory.guidance_scale) for x in (values, slope))
                row.append(class_activation(values, slope, (size[0], size[1])))
            found.append(torch.stack(row, dim=1).cpu())  # (b, L, h, w)
    maps = torch.cat(found)  # (S, L, h, w)
    total, used = add_up(maps)
    return CamMaps(order, maps, used, total, begins.score.cpu())


def _backward(
    model: LatentDiffusion,
    steps: Trajectory,
    begins: Asking,
    texts: Conditioning,
    options: CamOptions,
    features: dict[str, Tensor],
) -> tuple[Tensor | None, ...]:
    """Run b steps forward and back; dy/dA of each layer, (b or 2b, C, h, w), of the text's half last."""
    number, both = len(steps), options.half == "combined"
    rows = [1] * number + [0] * number if both else [0] * number  # the empty text first
    text = texts.take(torch.tensor(rows, device=texts.states.device))
    noisy = steps.noisy.to(model.device, text.states.dtype, copy=True)
    times = steps.timesteps.to(model.device)
    with torch.enable_grad():
        # the one leaf that needs a gradient: with frozen weights there would be no graph at all
        given = (torch.cat([noisy, noisy]) if both else noisy).requires_grad_()
        output = model.unet(given, torch.cat([times, times]) if both else times, **text.arguments()).sample
        check_same_weights(steps, output[:number] if both else None, output[-number:])
        slope = torch.cat([begins.unconditional, begins.conditional]) if both else begins.conditional
        return torch.autograd.grad(output, list(features.values()), slope.to(output), allow_unused=True)


def _rows(begins: Asking, places: range) -> Asking:
    return Asking(*(x[places.start : places.stop] for x in (begins.score, begins.unconditional, begins.conditional)))


def _combined(x: Tensor, scale: float) -> Tensor:
    unconditional, conditional = x.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def class_activation(features: Tensor, slopes: Tensor, size: tuple[int, int]) -> Tensor:
    """ReLU(sum_k alpha_k A_k) of features and dy/dA, (B, C, h', w') each, at ``size``: (B, h, w)."""
    alpha = slopes.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
    maps = (alpha * features).sum(dim=1, keepdim=True).relu()  # (B, 1, h', w')
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]


def add_up(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over layers of maps (S, L, h, w), each from 0 to 1, without constant ones: (S, h, w), and which count, (S, L).

    Example:
        >>> total, used = add_up(torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]], [[0.0, 1.0]]]]))
        >>> total.tolist(), used.tolist()
        ([[[0.0, 2.0]]], [[True, False, True]])
    """
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)  # (S, L, 1, 1)
    used = (high - low) > CONSTANT * high.abs()
    scaled = torch.where(used, (maps - low) / torch.where(used, high - low, 1.0), 0.0)
    return scaled.sum(dim=1), used[..., 0, 0]
