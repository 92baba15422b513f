"""A run that was started in one folder is drawn with and opened in another: the same parts, the same cohort, no second one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from meddiff.common.errors import UserError
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder
from meddiff.runs import names
from meddiff.runs.open_run import open_run
from meddiff.runs.whereabouts import content_digest, found_again, place_of, whereabouts
from tests.builders.command import call, write_fit
from tests.builders.tiny import make_vae

VAE = "parts/vae"
PHANTOM = {"n": 60, "resolution": 64}
SAMPLING = {"sampler": "ddim", "steps": 2, "guidance_scale": 1.5}


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the training says, line by line."""
    return []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path, said: list[str]) -> Path:
    """The folder of a training that names everything relative to it; it runs in it."""
    from contextlib import redirect_stderr, redirect_stdout

    from meddiff.cli.main import dispatch

    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(vae_folder, folder / VAE)
    shutil.copytree(shards, folder / phantom_folder(PhantomOptions(**PHANTOM), VAE))
    file = write_fit(folder / "fit.yaml", shards, vae_folder, {"max_steps": 1})
    config = yaml.safe_load(file.read_text())
    for name in ("enable_progress_bar", "enable_model_summary"):
        del config["trainer"][name]
    config["runs"] = "runs"
    config["model"]["init_args"] |= {"vae": VAE, "sampling": SAMPLING}
    config["data"] = {
        "class_path": "datamodules.PhantomLatentsDataModule",
        "init_args": {"phantom": PHANTOM, "vae": VAE, "batch_size": 8},
    }
    file.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("w") as log:
        patch.chdir(folder)
        with redirect_stdout(log), redirect_stderr(log):
            assert dispatch(["fit", "-c", "fit.yaml"]) == 0
    said += (folder / "log").read_text().splitlines(keepends=True)
    return folder


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everybody stands in these tests."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def run_of(home: Path) -> Path:
    return next((home / "runs" / "t").iterdir())


def sample(capsys: pytest.CaptureFixture[str], ckpt: Path, *more: str) -> tuple[int, str, dict[str, object]]:
    """Exit code, stderr, and the settings in ``samples.json``."""
    code, _, err = call(capsys, "sample", "--ckpt", str(ckpt), "--out", "out", "--prompts", "a", *more)
    record = Path("out/samples.json")
    return code, err, json.loads(record.read_text())["settings"] if record.is_file() else {}


def test_sample_draws_as_the_run_does_and_with_its_autoencoder(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err, settings = sample(capsys, run_of(home))
    assert code == 0, err
    assert {name: settings[name] for name in SAMPLING} == SAMPLING
    shutil.rmtree("out")
    make_vae(elsewhere / VAE, seed=7)  # another model's, which happens to be called so here
    code, err, other = sample(capsys, run_of(home), "--steps", "1")
    assert code == 0, err
    assert (other["steps"], other["sampler"], other["guidance_scale"]) == (1, "ddim", 1.5)
    assert other["autoencoder"] == settings["autoencoder"]


def test_a_checkpoint_taken_out_of_its_folder_knows_its_autoencoder(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy((run_of(home) / "checkpoints" / "last.ckpt").resolve(), "alone.ckpt")
    code, err, settings = sample(capsys, Path("alone.ckpt"))
    assert code == 0, err
    assert settings["steps"] == SAMPLING["steps"]


def test_the_cohort_is_not_rendered_once_more(home: Path, elsewhere: Path) -> None:
    data = open_run(run_of(home)).data
    assert len(data.dataset("grounding")) > 0
    assert not (elsewhere / "data").exists()
    noted = run_of(home) / names.WHEREABOUTS
    before = noted.read_text()
    noted.unlink()  # as of a run of earlier days: looked for beside it
    try:
        assert open_run(run_of(home)).data.dataset("grounding").keys == data.dataset("grounding").keys
        assert not (elsewhere / "data").exists()
    finally:
        noted.write_text(before)


def test_another_autoencoder_in_its_place_is_refused_before_anything_is_drawn(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = shutil.move(home / VAE, home / "kept")
    try:
        make_vae(home / VAE, seed=7)
        code, err, _ = sample(capsys, run_of(home))
        assert code == 2
        assert "is not what the checkpoint was trained with" in err
        assert "--vae" in err
        assert not list(Path("out").glob("*.png"))
        code, err, _ = sample(capsys, run_of(home), "--vae", str(kept))
        assert code == 0, err
        shutil.rmtree(home / VAE)
        code, err, _ = sample(capsys, run_of(home), "--steps", "1")
        assert code == 2, "and one that is nowhere"
        assert f"vae: no weights at {VAE}" in err
    finally:
        shutil.rmtree(home / VAE, ignore_errors=True)
        shutil.move(kept, home / VAE)


def test_what_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "config.json").write_text("{}")
    arguments = {"unet": "assets/phantom_base", "vae": "parts", "text_encoder": {"width": 16}, "name": "quickstart"}
    noted = whereabouts({"model": {"init_args": arguments}, "data": {"init_args": {"shards": "hub:a/b"}}})
    assert noted == {"parts": {"place": str(tmp_path / "parts"), "sha256": content_digest(tmp_path / "parts")}}, (
        "what the suite ships is known by its name"
    )
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert found_again(arguments, noted, None) == {**arguments, "vae": str(tmp_path / "parts")}
    (other / "parts").mkdir()
    (other / "parts" / "config.json").write_text("[]")
    assert place_of("parts", noted, None) == str(tmp_path / "parts"), "not what is called so here"
    shutil.rmtree(tmp_path / "parts")
    with pytest.raises(UserError, match="is not what the checkpoint was trained with"):
        found_again({"vae": "parts"}, noted, None)
    assert found_again({"vae": "gone/too"}, noted, None) == {"vae": "gone/too"}, "whoever needs it says so"


def test_what_a_training_says_into_a_file(home: Path, said: list[str]) -> None:
    """The file was no terminal: whole lines, none of which a newcomer has to ask about."""
    text = "".join(said)
    assert not {"\r", "\x1b"} & set(text)
    for riddle in (
        "TPU",
        "GPU available",
        "FLOPs",
        "MeanMetric",
        "kept in float32",
        "Seed set",
        "`Trainer.fit`",
        "Tip:",
    ):
        assert riddle not in text
    wanted = (
        "run folder: runs/t/",
        "training on the CPU",
        "  unet: ",
        "  text encoder: ",
        "train: 100% 8/8",
        "finished at step 1; run folder: runs/t/",
        "  go on:  lightning fit --resume runs/t/",
    )
    for one in wanted:
        assert any(line.startswith(one) for line in said), f"{one} in {text}"
    (tower,) = [line for line in said if line.startswith("  text encoder: ")]
    assert "frozen" in tower
    assert "rows of tokens" in tower
