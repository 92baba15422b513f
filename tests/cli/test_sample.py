"""``lightning sample`` into a folder that has images already: reused, or refused, and never taken for others."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.builders.command import call, write_fit
from tests.builders.tiny import make_vae


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """Of a fit of one step."""
    from meddiff.cli.main import dispatch

    folder = tmp_path_factory.mktemp("fit")
    config = write_fit(folder / "fit.yaml", shards, vae_folder, {"max_steps": 1}, checkpoint={"every_n_images": 8})
    assert dispatch(["fit", "-c", str(config)]) == 0
    return next((folder / "runs" / "t").glob("*/checkpoints/step-*.ckpt"))


def draw(capsys: pytest.CaptureFixture[str], checkpoint: Path, out: Path, *more: str) -> tuple[int, str]:
    code, _, err = call(
        capsys, "sample", "--ckpt", str(checkpoint), "--sampler", "dpm++", "--steps", "1", "--out", str(out), *more
    )
    return code, err


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def other_weights(checkpoint: Path) -> None:
    """As a training that goes on leaves ``last.ckpt``: the same name, other weights."""
    content = torch.load(checkpoint, weights_only=True)
    for value in content["state_dict"].values():
        value.mul_(1.01)
    torch.save(content, checkpoint)


def test_images_of_weights_that_lay_at_the_same_path(checkpoint: Path, tmp_path: Path, capsys) -> None:
    last = Path(shutil.copy(checkpoint, tmp_path / "last.ckpt"))
    assert draw(capsys, last, tmp_path / "out", "--prompts", "edema")[0] == 0
    other_weights(last)
    code, err = draw(capsys, last, tmp_path / "out", "--prompts", "edema")
    assert code == 2
    assert "0000-000.png: model" in err
    assert "choose another --out" in err
    # and a checkpoint that was moved draws the same
    moved = Path(shutil.copy(checkpoint, tmp_path / "moved.ckpt"))
    before = pictures(tmp_path / "out")
    assert draw(capsys, moved, tmp_path / "out", "--prompts", "edema", "no edema")[0] == 0
    assert pictures(tmp_path / "out").items() >= before.items()


def test_items_are_compared_one_by_one(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert draw(capsys, checkpoint, out, "--prompts", "a", "b")[0] == 0
    both = pictures(out)
    assert draw(capsys, checkpoint, out, "--prompts", "a")[0] == 0
    assert pictures(out) == both
    assert len(json.loads((out / "samples.json").read_text())["images"]) == 2, "b is there still"
    code, err = draw(capsys, checkpoint, out, "--prompts", "a", "c")
    assert code == 2
    assert "0001-000.png: prompt" in err
    assert pictures(out) == both
    (out / "0001-000.png").unlink()
    assert draw(capsys, checkpoint, out, "--prompts", "a", "c")[0] == 0
    assert draw(capsys, checkpoint, tmp_path / "fresh", "--prompts", "a", "c")[0] == 0
    assert pictures(out) == pictures(tmp_path / "fresh")
    assert json.loads((out / "samples.json").read_text()) == json.loads((tmp_path / "fresh/samples.json").read_text())


def test_another_autoencoder_draws_other_images(checkpoint: Path, tmp_path: Path, capsys) -> None:
    assert draw(capsys, checkpoint, tmp_path / "out", "--prompts", "a")[0] == 0
    vae = make_vae(tmp_path / "vae", seed=5)
    code, err = draw(capsys, checkpoint, tmp_path / "out", "--prompts", "a", "--vae", str(vae))
    assert code == 2
    assert "0000-000.png: autoencoder" in err


def test_a_call_that_failed_is_in_nobodys_way(
    checkpoint: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert draw(capsys, checkpoint, out, "--prompts", "wrong", "--vae", str(tmp_path / "none"))[0] == 2
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr("meddiff.models.latent_diffusion.LatentDiffusion.sample", lambda *_, **__: 1 / 0)
        assert draw(capsys, checkpoint, out, "--prompts", "wrong", "--seed", "7")[0] == 70
    assert draw(capsys, checkpoint, out, "--prompts", "right")[0] == 0
    assert draw(capsys, checkpoint, tmp_path / "fresh", "--prompts", "right")[0] == 0
    assert pictures(out) == pictures(tmp_path / "fresh")


def test_an_image_that_nobody_drew_is_not_written_over(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "0000-000.png").write_bytes(b"mine")
    code, err = draw(capsys, checkpoint, out, "--prompts", "a")
    assert code == 2
    assert "choose another --out" in err
    assert (out / "0000-000.png").read_bytes() == b"mine"
