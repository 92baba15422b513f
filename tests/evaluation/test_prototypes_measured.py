"""The measurement of prototypes: its price, its ledger, its controls; what it cannot measure."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.cli.prototypes import prototypes_text
from meddiff.common.errors import UserError
from meddiff.evaluation.prototype_inputs import untrained_encoder
from meddiff.evaluation.prototype_media import sheet_of, shown_prototypes, write_pictures
from meddiff.evaluation.prototypes import Beside, Prototypes, PrototypesOptions, first_alike
from meddiff.evaluation.ranks import Ranks
from meddiff.models.patronus import Patronus
from meddiff.runs.folder import Run
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.patronus import tiny_patronus
from tests.builders.tiny import make_shards

SMALL = PrototypesOptions(samples=60, shown=3, views=2, natural=1, steps=3, reconstructed=3, drawn=4, batch_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    place = tmp_path_factory.mktemp("prototypes") / "s"
    return make_shards(place, vae_folder, n=110, val=2, grounding=30, fidelity=70)


@pytest.fixture(scope="module")
def split(folder: Path) -> LatentShardsDataset:
    return LatentShardsDataset(folder, "fidelity")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> Iterator[Patronus]:
    found = tiny_patronus(vae=str(vae_folder))
    before = {name: weight.clone() for name, weight in found.state_dict().items()}
    yield found
    assert all(torch.equal(weight, before[name]) for name, weight in found.state_dict().items())


@pytest.fixture(scope="module")
def beside(folder: Path, model: Patronus) -> Beside:
    boxed = LatentShardsDataset(folder, "grounding")
    return Beside(grounding=boxed, untrained=untrained_encoder(model.prototypes))


def test_the_price_is_paid_once_and_pictures_are_left(
    split: LatentShardsDataset, model: Patronus, beside: Beside, tmp_path: Path
) -> None:
    measured = Prototypes(SMALL, beside)
    with CountedPasses(model) as counted:
        first = measured.run(model, split, tmp_path, Ranks())
    assert counted.samples == measured.cost(model, split)
    again = Prototypes(SMALL, beside)
    with CountedPasses(model) as counted:
        second = again.run(model, split, tmp_path, Ranks())
    assert counted.samples == SMALL.reconstructed * SMALL.steps * 9  # seconds; the long parts are in the ledger
    assert second.tables["prototypes"].rows == first.tables["prototypes"].rows
    assert second.tables["prototype_emergence"].rows == first.tables["prototype_emergence"].rows
    figures = first.figures
    for name in (
        "dead_share",
        "duplicates",
        "named_share",
        "named_share_shuffled",
        "latent_auroc",
        "latent_auroc_untrained",
    ):
        assert np.isfinite(figures[name])
    assert {"fd_conditional_heldout_domain", "fd_cond_teststate_domain", "fd_real_vs_real_domain"} <= figures.keys()
    assert {"reconstruction_mse_zero", "variation_mse", "variation_mse_zero", "variation_mse_other"} <= figures.keys()
    assert {"prototype_cnr", "prototype_cnr_prior", "prototype_cnr_random", "prototype_cnr_untrained"} <= figures.keys()
    assert not any("unconditional" in name for name in figures)  # nobody gave a prior
    assert "| latent_auroc |" in prototypes_text(first)
    run = tmp_path / "run"
    shown = shown_prototypes(model, split, again)
    assert write_pictures(run / "media" / "prototypes", 800, shown, second) == 3
    entries = Run(run).prototype_views[800]
    assert [one["prototype"] for one in entries] == sorted(one["prototype"] for one in entries)
    for one in entries:
        for name in ("image", "drawn", "patch"):
            assert (run / "media" / "prototypes" / str(one[name])).is_file()
    sheet = sheet_of(shown, second)
    assert sheet is not None
    assert sheet.height > 3 * 90


def test_more_prototypes_cost_their_own_drawings_only(
    split: LatentShardsDataset, model: Patronus, tmp_path: Path
) -> None:
    """A stopped evaluation loses nothing: what is asked for later goes on from what is there."""
    few = replace(SMALL, shown=1, reconstructed=0, drawn=0, grounding=None)
    Prototypes(few).run(model, split, tmp_path, Ranks())
    more = Prototypes(replace(few, shown=2))
    with CountedPasses(model) as counted:
        found = more.run(model, split, tmp_path, Ranks())
    assert counted.samples == SMALL.views * SMALL.steps * (3 + 1)
    fresh = Prototypes(replace(few, shown=2)).run(model, split, None, Ranks())
    assert found.tables["prototype_emergence"].rows == fresh.tables["prototype_emergence"].rows


def test_batches_change_nothing_that_is_printed(split: LatentShardsDataset, model: Patronus) -> None:
    one, other = (
        Prototypes(replace(SMALL, batch_size=size, drawn=0, grounding=None)).run(model, split, None, Ranks())
        for size in (1, 8)
    )
    for name, value in one.figures.items():
        assert other.figures[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_probes_learn_from_training_images_where_there_are_any(folder: Path, model: Patronus) -> None:
    """Two hundred held-out images are too few to teach a hundred weights: as published, probes take the training split."""
    few, many = LatentShardsDataset(folder, "grounding"), LatentShardsDataset(folder, "fidelity")  # 30 and 70 images
    quick = replace(SMALL, shown=0, reconstructed=0, drawn=0, grounding=None)

    def probed(number: int) -> set[object]:
        measured = Prototypes(
            replace(quick, probed=number), Beside(train=many, untrained=untrained_encoder(model.prototypes))
        )
        found = measured.run(model, few, None, Ranks())
        assert ("latent_auroc" in found.figures) == ("latent_auroc_untrained" in found.figures) == bool(number)
        return {row["n"] for row in found.tables["prototype_latents"].rows} if number else set()

    assert probed(10_000) == {70}
    assert probed(55) == {55}
    assert probed(0) == set()  # 30 images of the split itself, fewer than a probe needs


def test_what_cannot_be_measured_is_refused_first(split: LatentShardsDataset) -> None:
    with pytest.raises(UserError, match="set it to 35 or less, or to 0"):
        Prototypes(replace(SMALL, drawn=36)).check(split)
    with pytest.raises(UserError, match="no published values of 'mnist8'"):
        Prototypes(replace(SMALL, published="mnist8")).check(split)
    with pytest.raises(UserError, match="has no prototypes: take a run of"):
        Prototypes(SMALL).run(make_attentive_model(8), split, None, Ranks())
    with pytest.raises(UserError, match="prototypes: steps is 1"):
        PrototypesOptions(steps=1)


def test_duplicates_are_what_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 3, (200, 4))
    values[:, 2] = 3 - values[:, 0]  # the same question, answered the other way round
    values[:, 3] = 1.0
    dead = np.array([False, False, False, True])
    assert first_alike(values, dead).tolist() == [0, 1, 0, 3]
