"""The forward process and the denoising objective: what is added, what is predicted, how much each timestep counts.

With a_t the cumulative product of alphas, x_0 the latents and eps standard normal noise:

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps            (`NoiseSchedule.add_noise`)
    target = eps, or v = sqrt(a_t) eps - sqrt(1 - a_t) x_0   (`NoiseSchedule.target`)

Source: Ho et al. 2020 (epsilon), Salimans & Ho 2022 (v), Hang et al. 2023 (min-SNR); the betas are diffusers'.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from meddiff.models.schedule_config import ALPHAS, PredictionType, ScheduleConfig, completed, schedule_config

__all__ = [
    "NoiseSchedule",
    "PredictionType",
    "ScheduleConfig",
    "loss_weights",
    "schedule_config",
    "timesteps_from_uniform",
]


class NoiseSchedule(nn.Module):
    """A noise schedule; its one buffer follows the model to its device and is not saved.

    Args:
        prediction_type: what the U-Net predicts.
        config: by the names of diffusers' schedulers; what it does not name is Stable Diffusion's.

    Raises:
        UserError: a name or value that is not understood, or zero terminal SNR with epsilon.
    """

    alphas_cumprod: Tensor

    def __init__(self, prediction_type: PredictionType = "epsilon", config: Mapping[str, object] | None = None) -> None:
        super().__init__()
        from diffusers import DDIMScheduler

        self.prediction_type: PredictionType = prediction_type
        self.config: ScheduleConfig = completed(config, prediction_type)
        betas = {name: self.config[name] for name in ALPHAS if name in self.config}
        alphas = DDIMScheduler(**betas).alphas_cumprod.float()  # (T,); all of diffusers' schedulers have the same
        self.register_buffer("alphas_cumprod", alphas, persistent=False)

    def timesteps(self, uniform: Tensor) -> Tensor:
        """Uniform draws in [0, 1), float64 (B,) -> timesteps in {0 .. T-1}, int64 (B,)."""
        return timesteps_from_uniform(uniform, len(self.alphas_cumprod))

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), (B, 1, 1, 1) each."""
        alpha = self.alphas_cumprod[timesteps]  # (B,)
        return alpha.sqrt().view(-1, 1, 1, 1), (1.0 - alpha).sqrt().view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of latents and noise (B, C, h, w) at timesteps (B,)."""
        signal, sigma = self.signal_and_noise(timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net is to predict, (B, C, h, w)."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self.signal_and_noise(timesteps)
        return signal * noise - sigma * latents

    def predicted_x0(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """The latents that a prediction at x_t stands for, (B, C, h, w)."""
        signal, sigma = self.signal_and_noise(timesteps)
        if self.prediction_type == "epsilon":
            return (noisy - sigma * prediction) / signal
        return signal * noisy - sigma * prediction

    def loss_weights(self, timesteps: Tensor, gamma: float | None) -> Tensor:
        """Weight of each sample's squared error, (B,); see :func:`loss_weights`."""
        return loss_weights(self.alphas_cumprod, timesteps, self.prediction_type, gamma)


def timesteps_from_uniform(uniform: Tensor, num_train_timesteps: int) -> Tensor:
    """Uniform draws in [0, 1), float64 (B,) -> timesteps in {0 .. T-1}, int64 (B,)."""
    return (uniform * num_train_timesteps).floor().long().clamp_(max=num_train_timesteps - 1)


def loss_weights(alphas_cumprod: Tensor, timesteps: Tensor, prediction: PredictionType, gamma: float | None) -> Tensor:
    """Weight of each sample's squared error, (B,).

    Without ``gamma`` all ones. With it min(SNR, gamma) in units of the error of x0: divided by SNR when epsilon is
    predicted and by SNR + 1 when v is (Hang et al., eq. 5 and section 3.4).
    """
    if gamma is None:
        return torch.ones_like(timesteps, dtype=torch.float32)
    alpha = alphas_cumprod[timesteps]
    snr = alpha / (1.0 - alpha)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1.0)
