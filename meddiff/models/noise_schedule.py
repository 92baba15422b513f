"""The denoising objective: what is added, what is predicted, how much each timestep counts.

Source: Ho et al. 2020 (epsilon), Salimans & Ho 2022 (v), Hang et al. 2023 (min-SNR); the schedule is Stable Diffusion's.
"""

from typing import Any, Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def schedule_config(prediction_type: PredictionType, num_train_timesteps: int = 1000) -> dict[str, Any]:
    """The scaled-linear schedule of Stable Diffusion, as diffusers' schedulers take it."""
    return {
        "num_train_timesteps": num_train_timesteps,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": prediction_type,
    }


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
