"""``lightning evaluate --model``: a published model gives what the same weights give through a run's checkpoint, has its own
row and point of the curve, and what does not fit is said before any weights are read."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import meddiff
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.findings import FINDINGS
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.sampling import SamplingOptions
from meddiff.reports.paper.pooling import group_models
from meddiff.runs.evaluation_folder import read_evaluation
from meddiff.shards.manifest import Manifest
from tests.builders.command import call
from tests.builders.original_files import ALL_TOKENS, write_original
from tests.builders.pipelines import edit_json, make_pipeline
from tests.builders.tiny import make_shards, make_vae, quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*of one that was never trained")
TWO_STEPS = ["--grounding.timesteps", "2"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers saves it; its autoencoder is that of ``vae_folder``."""
    return make_pipeline(tmp_path_factory.mktemp("hub") / "somebody-s-model", "sd1")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """Shards of 40 phantoms."""
    folder = tmp_path_factory.mktemp("cohort") / "shards"
    return make_shards(folder, vae_folder, n=40, val=2, grounding=10, fidelity=12)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, pipeline: Path, cohort: Path) -> Path:
    """The folder of an evaluation of all parts and the controls."""
    folder = tmp_path_factory.mktemp("measured")
    torch.manual_seed(0)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, list(FINDINGS)), network, folder / "judge")
    sampling = '{"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0}'
    small = ["--fidelity.weights", json.dumps({"domain": str(folder / "judge")}), "--fidelity.samples", "4"]
    small += ["--classifier.classifier", str(folder / "judge"), "--classifier.per_class", "1"]
    small += ["--diversity.prompts", "2", "--diversity.per_prompt", "2", "--diversity.paper_sets", "2"]
    groups = ("fidelity", "classifier", "diversity", "coverage", "copies", "alignment")
    small += [part for group in groups for part in (f"--{group}.sampling", sampling)]
    out = folder / "evaluation" / pipeline.name
    assert evaluate("all", pipeline, cohort, *TWO_STEPS, *small, "--out", str(out)) == 0
    assert evaluate("controls", pipeline, cohort, "--controls.timesteps", "2", "--out", str(out)) == 0
    return out


def evaluate(part: str, model: Path, shards: Path, *more: str) -> int:
    from meddiff.cli.main import dispatch

    return dispatch(["evaluate", part, "--model", str(model), "--shards", str(shards), "--device", "cpu", *more])


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_controls_of_one_of_many_runs_leave_the_networks_out_that_all_share(
    measured: Path, pipeline: Path, cohort: Path, tmp_path: Path
) -> None:
    brief = ["--controls.timesteps", "2", "--controls.networks", "false", "--out", str(tmp_path)]
    assert evaluate("controls", pipeline, cohort, *brief) == 0
    whole, part = ({row["control"]: row for row in table(folder / "controls.csv")} for folder in (measured, tmp_path))
    assert set(whole) - set(part) == {"untrained"}  # a published model has no base
    assert all(part[name]["cnr"] == whole[name]["cnr"] for name in part)


def ledger(out: Path) -> dict[str, dict[str, object]]:
    lines = (out / "grounding.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {one["address"]: one for one in found if "address" in one}


def numbers(entry: dict[str, object]) -> list[float]:
    row, words = entry["row"], entry["words"]
    assert isinstance(row, dict)
    assert isinstance(words, list)
    values = [*(row[name] for name in sorted(row)), *(value for _, _, value in words)]
    return [float(value) for value in values if isinstance(value, int | float)]


# ---- the same weights, the same figures -----------------------------------------------------------------------------


def test_the_grounding_is_that_of_the_same_weights_in_a_checkpoint(
    measured: Path, pipeline: Path, cohort: Path, tmp_path: Path
) -> None:
    """A run that started from the folder and learnt nothing (learning rate 0); control: a folder of other weights."""
    module = LatentDiffusionModule(
        unet=str(pipeline), text_encoder=str(pipeline), vae=str(pipeline), learning_rate=0.0, ema_decay=None
    )
    trainer = quiet_trainer(tmp_path, 1)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(cohort), batch_size=4))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    from meddiff.cli.main import dispatch

    own = ["evaluate", "grounding", "--ckpt", str(tmp_path / "own.ckpt"), "--shards", str(cohort), "--device", "cpu"]
    assert dispatch([*own, "--out", str(tmp_path / "own"), *TWO_STEPS]) == 0
    ours, theirs = ledger(tmp_path / "own"), ledger(measured)
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 5
    for address, entry in ours.items():
        np.testing.assert_allclose(numbers(theirs[address]), numbers(entry), atol=1e-5)
    other = make_pipeline(tmp_path / "other", "sd1", seed=1)
    assert evaluate("grounding", other, cohort, "--out", str(tmp_path / "control"), *TWO_STEPS) == 0
    control = ledger(tmp_path / "control")
    assert all(np.abs(np.subtract(numbers(control[a])[:3], numbers(ours[a])[:3])).max() > 1e-3 for a in ours)


def test_a_colleagues_single_file_takes_the_size_of_the_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An original checkpoint on shards that were made with the autoencoder in it; its name is the file's."""
    file = write_original(tmp_path / "colleague.ckpt", 1, vocabulary=ALL_TOKENS)
    shards = make_shards(tmp_path / "shards", file, n=10, val=1, grounding=6, fidelity=1)
    assert evaluate("grounding", file, shards, "--out", str(tmp_path / "out"), *TWO_STEPS) == 0
    assert "measured: v_prediction" in capsys.readouterr().err
    assert ledger(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (about["model"], about["checkpoint"]) == ("colleague", "colleague.ckpt")
    assert len(set(about["sha256"].values())) == 1, "all parts came out of one file"
    other = write_original(tmp_path / "other.ckpt", 1, seed=5, vocabulary=ALL_TOKENS)
    line = refused(capsys, "--model", str(other), "--shards", str(shards))
    assert "another autoencoder" in line
    assert "--resolution 64" in line


def test_what_is_recorded_of_it(measured: Path, pipeline: Path) -> None:
    import hashlib

    about = json.loads((measured / "evaluation.json").read_text())
    assert (about["model"], about["images"], about["published"]) == ("somebody-s-model", 0, True)
    assert about["freeze_text_encoder"] is None
    assert about["run"] == str(pipeline)
    assert set(about["parts"]) == {
        *("grounding", "words", "fidelity", "diversity", "classifier", "controls"),
        *("coverage", "copies", "absent", "alignment"),
    }
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    assert about["sha256"]["unet"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(about["sha256"]) == {"unet", "text_encoder", "vae"}
    controls = {row["control"] for row in table(measured / "controls.csv")}
    assert {"trained", "prior", "untrained", "absent_finding"} <= controls
    assert "base" not in controls


# ---- tables and report ----------------------------------------------------------------------------------------------


def test_tables_show_it_under_its_own_name(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "tables", str(measured), "--tables", "1", "4", "--format", "csv")
    assert code == 0
    heads = [line.split(",") for line in out.splitlines() if "somebody-s-model" in line]
    assert len(heads) >= 2
    _, out, _ = call(capsys, "tables", str(measured), "--tables", "1")
    assert "somebody-s-model: somebody-s-model as published, not trained here, U-Net sha256" in " ".join(out.split())


def test_the_report_draws_its_point_beside_runs(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = table(measured / "tradeoff.csv")
    assert (row["step"], row["images"]) == ("0", "0")
    summary = json.loads((measured / "summary.json").read_text())
    assert float(row["grounding/macro_cnr"]) == pytest.approx(summary["grounding"]["macro_cnr"], rel=1e-4)
    assert float(row["fidelity/fd_domain"]) == pytest.approx(summary["fidelity"]["fd_domain"], rel=1e-4)
    assert not [name for name in row if "impressions" in name]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: frozen\n")
    (run / "tradeoff.csv").write_text(
        "step,images,grounding/macro_cnr,fidelity/fd_domain\n0,0,0.1,9\n10,1000,0.5,4\n20,2000,0.9,2\n"
    )
    code, _, _ = call(capsys, "report", str(run), str(measured), "--out", str(tmp_path / "report.html"))
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    assert "frozen against somebody-s-model" in page
    assert "The trade-off over training" in page
    assert "4 in all" not in page
    assert "(3 + 1 in all)" in page
    assert "lightning evaluate all --model" in page


def test_published_models_do_not_collide(measured: Path, pipeline: Path, cohort: Path, tmp_path: Path) -> None:
    """One more of the same name in another folder, one of another name: three columns, three names."""
    same = shutil.copytree(pipeline, tmp_path / "mirror" / pipeline.name)
    other = make_pipeline(tmp_path / "sd-two", "sd1", seed=2)
    places = [measured]
    for number, model in enumerate((same, other)):
        places.append(tmp_path / f"evaluation-{number}")
        assert evaluate("grounding", model, cohort, "--out", str(places[-1]), *TWO_STEPS) == 0
    labels = [model.label for model in group_models([read_evaluation(place) for place in places])]
    assert len(set(labels)) == 3
    assert labels[2].startswith("sd-two")
    assert all(label.startswith("somebody-s-model") for label in labels[:2])
    assert "base" not in " ".join(labels)


def test_another_model_does_not_get_into_its_folder(
    measured: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_pipeline(tmp_path / "other", "sd1", seed=1)
    arguments = ("--model", str(other), "--shards", str(cohort), "--out", str(measured), *TWO_STEPS)
    code, _, err = call(capsys, "evaluate", "grounding", *arguments)
    assert code == 2
    assert "of another model or other data (weights)" in err


def test_it_goes_where_its_name_says_and_is_not_done_again(
    pipeline: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate("grounding", pipeline, cohort, *TWO_STEPS) == 0
    out = tmp_path / "evaluation" / "somebody-s-model"
    before = (out / "grounding.jsonl").read_bytes()
    assert evaluate("words", pipeline, cohort, *TWO_STEPS) == 0
    assert (out / "grounding.jsonl").read_bytes() == before


# ---- what does not fit ----------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, _, err = call(capsys, "evaluate", "grounding", *arguments)
    assert code == 2
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --run RUN"),
        (["--model", "a", "--run", "b"], "exactly one of them"),
        (["--model", "a", "--ckpt", "b"], "exactly one of them"),
        (["--ckpt", "b", "--text_encoder", "c"], "--text_encoder goes with --model"),
        (["--run", "b", "--prediction_type", "epsilon"], "--prediction_type goes with --model"),
        (["--model", "a"], "needs --shards"),
        (["--model", "nowhere", "--shards", "b"], "No model at nowhere"),
    ],
)
def test_one_of_three_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *arguments)


def test_shards_of_another_autoencoder_come_with_the_command_that_mends_it(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is typed as it is printed; control: before, the same evaluation is refused."""
    from meddiff.cli.main import dispatch

    monkeypatch.chdir(tmp_path)
    other, place = make_vae(tmp_path / "other vae", seed=5), "my shards; touch x"
    make_shards(Path(place), other, n=16, val=2, grounding=8, fidelity=2)
    options = ["--n", "16", "--val=2", "--grounding", "8", "--fidelity", "2", "--resolution=64", "--processes", "1"]
    command = ["lightning", "prepare", "phantom", *options, "--vae", str(other), "--out", place]
    edit_json(Path(place) / "manifest.json", command=shlex.join(command))
    line = refused(capsys, "--model", str(pipeline), "--shards", place, *TWO_STEPS)
    assert "made with another autoencoder" in line
    found = re.search(r"with: (lightning prepare .*)$", line)
    assert found is not None
    words = shlex.split(found[1])
    assert not any(word == ";" for word in words)
    assert dispatch(words[1:]) == 0
    made = words[words.index("--out") + 1]
    assert Manifest.read(made).options == Manifest.read(place).options
    assert evaluate("grounding", pipeline, Path(made), *TWO_STEPS) == 0
    assert not (tmp_path / "x").exists()
    # the same autoencoder with another scale is another one
    scaled = shutil.copytree(pipeline, tmp_path / "scaled")
    edit_json(scaled / "vae" / "config.json", scaling_factor=0.13025)
    assert "scaling_factor 0.18215, the model's is 0.13025" in refused(capsys, "--model", str(scaled), "--shards", made)


def test_shards_of_another_size(
    pipeline: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = shutil.copytree(pipeline, tmp_path / "large")
    edit_json(large / "unet" / "config.json", sample_size=16)
    for file in large.rglob("unet/*.safetensors"):
        file.write_bytes(b"never read")
    line = refused(capsys, "--model", str(large), "--shards", str(cohort))
    assert "images of 64 px, the model takes 128 px" in line
    assert "--resolution 128" in line
    assert "prepare phantom" in line
    assert "--n 40" in line, "the cohort's own options, where no command is known"


def test_what_needs_more_than_text_is_refused_here_too(
    pipeline: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inpainting = shutil.copytree(pipeline, tmp_path / "inpainting")
    edit_json(inpainting / "unet" / "config.json", in_channels=9)
    assert "9 input channels" in refused(capsys, "--model", str(inpainting), "--shards", str(cohort))
    bare = shutil.copytree(pipeline, tmp_path / "bare", ignore=shutil.ignore_patterns("vae"))
    assert "has no autoencoder" in refused(capsys, "--model", str(bare), "--shards", str(cohort))
    line = refused(capsys, "--model", str(pipeline), "--shards", str(cohort), "--grounding.ema", "true")
    assert "keeps no EMA" in line
    assert not (tmp_path / "evaluation").exists()


def test_shards_of_another_autoencoder_are_refused_of_a_run_too(
    pipeline: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = LatentDiffusionModule(unet=str(pipeline), text_encoder=str(pipeline), vae=str(pipeline), ema_decay=None)
    trainer = quiet_trainer(tmp_path, 1)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(cohort), batch_size=4))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    other = make_shards(tmp_path / "other", make_vae(tmp_path / "vae", seed=5), n=8, val=1, grounding=4, fidelity=1)
    line = refused(capsys, "--ckpt", str(tmp_path / "own.ckpt"), "--shards", str(other))
    assert "another autoencoder" in line
    line = refused(capsys, "--model", str(tmp_path / "own.ckpt"), "--shards", str(cohort))
    assert "is a checkpoint of this suite: give it as --ckpt" in line


# ---- drawing --------------------------------------------------------------------------------------------------------


def test_sample_draws_from_it_what_python_draws(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn"
    quick = ["--sampler", "ddim", "--steps", "2", "--guidance_scale", "2.0"]
    arguments = ("--model", str(pipeline), "--prompts", "Edema.", *quick, "--device", "cpu", "--out", str(out))
    code, _, err = call(capsys, "sample", *arguments)
    assert code == 0, err
    drawn = np.asarray(Image.open(out / "0000-000.png"), int)
    (image,) = meddiff.load(pipeline, device="cpu").sample("Edema.", 0, SamplingOptions("ddim", 2, 2.0))
    np.testing.assert_allclose(np.asarray(image, int), drawn, atol=1)
    other = meddiff.load(make_pipeline(tmp_path / "other", "sd1", seed=1), device="cpu")
    (image,) = other.sample("Edema.", 0, SamplingOptions("ddim", 2, 2.0))
    assert np.abs(np.asarray(image, int) - drawn).max() > 1
    code, _, err = call(capsys, "sample", "--prompts", "Edema.", "--out", str(tmp_path / "none"))
    assert (code, "Give --ckpt FILE or --model" in err) == (2, True)
