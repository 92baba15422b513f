"""Grounding as a measurement: what it costs, where it keeps its work, and that ranks and folders change no figure."""

import shutil
from pathlib import Path

import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.evaluation.grounding import Grounding, GroundingOptions, ground_items
from meddiff.evaluation.grounding_scores import grounding_summary
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.words import Words
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, make_model
from tests.builders.files import write_image, write_table
from tests.builders.prepared_folder import prepare_folder
from tests.builders.tiny import make_shards

ALONE = Ranks()


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return LatentShardsDataset(make_shards(folder, vae_folder, n=30, val=2, grounding=12, fidelity=2), "grounding")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_attentive_model(8, vae=str(vae_folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, split: LatentShardsDataset, model: LatentDiffusion) -> Path:
    """Where :func:`full` has been measured."""
    out = tmp_path_factory.mktemp("evaluation")
    full().run(model, split, out, ALONE)
    return out


def full(timesteps: int = 2, batch_size: int = 64) -> Grounding:
    return Grounding(GroundingOptions(timesteps=timesteps, batch_size=batch_size, full=True))


def test_with_and_without_a_folder_the_figures_are_the_same(
    split: LatentShardsDataset, model: LatentDiffusion, folder: Path
) -> None:
    kept, fresh = full().run(model, split, folder, ALONE), full().run(model, split, None, ALONE)
    assert kept.figures == pytest.approx(fresh.figures, rel=1e-6)
    assert {name: len(table.rows) for name, table in kept.tables.items()} == {
        name: len(table.rows) for name, table in fresh.tables.items()
    }
    assert "impressions/cnr" in fresh.figures
    other = full(timesteps=3).run(model, split, None, ALONE).figures
    assert other["cnr"] != pytest.approx(fresh.figures["cnr"], rel=1e-6), "the control: other timesteps are seen"


@pytest.mark.parametrize(
    "options", [GroundingOptions(timesteps=3, samples=5), GroundingOptions(timesteps=2, full=True)]
)
def test_it_costs_what_it_says(split: LatentShardsDataset, model: LatentDiffusion, options: GroundingOptions) -> None:
    measurement = Grounding(options)
    with CountedPasses(model) as counted:
        measurement.run(model, split, None, ALONE)
    assert counted.samples == measurement.cost(model, split) > 0


def test_what_is_kept_is_not_computed_again_also_for_words(
    split: LatentShardsDataset, model: LatentDiffusion, folder: Path, tmp_path: Path
) -> None:
    with CountedPasses(model) as counted:
        full(batch_size=7).run(model, split, folder, ALONE)
        found = Words(GroundingOptions(timesteps=2)).run(model, split, folder, ALONE)
    assert counted.samples == 0
    with CountedPasses(model) as counted:
        fresh = Words(GroundingOptions(timesteps=2)).run(model, split, tmp_path, ALONE)
    assert counted.samples == full().cost(model, split)
    assert found.figures == pytest.approx(fresh.figures, rel=1e-6)


def test_results_of_other_weights_are_refused(
    split: LatentShardsDataset, model: LatentDiffusion, folder: Path, vae_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "grounding.jsonl", tmp_path)
    other = make_model(vae_folder, seed=1)
    with CountedPasses(other) as counted, pytest.raises(UserError, match=r"other settings \(model\)") as error:
        full().run(other, split, tmp_path, ALONE)
    assert "\n" not in str(error.value)
    assert counted.samples == 0
    with pytest.raises(UserError, match=r"other settings \(timesteps\)"):
        full(timesteps=3).run(model, split, tmp_path, ALONE)


def test_shares_of_ranks_put_together_are_the_whole(split: LatentShardsDataset, model: LatentDiffusion) -> None:
    """What two ranks would each compute, put together, against one rank with another batch size."""
    measurement = Grounding(GroundingOptions(timesteps=3))
    items = measurement.items(model, split)
    rows = []
    for world, batch_size in ((1, 16), (2, 1)):
        options = GroundingOptions(timesteps=3, batch_size=batch_size)
        parts = [
            list(ground_items(model, split, list(Ranks(rank, world).share(items)), options)) for rank in range(world)
        ]
        found = [entry["row"] for part in parts for entry in part]
        rows.append(sorted(found, key=lambda row: (str(row["key"]), str(row["class"]), str(row["phrase"]))))
    assert len(rows[0]) == len(rows[1]) > 5
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            # AUROC is a share of ordered pairs: rounding swaps neighbours
            near = 1e-4 if "auroc" in name else 1e-5
            expected = pytest.approx(value, abs=near) if isinstance(value, float) else value
            assert two[name] == expected, name
    summaries = [grounding_summary(part) for part in rows]
    assert summaries[0] == pytest.approx(summaries[1], abs=1e-4)


def test_averaged_weights_have_their_own_maps(split: LatentShardsDataset, vae_folder: Path) -> None:
    model = make_model(vae_folder)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter += 0.1
    raw, averaged = (
        Grounding(GroundingOptions(timesteps=1, ema=ema)).run(model, split, None, ALONE).figures
        for ema in (False, True)
    )
    assert raw["cnr"] != averaged["cnr"]
    before = Grounding(GroundingOptions(timesteps=1)).run(make_model(vae_folder), split, None, ALONE).figures
    assert averaged == pytest.approx(before, rel=1e-6), "the average has not moved yet"


def test_phrases_that_the_tokenizer_repairs_are_scored_like_others(
    vae_folder: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    phrases = (
        "\u00c3\x89panchement pleural \u00c3 gauche.", "\u00c2 large effusion", "patient \u00e2\u20ac said: effusion",
        "left&nbsp;e\ufb00usion",
    )  # fmt: skip
    names = [f"im{number}.png" for number in range(len(phrases))]
    for name in names:
        write_image(tmp_path / "tree" / name, name)
    box = {"text": "t", "x": 20, "y": 20, "w": 30, "h": 30, "label": "Pleural Effusion"}
    rows = [box | {"image": name, "phrase": phrase} for name, phrase in zip(names, phrases, strict=True)]
    write_table(tmp_path / "tree" / "meta.csv", ("image", *box, "phrase"), rows)
    prepare_folder(tmp_path / "tree", tmp_path / "shards", vae_folder)
    tables = full(timesteps=1).run(model, LatentShardsDataset(tmp_path / "shards", "grounding"), None, ALONE).tables
    assert [row["words"] for row in tables["grounding"].rows] == ["pleural", "effusion", "effusion", "effusion"]
    assert all(row["cnr"] is not None for row in tables["grounding"].rows)
    assert list(tables["excluded"].rows) == []
