"""``lightning evaluate prototypes`` and ``shortcut`` as they are typed: price first, tables, pictures, the report, refusals."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from meddiff.cli.main import dispatch
from meddiff.cli.prototypes import coupled_pair
from meddiff.reports.page.report import write_report
from meddiff.runs.folder import read_run
from meddiff.runs.open_run import open_run
from meddiff.runs.tables import read_table
from tests.builders.command import call, write_fit
from tests.builders.patronus import PLAIN_UNET, PROTOTYPES
from tests.builders.tiny import make_shards

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import patronus_picture

SMALL = [f"--prototypes.{name}={value}" for name, value in
         {"samples": 60, "shown": 2, "views": 2, "steps": 2, "reconstructed": 2, "drawn": 3, "natural": 1}.items()]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Path, Path]:
    """Two runs of one step."""
    folder = tmp_path_factory.mktemp("prototypes")
    options = {"val": 2, "grounding": 10, "fidelity": 130, "normal": 0.0, "multiple": 1.0}
    coupled = ("pacemaker:cardiomegaly:0.9",)
    shards = make_shards(folder / "s", vae_folder, n=160, confounders=coupled, **options)
    found = []
    for name in ("biased", "balanced"):
        model = {"unet": PLAIN_UNET, "text_encoder": None, "vae": str(vae_folder), "prototypes": PROTOTYPES}
        config = write_fit(
            *(folder / f"{name}.yaml", shards, vae_folder, {"max_steps": 1}),
            checkpoint={"every_n_images": 8},
            model={"class_path": "lightning_modules.PatronusModule", "init_args": model},
            runs=str(folder / name),
        )
        assert dispatch(["fit", "-c", str(config)]) == 0
        found.append(next((folder / name / "t").iterdir()))
    return found[0], found[1]


def test_prototypes_are_measured_and_the_report_shows_them(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    code, out, err = call(capsys, "evaluate", "prototypes", "--run", str(run), *SMALL, "--device", "cpu")
    assert code == 0, err
    # 2 images x 2 steps x (3 + 2 prototypes), 9 drawings of 2 images, 3 pictures
    assert "prototypes: at most 62 U-Net evaluations, about" in out
    assert out.index("U-Net evaluations") < out.index("| latent_auroc |")
    found = read_run(run)
    assert found.problems == []
    assert len(found.evaluated("prototypes")) == 6
    folder = next((run / "evaluation").iterdir())
    rows = {row["metric"] for row in read_table(folder / "prototype_fidelity.csv")}
    assert rows == {"fd_conditional_heldout", "fd_cond_teststate", "fd_real_vs_real"}
    assert json.loads((folder / "evaluation.json").read_text())["parts"]["prototypes"]["steps"] == 2
    assert len(next(iter(found.prototype_views.values()))) == 2
    assert 'id="prototypes"' in write_report([run]).read_text()


def test_a_shortcut_is_measured_beside_a_balanced_run(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--shortcut.samples", "10", "--shortcut.steps", "2", "--device", "cpu"]
    code, out, err = call(capsys, "evaluate", "shortcut", "--run", str(runs[0]), "--balanced", str(runs[1]), *small)
    assert code == 0, err
    assert "shortcut: at most 160 U-Net evaluations" in out
    assert "| index | index |" in out
    rows = read_run(runs[0]).evaluated("shortcut")
    assert {row["of"] for row in rows} == {"scorers", "biased", "balanced", "index"}
    assert {(row["finding"], row["confounder"]) for row in rows} == {("Cardiomegaly", "pacemaker")}
    assert "Cardiomegaly is edited, pacemaker is looked for." in out
    assert 'id="shortcut"' in write_report([runs[0]]).read_text()


def test_what_edits_do_is_one_picture(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tools/patronus_picture.py: a row of images, one drawn again, two a concept; a concept without images is refused."""
    out = tmp_path / "edits.png"
    given = [str(runs[0]), "--images", "3", "--steps", "2", "--out", str(out)]
    assert patronus_picture.main([*given, "--concepts", "Cardiomegaly", "pacemaker"]) == 0
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet).astype(int)
    rows = [pixels[place : place + 96] for place in range(pixels.shape[0] % 100, pixels.shape[0] - 95, 100)]
    assert len(rows) == 6
    assert all(np.abs(one - other).mean() > 0.5 for one, other in pairwise(rows))
    assert patronus_picture.main([*given, "--concepts", "Hernia"]) == 2
    assert "Hernia" in capsys.readouterr().err


def drawn(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {file.name: np.array(Image.open(file)) for file in sorted(folder.glob("*.png"))}


def test_images_are_drawn_of_nothing_and_from_a_prior_and_no_prompt_is_ignored(
    runs: tuple[Path, Path], vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    shards = Path(str(read_run(run).setting("data", "init_args", "shards")))
    prior = write_fit(
        *(tmp_path / "prior.yaml", shards, vae_folder, {"max_steps": 1}),
        checkpoint={"every_n_images": 8},
        model={"class_path": "lightning_modules.PrototypePriorModule", "init_args": {"run": str(run), "width": 8}},
        runs=str(tmp_path / "runs"),
    )
    code, out, err = call(capsys, "fit", "-c", str(prior))
    assert code == 0, err
    assert "lightning sample" not in out, "a prior draws no images"
    trained = next((tmp_path / "runs" / "t").iterdir())
    few = ["--num_images", "3", "--steps", "2", "--device", "cpu"]
    for name, more in (("nothing", []), ("prior", ["--prior", str(trained)]), ("again", ["--prior", str(trained)])):
        batch = ["--batch_size", "1" if name == "again" else "3"]
        code, _, err = call(capsys, "sample", "--ckpt", str(run), "--out", str(tmp_path / name), *few, *batch, *more)
        assert code == 0, err
    nothing, first, again = (drawn(tmp_path / name) for name in ("nothing", "prior", "again"))
    assert len(first) == 3
    assert all(np.abs(first[name].astype(int) - again[name]).max() <= 2 for name in first)
    assert any((first[name] != nothing[name]).any() for name in first), "activations change the image"
    for more, words in (
        (["--prompts", "Edema."], "reads no text"),
        (["--prior", str(run)], "is no run of PrototypePriorModule"),
        (["--prior", str(trained), "--schedule", "uniform"], "do not go together"),
    ):
        code, _, err = call(capsys, "sample", "--ckpt", str(run), "--out", str(tmp_path / "no"), *few, *more)
        assert code == 2
        assert words in err
    assert not (tmp_path / "no").exists() or not list((tmp_path / "no").glob("*.png"))


def test_parts_that_go_by_words_are_left_out_of_all_and_refused_alone(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "evaluate", "alignment", "--run", str(runs[0]), "--device", "cpu")
    assert code == 2
    assert "reads no text, and words are needed for alignment" in err
    quick = '{"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0}'
    small = [part for group in ("fidelity", "coverage", "copies") for part in (f"--{group}.sampling", quick)]
    small += [part for group in ("fidelity", "coverage", "copies") for part in (f"--{group}.samples", "8")]
    out = str(tmp_path / "all")
    code, _, err = call(capsys, "evaluate", "all", "--run", str(runs[0]), "--out", out, *small, "--device", "cpu")
    assert code == 0, err
    about = json.loads((tmp_path / "all" / "evaluation.json").read_text())
    assert set(about["parts"]) == {"fidelity", "coverage", "copies"}


def test_the_pair_is_what_the_data_couple(runs: tuple[Path, Path]) -> None:
    assert coupled_pair(open_run(runs[0])) == ("Cardiomegaly", "pacemaker")


def test_refusals(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = str(runs[0])
    code, _, err = call(capsys, "evaluate", "prototypes", "--run", run, "--prior", run, "--device", "cpu")
    assert code == 2
    assert "is no run of PrototypePriorModule" in err
    code, _, err = call(capsys, "evaluate", "prototypes", "--run", run, "--prototypes.drawn", "100", "--device", "cpu")
    assert code == 2
    assert "set it to 65 or less, or to 0" in err
