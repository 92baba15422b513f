"""Images drawn along any list of timesteps, by DDIM without a scheduler. Source: own (spec section B4)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.attribution.trajectory import generate
from meddiff.models.autoencoder import decode
from meddiff.models.latent_diffusion import LatentDiffusion


def draw_along(
    model: LatentDiffusion,
    prompts: Sequence[str],
    keys: Sequence[str],
    seed: int,
    timesteps: Sequence[int],
    guidance_scale: float,
    on_step: Callable[[int], object] | None = None,
) -> NDArray[np.uint8]:
    """One image a prompt: uint8 (B, H, W, 3), from the noise that :meth:`LatentDiffusion.sample` begins with.

    Args:
        timesteps: of :mod:`meddiff.attribution.schedules`, strictly decreasing.
        on_step: called after each step with the number of steps done.

    Raises:
        NotFiniteImages: some came out as no numbers; carries the others.
        UserError: a list that cannot be denoised along.
    """
    done = 0

    def told(evaluations: int) -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done)

    with torch.no_grad():
        paths = generate(model, prompts, timesteps, keys, seed, guidance_scale, on_progress=told)
        ends = torch.stack([path.after[-1] for path in paths])  # (B, C, h, w)
        return decode(model.vae, ends.to(model.device), model.scaling_factor)
