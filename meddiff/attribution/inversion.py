"""From an image to the noise that a model makes it of, and back, under a condition that may have changed in between.

Denoising is DDIM with eta 0 (:mod:`meddiff.attribution.ddim`). Inversion walks the same list upwards: x at the next higher
timestep n is found from x at p by

    eps = what the model says of the guess for x_n at n (first guess: x_p),   x_n = sqrt(a_n) x0(x_p, eps) + sqrt(1 - a_n) eps

and repeated with the better guess as often as asked; where it no longer changes, a step back gives x_p to the bit. The model
is asked at the level where x_n stands, not one below (which the published code does: it starts one level late), and the clean
image is no timestep of its own.

Source: Song et al. 2021, section 4.3; Pan et al. 2023 (the repeated guess); spec sections A6.2, A6.3 and A7.3 to A7.5.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from meddiff.attribution.ddim import ddim_step, predicted_noise
from meddiff.attribution.guidance import guided
from meddiff.attribution.schedules import CLEAN, check_timesteps, following, uniform
from meddiff.common.errors import UserError
from meddiff.common.ranges import NOT_NEGATIVE
from meddiff.models.patronus import Patronus
from meddiff.models.text.tower import Conditioning

#: Step (from 0), its timestep, and the clean image that it stands for, (B, C, h, w).
OnClean = Callable[[int, int, Tensor], object]


def ddim_grid(steps: int, train_timesteps: int = 1000) -> list[int]:
    """Even timesteps, strictly decreasing from the last of training: what :func:`denoise` walks and :func:`invert` climbs.

    Raises:
        UserError: no number of steps between 1 and ``train_timesteps``.

    Example:
        >>> ddim_grid(4)
        [999, 749, 499, 249]
    """
    return uniform(steps, train_timesteps)


@torch.no_grad()
def invert(
    model: Patronus, x0: Tensor, conditioning: Conditioning, timesteps: Sequence[int], refinements: int = 1
) -> Tensor:
    """x at the first (noisiest) of ``timesteps`` from which :func:`denoise` leads back to ``x0``, (B, C, h, w).

    Args:
        model: in eval mode.
        x0: (B, C, h, w), what is denoised.
        conditioning: B rows, of ``x0``'s own activations if the image is to be kept.
        timesteps: strictly decreasing.
        refinements: how often the guess of each step is made again; each costs one more evaluation of the U-Net a step.

    Returns:
        float32; it spreads wider than standard normal noise where the model reconstructs badly.

    Raises:
        UserError: a list that cannot be walked, or a negative number of refinements.
    """
    _check(model, x0, conditioning, timesteps)
    if refinements < 0:
        raise UserError(f"refinements is {refinements}; it must {NOT_NEGATIVE}.")
    schedule, x = model.noise_schedule, x0.float().to(model.device)
    below = CLEAN
    for timestep in reversed(timesteps):
        signal, sigma = schedule.signal_and_noise(_rows(x, timestep))  # (B, 1, 1, 1) each
        guess = x
        for _ in range(1 + refinements):
            noise = predicted_noise(schedule, _asked(model, guess, timestep, conditioning), guess, _rows(x, timestep))
            clean = x
            if below != CLEAN:
                lower_signal, lower_sigma = schedule.signal_and_noise(_rows(x, below))
                clean = (x - lower_sigma * noise) / lower_signal
            guess = signal * clean + sigma * noise
        x, below = guess, timestep
    return x


@torch.no_grad()
def denoise(
    model: Patronus,
    x_T: Tensor,
    conditioning: Conditioning,
    timesteps: Sequence[int],
    on_clean: OnClean | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """What becomes of ``x_T`` under a condition, (B, C, h, w) float32, by DDIM without any draw.

    Args:
        model: in eval mode.
        x_T: (B, C, h, w) at the first of ``timesteps``.
        conditioning: B rows.
        timesteps: strictly decreasing.
        on_clean: told of the clean image that each step stands for, before the step is made.
        guidance_scale: 1 asks the model once a step; others subtract the model without text and prototypes.

    Raises:
        UserError: a list that cannot be walked, or a negative guidance.
    """
    _check(model, x_T, conditioning, timesteps)
    if not NOT_NEGATIVE.holds(guidance_scale):
        raise UserError(f"guidance_scale is {guidance_scale}; it must {NOT_NEGATIVE}.")
    schedule, x = model.noise_schedule, x_T.float().to(model.device)
    nothing = model.conditioning(None).expand(len(x)) if guidance_scale != 1.0 else None
    for step, (timestep, previous) in enumerate(zip(timesteps, following(timesteps), strict=True)):
        output = _asked(model, x, timestep, conditioning)
        if nothing is not None:
            output = guided(_asked(model, x, timestep, nothing), output, guidance_scale)
        if on_clean is not None:
            on_clean(step, timestep, schedule.predicted_x0(x, output, _rows(x, timestep)))
        x = ddim_step(schedule, output, x, timestep, previous)
    return x


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From ``a`` (share 0) to ``b`` (share 1) along the arc between them, image by image: (B, C, h, w).

    As straight a way as between the images of noise is shorter than either of them in its middle; where two are parallel it is
    taken all the same.
    """
    flat_a, flat_b = a.flatten(1).double(), b.flatten(1).double()  # (B, C h w)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1.0, 1.0)[:, None]
    angle = torch.acos(cosine)
    weights = torch.sin((1.0 - share) * angle) / torch.sin(angle), torch.sin(share * angle) / torch.sin(angle)
    arc = weights[0] * flat_a + weights[1] * flat_b
    straight = (1.0 - share) * flat_a + share * flat_b
    return torch.where(torch.sin(angle) > 1e-6, arc, straight).to(a.dtype).view_as(a)


def interpolate(
    model: Patronus,
    noises: tuple[Tensor, Tensor],
    activations: tuple[Tensor, Tensor],
    shares: Sequence[float],
    timesteps: Sequence[int],
    texts: Sequence[str] | None = None,
) -> Tensor:
    """Images between two: activations on the straight line, noise on the arc, (S, C, h, w) for S shares.

    Args:
        noises: x_T of each, (1, C, h, w).
        activations: of each, (1, m).
        shares: of the second; 0 is the first image.
        texts: one; None for the empty one.
    """
    x_T = torch.cat([slerp(*noises, share) for share in shares])
    told = torch.cat([(1.0 - share) * activations[0] + share * activations[1] for share in shares])
    return denoise(model, x_T, _told(model, told, texts), timesteps)


def extrapolate(
    model: Patronus,
    noise: Tensor,
    activations: Tensor,
    prototype: int,
    values: Sequence[float],
    timesteps: Sequence[int],
    texts: Sequence[str] | None = None,
) -> Tensor:
    """One image under rising values of one activation, all else as it is, (V, C, h, w) for V values.

    Args:
        noise: x_T, (1, C, h, w).
        activations: (1, m).
        prototype: which.
        texts: one; None for the empty one.

    Raises:
        UserError: no such prototype.
    """
    told = torch.cat([edited(activations, {prototype: value}) for value in values])
    return denoise(model, noise.expand(len(values), -1, -1, -1), _told(model, told, texts), timesteps)


def edited(activations: Tensor, values: dict[int, float]) -> Tensor:
    """Activations (B, m) with some of them set, for all rows; a copy.

    Raises:
        UserError: no such prototype.
    """
    found = activations.clone()
    for prototype, value in values.items():
        if not 0 <= prototype < activations.shape[1]:
            raise UserError(f"There is no prototype {prototype}: the model has 0 to {activations.shape[1] - 1}.")
        found[:, prototype] = value
    return found


def _told(model: Patronus, activations: Tensor, texts: Sequence[str] | None) -> Conditioning:
    with torch.no_grad():
        return model.conditioning(activations, None if texts is None else list(texts) * len(activations))


def _asked(model: Patronus, x: Tensor, timestep: int, conditioning: Conditioning) -> Tensor:
    """The U-Net's output, (B, C, h, w) float32."""
    given = x.to(conditioning.states.dtype)
    output: Tensor = model.unet(given, _rows(x, timestep), **conditioning.arguments()).sample
    return output.float()


def _rows(x: Tensor, timestep: int) -> Tensor:
    return torch.full((len(x),), timestep, device=x.device)


def _check(model: Patronus, x: Tensor, conditioning: Conditioning, timesteps: Sequence[int]) -> None:
    check_timesteps(timesteps, len(model.noise_schedule.alphas_cumprod))
    if len(conditioning.states) != len(x):
        raise UserError(f"{len(x)} images and {len(conditioning.states)} conditions: give one each.")
