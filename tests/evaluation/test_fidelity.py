"""The fidelity part: its numbers from its files, its controls, and a second call that draws nothing."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.evaluation.fidelity import CONTROLS, Fidelity, FidelityOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.models.domain_classifier import load_classifier
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import QUICK, CountedPasses, make_classifier, make_model, make_split, run_part, stamps

N = 12


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    return make_split(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, 2 * N)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier") / "one")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_model(vae_folder)


def options(classifier: Path, **more: object) -> FidelityOptions:
    return FidelityOptions(
        **{"samples": N, "weights": {"domain": str(classifier)}, "sampling": QUICK, "batch_size": 5, **more}
    )


def numpy_frechet(x: np.ndarray, y: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real
    trace = np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False)) - 2 * np.trace(root)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + trace)


def test_numbers_are_those_of_the_files_and_a_second_call_draws_nothing(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    model.train()
    found = run_part(Fidelity(options(classifier)), model, split, tmp_path)
    assert model.unet.training, "the model is left as it was"
    rows = read_table(tmp_path / "fidelity.csv")
    assert list(rows[0]) == ["metric", "value", "n", "protocol", "control", "seed"]
    assert [(row["metric"], row["control"]) for row in rows] == [
        (f"{kind}_domain", control) for control in ("", *CONTROLS) for kind in ("fd", "kid")
    ]
    assert {(row["n"], row["protocol"], row["seed"]) for row in rows} == {(str(N), "domain/1", "0")}
    for row in rows:
        name = f"{row['control']}/{row['metric']}".removeprefix("/")
        assert float(row["value"]) == pytest.approx(found[name], rel=1e-4)

    drawn = tmp_path / "images" / "fidelity"
    assert sorted(stamps(drawn)) == [f"{key}.png" for key in split.keys[N:]]
    judge = load_classifier(classifier)

    def features(images: list[np.ndarray]) -> np.ndarray:
        grey = [image.mean(axis=-1) if image.ndim == 3 else image.astype(float) for image in images]
        with torch.no_grad():
            pixels = torch.tensor(np.stack(grey))[:, None].float() / 127.5 - 1
            return judge.features2(pixels * 1024).double().numpy()

    files = [np.array(Image.open(drawn / f"{key}.png")) for key in split.keys[N:]]
    real = [split.image(i) for i in range(2 * N)]
    # fewer images than features: of scipy's root only a few digits are left
    assert found["fd_domain"] == pytest.approx(numpy_frechet(features(real[:N]), features(files)), rel=1e-2)
    assert found["real_vs_real/fd_domain"] < found["noise/fd_domain"]
    assert found["n"] == N

    before = {part: stamps(tmp_path / "images" / part) for part in ("fidelity", "untrained")}
    again = run_part(Fidelity(options(classifier)), model, split, tmp_path)
    assert again == pytest.approx(found, rel=1e-9)
    assert {part: stamps(tmp_path / "images" / part) for part in before} == before
    assert list((split.folder / ".statistics").glob("domain-*.safetensors"))


def test_missing_images_are_drawn_again_alike(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    quick = options(classifier, controls=[], statistics=str(tmp_path / "statistics"))
    found = run_part(Fidelity(quick), model, split, tmp_path)
    assert set(found) == {"fd_domain", "kid_domain", "n"}
    folder = tmp_path / "images" / "fidelity"
    before, lost = stamps(folder), [f"{key}.png" for key in split.keys[N : N + 5]]
    pixels = {name: (folder / name).read_bytes() for name in lost}
    for name in lost:
        (folder / name).unlink()
    assert run_part(Fidelity(quick), model, split, tmp_path) == pytest.approx(found, rel=1e-9)
    after = stamps(folder)
    assert {name for name in after if after[name] != before[name]} == set(lost)
    assert {name: (folder / name).read_bytes() for name in lost} == pixels
    assert list((tmp_path / "statistics").glob("domain-*.safetensors"))
    with pytest.raises(UserError, match="seed 0 instead of 1"):
        run_part(Fidelity(options(classifier, controls=[], seed=1)), model, split, tmp_path)


def test_controls_stand_in_their_order_under_a_classifier_that_knows_phantoms(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    shipped = FidelityOptions(samples=N, sampling=QUICK, controls=["real_vs_real", "noise", "untrained"])
    found = run_part(Fidelity(shipped), model, split, tmp_path)
    for kind in ("fd", "kid"):
        worst = min(found[f"{control}{kind}_domain"] for control in ("", "noise/", "untrained/"))
        assert found[f"real_vs_real/{kind}_domain"] < worst


def test_averaged_weights_are_other_images(
    split: LatentShardsDataset, classifier: Path, vae_folder: Path, tmp_path: Path
) -> None:
    model = make_model(vae_folder)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter += 0.1
    for ema in (False, True):
        run_part(Fidelity(options(classifier, controls=[], ema=ema)), model, split, tmp_path / str(ema))
    raw, averaged = ((tmp_path / str(ema) / "images" / "fidelity" / f"{split.keys[N]}.png") for ema in (False, True))
    assert raw.read_bytes() != averaged.read_bytes()


def test_what_cannot_be_measured_is_told_before_anything_is_drawn(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    cases = [
        (options(classifier, samples=N + 1), f"set samples to {N} or less"),
        (options(classifier, samples=1), "at least 2"),
        (options(classifier, weights={}), "at least one feature extractor"),
        (options(classifier, weights={"clip": "x"}), "No feature extractor 'clip'"),
        (options(classifier, controls=["shuffled"]), "No control 'shuffled'"),
    ]
    for bad, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            run_part(Fidelity(bad), model, split, tmp_path)
    assert not list(tmp_path.iterdir())


def test_with_and_without_a_folder_the_figures_are_the_same(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    """Through PNG files or in memory: the pixels are the same bytes."""
    found = [Fidelity(options(classifier)).run(model, split, out, Ranks()) for out in (None, tmp_path)]
    assert found[0].figures == pytest.approx(found[1].figures, rel=1e-5)
    assert found[0].controls.keys() == found[1].controls.keys()
    assert (len(found[0].images), found[1].images) == (N, {})
    for i, image in found[0].images.items():
        stored = np.array(Image.open(tmp_path / "images" / "fidelity" / f"{split.keys[i]}.png"))
        assert np.array_equal(image, stored)
    other = Fidelity(options(classifier, seed=1)).run(model, split, None, Ranks())
    assert other.figures["fd_domain"] != pytest.approx(found[0].figures["fd_domain"], rel=1e-5)


def test_it_costs_what_it_says_once(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    plain = SamplingOptions("ddim", 3, 1.0)  # without guidance: one pass a step
    measurement = Fidelity(options(classifier, controls=["noise"], compare_with=[plain]))
    with CountedPasses(model) as counted:
        first = measurement.run(model, split, tmp_path, Ranks())
    assert counted.samples == measurement.cost(model, split) == N * (2 * 2 + 3)
    with CountedPasses(model) as counted:
        again = measurement.run(model, split, tmp_path, Ranks())
    assert counted.samples == 0
    assert again.figures == pytest.approx(first.figures, rel=1e-6)


def test_images_of_other_weights_are_refused(
    split: LatentShardsDataset, classifier: Path, model: LatentDiffusion, vae_folder: Path, tmp_path: Path
) -> None:
    quick = Fidelity(options(classifier, controls=[]))
    quick.run(model, split, tmp_path, Ranks())
    with pytest.raises(UserError, match=r"other settings \(model\)") as error:
        quick.run(make_model(vae_folder, seed=1), split, tmp_path, Ranks())
    assert "\n" not in str(error.value)
