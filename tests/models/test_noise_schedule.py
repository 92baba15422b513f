"""The noise schedule against diffusers' scheduler and the formulas of the papers."""

import pytest
import torch
from diffusers import DDPMScheduler

from meddiff.models.noise_schedule import (
    NoiseSchedule,
    PredictionType,
    loss_weights,
    schedule_config,
    timesteps_from_uniform,
)


def test_timesteps_cover_the_range() -> None:
    u = torch.tensor([0.0, 0.5, 0.9999999999], dtype=torch.float64)
    assert timesteps_from_uniform(u, 1000).tolist() == [0, 500, 999]
    counts = torch.bincount(timesteps_from_uniform(torch.rand(200_000, dtype=torch.float64), 1000), minlength=1000)
    assert counts.min() > 120
    assert counts.max() < 290


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights(prediction: PredictionType) -> None:
    alphas = DDPMScheduler(**schedule_config(prediction)).alphas_cumprod
    t = torch.tensor([0, 250, 500, 999])
    snr = alphas[t] / (1 - alphas[t])
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(loss_weights(alphas, t, prediction, 5.0), expected)
    assert loss_weights(alphas, t, prediction, None).tolist() == [1.0] * 4


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_is_to_be_predicted_gives_the_latents_back(prediction: PredictionType) -> None:
    schedule = NoiseSchedule(prediction)
    draw = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=draw)
    timesteps = torch.tensor([0, 1, 250, 500, 750, 999])
    noisy, target = schedule.add_noise(latents, noise, timesteps), schedule.target(latents, noise, timesteps)
    theirs = DDPMScheduler(**schedule_config(prediction))
    torch.testing.assert_close(noisy, theirs.add_noise(latents, noise, timesteps), rtol=1e-5, atol=1e-6)
    found = schedule.predicted_x0(noisy, target, timesteps)
    # at the last timestep epsilon is divided by a signal of 0.07
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-4)
    other: PredictionType = "v_prediction" if prediction == "epsilon" else "epsilon"
    wrong = NoiseSchedule(other).predicted_x0(noisy, target, timesteps)
    assert (wrong - latents)[2:].abs().flatten(1).amax(dim=1).min() > 0.03, "the other prediction type is told apart"
    assert list(schedule.state_dict()) == [], "a constant is not saved"
