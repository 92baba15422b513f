"""RISE proper: which part of a step's input its prediction in a region hangs on.

As DF-RISE, but the likeness of a masked prediction is one number, its mean over a region, credited to every place that the
mask kept: S = sum_n M_n s_n / sum_n M_n. High is where latents must be kept for the region to stay as it is. Source: Petsiuk
et al. 2018, eq. 6 (divided there by N p, whose exact value is the sum of masks); the score is DF-RISE's, not a classifier's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from meddiff.attribution.df_rise import FAST, DfRiseOptions, masked_likeness, normalised
from meddiff.attribution.trajectory import Trajectory
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion


def rise(
    model: LatentDiffusion, trajectory: Trajectory, options: DfRiseOptions = FAST, region: Tensor | None = None
) -> Tensor:
    """Maps of every step, (S, h, w) float32 on the CPU; see :func:`rise_of`. It costs what DF-RISE costs."""
    return rise_of(model, [trajectory], options, None if region is None else [region])[0]


def rise_of(
    model: LatentDiffusion,
    trajectories: Sequence[Trajectory],
    options: DfRiseOptions = FAST,
    regions: Sequence[Tensor] | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> list[Tensor]:
    """Maps of every step of several trajectories.

    Args:
        options: as of DF-RISE; how that is normalised does not matter here.
        regions: (h, w) weights of each, not negative, where the prediction is to stay as it is; None: everywhere.
        on_progress: called with the evaluations just done.

    Returns:
        (S, h, w) float32 on the CPU of each.

    Raises:
        UserError: a region of another size than the latents, negative, or empty.
    """
    sums = [torch.zeros(len(one), *one.noisy.shape[-2:], device=model.device) for one in trajectories]
    kept = [torch.zeros_like(one) for one in sums]
    shares = [_shares(model, one, None if regions is None else regions[k]) for k, one in enumerate(trajectories)]
    for part in masked_likeness(model, trajectories, options, on_progress):
        for place, step, seen, alike in zip(part.images, part.steps, part.masks, part.alike, strict=True):
            sums[place][step] += seen * (alike * shares[place]).sum()
            kept[place][step] += seen
    return [normalised(one, times, "masks").cpu() for one, times in zip(sums, kept, strict=True)]


def _shares(model: LatentDiffusion, trajectory: Trajectory, region: Tensor | None) -> Tensor:
    size = trajectory.noisy.shape[-2:]
    weights = torch.ones(size) if region is None else region.float().cpu()
    if weights.shape != size or not weights.isfinite().all() or weights.min() < 0 or weights.sum() <= 0:
        raise UserError(
            f"rise: the region of {trajectory.key!r} must be {size[0]} x {size[1]} weights of 0 or more, not all 0."
        )
    return (weights / weights.sum()).to(model.device)
