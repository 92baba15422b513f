"""The noise schedule against diffusers' scheduler and the formulas of the papers."""

import pytest
import torch
from diffusers import DDPMScheduler

from meddiff.common.errors import UserError
from meddiff.models.noise_schedule import (
    NoiseSchedule,
    PredictionType,
    loss_weights,
    schedule_config,
    timesteps_from_uniform,
)
from meddiff.models.sampling import Sampler, build_scheduler


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


def base(**more: object) -> dict[str, object]:
    return {"beta_schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0195, **more}


SCHEDULES: dict[str, dict[str, object]] = {
    "stable diffusion": {},
    "linear": base(),
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "800 steps": {"num_train_timesteps": 800},
    "zero snr": {"rescale_betas_zero_snr": True},
    "linear zero snr": base(rescale_betas_zero_snr=True),
}


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_alphas_are_those_of_diffusers(name: str) -> None:
    from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

    given = SCHEDULES[name]
    schedule = NoiseSchedule("v_prediction", given)
    arguments = {**schedule_config("v_prediction"), **given}
    assert torch.equal(schedule.alphas_cumprod, DDPMScheduler(**arguments).alphas_cumprod)
    theirs = DPMSolverMultistepScheduler(**arguments).alphas_cumprod
    # DPM-Solver takes 2^-24 for a zero
    torch.testing.assert_close(schedule.alphas_cumprod, theirs, rtol=0, atol=1e-7)
    if "rescale_betas_zero_snr" not in given:
        assert torch.equal(schedule.alphas_cumprod, PNDMScheduler(**arguments).alphas_cumprod)
    if given:
        other = NoiseSchedule("v_prediction").alphas_cumprod
        assert len(other) != len(schedule.alphas_cumprod) or (other - schedule.alphas_cumprod).abs().max() > 1e-3


def test_zero_terminal_snr_trains_on_finite_numbers() -> None:
    schedule = NoiseSchedule("v_prediction", {"rescale_betas_zero_snr": True})
    timesteps = torch.tensor([0, 500, 999])
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert schedule.alphas_cumprod[-1] == 0
    assert torch.equal(schedule.add_noise(latents, noise, timesteps)[-1], noise[-1])
    assert torch.equal(schedule.target(latents, noise, timesteps)[-1], -latents[-1])
    for gamma in (None, 5.0):
        assert schedule.loss_weights(timesteps, gamma).isfinite().all()


def test_what_every_schedule_has_does_not_make_another_one() -> None:
    """Digests of models are made of it."""
    same = {"clip_sample": False, "steps_offset": 1, "skip_prk_steps": True, "trained_betas": None,
            "set_alpha_to_one": False, "rescale_betas_zero_snr": False, "beta_end": 0.012,
            "_class_name": "PNDMScheduler"}  # fmt: skip
    assert NoiseSchedule("epsilon", same).config == schedule_config("epsilon")
    assert NoiseSchedule("epsilon", {"timestep_spacing": "trailing"}).config != schedule_config("epsilon")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rescale_betas_zero_snr": True}, "set prediction_type to v_prediction, or rescale_betas_zero_snr to false"),
        ({"beta_schedule": "exp"}, "beta_schedule is 'exp'; it must be scaled_linear, linear or squaredcos_cap_v2"),
        ({"beta_begin": 0.1}, "beta_begin is not understood: it takes num_train_timesteps, beta_schedule"),
        ({"beta_start": float("nan")}, "beta_start is nan; it must lie in"),
        ({"beta_end": 1.0}, "beta_end is 1.0; it must lie in"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500; it must be a whole number of 782 or more"),
        ({"num_train_timesteps": True}, "num_train_timesteps is true; it must"),
        ({"prediction_type": "v_prediction"}, "its prediction_type is v_prediction and the model's epsilon"),
        ({"prediction_type": "sample"}, "prediction_type is 'sample'; it must be epsilon or v_prediction"),
        ({"trained_betas": "0.1"}, "trained_betas is '0.1'; only null is understood"),
        ({"steps_offset": 0}, "steps_offset is 0; only 1 is understood"),
        ({"set_alpha_to_one": 1}, "set_alpha_to_one is 1; it must be true or false"),
    ],
)
def test_what_is_not_understood_is_refused_in_a_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as told:
        NoiseSchedule("epsilon", given)
    assert said in str(told.value)
    assert str(told.value).startswith("noise_schedule: ")
    assert "\n" not in str(told.value)


def today(sampler: str, prediction: PredictionType) -> object:
    """The samplers as they were before a schedule could be chosen."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

    betas = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    both = {**betas, "prediction_type": prediction, "steps_offset": 1}
    if sampler == "pndm":
        return PNDMScheduler(**both, skip_prk_steps=True, set_alpha_to_one=False)
    if sampler == "ddim":
        return DDIMScheduler(**both, clip_sample=False, set_alpha_to_one=False)
    return DPMSolverMultistepScheduler(**both, algorithm_type="dpmsolver++")


@pytest.mark.parametrize("sampler", ["pndm", "ddim", "dpm++"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_samplers_of_the_default_schedule_are_those_of_before(sampler: Sampler, prediction: PredictionType) -> None:
    ours, theirs = build_scheduler(sampler, NoiseSchedule(prediction).config), today(sampler, prediction)
    assert type(ours) is type(theirs)
    assert dict(ours.config) == dict(theirs.config)  # type: ignore[attr-defined]


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_zero_terminal_snr_is_drawn_from_the_last_timestep(sampler: Sampler) -> None:
    config = NoiseSchedule("v_prediction", {"rescale_betas_zero_snr": True}).config
    scheduler = build_scheduler(sampler, config)
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[0] == 999
    assert scheduler.config.rescale_betas_zero_snr
    before = build_scheduler(sampler, schedule_config("v_prediction"))
    before.set_timesteps(10)
    assert not torch.equal(before.timesteps, scheduler.timesteps)
    with pytest.raises(UserError, match=r"sampler pndm cannot draw .* take ddim or dpm"):
        build_scheduler("pndm", config)
