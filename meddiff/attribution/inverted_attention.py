"""Cross-attention along the inversion of a real image: the way from the clean latents up to noise, without a draw.

The way is DDIM's, upwards, as the model without text predicts it, so it is one way an image, whatever is asked of it; the
text only looks on. The published protocol runs both at all 334 steps and reads 60 of them: neither the steps above those,
nor the text at the others, touch a map. Source: Vilouras et al., zero-shot phrase grounding with a latent diffusion model;
Song et al. 2021, section 4.3; what is left out own.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from meddiff.attribution.attention_maps import Noisy
from meddiff.attribution.ddim import ddim_step
from meddiff.common.errors import UserError
from meddiff.common.ranges import Range
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.schedule_config import TIMESTEPS

#: As published; the step is what is left of 1000 / 300, and so 334 steps come of it.
STEPS = 300
#: In percent of the training timesteps, from and below: 360 to 537 of 0, 3, ..., 999.
READ_FROM, READ_BELOW = 36, 54


def inversion_times(steps: int = STEPS, train_timesteps: int = TIMESTEPS) -> list[int]:
    """Rising timesteps of the inversion: every ``train_timesteps // steps`` from 0.

    Raises:
        UserError: no number of steps between 1 and ``train_timesteps``.

    Example:
        >>> times = inversion_times()
        >>> len(times), times[:3], times[-1]
        (334, [0, 3, 6], 999)
    """
    rule = Range(1, train_timesteps, whole=True)
    if not rule.holds(steps):
        raise UserError(f"inversion_steps is {steps}; it must {rule}.")
    return list(range(0, train_timesteps, train_timesteps // steps))


def read_times(times: Sequence[int], train_timesteps: int = TIMESTEPS) -> list[int]:
    """Those whose maps are read.

    Raises:
        UserError: none lies there.

    Example:
        >>> read = read_times(inversion_times())
        >>> len(read), read[0], read[-1], inversion_times().index(360)
        (60, 360, 537, 120)
    """
    found = [one for one in times if READ_FROM * train_timesteps <= 100 * one < READ_BELOW * train_timesteps]
    if not found:
        raise UserError(
            f"inversion_steps: none of {len(times)} steps lies between {READ_FROM} and {READ_BELOW} % of the timesteps: "
            "take 6 or more."
        )
    return found


def inversion_cost(times: Sequence[int], train_timesteps: int = TIMESTEPS) -> tuple[int, int]:
    """Evaluations of the U-Net: once an image for the way, and once a text for its maps.

    Example:
        >>> inversion_cost(inversion_times())
        (179, 60)
    """
    read = read_times(times, train_timesteps)
    return list(times).index(read[-1]), len(read)


@torch.no_grad()
def inverted(
    model: LatentDiffusion,
    latents: Tensor,
    times: Sequence[int],
    on_progress: Callable[[int], object] | None = None,
) -> list[Noisy]:
    """What the U-Net is given at each of :func:`read_times` on the way up from B images.

    At the step to t it is given x at the timestep below and is told t, as published: x0 and noise are what its output stands
    for at the level below, and x at t is made of them.

    Args:
        model: in eval mode.
        latents: (B, C, h, w), scaled.
        times: of :func:`inversion_times`.
        on_progress: called with the evaluations just done.

    Returns:
        Of each image S states, without a text yet, on the CPU.
    """
    schedule = model.noise_schedule
    read = set(read_times(times, len(schedule.alphas_cumprod)))
    last = max(read)
    nothing = model.encode_texts([""]).expand(len(latents))
    x, below = latents.float().to(model.device), -1
    given: list[Tensor] = []  # (B, C, h, w) each
    for time in times:
        if time in read:
            given.append(x.cpu())
        if time == last:
            break
        told = torch.full((len(x),), time, device=model.device)
        output = model.unet(x.to(nothing.states.dtype), told, **nothing.arguments()).sample.float()
        if below < 0:  # nothing but image: the output is the noise, for epsilon as for v
            signal, sigma = schedule.signal_and_noise(told)
            x = signal * x + sigma * output
        else:
            x = ddim_step(schedule, output, x, below, time)
        below = time
        if on_progress is not None:
            on_progress(len(x))
    steps = torch.tensor(sorted(read))
    return [Noisy("", states, steps) for states in torch.stack(given, dim=1)]
