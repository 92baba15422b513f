"""``lightning evaluate`` as it is typed: a run of a few steps, all parts, killed and continued, other settings refused."""

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.cli.main import main
from meddiff.common.findings import FINDINGS
from meddiff.evaluation.samples import evaluation_latents, grounding_samples
from meddiff.metrics.functional import contrast_to_noise_ratio
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.latent_diffusion import model_of
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.runs.open_run import open_run
from tests.builders.tiny import make_shards, model_config

TOKENIZER = ClipTokenizer()

#: Sizes at which every part takes seconds.
SMALL = [
    "--grounding.timesteps", "2",
    "--fidelity.samples", "4",
    "--diversity.prompts", "2", "--diversity.per_prompt", "2", "--diversity.paper_sets", "2",
    "--classifier.per_class", "1",
    "--coverage.samples", "6",
    "--copies.samples", "4",
    "--absent.samples", "4", "--absent.timesteps", "1",
    "--alignment.samples", "8",
    "--utility.samples", "4", "--utility.seeds", "1", "--utility.steps", "2", "--utility.side", "32",
    "--utility.fewest", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Path, list[str]]:
    """A run folder of three steps, and options that make its evaluation small."""
    folder = tmp_path_factory.mktemp("evaluate")
    shards = make_shards(folder / "shards", vae_folder, n=64, val=4, grounding=12, fidelity=24)
    torch.manual_seed(0)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, list(FINDINGS)), network, folder / "judge")
    model = {**model_config(vae_folder), "sampling": {"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0}}
    content = {
        "name": "small",
        "runs": str(folder / "runs"),
        "seed_everything": 5,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 3,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 8}}],
        },
        "model": {"class_path": "lightning_modules.LatentDiffusionModule", "init_args": model},
        "data": {
            "class_path": "datamodules.LatentShardsDataModule",
            "init_args": {"shards": str(shards), "batch_size": 8},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(folder / "config.yaml")])
    assert not end.value.code
    judge = str(folder / "judge")
    options = [*SMALL, "--alignment.classifier", judge]
    for part in ("coverage", "copies", "fidelity"):
        options += [f"--{part}.weights", json.dumps({"domain": judge})]
    options += ["--classifier.classifier", judge]
    return next((folder / "runs" / "small").iterdir()), options


def evaluate(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *arguments])
    return int(end.value.code or 0)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def evaluated(trained: tuple[Path, list[str]]) -> Path:
    """All parts, once."""
    run, options = trained
    assert evaluate("all", "--run", str(run), *options) == 0
    return run / "evaluation" / "000000024"


def test_all_parts_leave_their_tables(evaluated: Path) -> None:
    record = json.loads((evaluated / "evaluation.json").read_text())
    assert (record["model"], record["images"], record["seed"], record["prompt"]) == ("small", 24, 5, "impression")
    assert record["freeze_text_encoder"] is True
    assert set(record["parts"]) == {
        *("grounding", "words", "fidelity", "diversity", "classifier", "coverage", "copies", "absent"),
        *("alignment", "utility"),
    }
    assert set(json.loads((evaluated / "summary.json").read_text())) == set(record["parts"])
    for name in (
        *("grounding", "impressions", "words", "fidelity", "diversity", "classifier"),
        *("coverage", "copies", "absent", "alignment", "utility"),
    ):
        assert table(evaluated / f"{name}.csv"), name
    controls = {row["control"] for row in table(evaluated / "fidelity.csv")}
    assert controls == {"", "real_vs_real", "autoencoder", "noise", "untrained"}


def test_one_pass_gives_what_a_pass_of_its_own_gives(evaluated: Path, trained: tuple[Path, list[str]]) -> None:
    """Phrase by phrase, word groups alone: the CNR of the table is that of the plain pass."""
    run = open_run(trained[0])
    dataset, model = run.data.dataset("grounding"), model_of(run.module)
    samples, _ = grounding_samples(dataset, list(QUERY_WORDS))
    rows = {(row["key"], row["class"], row["phrase"]): row for row in table(evaluated / "grounding.csv")}
    assert len(rows) == len(samples)
    for sample in samples[:4]:
        query = query_tokens(TOKENIZER, sample.phrase, QUERY_WORDS[sample.label]).weights[None]
        item = GroundingItem(sample.key, evaluation_latents(dataset, sample.index, 0), sample.phrase, query)
        _, heat = next(mean_over_timesteps(grounding_pass(model, [item], paper_timesteps(2)), 2))
        full = torch.nn.functional.interpolate(heat[None], size=sample.size, mode="bilinear")[0]
        expected = float(contrast_to_noise_ratio(full, torch.from_numpy(sample.box_mask())[None]))
        assert float(rows[sample.key, sample.label, sample.phrase]["cnr"]) == pytest.approx(expected, abs=1e-4)


def test_words_of_a_phrase_are_all_there_with_sos_and_eos(evaluated: Path) -> None:
    phrases = table(evaluated / "grounding.csv")
    words = table(evaluated / "words.csv")
    for row in phrases[:3]:
        mine = [w for w in words if (w["key"], w["class"]) == (row["key"], row["class"])]
        named = [w["word"] for w in mine if w["variant"] == "all"]
        assert [*row["phrase"].split(), "SOS", "EOS"] == named
        assert float(mine[-1]["cnr"]) == pytest.approx(float(row["eos_cnr"]), abs=1e-5)


def test_a_stopped_pass_goes_on_and_ends_alike(
    evaluated: Path, trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """The ledger is cut in the middle of a line, as a kill leaves it."""
    shutil.copy(evaluated / "grounding.jsonl", tmp_path / "grounding.jsonl")
    whole = (tmp_path / "grounding.jsonl").read_bytes()
    (tmp_path / "grounding.jsonl").write_bytes(whole[: len(whole) // 2])
    options = ["--grounding.timesteps", "2", "--grounding.batch_size", "3"]
    assert evaluate("grounding", "--run", str(trained[0]), "--out", str(tmp_path), *options) == 0
    for name in ("grounding", "impressions", "words", "excluded"):
        ours, theirs = table(tmp_path / f"{name}.csv"), table(evaluated / f"{name}.csv")
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            for column, value in b.items():
                try:
                    assert float(a[column]) == pytest.approx(float(value), abs=2e-3)
                except ValueError:
                    assert a[column] == value


def test_what_is_done_is_not_done_again(evaluated: Path, trained: tuple[Path, list[str]]) -> None:
    before = (evaluated / "grounding.jsonl").stat().st_mtime_ns, (evaluated / "grounding.jsonl").read_bytes()
    assert evaluate("words", "--run", str(trained[0]), "--grounding.timesteps", "2") == 0
    assert (evaluated / "grounding.jsonl").read_bytes() == before[1]


def test_results_of_other_settings_are_never_mixed(
    evaluated: Path, trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("grounding", "--run", str(trained[0]), "--grounding.timesteps", "3") == 2
    assert "other settings (timesteps)" in capsys.readouterr().err


def test_tables_of_other_weights_do_not_get_into_the_folder(
    evaluated: Path, trained: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of the same name, seed and number of images, trained otherwise."""
    other = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    for file in (other / "checkpoints").glob("step-*.ckpt"):
        content = torch.load(file, weights_only=True)
        for value in content["state_dict"].values():
            value.mul_(1.01)
        torch.save(content, file)
    before = {path: path.read_bytes() for path in evaluated.iterdir() if path.is_file()}
    assert evaluate("fidelity", "--run", str(other), "--out", str(evaluated), *trained[1][-4:-2]) == 2
    assert "of another model or other data (weights)" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in evaluated.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --run"),
        (["--run", "nowhere"], "No checkpoint at nowhere"),
        (["--run", "nowhere", "--ckpt", "x.ckpt"], "either --run"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("grounding", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_a_part_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("groundin") == 2
    assert "grounding, words, fidelity" in capsys.readouterr().err


def test_the_paper_s_protocol_parses() -> None:
    from meddiff.cli.evaluate import ALIASES, parse

    options = parse(
        "all", ALIASES["all"], ["-c", str(Path(__file__).parents[2] / "configs" / "evaluation" / "paper.yaml")]
    )
    assert (options.fidelity.samples, options.fidelity.sampling.steps) == (5000, 75)
    assert options.classifier.sampling == options.fidelity.sampling
    assert options.grounding.timesteps == 40


def test_stopped_by_a_signal_it_says_how_to_go_on(trained, tmp_path, monkeypatch, capsys) -> None:
    run, options = trained
    plain = EvaluationWriter.part

    def part(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        plain(*arguments)  # type: ignore[arg-type]

    command = ("words", "--run", str(run), "--out", str(tmp_path / "out"), *options[:2])
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationWriter, "part", part)
        assert evaluate(*command) == 143
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "stopped: what was measured is kept, and the same command goes on from there"
    assert "Traceback" not in err
    assert evaluate(*command) == 0
