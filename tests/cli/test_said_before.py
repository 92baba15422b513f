"""What used to be said when the model was built, or when the first validation came, is said before anything is built."""

from pathlib import Path

import pytest
import yaml

from tests.builders.command import call, write_fit


@pytest.fixture
def config(tmp_path: Path, shards: Path, vae_folder: Path) -> str:
    return str(write_fit(tmp_path / "fit.yaml", shards, vae_folder, {"max_steps": 1}))


def test_a_split_that_is_not_there(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "fit", "-c", config, "--data.val_split", "valid")
    assert code == 2
    assert "no samples of split 'valid' (they have: fidelity, grounding, train, val)" in err
    assert "--trainer.limit_val_batches 0" in err
    assert not (tmp_path / "runs").exists(), "nothing was begun"


def test_a_split_that_nothing_asks_for(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: without validation there is none to miss."""
    more = ("--data.val_split", "valid", "--trainer.limit_val_batches", "0")
    code, _, err = call(capsys, "fit", "-c", config, *more)
    assert code == 0, err


def test_a_rate_of_a_tower_that_is_frozen(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "fit", "-c", config, "--model.text_encoder_learning_rate", "1e-5")
    assert code == 2
    assert err.count("the text encoder is frozen") == 1
    assert not (tmp_path / "runs").exists()
    more = ("--model.freeze_text_encoder", "false", "--trainer.fast_dev_run", "1")
    code, _, err = call(capsys, "fit", "-c", config, "--model.text_encoder_learning_rate", "1e-5", *more)
    assert code == 0, err


def phantom_fit(file: Path, vae_folder: Path, fidelity: int) -> str:
    """A fit on phantoms that are not rendered yet."""
    place = write_fit(file, file.parent / "none", vae_folder, {"max_steps": 1, "limit_val_batches": 0})
    values = yaml.safe_load(place.read_text())
    data = values["data"]["init_args"]
    data |= {"shards": str(file.parent / "phantom"), "phantom": {"n": 60, "resolution": 64, "fidelity": fidelity}}
    data |= {"vae": str(vae_folder)}
    values["data"] = {"class_path": "datamodules.PhantomLatentsDataModule", "init_args": data}
    place.write_text(yaml.safe_dump(values))
    return str(place)


@pytest.mark.parametrize(
    ("fidelity", "samples", "sentence"),
    [
        (20, "11", "FidelityCallback: The split 'fidelity' holds 20 images, and 11 samples need 22"),
        (0, "2", "FidelityCallback: there are no samples of split 'fidelity' (there are: grounding, train, val)"),
    ],
)
def test_more_samples_than_a_cohort_that_is_not_made_yet_will_hold(
    fidelity: int, samples: str, sentence: str, tmp_path: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = phantom_fit(tmp_path / "fit.yaml", vae_folder, fidelity)
    asked = ("--fidelity.every_n_images", "8", "--fidelity.samples", samples)
    code, _, err = call(capsys, "fit", "-c", config, *asked)
    assert code == 2
    assert sentence in err
    assert not (tmp_path / "phantom").exists(), "nothing was rendered"


def test_as_many_samples_as_there_will_be(tmp_path: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: half of the split is enough."""
    config = phantom_fit(tmp_path / "fit.yaml", vae_folder, 20)
    more = ("--fidelity.every_n_images", "8", "--fidelity.samples", "10", "--trainer.fast_dev_run", "1")
    code, _, err = call(capsys, "fit", "-c", config, *more)
    assert code == 0, err
    assert (tmp_path / "phantom").exists()
