"""What used to be said when the model was built, or when the first validation came, is said before anything is built."""

from pathlib import Path

import pytest

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
