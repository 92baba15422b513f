"""DF-RISE and RISE on a denoiser whose sensitive region is planted, against one mask at a time, and in the limits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.attribution.baselines import centre_prior
from meddiff.attribution.ddim import ddim_step
from meddiff.attribution.df_rise import FAST, PAPER, DfRiseOptions, Space, cost, df_rise, df_rise_of
from meddiff.attribution.masks import Kind, mask, masks
from meddiff.attribution.rise import rise, rise_of
from meddiff.attribution.similarity import similarity
from meddiff.attribution.trajectory import Trajectory, renoised
from meddiff.common.errors import UserError
from meddiff.metrics.functional import pixel_auroc
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.planted import block, planted_model

REGION = block(16, 2, 9, 6, 6)
TIMESTEPS = [781, 401, 101]
Tool = Callable[[LatentDiffusion, Trajectory, DfRiseOptions], Tensor]
TOOLS: dict[str, Tool] = {"df_rise": df_rise, "rise": rise}


@dataclass
class Real:
    key: str
    latents: Tensor
    text: str


def path_of(model: LatentDiffusion, key: str = "a", seed: int = 0, scale: float = 2.0) -> Trajectory:
    shape = (4, *model.latent_shape[1:])
    latents = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    return renoised(model, [Real(key, latents, "Small left pneumothorax.")], TIMESTEPS, seed, scale)[0]


@pytest.fixture(scope="module")
def small() -> LatentDiffusion:
    return make_attentive_model(8)


def auroc(maps: Tensor, region: Tensor) -> Tensor:
    return pixel_auroc(maps, region.expand(len(maps), -1, -1))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_planted_region_is_found_at_every_timestep(tool: str) -> None:
    model = planted_model(REGION)
    options, fewer = DfRiseOptions(masks=256), DfRiseOptions(masks=96)
    path = path_of(model)
    found = TOOLS[tool](model, path, options)
    assert found.shape == (3, 16, 16)
    assert found.dtype == torch.float32
    assert auroc(found, REGION).min() >= 0.95
    # the controls: who knows the middle only, another region's model, and one that looks everywhere alike
    assert auroc(centre_prior((16, 16)), REGION).max() < 0.75
    elsewhere = planted_model(block(16, 9, 1, 6, 6))
    assert auroc(TOOLS[tool](elsewhere, path_of(elsewhere), fewer), REGION).max() < 0.6
    everywhere = planted_model(torch.ones(16, 16, dtype=torch.bool))
    assert auroc(TOOLS[tool](everywhere, path_of(everywhere), fewer), REGION).max() < 0.8


def test_the_fast_preset_finds_it_too_and_zeros_do() -> None:
    model = planted_model(REGION)
    path = path_of(model)
    for options in (FAST, replace(FAST, fill="zero", border="zero")):
        assert auroc(df_rise(model, path, options), REGION).mean() > 0.93


def test_what_the_prompt_adds_is_found_where_it_is_added() -> None:
    heard = block(16, 8, 1, 6, 5)
    model = planted_model(torch.ones(16, 16, dtype=torch.bool), heard)
    path = path_of(model)
    found = df_rise(model, path, replace(FAST, subject="prompt"))
    assert auroc(found, heard).min() > 0.93
    # the control: the whole output says nothing about the prompt
    assert auroc(df_rise(model, path, FAST), heard).max() < 0.7


def test_rise_answers_for_a_region_of_the_output() -> None:
    """Where the output copies its own place, a region hangs on itself."""
    model = planted_model(torch.ones(16, 16, dtype=torch.bool))
    path = path_of(model)
    for region in (REGION, block(16, 9, 1, 5, 5)):
        found = rise(model, path, DfRiseOptions(masks=192), region.float())
        assert auroc(found, region).min() > 0.95
    wrong = (torch.ones(8, 8), torch.zeros(16, 16), -torch.ones(16, 16), torch.full((16, 16), torch.nan))
    for region in wrong:
        with pytest.raises(UserError, match="16 x 16 weights"):
            rise(model, path, FAST, region)


def one_at_a_time(model: LatentDiffusion, path: Trajectory, options: DfRiseOptions) -> Tensor:
    """The definition, zero fill, a mask and a step at a time; formulas of the spaces written out."""
    scale = options.guidance_scale if options.guidance_scale is not None else path.guidance_scale
    alphas = model.noise_schedule.alphas_cumprod
    found = []

    def seen(output: Tensor, noisy: Tensor, t: int, p: int, space: str) -> Tensor:
        a, sigma = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        v = model.noise_schedule.prediction_type == "v_prediction"
        eps = a * output + sigma * noisy if v else output
        x0 = (noisy - sigma * eps) / a
        if space == "eps":
            return eps
        if space == "x0":
            return x0
        return ddim_step(model.noise_schedule, output, noisy, t, p)

    with torch.no_grad():
        texts = [model.encode_texts([text]).arguments() for text in ("", path.text)]
        for k, (t, p) in enumerate(zip(path.timesteps.tolist(), path.previous.tolist(), strict=True)):
            total, times = torch.zeros(path.noisy.shape[-2:]), torch.zeros(path.noisy.shape[-2:])
            output = path.unconditional[k] + scale * (path.conditional[k] - path.unconditional[k])
            space = "previous" if options.space == "paper" else options.space
            target = seen(output[None], path.noisy[k][None], t, p, space)
            for n in range(options.masks):
                keep = mask(options.kind, (8, 8), options.probability, options.cells, options.seed, path.key, n)
                x = path.noisy[k][None] * keep
                one, other = (model.unet(x, torch.tensor([t]), **text).sample for text in texts)
                masked = seen(
                    one + scale * (other - one), x, t, p, "eps" if options.space == "paper" else options.space
                )
                alike = similarity(target, masked, options.term, options.window, options.sigma, options.border)[0]
                total, times = total + keep * alike, times + keep
            if options.normalise == "masks":
                found.append(torch.where(times > 0, total / times, torch.zeros(())))
            else:
                total = total.clamp(min=0)
                found.append((total - total.min()) / (total.max() - total.min()))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("prediction", "space"),
    [
        ("epsilon", "eps"),
        ("epsilon", "x0"),
        ("epsilon", "paper"),
        ("v_prediction", "eps"),
        ("v_prediction", "previous"),
    ],
)
def test_batches_give_what_one_mask_at_a_time_gives(prediction: PredictionType, space: Space) -> None:
    model = make_attentive_model(8)
    model.noise_schedule = NoiseSchedule(prediction)
    path = path_of(model).at([0, 2])
    options = replace(PAPER, masks=4, space=space, batch_size=5)
    torch.testing.assert_close(df_rise(model, path, options), one_at_a_time(model, path, options), rtol=0, atol=2e-3)
    options = replace(options, kind="grid", cells=4, normalise="masks", border="cut", guidance_scale=None)
    torch.testing.assert_close(df_rise(model, path, options), one_at_a_time(model, path, options), rtol=0, atol=2e-3)


def test_spaces_and_subjects_are_different_questions(small: LatentDiffusion) -> None:
    path = path_of(small)
    few = replace(FAST, masks=8)
    variants = [replace(few, space=space) for space in ("eps", "x0", "previous", "paper")]
    variants += [replace(few, subject="prompt"), replace(few, term="contrast"), replace(few, fill="zero")]
    found = [df_rise(small, path, options) for options in variants]
    for k, one in enumerate(found):
        assert one.isfinite().all()
        for other in found[:k]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("tool", TOOLS)
def test_maps_hang_on_seed_and_key_and_on_no_batch(small: LatentDiffusion, tool: str) -> None:
    first, second = path_of(small, "a", 0), path_of(small, "b", 1)
    options = replace(FAST, masks=4)
    both = {"df_rise": df_rise_of, "rise": rise_of}[tool]
    together = both(small, [first, second], options)
    for batch_size in (1, 7, 500):
        alone = TOOLS[tool](small, second, replace(options, batch_size=batch_size))
        torch.testing.assert_close(alone, together[1], rtol=0, atol=1e-4)
    # a step by itself has the masks that it had among others
    torch.testing.assert_close(TOOLS[tool](small, second.at([1]), options)[0], together[1][1], rtol=0, atol=1e-4)
    assert (TOOLS[tool](small, second, replace(options, seed=1)) - together[1]).abs().max() > 1e-3
    assert (TOOLS[tool](small, replace(second, key="c"), options) - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["grid", "iid"])
def test_masks_have_addresses(kind: Kind) -> None:
    many = masks(kind, 400, (12, 10), 0.3, 4, 0, "a")
    assert many.shape == (400, 12, 10)
    assert 0 <= many.min() <= many.max() <= 1
    torch.testing.assert_close(masks(kind, 3, (12, 10), 0.3, 4, 0, "a"), many[:3], rtol=0, atol=0)
    # as often kept at the edge as in the middle: 400 draws, a deviation of about 0.02 each
    assert (many.mean(dim=0) - 0.3).abs().max() < 0.1
    assert not torch.equal(many[0], many[1])
    alike = (many[:, :, 1:] - many[:, :, :-1]).abs().mean() / (2 * 0.3 * 0.7)
    assert alike < 0.6 if kind == "grid" else alike > 0.9, "grids are smooth, single pixels are not"


def test_all_kept_is_one_and_none_kept_is_nothing(small: LatentDiffusion) -> None:
    path = path_of(small)
    for options in (replace(FAST, masks=3), replace(FAST, masks=3, kind="iid", fill="zero", border="zero")):
        all_kept = df_rise(small, path, replace(options, probability=1.0))
        torch.testing.assert_close(all_kept, torch.ones(3, 8, 8), rtol=0, atol=1e-3)
        assert df_rise(small, path, replace(options, probability=0.0)).abs().max() == 0
        assert rise(small, path, replace(options, probability=0.0)).abs().max() == 0
    for probability in (0.0, 1.0):
        assert df_rise(small, path, replace(PAPER, masks=2, probability=probability)).isfinite().all()


def test_a_model_that_never_looks_has_a_flat_map() -> None:
    model = planted_model(torch.zeros(16, 16, dtype=torch.bool))
    path = path_of(model)
    for tool in (df_rise, rise):
        for kind in ("grid", "iid"):
            found = tool(model, path, replace(FAST, kind=kind, cells=4))  # type: ignore[arg-type]
            torch.testing.assert_close(found, torch.ones(3, 16, 16), rtol=0, atol=1e-5)
    # without a division the map of a constant would be that of the masks
    unnormalised = df_rise(model, path, replace(FAST, normalise="paper"))
    assert unnormalised.std() > 0.05


def test_it_costs_what_it_says(small: LatentDiffusion) -> None:
    path = path_of(small)
    cases = [
        (replace(FAST, masks=5), 2 * 3 * 5),
        (replace(FAST, masks=5, guidance_scale=1.0), 3 * 5),
        (replace(FAST, masks=5, guidance_scale=1.0, subject="prompt"), 2 * 3 * 5),
    ]
    for options, expected in cases:
        done: list[int] = []
        with CountedPasses(small) as counted:
            df_rise_of(small, [path], options, done.append)
        assert counted.samples == expected == cost(options, 3, path.guidance_scale) == sum(done)
    assert cost(PAPER, 1) == 1000


def test_neither_model_nor_generators_notice(small: LatentDiffusion) -> None:
    path, before = path_of(small), torch.get_rng_state()
    processors = dict(small.unet.attn_processors)
    df_rise(small, path, replace(FAST, masks=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert small.unet.attn_processors == processors
    assert all(parameter.grad is None for parameter in small.parameters())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"masks": 0}, "masks is 0"),
        ({"window": 4}, "must be odd"),
        ({"probability": 1.5}, "probability"),
        ({"sigma": 0.0}, "sigma"),
        ({"space": "eps0"}, "must be eps, x0, previous or paper"),
        ({"kind": "gaussian"}, "must be grid or iid"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"subject": "prompt", "space": "paper"}, "two of a kind"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        DfRiseOptions(**wrong)  # type: ignore[arg-type]
