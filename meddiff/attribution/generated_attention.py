"""Cross-attention of images that are drawn: maps of the half of guidance that has the text, step by step, nothing kept.

Source: Nuetzel et al., Generate to ground, 2025 (the second of the two passes of its merge): 50 steps of DDIM from noise,
guidance 16, the same prompt.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.guidance import guided
from meddiff.attribution.recorder import CrossAttentionRecorder, LayerReducer
from meddiff.attribution.schedules import check_timesteps, following
from meddiff.common.errors import UserError
from meddiff.common.ranges import Range
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import initial_noise
from meddiff.models.schedule_config import TIMESTEPS

#: As published.
STEPS, GUIDANCE = 50, 16.0


def drawn_times(steps: int = STEPS, train_timesteps: int = TIMESTEPS) -> list[int]:
    """Falling timesteps from below the last of training to 1, as diffusers' ``leading`` with an offset of 1.

    Raises:
        UserError: no number of steps between 1 and half of the timesteps.

    Example:
        >>> times = drawn_times()
        >>> len(times), times[:2], times[-1]
        (50, [981, 961], 1)
    """
    rule = Range(1, train_timesteps // 2, whole=True)
    if not rule.holds(steps):
        raise UserError(f"bbm_steps is {steps}; it must {rule}.")
    return [place * (train_timesteps // steps) + 1 for place in reversed(range(steps))]


def late_times(times: Sequence[int]) -> list[int]:
    """The last four fifths of them, over which the map of the real image is a mean: of all 50 those of the paper.

    Example:
        >>> from meddiff.attribution.grounding_pass import paper_timesteps
        >>> late_times(drawn_times()) == paper_timesteps()
        True
    """
    return list(times[len(times) // 5 :])


@torch.no_grad()
def drawn_maps(
    model: LatentDiffusion,
    texts: Sequence[str],
    keys: Sequence[str],
    groups: Tensor,
    timesteps: Sequence[int],
    reducer: LayerReducer,
    seed: int = 0,
    guidance_scale: float = GUIDANCE,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Tensor]:
    """Maps of B drawn images at each of the timesteps: (B, ...) float32 on the CPU, as the reducer gives them.

    Args:
        model: in eval mode; its scheduler takes no part.
        keys: one a text; the noise hangs on (seed, key) alone.
        groups: (B, K, L) weights over tokens.
        timesteps: strictly decreasing.
        on_progress: called after each step with the evaluations just done.

    Raises:
        UserError: a list that cannot be denoised along.
    """
    schedule, number = model.noise_schedule, len(texts)
    check_timesteps(timesteps, len(schedule.alphas_cumprod))
    x = initial_noise(seed, keys, model.latent_shape).to(model.device)  # (B, C, h, w)
    both = model.encode_texts([""]).expand(number).before(model.encode_texts(list(texts)))  # (2 B, L, D)
    with CrossAttentionRecorder(model.unet, reducer) as recorder:
        # the half without text comes first in a batch; published recorders take its maps for the prompt's
        recorder.groups = torch.cat([torch.zeros_like(groups), groups]).to(model.device)
        for timestep, previous in zip(timesteps, following(timesteps), strict=True):
            told = torch.full((2 * number,), timestep, device=model.device)
            given = torch.cat([x, x]).to(both.states.dtype)
            without, with_text = model.unet(given, told, **both.arguments()).sample.float().chunk(2)
            maps = recorder.take(x.shape[-2:])[number:]
            x = ddim_step(schedule, guided(without, with_text, guidance_scale), x, timestep, previous)
            if on_progress is not None:
                on_progress(2 * number)
            yield maps.float().cpu()
