"""Checkpoints whose weights or average do not fit: opened and resumed only whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.runs.open_run import open_run
from tests.builders.command import call, write_fit
from tests.builders.tiny import model_config, quiet_trainer
from tests.builders.weight_files import INSTEAD

Checkpoint = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """A checkpoint after one step."""
    folder = tmp_path_factory.mktemp("whole")
    L.seed_everything(0)
    trainer = quiet_trainer(folder, 1, use_distributed_sampler=False)
    trainer.fit(
        LatentDiffusionModule(**model_config(vae_folder)), datamodule=LatentShardsDataModule(str(shards), batch_size=8)
    )
    trainer.save_checkpoint(folder / "whole.ckpt")
    return folder / "whole.ckpt"


NAME = "model.unet.conv_in.weight"


def renamed(checkpoint: Checkpoint) -> None:
    state = checkpoint["state_dict"]
    state["model.unet.conv_first.weight"] = state.pop(NAME)


def missing(checkpoint: Checkpoint) -> None:
    del checkpoint["state_dict"][NAME]


def other_shape(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"][NAME] = checkpoint["state_dict"][NAME][:4]


def not_finite(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"][NAME][0, 0, 0, 0] = torch.nan


def average_that_spreads(checkpoint: Checkpoint) -> None:
    """One number would be copied all over the tensor."""
    shadow = checkpoint["ema"]["shadow"]
    shadow["unet.conv_in.weight"] = torch.zeros(1)


def average_not_finite(checkpoint: Checkpoint) -> None:
    checkpoint["ema"]["shadow"]["unet.conv_in.weight"][0] = torch.inf


def no_average(checkpoint: Checkpoint) -> None:
    del checkpoint["ema"]


BROKEN: dict[Callable[[Checkpoint], None], str] = {
    renamed: rf"1 of \d+ tensors are missing \({NAME}\), 1 are of no use in it \(model\.unet\.conv_first\.weight\)",
    missing: rf"1 of \d+ tensors are missing \({NAME}\)",
    other_shape: rf"1 have another shape \({NAME} is \(4, 4, 3, 3\) instead of \(8, 4, 3, 3\)\)",
    not_finite: rf"not finite in 1 of \d+ tensors \({NAME}\)",
    average_that_spreads: r"EMA does not fit: 1 have another shape \(unet\.conv_in\.weight is \(1,\)",
    average_not_finite: r"EMA holds numbers that are not finite in 1 of \d+ tensors",
    no_average: "holds no average although its training kept one",
}


@pytest.mark.parametrize("change", BROKEN)
def test_neither_opened_nor_resumed(
    whole: Path,
    change: Callable[[Checkpoint], None],
    shards: Path,
    vae_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = torch.load(whole, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "broken.ckpt")
    with pytest.raises(UserError, match=BROKEN[change]) as refused:
        _ = open_run(None, tmp_path / "broken.ckpt").module
    assert "broken.ckpt" in str(refused.value)
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    code, _, err = call(capsys, "fit", "-c", config, "--ckpt_path", str(tmp_path / "broken.ckpt"))
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "Traceback" not in err
    assert "not finite" in line or "does not fit" in line or "no average" in line


def test_a_pointer_or_a_page_is_no_checkpoint(
    shards: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    for instead in ("pointer", "page", "message", "empty"):
        content, words = INSTEAD[instead]
        (tmp_path / "last.ckpt").write_bytes(content or b"")
        with pytest.raises(UserError, match=words):
            _ = open_run(None, tmp_path / "last.ckpt").module
        code, _, err = call(capsys, "fit", "-c", config, "--ckpt_path", str(tmp_path / "last.ckpt"))
        assert code == 2
        assert words in err
        assert not (tmp_path / "runs").exists()


def test_names_of_wrappers_are_understood(whole: Path) -> None:
    checkpoint = torch.load(whole, weights_only=True)
    before = open_run(None, whole).module.state_dict()
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        state = {f"{prefix}{name}": value for name, value in checkpoint["state_dict"].items()}
        torch.save({**checkpoint, "state_dict": state}, whole.with_name("wrapped.ckpt"))
        after = open_run(None, whole.with_name("wrapped.ckpt")).module.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_average_switched_on_later_starts_from_the_weights(
    whole: Path, shards: Path, vae_folder: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(whole, weights_only=True)
    del checkpoint["ema"]
    checkpoint["hyper_parameters"]["ema_decay"] = None
    torch.save(checkpoint, tmp_path / "without.ckpt")
    module = LatentDiffusionModule(**model_config(vae_folder))
    module.configure_model()
    with pytest.warns(UserWarning, match="it starts from the checkpoint's weights"):
        module.on_load_checkpoint(torch.load(tmp_path / "without.ckpt", weights_only=True))
    assert module.model.ema is not None
    for name, value in zip(module.model.ema.names, module.model.ema.shadow, strict=True):
        assert torch.equal(value, checkpoint["state_dict"][f"model.{name}"])
    trainer = quiet_trainer(tmp_path, 2, use_distributed_sampler=False)
    data = LatentShardsDataModule(str(shards), batch_size=8)
    trainer.fit(module, datamodule=data, ckpt_path=str(tmp_path / "without.ckpt"))
    assert trainer.global_step == 2
