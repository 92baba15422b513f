"""Use and likeness of prototypes, reconstruction error, and the published values beside the measured ones."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from meddiff.common.errors import UserError
from meddiff.metrics import ReconstructionError
from meddiff.metrics.functional.reconstruction_error import reconstruction
from meddiff.metrics.functional.usage import prototype_likeness, prototype_use
from meddiff.metrics.published_latents import COLUMNS, as_text, beside_published, datasets, published


def test_use_is_of_those_that_tell_images_apart_however_high_they_are() -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(50, 4, generator=random)
    values = (values - values.mean(dim=0)) / values.std(dim=0)
    assert prototype_use(values).entropy == pytest.approx(1.0)
    assert prototype_use(values).effective == pytest.approx(4.0)
    high_but_flat = torch.cat([values, torch.full((50, 4), 9.0)], dim=1)
    found = prototype_use(high_but_flat)
    assert found.effective == pytest.approx(4.0)
    assert found.entropy == pytest.approx(math.log(4) / math.log(8))
    assert found.dead.tolist() == [False] * 4 + [True] * 4
    assert found.dead_share == 0.5
    one = prototype_use(values * torch.tensor([1.0, 0, 0, 0]))
    assert (one.entropy, one.effective) == (0.0, 1.0)
    nothing = prototype_use(torch.ones(3, 2))
    assert math.isnan(nothing.entropy)
    assert nothing.dead_share == 1.0
    with pytest.raises(UserError, match="2 or more"):
        prototype_use(values[:1])
    with pytest.raises(UserError, match="diverged"):
        prototype_use(values * math.inf)


def test_likeness_finds_copies_also_opposite_ones_and_none_among_orthogonal_ones() -> None:
    axes = torch.eye(4)
    assert prototype_likeness(axes).mean_cosine == pytest.approx(0.0)
    assert prototype_likeness(axes).pairs == ()
    copies = torch.cat([axes, -5 * axes[1:2], axes[:1] + 0.1 * axes[2:3]])
    pairs = prototype_likeness(copies).pairs
    assert [pair[:2] for pair in pairs] == [(1, 4), (0, 5)]
    assert [pair[2] for pair in pairs] == pytest.approx([1.0, 1 / math.sqrt(1.01)])
    assert [pair[:2] for pair in prototype_likeness(copies, alike=0.999).pairs] == [(1, 4)]
    assert math.isnan(prototype_likeness(axes[:1]).mean_cosine)


def test_reconstruction_is_torchmetrics_and_numpy() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 24, 20, generator=random)
    y = (x + 0.1 * torch.randn(3, 3, 24, 20, generator=random)).clamp(0, 1)
    found = reconstruction(x, y, data_range=1.0)
    expected = structural_similarity_index_measure(x.double(), y.double(), data_range=1.0, reduction="none")
    # torchmetrics leaves out the border of reflected pixels; so the two means differ a little, and agree on large images.
    assert found.ssim.numpy() == pytest.approx(expected.numpy(), abs=0.03)
    assert found.mse.numpy() == pytest.approx(((x - y) ** 2).double().mean(dim=(1, 2, 3)).numpy(), rel=1e-5)
    again = reconstruction(2 * x - 1, 2 * y - 1, data_range=2.0)
    assert again.mse.numpy() == pytest.approx(found.mse.numpy(), rel=1e-4)
    other = reconstruction(x, x.flip(0), data_range=1.0)
    assert bool((other.mse[[0, 2]] > found.mse[[0, 2]]).all())
    assert bool((other.ssim[[0, 2]] < found.ssim[[0, 2]]).all())
    with pytest.raises(UserError, match="twice"):
        reconstruction(x, y[:2])
    with pytest.raises(UserError, match="window"):
        reconstruction(x[..., :8], y[..., :8])


def test_errors_are_gathered_over_batches_with_intervals() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(256, (9, 1, 16, 16), generator=random)
    y = torch.randint(256, (9, 1, 16, 16), generator=random)
    metric = ReconstructionError()
    for part in torch.arange(9).split(4):
        metric.update(x[part], y[part])
    found = metric.compute()
    assert found["mse"] == pytest.approx(reconstruction(x, y).mse.mean().item())
    assert found["mse_low"] < found["mse"] < found["mse_high"]
    assert found["images"] == 9


def test_published_values_stand_first_and_ours_under_the_names_of_their_procedures() -> None:
    assert set(datasets()) == {"celeba", "fashion_mnist", "cifar10", "ffhq"}
    ours = {"latent_accuracy": 0.5, "fid_uncond": 30.0, "fid_cond_teststate": 9.0}
    rows = beside_published(ours, "cifar10")
    assert [row["source"] for row in rows][-2:] == [
        "measured here (fid_cond_teststate)",
        "measured here (fid_uncond)",
    ]
    assert [row["fid"] for row in rows] == ["32.1", "32.7", "8.0", "9.000", "30.000"]
    assert "tad" not in rows[0]  # neither printed nor measured for this data set
    assert as_text(rows).splitlines()[3].split("  ")[0] == 'Patronus "w/ learned s", as published'
    alone = beside_published({"tad": 0.3}, "phantom")
    assert alone == [{"source": "measured here", "tad": "0.300"}]
    with pytest.raises(UserError, match="nothing to compare"):
        beside_published({"loss": 1.0}, "celeba")


def test_the_table_is_the_one_that_was_printed() -> None:
    celeba = {(row["method"], row["procedure"]): row for row in published() if row["dataset"] == "celeba"}
    assert celeba["Patronus", ""]["fid"] == "14.6"
    assert celeba["Patronus", "learned s"]["fid"] == "4.8"
    numbers = [float(row[name]) for row in published() for name in COLUMNS if row[name]]
    assert len(numbers) == 4 * 4 + 9 * 2
    assert np.isfinite(numbers).all()
