"""Coverage and copies with planted generators: one that gives training images back, one that has collapsed."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.evaluation.copies import Copies, CopiesOptions
from meddiff.evaluation.coverage import Coverage, CoverageOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, make_model, run_part, stamps
from tests.builders.planted_generators import Planted, decoded_bytes, drawing
from tests.builders.tiny import make_shards

VAE = Path("assets/phantom_vae")
TRAIN, N = 56, 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from meddiff.common.places import locate

    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return make_shards(folder, locate(str(VAE)), n=TRAIN + 2 * N + 4, val=2, grounding=2, fidelity=2 * N)


@pytest.fixture(scope="module")
def split(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "fidelity")


@pytest.fixture(scope="module")
def train(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "train")


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    from meddiff.common.places import locate

    return make_model(locate(str(VAE)))


@pytest.fixture(scope="module")
def pictures(model: LatentDiffusion, train: LatentShardsDataset) -> NDArray[np.uint8]:
    return decoded_bytes(model, train)


def shifted(images: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    return np.pad(images, ((0, 0), (by, 0), (by, 0), (0, 0)), "edge")[:, : images.shape[1], : images.shape[2]]


def any_of(pictures: NDArray[np.uint8], split: LatentShardsDataset, few: int | None = None) -> Planted:
    """A picture for each key, of ``few`` or all of them."""
    place = {key: i % (few or len(pictures)) for i, key in enumerate(split.keys)}
    return lambda keys: pictures[[place.get(key, 0) for key in keys]]


def test_training_images_shifted_and_mirrored_are_caught_and_held_out_ones_are_not(
    split: LatentShardsDataset,
    train: LatentShardsDataset,
    model: LatentDiffusion,
    pictures: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing(model, any_of(shifted(pictures, 1), split), monkeypatch)  # as 4 px of 256
    options = CopiesOptions(samples=N, sampling=QUICK, batch_size=7, statistics=str(tmp_path / "statistics"))
    found = run_part(Copies(options, train), model, split, tmp_path / "shifted")
    for prompts in ("", "held_out_captions/"):
        assert found[f"{prompts}copy_share_pixels"] >= 0.99
        assert found[f"{prompts}copy_ratio_pixels_p1"] < 0.5
    assert found["held_out/copy_share_pixels"] <= 0.1, "of 24 held-out images"
    assert (found["exact/copy_share_pixels"], found["exact/copy_share_domain"]) == (1, 1)
    assert (found["exact/authentic_share_domain"], found["exact/copy_ratio_domain_p1"]) == (
        0,
        pytest.approx(0, abs=1e-6),
    )
    assert found["shifted/copy_share_pixels"] > 0.95
    assert found["held_out/authentic_share_domain"] > found["authentic_share_domain"]
    assert (found["n"], found["held_out_n"], found["train"], found["shared_patients"]) == (N, 2 * N, TRAIN, 0)

    rows = read_table(tmp_path / "shifted" / "copies.csv")
    assert {row["space"] for row in rows} == {"pixels", "mirrored", "domain"}
    assert [row["set"] for row in rows if row["space"] == "pixels"] == [
        "",
        "held_out_captions",
        "held_out",
        "exact",
        "shifted",
    ]
    each = read_table(tmp_path / "shifted" / "copied_images.csv")
    exact = [row for row in each if row["set"] == "exact" and row["space"] == "pixels"]
    assert [row["nearest"] for row in exact] == [row["key"] for row in exact]
    pairs = np.array(Image.open(tmp_path / "shifted" / "copies" / "training_captions.png"))
    assert pairs.shape == (8 * 64, 2 * 64, 3)

    drawing(model, any_of(pictures[:, :, ::-1], split), monkeypatch)
    mirrored = Copies(options, train).run(model, split, None, Ranks()).figures
    assert mirrored["copy_share_mirrored"] == 1
    assert mirrored["copy_share_pixels"] < 0.5, "mirrored copies are not found unless they are looked for"


def test_a_collapsed_generator_covers_nothing_and_a_copying_one_looks_perfect(
    split: LatentShardsDataset,
    train: LatentShardsDataset,
    model: LatentDiffusion,
    pictures: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = CoverageOptions(samples=N, sampling=QUICK, statistics=str(tmp_path))
    drawing(model, any_of(pictures, split, few=2), monkeypatch)
    two = Coverage(options, train).run(model, split, None, Ranks())
    drawing(model, any_of(pictures, split), monkeypatch)
    copied = Coverage(options, train).run(model, split, None, Ranks()).figures
    assert two.figures["recall_k5_domain"] < 0.05
    assert two.figures["irs_inf_domain"] == pytest.approx(2 / TRAIN)
    assert two.figures["irs_adjusted_domain"] < 0.3 < copied["irs_adjusted_domain"]
    assert two.figures["vendi_ratio_domain"] < copied["vendi_ratio_domain"]
    assert two.figures["coverage_k5_domain"] < copied["coverage_k5_domain"]
    assert copied["recall_k5_domain"] > 0.5, "a copying generator covers: read copies beside this"
    assert (copied["one_image/precision_k5_domain"], copied["one_image/recall_k5_domain"]) == (1, 0)
    assert copied["held_out/irs_adjusted_domain"] == 1
    assert copied["held_out/kid_domain"] < copied["one_image/kid_domain"]
    classes = {row["class"]: row for row in two.tables["coverage_classes"].rows if row["control"] == ""}
    assert classes["No Finding"]["n_real"] == sum("No Finding" in split.metadata(i)["labels"] for i in range(N))


def test_a_run_again_draws_and_looks_at_nothing_twice(
    split: LatentShardsDataset, train: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    options = CoverageOptions(samples=N, sampling=QUICK, batch_size=6, statistics=str(tmp_path / "statistics"))
    first = run_part(Coverage(options, train), model, split, tmp_path / "out")
    before = stamps(tmp_path / "out" / "images" / "coverage")
    kept = sorted((tmp_path / "statistics").iterdir())
    assert len(before) == N
    assert len(kept) == 4, "reference, held out, held out decoded, train"
    again = run_part(
        Coverage(CoverageOptions(**{**vars(options), "batch_size": 20}), train), model, split, tmp_path / "out"
    )
    assert again == pytest.approx(first, rel=1e-3, nan_ok=True)
    assert stamps(tmp_path / "out" / "images" / "coverage") == before
    assert sorted((tmp_path / "statistics").iterdir()) == kept


def test_what_cannot_be_measured_is_told_in_a_sentence(
    split: LatentShardsDataset, train: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    cases = [
        (Coverage(CoverageOptions(), None), "no training images"),
        (Coverage(CoverageOptions(samples=3), train), "more than 5"),
        (Coverage(CoverageOptions(samples=N + 1), train), "twice as many"),
        (Coverage(CoverageOptions(weights={"clip": "x"}), train), "No feature extractor 'clip'"),
        (Copies(CopiesOptions(), split), "is the one of training"),
        (Copies(CopiesOptions(samples=N + 1), train), "set samples"),
        (Copies(CopiesOptions(weights={"domain": "nowhere"}), train), "No weights at nowhere"),
    ]
    for measurement, sentence in cases:
        with pytest.raises(UserError, match=sentence) as error:
            measurement.run(model, split, tmp_path, Ranks())
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="share"):
        CopiesOptions(share=2.0)
