"""``lightning explain`` as it is typed: a cohort, one image, drawn images; its cost, its budget, its refusals."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.cli.explain import Clock, within
from meddiff.cli.explain_one import spread
from meddiff.evaluation.saliency import Saliency
from meddiff.evaluation.saliency_units import SaliencyOptions
from meddiff.runs.folder import read_run
from meddiff.runs.open_run import open_run
from tests.builders.command import call, write_fit

SMALL = ["--samples", "2", "--timesteps", "2", "--shown", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """A run of one step."""
    from meddiff.cli.main import dispatch

    folder = tmp_path_factory.mktemp("explained")
    config = write_fit(folder / "fit.yaml", shards, vae_folder, {"max_steps": 1}, checkpoint={"every_n_images": 8})
    assert dispatch(["fit", "-c", str(config)]) == 0
    return next((folder / "runs" / "t").iterdir())


def test_a_cohort_is_explained_and_the_report_finds_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "explain", "--run", str(run), *SMALL, "--tools", "attention,concept,relevance")
    assert code == 0, err
    assert "U-Net evaluations, about" in out
    assert out.index("U-Net evaluations") < out.index("| timestep |")
    found = read_run(run)
    assert found.problems == []
    assert {row["tool"] for row in found.saliency()} == {
        "attention", "end_token", "untrained", "concept", "relevance", "prior",
    }  # fmt: skip
    assert {row["tokens"] for row in found.saliency("_relevance")} >= {"finding", "function", "end", "padding"}
    assert {row["tool"] for row in found.saliency("_games")} >= {"random", "centre", "attention"}
    entries = next(iter(found.saliency_maps.values()))
    assert {one["tool"] for one in entries} == {"attention", "end_token", "concept", "relevance"}
    folder = next((run / "evaluation").iterdir())
    about = json.loads((folder / "evaluation.json").read_text())
    assert about["parts"]["saliency"]["timesteps"] == 2
    assert (folder / "figures" / "attention_phrases_by_timestep.png").is_file()


def test_a_budget_that_is_too_short_is_kept_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_run(run, device="cpu")
    split = opened.data.dataset("grounding")
    every = Saliency(SaliencyOptions(samples=8, timesteps=1))
    clock = Clock(1e6)
    assert within(every, opened, split, clock) is every
    capsys.readouterr()
    cut = Clock(1e6)
    cut.left = lambda: 1e-9  # type: ignore[method-assign]  # nearly nothing is left
    fewer = within(every, opened, split, cut)
    said = capsys.readouterr().out
    assert re.search(r"1 of [678] phrases are asked", said)
    assert "the others are left out" in said
    assert len(fewer.samples(split)) == 1


def test_one_image_and_drawn_ones(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 64), np.uint8)).save(image)
    tools = ["--tools", "attention,df_cam,relevance", "--device", "cpu"]
    one = ["--image", str(image), "--text", "Small left effusion.", "--timesteps", "2", "--out", str(tmp_path / "one")]
    code, _, err = call(capsys, "explain", "--run", str(run), *tools, *one)
    assert code == 0, err
    assert {file.name for file in (tmp_path / "one").iterdir()} == {"image.png", "image.gif", "image-layers.png"}
    with Image.open(tmp_path / "one" / "image.gif") as strip:
        assert strip.n_frames == 2  # type: ignore[attr-defined]
    schedules = ["--schedule", "uniform,exponential_early", "--gamma", "60", "--timesteps", "3"]
    drawn = ["--prompts", "A dog on a chair.", "Small left effusion.", *schedules, "--out", str(tmp_path / "drawn")]
    code, _, err = call(capsys, "explain", "--run", str(run), *tools, *drawn)
    assert code == 0, err
    for said in ("drawing images, uniform", "looking into images, exponential_early", "relevance of words"):
        assert f"{said}: 100%" in err  # nothing is silent
    files = {file.name for file in (tmp_path / "drawn").iterdir()}
    assert files >= {"schedules.png", "prompts-uniform.png", "0001-exponential_early.gif", "0000-uniform.safetensors"}
    curves = (tmp_path / "drawn" / "relevance_by_word.svg").read_text()
    assert all(word in curves for word in ("3. on", "5. chair.", "3. effusion.", "A dog on a chair."))
    with (tmp_path / "drawn" / "relevance_by_role.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    measured = {(row["schedule"], row["role"]): row for row in rows if row["source"] == "measured"}
    assert {role for _, role in measured} >= {"subject", "relation", "object", "finding", "place"}
    assert float(measured["uniform", "subject"]["number"]) == 3  # one prompt, three steps
    published = [row for row in rows if row["source"].startswith("published")]
    assert {row["role"] for row in published} == {"subject", "relation", "object"}


def test_the_same_command_goes_on_with_what_is_not_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One picture lost, one damaged, one prompt more: these are made, and the others keep their files."""
    out = tmp_path / "drawn"

    def explain(*prompts: str, seed: str = "0") -> set[str]:
        """Which images were made."""
        before = {file.name: file.stat().st_mtime_ns for file in out.glob("0*-uniform.png")}
        given = ["--tools", "attention", "--timesteps", "2", "--seed", seed, "--device", "cpu", "--out", str(out)]
        code, said, err = call(capsys, "explain", "--run", str(run), *given, "--prompts", *prompts)
        assert code == 0, err
        made = {file.name for file in out.glob("0*-uniform.png") if before.get(file.name) != file.stat().st_mtime_ns}
        assert ("explain: 0 U-Net evaluations" in said) == (not made)
        return made

    three = ("Small left effusion.", "Edema.", "No effusion.")
    named = [f"000{place}-uniform.png" for place in range(4)]
    assert explain(*three) == set(named[:3])
    whole = {name: np.asarray(Image.open(out / name)).astype(int) for name in named[:3]}
    (out / named[0]).unlink()
    (out / "0001-uniform.safetensors").write_bytes(b"cut")
    assert explain(*three) == set(named[:2])
    for name, pixels in whole.items():  # fewer in a batch are the same pictures but for rounding
        assert np.abs(np.asarray(Image.open(out / name)).astype(int) - pixels).mean() < 0.5
    assert explain(*three, "Large right effusion.") == {named[3]}
    assert explain(*three, "Large right effusion.") == set()
    assert explain("Edema.", *three[1:]) == {named[0]}
    assert explain(*three, seed="1") == set(named[:3])  # other settings are never taken for these


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tools", "magic"], "tools are magic: name one or several of attention"),
        (["--image", "x.png"], "--image needs --text"),
        (["--text", "edema"], "--text goes with --image"),
        (["--budget", "0"], "--budget is 0.0; it is a number of seconds above 0"),
        (["--prompts", "edema", "--schedule", "early"], "--schedule is 'early'"),
        (["--prompts", "edema", "--schedule", "exponential_early", "--gamma", "0.01", "--timesteps", "30"], "twice"),
        (["--timesteps", "99"], "timesteps"),
    ],
)
def test_what_is_refused_before_anything_is_read(
    more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "explain", "--run", str(tmp_path / "nothing"), *more)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_images_along_a_schedule_are_not_taken_for_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["sample", "--ckpt", str(run), "--prompts", "edema", "--steps", "3", "--out", str(tmp_path / "out")]
    early = ["--schedule", "exponential_early", "--gamma", "60"]
    assert call(capsys, *usual, *early)[0] == 0
    settings = json.loads((tmp_path / "out" / "samples.json").read_text())["settings"]
    assert settings["timesteps"][0] == 999
    assert settings["sampler"] == "ddim"
    code, _, err = call(capsys, *usual)
    assert code == 2
    assert "schedule" in err
    code, _, err = call(capsys, *usual[:-1], str(tmp_path / "other"), *early[:2], "--gamma", "0.01", "--steps", "30")
    assert code == 2
    assert "twice: take gamma" in err


def test_the_tables_are_small(run: Path) -> None:
    with next((run / "evaluation").glob("*/saliency_when.csv")).open() as stream:
        assert all(row["tool"] for row in csv.DictReader(stream))


def test_places_are_spread_with_both_ends() -> None:
    assert spread(30, 4) == [0, 10, 19, 29]
    assert spread(3, 8) == [0, 1, 2]
