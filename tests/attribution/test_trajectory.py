"""Saved denoising paths and the step they take: closed forms in float64, other ways to the same numbers, any batch."""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from meddiff.attribution import trajectory as trajectories
from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, item_noise
from meddiff.attribution.schedules import exponential_early, exponential_late, uniform
from meddiff.attribution.trajectory import TENSORS, Trajectory, generate, load, renoised
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType
from meddiff.models.sampling import SamplingOptions, build_scheduler, initial_noise, sample_latents
from tests.builders.drawn_parts import CountedPasses, make_attentive_model

PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction")
TEXTS = ["Small left pneumothorax.", "The heart is enlarged."]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@dataclass
class Real:
    key: str
    latents: Tensor
    text: str


def real_items() -> list[Real]:
    return [Real(f"image-{k}", drawn(k, 4, 8, 8), text) for k, text in enumerate(TEXTS)]


def closed_form(
    kind: str, alphas: np.ndarray, output: Tensor, noisy: Tensor, timestep: int, previous: int
) -> np.ndarray:
    """Song et al. eq. 12, eta 0, with v by its definition: x_t = s x0 + c eps and v = s eps - c x0 solved for both."""
    a, b = float(alphas[timestep]), float(alphas[previous]) if previous >= 0 else 1.0
    x, y = noisy.double().numpy(), output.double().numpy()
    if kind == "epsilon":
        eps, x0 = y, (x - np.sqrt(1 - a) * y) / np.sqrt(a)
    else:
        system = np.array([[np.sqrt(a), np.sqrt(1 - a)], [-np.sqrt(1 - a), np.sqrt(a)]])
        x0, eps = np.tensordot(np.linalg.inv(system), np.stack([x, y]), axes=1)
    result: np.ndarray = np.sqrt(b) * x0 + np.sqrt(1 - b) * eps
    return result


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_step_is_the_closed_form_whatever_the_list(kind: PredictionType) -> None:
    schedule, alphas = NoiseSchedule(kind), NoiseSchedule(kind).alphas_cumprod.double().numpy()
    for timesteps in (exponential_early(30), exponential_late(30), uniform(7), [999, 3]):
        for timestep, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
            noisy, output = drawn(timestep, 2, 4, 8, 8), drawn(timestep + 1, 2, 4, 8, 8)
            found = ddim_step(schedule, output, noisy, timestep, previous)
            expected = torch.from_numpy(closed_form(kind, alphas, output, noisy, timestep, previous)).float()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_on_its_own_list_diffusers_ddim_agrees_and_on_another_it_does_not(kind: PredictionType) -> None:
    schedule = NoiseSchedule(kind)
    theirs = DDIMScheduler(**schedule.config, clip_sample=False, set_alpha_to_one=True, steps_offset=0)
    theirs.set_timesteps(20)
    for t in theirs.timesteps.tolist():
        noisy, output = drawn(t, 1, 4, 8, 8), drawn(t + 1, 1, 4, 8, 8)
        expected = theirs.step(output, t, noisy).prev_sample
        torch.testing.assert_close(ddim_step(schedule, output, noisy, t, t - 50), expected, rtol=1e-4, atol=1e-4)
    # the defect that the own step is there for: the list is not heard
    theirs.set_timesteps(30)
    theirs.timesteps = torch.tensor(exponential_early(30))
    noisy, output = drawn(1, 1, 4, 8, 8), drawn(2, 1, 4, 8, 8)
    assert (
        theirs.step(output, 999, noisy).prev_sample - ddim_step(schedule, output, noisy, 999, 893)
    ).abs().max() > 0.01


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_with_the_true_noise_any_list_leads_back_to_the_image(kind: PredictionType) -> None:
    schedule, clean, noise = NoiseSchedule(kind), drawn(0, 2, 4, 8, 8), drawn(1, 2, 4, 8, 8)
    for timesteps in (exponential_early(30), [999, 12]):
        x = schedule.add_noise(clean, noise, torch.tensor([timesteps[0]] * 2))
        for timestep, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
            x = ddim_step(schedule, schedule.target(clean, noise, torch.tensor([timestep] * 2)), x, timestep, previous)
        torch.testing.assert_close(x, clean, rtol=1e-3, atol=1e-3)


def test_rows_may_stand_at_timesteps_of_their_own() -> None:
    schedule, noisy, output = NoiseSchedule(), drawn(0, 3, 4, 8, 8), drawn(1, 3, 4, 8, 8)
    places = [(999, 893), (74, -1), (500, 20)]
    together = ddim_step(schedule, output, noisy, *torch.tensor(places).T)
    for row, (t, p) in enumerate(places):
        alone = ddim_step(schedule, output[row : row + 1], noisy[row : row + 1], t, p)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=0)


def test_zero_terminal_snr_has_a_first_step() -> None:
    schedule = NoiseSchedule("v_prediction", {"rescale_betas_zero_snr": True})
    found = ddim_step(schedule, drawn(0, 1, 4, 8, 8), drawn(1, 1, 4, 8, 8), 999, 500)
    assert found.isfinite().all()


def test_a_generated_path_is_the_samplers_own_where_that_walks_evenly(model: LatentDiffusion) -> None:
    """diffusers' DDIM through the sampler of the suite, on the even list that both know."""
    options = SamplingOptions("ddim", 4, 3.0)
    scheduler = build_scheduler("ddim", {**model.noise_schedule.config, "set_alpha_to_one": True})
    scheduler.set_timesteps(4)
    timesteps = scheduler.timesteps.tolist()  # 751, 501, 251, 1
    noise = initial_noise(5, ["a", "b"], model.latent_shape)
    with torch.no_grad():
        text, empty = model.encode_texts(TEXTS), model.encode_texts([""])
    theirs = sample_latents(model.unet, scheduler, noise, text, empty, options)
    ours = generate(model, TEXTS, timesteps, ["a", "b"], 5, 3.0)
    for row, path in enumerate(ours):
        torch.testing.assert_close(path.noisy[0], noise[row], rtol=0, atol=0)
        torch.testing.assert_close(path.after[-1], theirs[row], rtol=1e-3, atol=1e-4)


def test_a_path_goes_on_from_where_each_step_led(model: LatentDiffusion) -> None:
    (path,) = generate(model, TEXTS[:1], [999, 893, 400, 74], ["a"], 1, 7.5)
    assert path.previous.tolist() == [893, 400, 74, -1]
    torch.testing.assert_close(path.noisy[1:], path.after[:-1], rtol=0, atol=0)
    torch.testing.assert_close(path.after[-1], path.clean[-1], rtol=0, atol=0)
    output = path.unconditional + 7.5 * (path.conditional - path.unconditional)
    torch.testing.assert_close(path.output, output, rtol=0, atol=0)
    clean = model.noise_schedule.predicted_x0(path.noisy, output, path.timesteps)
    torch.testing.assert_close(path.clean, clean, rtol=1e-5, atol=1e-5)
    assert (path.conditional - path.unconditional).abs().max() > 1e-3, "the text must be heard"


def test_a_keys_path_hangs_on_no_batch(model: LatentDiffusion) -> None:
    timesteps = exponential_early(4, 4)
    together = generate(model, TEXTS, timesteps, ["a", "b"], 3)
    for batch_size, order in ((1, [1, 0]), (3, [0, 1]), (64, [1])):
        others = generate(model, [TEXTS[k] for k in order], timesteps, ["ab"[k] for k in order], 3, 7.5, batch_size)
        for k, other in zip(order, others, strict=True):
            assert_same(together[k], other)
    # the controls: another key or another text is another path
    changed = generate(model, TEXTS, timesteps, ["c", "b"], 3)
    assert (changed[0].after - together[0].after).abs().max() > 0.1
    swapped = generate(model, TEXTS[::-1], timesteps, ["a", "b"], 3)
    assert (swapped[0].after - together[0].after).abs().max() > 1e-3


def assert_same(one: Trajectory, other: Trajectory, tolerance: float = 1e-4) -> None:
    assert (one.key, one.text, one.guidance_scale) == (other.key, other.text, other.guidance_scale)
    for name in TENSORS:
        mine, others = getattr(one, name), getattr(other, name)
        # x0 at the noisiest steps divides rounding by 0.07: a share of the largest value
        torch.testing.assert_close(mine, others, rtol=0, atol=tolerance * float(mine.abs().max()))


def test_real_images_are_noised_as_in_the_grounding_pass(model: LatentDiffusion) -> None:
    items, timesteps = real_items(), [781, 401, 1]
    seen: list[Tensor] = []
    handle = model.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        groups = torch.ones(1, 77)
        list(grounding_pass(model, [GroundingItem(i.key, i.latents, i.text, groups) for i in items], timesteps, 4))
    finally:
        handle.remove()
    paths = renoised(model, items, timesteps, 4)
    torch.testing.assert_close(torch.cat([path.noisy for path in paths]), torch.cat(seen), rtol=0, atol=0)
    noise = torch.stack([item_noise(4, "image-0", t, (4, 8, 8)) for t in timesteps])
    expected = model.noise_schedule.add_noise(items[0].latents, noise, torch.tensor(timesteps))
    torch.testing.assert_close(paths[0].noisy, expected, rtol=0, atol=0)


def test_steps_of_a_real_image_hang_on_no_other_and_on_no_batch(model: LatentDiffusion) -> None:
    items = real_items()
    whole = renoised(model, items, [781, 401, 1], 4)
    for batch_size in (1, 5):
        for one, other in zip(whole, renoised(model, items, [781, 401, 1], 4, batch_size=batch_size), strict=True):
            assert_same(one, other)
    (alone,) = renoised(model, items[1:], [401], 4, previous=[1])
    assert_same(alone, whole[1].at([1]))


def test_what_it_costs_is_what_it_takes(model: LatentDiffusion) -> None:
    with CountedPasses(model) as counted:
        done: list[int] = []
        generate(model, TEXTS, [999, 400, 20], ["a", "b"], on_progress=done.append)
        assert counted.samples == 2 * trajectories.cost(3) == sum(done)
        renoised(model, real_items(), [400, 20], on_progress=done.append)
        assert counted.samples == 2 * trajectories.cost(3) + 2 * trajectories.cost(2) == sum(done)


def test_schedule_and_model_stay_as_they_were(model: LatentDiffusion) -> None:
    """Nothing is written into a scheduler, the model's schedule or its weights, and no global generator is drawn from."""

    def state() -> str:
        digest = hashlib.sha256(pickle.dumps((model.noise_schedule.config, model.sampling, model.training)))
        for value in [*model.state_dict().values(), model.noise_schedule.alphas_cumprod, torch.get_rng_state()]:
            digest.update(value.numpy().tobytes())
        scheduler = build_scheduler("ddim", model.noise_schedule.config)
        digest.update(
            pickle.dumps((dict(scheduler.config), scheduler.timesteps.tolist(), str(scheduler.__dict__.keys())))
        )
        return digest.hexdigest()

    before = state()
    generate(model, TEXTS, exponential_early(3, 4), ["a", "b"])
    renoised(model, real_items(), [500, 20])
    assert state() == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_saved_path_comes_back_to_the_bit(model: LatentDiffusion, tmp_path: Path) -> None:
    (path,) = generate(model, ["caf\u00e9 \u202e \x1b[2J"], [999, 20], ["../x"], 1, 2.0)
    path.save(tmp_path / "one.safetensors")
    back = load(tmp_path / "one.safetensors")
    assert (back.key, back.text, back.guidance_scale) == (path.key, path.text, path.guidance_scale)
    for name in TENSORS:
        assert torch.equal(getattr(back, name), getattr(path, name))
    assert [name.name for name in tmp_path.iterdir()] == ["one.safetensors"]


def test_a_damaged_file_is_refused(model: LatentDiffusion, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (path,) = generate(model, TEXTS[:1], [999, 20], ["a"])
    good = tmp_path / "good.safetensors"
    path.save(good)
    cut, other, odd = tmp_path / "cut", tmp_path / "other", tmp_path / "odd"
    cut.write_bytes(good.read_bytes()[:-9])
    save_file({"noisy": path.noisy}, other)
    tensors = {name: getattr(path, name) for name in TENSORS}
    facts = {"form": trajectories.FORM, "version": "1", "facts": '{"key": "a", "text": "b", "guidance_scale": 1}'}
    save_file({**tensors, "noisy": path.noisy[:, :, :4].contiguous()}, odd, facts)
    save_file(tensors, tmp_path / "unsaid", {**facts, "facts": "[]"})
    pickled = tmp_path / "pickled"
    torch.save(tensors, pickled)
    for file in (cut, other, odd, tmp_path / "unsaid", pickled, tmp_path / "missing"):
        with pytest.raises(UserError, match="make it again"):
            load(file)


def test_what_cannot_be_walked_is_refused_before_anything_starts(model: LatentDiffusion) -> None:
    with CountedPasses(model) as counted:
        for timesteps in ([20, 400], [], [1000]):
            with pytest.raises(UserError):
                generate(model, TEXTS, timesteps, ["a", "b"])
            with pytest.raises(UserError):
                renoised(model, real_items(), timesteps)
        with pytest.raises(UserError, match="one key a text"):
            generate(model, TEXTS, [20], ["a"])
        with pytest.raises(UserError, match="guidance_scale"):
            generate(model, TEXTS, [20], ["a", "b"], guidance_scale=float("nan"))
        for previous in ([400], [20, 20], [500, -1], [-2, -1]):
            with pytest.raises(UserError, match="previous"):
                renoised(model, real_items(), [400, 20], previous=previous)
    assert counted.samples == 0
