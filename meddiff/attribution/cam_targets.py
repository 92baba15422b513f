"""What a network's inside is asked about: a number of each step, and its gradient with respect to the U-Net's output.

A saved trajectory holds the outputs, so the gradient up to them needs no U-Net: tools start their backward pass from it, and
the autoencoder's activations are gone before the U-Net's are made. Source: Park et al. 2024 (`sum_eps`); the others own
(spec section B8).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from meddiff.attribution.guidance import guided
from meddiff.attribution.trajectory import Trajectory
from meddiff.common.errors import UserError
from meddiff.models.domain_classifier import xrv_input
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.xrv import resize_square

if TYPE_CHECKING:
    from torchxrayvision.models import DenseNet

TargetKind = Literal["guidance", "sum_eps", "roi", "classifier"]
#: Outputs of another network differ by much more, those of another batch size or precision by less.
OTHER_WEIGHTS = 0.2


@dataclass(frozen=True)
class Logit:
    """One output of a classifier of X-rays.

    Attributes:
        network: torchxrayvision's, of :func:`meddiff.models.domain_classifier.load_classifier` or
            :func:`meddiff.models.xrv.load_xrv`; frozen, in eval mode.
        name: of its ``pathologies``.
        side: pixels that images are resized to (224 for torchxrayvision's weights); None leaves them.
    """

    network: "DenseNet"
    name: str
    side: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> logits (B,)."""
        sized = xrv_input(images) if self.side is None else resize_square(xrv_input(images), self.side)
        logits: Tensor = self.network(sized)
        return logits[:, list(self.network.pathologies).index(self.name)]


@dataclass(frozen=True)
class Target:
    """What is asked.

    Attributes:
        kind: ``guidance``, the squared norm of eps_c - eps_u, how far the text moves the prediction; ``roi``, the
            same inside a region; ``sum_eps``, the sum of the output (the paper's: its sign means nothing, and no word of the
            prompt is in it); ``classifier``, a logit of the decoded guided estimate of the clean image.
        region: (h, w) at the latents' size, of ``roi``; weights of 0 to 1.
        logit: of ``classifier``.

    Raises:
        UserError: an unknown kind, or one without what it needs.
    """

    kind: TargetKind = "guidance"
    region: Tensor | None = None
    logit: Logit | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(TargetKind):
            raise UserError(f"target is {self.kind!r}; it must be {', '.join(get_args(TargetKind))}.")
        if self.kind == "roi" and (self.region is None or self.region.ndim != 2 or not bool(self.region.any())):
            raise UserError("target roi: give a region (h, w) at the size of the latents that is not empty.")
        if self.kind == "classifier" and self.logit is None:
            raise UserError("target classifier: give a classifier and the name of one of its findings.")
        if self.logit is not None and self.logit.name not in self.logit.network.pathologies:
            known = ", ".join(name for name in self.logit.network.pathologies if name)
            raise UserError(f"target classifier: it has no output {self.logit.name!r}; it has {known}.")

    def score(self, model: LatentDiffusion, steps: Trajectory, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """The number of each step, (S,); outputs (S, C, h, w) float32.

        Raises:
            UserError: a region of another size than the latents', or no autoencoder.
        """
        if self.kind == "sum_eps":
            return unconditional.flatten(1).sum(dim=1) + conditional.flatten(1).sum(dim=1)
        if self.kind == "classifier":
            assert self.logit is not None
            output, times = (
                guided(unconditional, conditional, steps.guidance_scale),
                steps.timesteps.to(conditional.device),
            )
            clean = model.noise_schedule.predicted_x0(steps.noisy.to(conditional), output, times)  # (S, C, h, w)
            images = model.vae.decode((clean / model.scaling_factor).to(model.vae.dtype)).sample
            return self.logit(images.float().clamp(-1.0, 1.0))
        squares = (conditional - unconditional).square().sum(dim=1)  # (S, h, w)
        if self.kind == "guidance":
            return squares.flatten(1).sum(dim=1)
        assert self.region is not None
        if self.region.shape != squares.shape[1:]:
            here = " x ".join(map(str, squares.shape[1:]))
            raise UserError(f"target roi: its region is {tuple(self.region.shape)} and latents are {here}: resize it.")
        return (squares * self.region.to(squares)).flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Asking:
    """Where a backward pass begins, for S steps.

    Attributes:
        score: (S,), what is asked.
        unconditional: (S, C, h, w), its gradient with respect to the U-Net's output with the empty text.
        conditional: with the text.
    """

    score: Tensor
    unconditional: Tensor
    conditional: Tensor


def asking(model: LatentDiffusion, steps: Trajectory, target: Target) -> Asking:
    """A target and its gradient at the outputs that a trajectory holds; on the model's device, float32.

    One step at a time: images are decoded with all activations kept, which is what takes memory.
    """
    found = []
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(len(steps)):
            one = steps.at([step])
            outputs = [x.to(model.device, copy=True).requires_grad_() for x in (one.unconditional, one.conditional)]
            score = target.score(model, one, *outputs)
            slopes = torch.autograd.grad(score.sum(), outputs)
            found.append((score.detach(), *slopes))
    return Asking(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def check_same_weights(steps: Trajectory, unconditional: Tensor | None, conditional: Tensor) -> None:
    """Refuse a trajectory of another model: outputs (S, C, h, w) that are asked for again must be those that it holds.

    Raises:
        UserError: they are not.
    """
    for saved, again in (steps.unconditional, unconditional), (steps.conditional, conditional):
        if again is None:
            continue
        here = again.detach().float().cpu()
        if float((here - saved).norm()) > OTHER_WEIGHTS * float(saved.norm()):
            raise UserError(
                f"The trajectory of {steps.key!r} is not of this model: the U-Net gives other outputs at the same noise. "
                f"Make it again with the weights that are to be looked into."
            )
