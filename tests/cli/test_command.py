"""The command as a user types it: in this process where that is enough, as a child process where time or exit matter."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.builders.command import ROOT, call, child, exit_code, write_fit
from tests.builders.tiny import make_shards, make_vae

CONFIGS = ROOT / "configs"


@pytest.fixture
def config(tmp_path, shards, vae_folder) -> Path:
    """A fit of four steps with a checkpoint every two."""
    return write_fit(tmp_path / "config.yaml", shards, vae_folder, checkpoint={"every_n_images": 16})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """The run folder of that fit; no test changes it."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_fit(folder / "config.yaml", shards, vae_folder, checkpoint={"every_n_images": 16})
    assert exit_code("fit", "-c", str(config)) == 0
    (run,) = runs(folder)
    return run


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs" / "t").iterdir())


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# ---- configurations -------------------------------------------------------------------------------------------------


def flat(content: object, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    return {key: v for name, value in content.items() for key, v in flat(value, f"{prefix}.{name}".strip(".")).items()}


def printed_config(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What jsonargparse makes of a config file, bases and defaults included."""
    code, out, err = call(capsys, "fit", "-c", str(path), "--print_config")
    assert code == 0, err
    return flat(yaml.safe_load(out))


def test_frozen_and_learnable_differ_in_the_paper_s_choice_only(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    frozen, learnable = (printed_config(CONFIGS / f"{name}.yaml", capsys) for name in ("frozen", "learnable"))
    assert frozen.keys() == learnable.keys()
    different = {key: (frozen[key], learnable[key]) for key in frozen if frozen[key] != learnable[key]}
    different.pop("name")
    different.pop("base")
    assert different == {
        "model.init_args.freeze_text_encoder": (True, False),
        "model.init_args.text_encoder_learning_rate": (None, 5e-5),
        "trainer.max_steps": (30000, 60000),
    }
    assert frozen["data.init_args.batch_size"] == 256
    assert frozen["trainer.num_nodes"] * frozen["trainer.devices"] == 16


#: Added to a config that trains, with a second -c.
ADDED = {*CONFIGS.glob("strategy/*.yaml"), *CONFIGS.glob("speed/*.yaml")}
FITTING = sorted(set(CONFIGS.rglob("*.yaml")) - set(CONFIGS.glob("evaluation/*")))


@pytest.mark.parametrize("path", FITTING, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_config_parses(path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    below = ["-c", "configs/frozen.yaml"] if path in ADDED else []
    code, out, err = call(capsys, "fit", *below, "-c", str(path), "--print_config")
    assert code == 0, err
    assert yaml.safe_load(out)["model"]["class_path"].startswith("lightning_modules.")


@pytest.mark.parametrize("spelling", [["-c", "{}"], ["-c{}"], ["--config", "{}"], ["--config={}"]])
def test_the_suite_s_own_configs_are_found_from_anywhere(spelling, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [part.format("configs/debug/tiny.yaml") for part in spelling]
    code, out, err = call(capsys, "fit", *named, "--print_config")
    assert code == 0, err
    assert yaml.safe_load(out)["grounding"]["timesteps"] == 2
    # every option of that file is one of `evaluate all`: what is missing is the run, not the file
    named = [part.format("configs/evaluation/paper.yaml") for part in spelling]
    code, _, err = call(capsys, "evaluate", "all", "--run", "nowhere", *named)
    assert code == 2
    assert "No checkpoint at nowhere" in err


def test_a_file_that_is_here_comes_before_the_suite_s_own(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("base: quickstart.yaml\nname: mine\n")
    (tmp_path / "configs" / "quickstart.yaml").write_text("trainer: {max_steps: 3}\n")
    _, out, _ = call(capsys, "fit", "-c", "configs/mine.yaml", "--print_config")
    content = yaml.safe_load(out)
    assert (content["name"], content["trainer"]["max_steps"], content["model"]) == ("mine", 3, None)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_twice_gives_two_runs_and_w_and_b_holds_the_curves(config, tmp_path, capsys):
    for _ in range(2):
        assert call(capsys, "fit", "-c", str(config))[0] == 0
    first, second = runs(tmp_path)
    for run in (first, second):
        assert (run / "config.yaml").is_file()
        assert [r["train/loss"] for r in rows(run) if "train/loss" in r]
    # Same seed, same numbers: the second did not go on from the first.
    assert [r.get("train/loss") for r in rows(first)] == [r.get("train/loss") for r in rows(second)]

    offline = next((first / "wandb").glob("offline-run-*"))
    wandb = [shutil.which("wandb") or str(Path(sys.executable).with_name("wandb"))]
    inspected = subprocess.run(
        [*wandb, "leet", "inspect", "--json", str(offline)], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    text = json.dumps(records)
    for row in rows(first):
        for name in ("train/loss", "val/loss"):
            if name in row:
                assert repr(row[name])[:10] in text, (name, row[name])
    summary = subprocess.run(
        [*wandb, "leet", "inspect", "--summary", "--json", str(offline)], capture_output=True, text=True, check=True
    ).stdout
    assert "val/loss" in summary
    assert "freeze_text_encoder" in summary


def test_override_after_ckpt_path_wins(config, trained, tmp_path, capsys):
    checkpoint = trained / "checkpoints" / "step-00000002.ckpt"
    arguments = ["--ckpt_path", str(checkpoint), "--model.learning_rate", "3e-5", "--name", "u"]
    assert call(capsys, "fit", "-c", str(config), *arguments)[0] == 0
    (run,) = (tmp_path / "runs" / "u").iterdir()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["learning_rate"] == 3e-5
    again = torch.load(run / "checkpoints" / "step-00000004.ckpt", weights_only=True)
    assert again["hyper_parameters"]["learning_rate"] == 3e-5
    assert again["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-5
    assert min(r["step"] for r in rows(run)) == 2, "did not go on from step 2"


def test_flag_before_the_file_wins(config, tmp_path, capsys):
    code, out, _ = call(capsys, "fit", "--model.learning_rate", "7e-7", "-c", str(config), "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["model"]["init_args"]["learning_rate"] == 7e-7


def test_interpolation_follows_overrides(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, out, _ = call(capsys, "fit", "-c", "configs/quickstart.yaml", "--model.vae", "elsewhere", "--print_config")
    assert yaml.safe_load(out)["data"]["init_args"]["vae"] == "elsewhere"


def test_resume_goes_on_in_the_same_folder(config, tmp_path, capsys):
    assert call(capsys, "fit", "-c", str(config), "--trainer.max_steps", "2")[0] == 0
    (run,) = runs(tmp_path)
    assert call(capsys, "fit", "--resume", str(run), "--trainer.max_steps", "4")[0] == 0
    assert runs(tmp_path) == [run]
    assert [r["step"] for r in rows(run) if "train/loss" in r] == [0, 1, 2, 3]
    assert (run / "checkpoints" / "step-00000004.ckpt").is_file()


def test_validate_test_and_predict(config, trained, tmp_path, capsys):
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    for verb in ("validate", "test"):
        code, out, err = call(capsys, verb, "-c", str(config), "--ckpt_path", checkpoint, "--name", verb)
        assert code == 0, err
        assert "loss" in out
    code, out, err = call(
        capsys, "predict", "-c", str(config), "--ckpt_path", checkpoint, "--name", "predict",
        "--model.sampling", '{"sampler": "ddim", "steps": 2, "guidance_scale": 2.0}',
    )  # fmt: skip
    assert code == 0, err
    (run,) = (tmp_path / "runs" / "predict").iterdir()
    written = sorted(p.stem for p in (run / "media" / "predict").glob("*.png"))
    listed = [json.loads(line) for line in (run / "media" / "predict" / "images.jsonl").read_text().splitlines()]
    assert written == sorted(row["key"] for row in listed)
    assert written


def test_sample(trained, tmp_path, capsys):
    out_dir = tmp_path / "images"
    arguments = ["--ckpt", str(trained), "--prompts", "Left effusion.", "No acute disease.", "--num_images", "2"]
    arguments += ["--steps", "2", "--out", str(out_dir)]
    code, _, err = call(capsys, "sample", *arguments)
    assert code == 0, err
    assert len(list(out_dir.glob("*.png"))) == 4
    first = {p.name: p.read_bytes() for p in out_dir.glob("*.png")}
    assert len(set(first.values())) == 4
    # Stopped and continued: the missing image comes out as it was, whatever the batch.
    (out_dir / "0001-001.png").unlink()
    assert call(capsys, "sample", *arguments, "--batch_size", "1")[0] == 0
    assert {p.name for p in out_dir.glob("*.png")} == set(first)
    code, _, err = call(capsys, "sample", *arguments, "--seed", "3")
    assert code == 2
    assert "choose another --out" in err


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_missing_weights_and_shards_stop_in_time(tmp_path):
    """As a user runs it, imports included; from an empty folder, so that nothing is there by accident.

    The file is the suite's own, found from there; that torch is not waited for is what makes it quick.
    """
    begin = time.monotonic()
    done = child("fit", "-c", "configs/frozen.yaml", "--grounding.timesteps", "4", folder=tmp_path)
    took = time.monotonic() - begin
    assert done.returncode == 2, done.stderr
    assert "hf download" in done.stderr
    assert "lightning prepare" in done.stderr
    assert "GPUs" in done.stderr or torch.cuda.device_count() >= 8
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir()), "something was written before the check"
    print(f"stopped after {took:.1f} s")


def test_missing_weights_are_told_before_torch_is_imported(tmp_path):
    code = (
        "import sys\nfrom meddiff.cli.main import dispatch\nfrom meddiff.common.errors import UserError\n"
        "try:\n    dispatch(['fit', '-c', 'configs/open_track.yaml', '--gallery', 'null'])\n"
        "except UserError as error:\n    print(error, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "hf download" in done.stdout
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.lrr", "1"], "lrr"),
        (["--trainer.max_steps", "-1"], "endless"),
        (["--data.batch_size", "7", "--trainer.accumulate_grad_batches", "2"], "7"),
        (["--model.unet", "nowhere"], "no weights at nowhere"),
        (["--data.shards", "nowhere"], "no latent shards at nowhere"),
        (["--model.caption_dropout", "2"], "must lie in"),
        (["--model.learning_rate", "fast"], "learning_rate"),
        (["--data.train_split", "trian"], "trian"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_bad_options_get_one_sentence(config, capsys, arguments, words):
    code, _, err = call(capsys, "fit", "-c", str(config), *arguments)
    assert code == 2
    assert err.count("error:") == 1
    assert words in err
    assert "Traceback" not in err


def test_unknown_verb_and_unknown_cohort(capsys):
    assert call(capsys, "fitt")[0] == 2
    code, _, err = call(capsys, "prepare", "moon")
    assert code == 2
    assert "phantom" in err


def test_shards_of_another_vae(config, tmp_path, capsys):
    other = make_vae(tmp_path / "other_vae", seed=1)
    code, _, err = call(capsys, "fit", "-c", str(config), "--model.vae", str(other))
    assert code == 2
    assert "VAE" in err
    assert "prepare" in err


def test_shards_of_another_resolution(config, tmp_path, vae_folder, capsys):
    small = make_shards(tmp_path / "small", vae_folder, n=30, resolution=32)
    code, _, err = call(capsys, "fit", "-c", str(config), "--data.shards", str(small))
    assert code == 2
    assert "(4, 4, 4)" in err
    assert "(4, 8, 8)" in err


def test_truncated_tar(config, tmp_path, shards, capsys):
    broken = shutil.copytree(shards, tmp_path / "broken")
    tar = sorted(broken.glob("train-*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:-3000])
    code, _, err = call(capsys, "fit", "-c", str(config), "--data.shards", str(broken))
    assert code == 2
    assert tar.name in err
    assert "truncated" in err
