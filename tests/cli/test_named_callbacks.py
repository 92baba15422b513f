"""``grounding:``, ``fidelity:``, ... at the top of a config: files, later files, flags, null, and the lists beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meddiff.cli.named_callbacks import NAMED
from tests.builders.command import call, write_fit

LISTED = {"class_path": "callbacks.GroundingCallback", "init_args": {"every_n_images": 16, "timesteps": 2}}


@pytest.fixture
def write(tmp_path, shards, vae_folder) -> Callable[..., Path]:
    """Writes a fit of four steps of 8 images with these callbacks by name (and these options of the trainer)."""

    def config(
        name: str = "config.yaml", trainer: dict[str, Any] | None = None, **named: dict[str, Any] | None
    ) -> Path:
        return write_fit(tmp_path / name, shards, vae_folder, {"logger": False, **(trainer or {})}, **named)

    return config


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the parser makes of ``fit ARGUMENTS``."""
    code, out, err = call(capsys, "fit", *arguments, "--print_config")
    assert code == 0, err
    content = yaml.safe_load(out)
    assert isinstance(content, dict)
    return content


# ---- what a config says ---------------------------------------------------------------------------------------------


def test_all_are_off_unless_named(write, capsys):
    content = printed(capsys, "-c", str(write()))
    assert {name: content[name] for name in NAMED} == dict.fromkeys(NAMED)


def test_a_later_file_and_a_flag_change_one_value_and_keep_the_rest(write, tmp_path, capsys):
    write(grounding={"every_n_images": 16, "timesteps": 8, "seed": 5}, fidelity={"every_n_images": 16, "samples": 9})
    later = tmp_path / "later.yaml"
    later.write_text("base: config.yaml\ngrounding: {timesteps: 40}\nfidelity: {sampling: {steps: 7}}\n")
    content = printed(capsys, "-c", str(later), "--grounding.samples", "3", "--fidelity.sampling.guidance_scale", "2")
    grounding, fidelity = content["grounding"], content["fidelity"]
    assert {name: grounding[name] for name in ("every_n_images", "timesteps", "seed", "samples")} == {
        "every_n_images": 16,
        "timesteps": 40,
        "seed": 5,
        "samples": 3,
    }
    assert (fidelity["samples"], fidelity["sampling"]["steps"], fidelity["sampling"]["guidance_scale"]) == (9, 7, 2.0)


def test_null_turns_one_off_in_a_later_file_and_on_the_command_line(write, tmp_path, capsys):
    write(grounding={"every_n_images": 16}, gallery={"every_n_images": 16}, throughput={}, tradeoff={})
    later = tmp_path / "later.yaml"
    later.write_text("base: config.yaml\ngallery: null\n")
    content = printed(capsys, "-c", str(later), "--throughput", "null")
    assert [name for name in NAMED if content[name] is not None] == ["grounding", "tradeoff"]


def test_one_may_refer_to_another(write, capsys):
    file = write(grounding={"every_n_images": 16}, fidelity={"every_n_images": "${grounding.every_n_images}"})
    content = printed(capsys, "-c", str(file), "--grounding.every_n_images", "32")
    assert content["fidelity"]["every_n_images"] == 32
    code, _, err = call(capsys, "fit", "-c", str(file), "--grounding", "null")
    assert code == 2
    assert err.count("error: ") == 1
    assert "grounding.every_n_images" in err


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_help_lists_every_option_with_its_text(verb, capsys):
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert "--grounding.timesteps" in out
    assert "ow many of the paper's 40 timesteps" in " ".join(out.split())
    for option in ("fidelity.samples", "gallery.shown", "checkpoint.keep_all", "throughput.every_n_steps"):
        assert f"--{option} " in out


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--grounding.timestep", "4"],
            "--grounding.timestep is no option of grounding: did you mean --grounding.timesteps?",
        ),
        (["--grounding", "{every_n_images: 16, shown: 4}"], "Option 'shown' is not accepted"),
        (["--grounding.timesteps", "many"], "grounding.timesteps: "),
        (["--grounding.every_n_images", "0"], "must be positive"),
        (["--gallery.shown", "4"], "gallery: callbacks.AttentionGalleryCallback: the following arguments are required"),
        (["--fidelity", "{every_n_images: 16, weights: {inception: nowhere.pth}}"], "nowhere.pth"),
    ],
)
def test_a_wrong_option_is_one_sentence(write, capsys, arguments, words):
    code, _, err = call(capsys, "fit", "-c", str(write(grounding={"every_n_images": 16})), *arguments)
    assert code == 2
    assert err.count("error: ") == 1
    assert words in err
    assert "Union" not in err


def test_the_same_callback_by_name_and_in_the_list_is_refused(write, capsys):
    file = write(trainer={"callbacks": [LISTED]}, grounding={"every_n_images": 16})
    code, _, err = call(capsys, "fit", "-c", str(file))
    assert code == 2
    assert "grounding: stands here and as GroundingCallback in trainer.callbacks" in err
    assert call(capsys, "fit", "-c", str(file), "--grounding", "null", "--trainer.fast_dev_run", "1")[0] == 0


# ---- runs -----------------------------------------------------------------------------------------------------------


def columns(run: Path) -> set[str]:
    return set((run / "tradeoff.csv").read_text().splitlines()[0].split(","))


def rows(run: Path) -> list[str]:
    return (run / "tradeoff.csv").read_text().splitlines()[1:]


@pytest.fixture
def quick() -> dict[str, Any]:
    """Grounding and trade-off by name, twice in a run of four steps."""
    return {"grounding": {"every_n_images": 16, "timesteps": 1, "samples": 4}, "tradeoff": {"report": False}}


def test_by_name_and_by_list_give_the_same_run_and_resume_keeps_the_names(write, quick, tmp_path, capsys):
    file = write("named.yaml", **quick, checkpoint={"every_n_images": 16})
    assert call(capsys, "fit", "-c", str(file), "--name", "named")[0] == 0
    listed = [
        {"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 16}},
        {"class_path": "callbacks.GroundingCallback", "init_args": quick["grounding"]},
        {"class_path": "callbacks.TradeoffCallback", "init_args": quick["tradeoff"]},
    ]
    file = write("listed.yaml", trainer={"callbacks": listed})
    assert call(capsys, "fit", "-c", str(file), "--name", "listed")[0] == 0
    (named,), (listed_run,) = ((tmp_path / "runs" / name).iterdir() for name in ("named", "listed"))
    # the same operations in the same order: the rows are equal to the last digit
    assert (named / "tradeoff.csv").read_text() == (listed_run / "tradeoff.csv").read_text()
    assert len(rows(named)) == 3
    checkpoints = {path.name for path in (named / "checkpoints").glob("step-*.ckpt")}
    assert checkpoints == {path.name for path in (listed_run / "checkpoints").glob("step-*.ckpt")}
    assert checkpoints == {"step-00000002.ckpt", "step-00000004.ckpt"}

    saved = yaml.safe_load((named / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"] is None
    assert saved["grounding"]["timesteps"] == 1
    assert saved["fidelity"] is None
    assert call(capsys, "fit", "--resume", str(named), "--trainer.max_steps", "6", "--grounding.samples", "3")[0] == 0
    assert len(rows(named)) == 4
    assert yaml.safe_load((named / "config.yaml").read_text())["grounding"]["samples"] == 3


def test_validate_measures_and_predict_ignores(write, quick, tmp_path, capsys):
    file = write(**quick)
    assert call(capsys, "fit", "-c", str(file), "--grounding", "null", "--tradeoff", "null")[0] == 0
    (run,) = (tmp_path / "runs" / "t").iterdir()
    assert not (run / "tradeoff.csv").exists()
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    for verb in ("validate", "test"):
        code, _, err = call(capsys, verb, "-c", str(file), "--ckpt_path", checkpoint, "--name", verb)
        assert code == 0, err
    (validated,) = (tmp_path / "runs" / "validate").iterdir()
    assert "grounding/cnr" in columns(validated)

    # under predict nothing is evaluated, so nothing of it is checked either
    wrong = ["--grounding.every_n_images", "7", "--fidelity", "{every_n_images: 7, weights: {inception: nowhere.pth}}"]
    sampling = ["--model.sampling", '{"sampler": "ddim", "steps": 1, "guidance_scale": 1.0}']
    code, _, err = call(
        capsys, "predict", "-c", str(file), "--ckpt_path", checkpoint, "--name", "predict", *wrong, *sampling
    )
    assert code == 0, err
    (predicted,) = (tmp_path / "runs" / "predict").iterdir()
    assert not (predicted / "tradeoff.csv").exists()
    assert not (predicted / "grounding").exists()
