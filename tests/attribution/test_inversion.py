"""From images to noise and back."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from meddiff.attribution.inversion import (
    ddim_grid,
    denoise,
    edited,
    extrapolate,
    interpolate,
    invert,
    slerp,
)
from meddiff.common.errors import UserError
from meddiff.models.patronus import Patronus
from tests.builders.patronus import tiny_patronus

GRID = ddim_grid(20)


class Oracle(nn.Module):
    """Knows the answer: images under a condition are normal with deviation 1/2 around a mean that the activations give.

    The best prediction of the noise is then linear in x_t, and the walk from noise to image a known map.
    """

    def __init__(self, model: Patronus) -> None:
        super().__init__()
        self.model, self.config = model, model.unet.config
        self.weight = nn.Parameter(torch.zeros(()))  # says where the model is
        self.pattern = torch.randn(model.m, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def mean(self, activations: Tensor) -> Tensor:
        return torch.einsum("bm,mchw->bchw", activations, self.pattern) / 4

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor, **_: object) -> SimpleNamespace:
        alpha = self.model.noise_schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        mean = self.mean(class_labels)
        variance = alpha * 0.25 + (1 - alpha)
        return SimpleNamespace(sample=(1 - alpha).sqrt() * (x - alpha.sqrt() * mean) / variance)


@pytest.fixture(scope="module")
def model() -> Patronus:
    model = tiny_patronus()
    model.unet = cast(nn.Module, Oracle(model))  # type: ignore[assignment]
    return model


@pytest.fixture(scope="module")
def given(model: Patronus) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    s = torch.rand(3, 6, generator=draws) * 2
    x0 = cast(Oracle, model.unet).mean(s) + 0.5 * torch.randn(3, 4, 8, 8, generator=draws)
    return x0, s


def test_there_and_back_is_the_same_image(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    told = model.conditioning(s)
    errors = [
        float((denoise(model, invert(model, x0, told, GRID, refinements=k), told, GRID) - x0).square().mean().sqrt())
        for k in (0, 1, 6)
    ]
    assert errors[2] < 1e-3  # of a deviation of about 1
    assert errors[2] < errors[1] < errors[0]  # a better guess each time
    assert errors[0] < 0.5


def test_with_another_condition_it_is_another_image(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    """The control: a condition that changed nothing would come back too."""
    x0, s = given
    noise = invert(model, x0, model.conditioning(s), GRID, refinements=6)
    other = denoise(model, noise, model.conditioning(s + 0.5), GRID)
    assert float((other - x0).square().mean().sqrt()) > 0.1
    moved = other - x0
    expected = cast(Oracle, model.unet).mean(torch.full_like(s, 0.5))
    assert float(torch.cosine_similarity(moved.flatten(), expected.flatten(), dim=0)) > 0.95


def test_the_inverted_noise_is_as_wide_as_noise(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    noise = invert(model, x0, model.conditioning(s), ddim_grid(100))
    assert 0.85 < float(noise.std()) < 1.15


def test_clean_images_are_told_of_on_the_way(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    told, seen = model.conditioning(s), []
    noise = invert(model, x0, told, GRID, refinements=6)
    ends = denoise(model, noise, told, GRID, lambda step, timestep, clean: seen.append((step, timestep, clean)))
    assert [one[0] for one in seen] == list(range(20))
    assert [one[1] for one in seen] == GRID
    torch.testing.assert_close(seen[-1][2], ends)
    errors = [float((clean - x0).square().mean()) for *_, clean in seen]
    assert errors[0] > errors[10] > errors[-1]


def test_an_edit_changes_one_condition_alone() -> None:
    s = torch.rand(2, 6)
    now = edited(s, {3: 0.8})
    assert torch.equal(now[:, 3], torch.full((2,), 0.8))
    keep = [0, 1, 2, 4, 5]
    assert torch.equal(now[:, keep], s[:, keep])
    assert not torch.equal(s[:, 3], now[:, 3])  # the given ones stay as they are
    with pytest.raises(UserError, match="no prototype 6"):
        edited(s, {6: 0.1})
    with pytest.raises(UserError, match="no prototype -1"):
        edited(s, {-1: 0.1})


def test_an_edit_moves_the_image_along_its_prototype(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    noise = invert(model, x0[:1], model.conditioning(s[:1]), GRID)
    images = extrapolate(model, noise, s[:1], 2, [0.0, 1.0, 2.0], GRID)
    pattern = cast(Oracle, model.unet).pattern
    steps = images.diff(dim=0)
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-4)
    likeness = torch.cosine_similarity(steps[0].flatten()[None], pattern.flatten(1), dim=1)
    assert int(likeness.argmax()) == 2
    assert float(likeness[2]) > 0.95


def test_between_two_images_the_ends_are_the_images(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    noises = invert(model, x0[:2], model.conditioning(s[:2]), GRID, refinements=6).split(1)
    images = interpolate(model, (noises[0], noises[1]), (s[:1], s[1:2]), [0.0, 0.5, 1.0], GRID)
    torch.testing.assert_close(images[0], x0[0], rtol=0, atol=5e-3)
    torch.testing.assert_close(images[2], x0[1], rtol=0, atol=5e-3)
    assert float((images[1] - images[0]).abs().mean()) > 0.05


def test_the_arc_keeps_the_length_of_noise() -> None:
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 4, 8, 8, generator=draws) for _ in range(2))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    assert 0.9 < float(middle.flatten(1).norm(dim=1).mean() / a.flatten(1).norm(dim=1).mean()) < 1.1
    assert float(((a + b) / 2).norm() / a.norm()) < 0.8  # the straight line is shorter in its middle
    torch.testing.assert_close(slerp(a, a, 0.3), a)


def test_guidance_of_one_is_none_and_more_leads_further(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    told = model.conditioning(s)
    noise = invert(model, x0, told, GRID)
    plain = denoise(model, noise, told, GRID)
    assert torch.equal(plain, denoise(model, noise, told, GRID, guidance_scale=1.0))
    further = denoise(model, noise, told, GRID, guidance_scale=2.0)
    mean = cast(Oracle, model.unet).mean(s)
    assert float(((further - plain) * mean).sum()) > 0


def test_what_cannot_be_walked_is_refused(model: Patronus, given: tuple[Tensor, Tensor]) -> None:
    x0, s = given
    with pytest.raises(UserError, match="strictly decreasing"):
        invert(model, x0, model.conditioning(s), [10, 20])
    with pytest.raises(UserError, match="3 images and 1 conditions"):
        denoise(model, x0, model.conditioning(s[:1]), GRID)
    with pytest.raises(UserError, match="guidance_scale"):
        denoise(model, x0, model.conditioning(s), GRID, guidance_scale=-1.0)
    with pytest.raises(UserError, match="refinements"):
        invert(model, x0, model.conditioning(s), GRID, refinements=-1)
