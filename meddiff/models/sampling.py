"""Drawing latents from a text-conditioned U-Net with diffusers' schedulers and classifier-free guidance.

Source: spec/tradeoff.md section 4 (PLMS, 75 steps, scale 4, empty negative prompt); schedulers are diffusers' own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import NOT_NEGATIVE, Range, check_ranges
from meddiff.models.schedule_config import STABLE_DIFFUSION, ZERO_SNR, ScheduleConfig, walk
from meddiff.models.text.tower import Conditioning
from meddiff.models.weights.schedule_file import CLASSES

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UNet2DConditionModel

    Scheduler: TypeAlias = DDIMScheduler | DPMSolverMultistepScheduler | PNDMScheduler

Sampler = Literal["pndm", "ddim", "dpm++"]


@dataclass(frozen=True)
class SamplingOptions:
    """How images are drawn; the defaults are the paper's.

    Attributes:
        sampler: pndm (PLMS, the paper), ddim, or dpm++ (DPM-Solver++ 2M: 20 to 25 steps suffice).
        steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 turns it off (and halves the work).
    """

    sampler: Sampler = "pndm"
    steps: int = 75
    guidance_scale: float = 4.0

    def __post_init__(self) -> None:
        if self.sampler not in ("pndm", "ddim", "dpm++"):
            raise UserError(f"sampler is {self.sampler!r}; it must be pndm, ddim or dpm++.")
        check_ranges("sampling", self, steps=Range(1, 1000, whole=True), guidance_scale=NOT_NEGATIVE)

    @property
    def forward_passes(self) -> int:
        """U-Net forward passes of one image; guidance takes two a step."""
        return self.steps * (1 + (self.guidance_scale != 1.0))


#: What each of diffusers' classes takes of a schedule; they are told nothing else.
TAKES = {
    "pndm": ("skip_prk_steps", "set_alpha_to_one"),
    "ddim": ("clip_sample", "set_alpha_to_one", ZERO_SNR),
    "dpm++": ("algorithm_type", ZERO_SNR),
}
ALL_TAKE = (*STABLE_DIFFUSION, "prediction_type", "timestep_spacing", "steps_offset")


def build_scheduler(sampler: Sampler, training_config: ScheduleConfig) -> "Scheduler":
    """A fresh diffusers scheduler with the betas and prediction type of training.

    Args:
        training_config: in the form of :func:`meddiff.models.schedule_config.completed`.

    Raises:
        UserError: pndm and a schedule of zero terminal SNR.
    """
    import diffusers

    if sampler == "pndm" and training_config.get(ZERO_SNR):
        raise UserError(f"sampler pndm cannot draw from a model of zero terminal SNR ({ZERO_SNR}): take ddim or dpm++.")
    settings = walk(training_config)
    kind: type[Scheduler] = getattr(diffusers, CLASSES[sampler])
    return kind(**{name: settings[name] for name in (*ALL_TAKE, *TAKES[sampler]) if name in settings})


def initial_noise(seed: int, keys: Sequence[str], shape: tuple[int, int, int]) -> Tensor:
    """x_T of each image, drawn from (seed, key) alone: (len(keys), C, h, w) float32 on the CPU."""
    draws = [generator(seed, "sample", key).standard_normal(shape, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(draws))  # (B, C, h, w)


@torch.no_grad()
def sample_latents(
    unet: "UNet2DConditionModel",
    scheduler: "Scheduler",
    noise: Tensor,
    text: Conditioning,
    empty_text: Conditioning,
    options: SamplingOptions,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Denoise ``noise`` under ``text``.

    Args:
        unet: a ``UNet2DConditionModel``.
        scheduler: from :func:`build_scheduler`; its state is overwritten.
        noise: (B, C, h, w), standard normal.
        text: states (B, L, D) of the prompts.
        empty_text: states (1, L, D) of the empty prompt.
        on_step: called after each step with the number of steps done.

    Returns:
        (B, C, h, w) latents in the U-Net's scale (divide by the scaling factor before decoding).
    """
    guided = options.guidance_scale != 1.0
    context = empty_text.expand(len(noise)).before(text) if guided else text  # states (2B or B, L, D)
    scheduler.set_timesteps(options.steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        prediction = unet(model_input, timestep, **context.arguments()).sample
        if guided:
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + options.guidance_scale * (conditional - unconditional)
        latents = scheduler.step(prediction.to(latents.dtype), timestep, latents).prev_sample
        if on_step is not None:
            on_step(step + 1)
    return latents
