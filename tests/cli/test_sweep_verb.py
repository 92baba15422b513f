"""``lightning sweep`` over ``lightning fit``: refusals before any run, and small real trainings to the report."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from meddiff.cli.sweep_settings import Checker
from meddiff.runs.tables import read_table
from tests.builders.command import call, write_fit
from tests.builders.sweeps import command, events, folders, wait_for


def write(folder: Path, config: str, parameters: dict[str, object], **keys: object) -> Path:
    content = {
        "name": "trial",
        "method": "grid",
        "parameters": {name: {"values": values} for name, values in parameters.items()},
        "command": [sys.executable, "-m", "meddiff", "fit", "-c", config, "${args}"],
        **keys,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_what_the_command_does_not_take_is_said_before_any_run(tmp_path, shards, vae_folder, capfd):
    """A sentence for each; the good values beside them have not begun."""
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder)
    wrong: dict[str, object] = {
        "trainer.max_steps": [4, "many", 5, 6],
        "data.prompt": ["label", "impression", "haiku", "mixed"],
        "data.shards": [str(shards), str(shards), str(shards), "nowhere"],
    }
    file = write(tmp_path, str(config), wrong)
    code, _, err = call(capfd, "sweep", str(file), "--runs", str(tmp_path))
    assert code == 2
    sentences = err[err.index("error:") :].removeprefix("error: ").splitlines()
    for sentence, name in zip(sentences, ("max_steps", "prompt", "no latent shards at nowhere"), strict=True):
        assert sentence.strip().startswith(f"{file}: ")
        assert name in sentence
    assert "Traceback" not in err
    assert not (tmp_path / "trial").exists()


def test_a_name_that_the_command_does_not_have_is_one_sentence(tmp_path, shards, vae_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning"])
    config, checker = write_fit(tmp_path / "c.yaml", shards, vae_folder), Checker()
    command = ["fit", "-c", str(config), "--seed_everything=1"]
    (sentence,) = checker.problems_of([*command, "--model.lerning_rate=1"])
    assert "lerning_rate" in sentence
    assert not checker.problems_of(command)  # one refusal spoils nothing
    (sentence,) = checker.problems_of([*command, "--model.learning_rate=fast"])
    assert "learning_rate" in sentence
    assert not checker.problems_of(["report", "x"])
    assert not list(tmp_path.glob("runs*"))
    assert "error:" not in capsys.readouterr().err


def test_a_verb_that_leaves_no_mark_is_refused(tmp_path, capfd):
    file = write(tmp_path, "c.yaml", {"a": [1]}, command=["lightning", "validate", "${args}"])
    code, _, err = call(capfd, "sweep", str(file), "--runs", str(tmp_path))
    assert code == 2
    assert "name that verb" in err


@pytest.mark.parametrize("options", [["--jobs", "0"], ["--jobs", "two"], ["--seed", "x"], []])
def test_wrong_options_are_one_sentence(options, capfd):
    file = ["nowhere.yaml"] if options else []
    code, _, err = call(capfd, "sweep", *file, *options)
    assert code == 2
    assert err.count("error: ") == 1
    assert len(err.strip().splitlines()) == 1


def test_a_key_twice_is_refused(tmp_path, capfd):
    file = tmp_path / "s.yaml"
    file.write_text("method: grid\nprogram: t.py\nprogram: u.py\nparameters: {a: {values: [1]}}\n")
    code, _, err = call(capfd, "sweep", str(file))
    assert code == 2
    assert "`program` twice (lines 2 and 3)" in err


@pytest.mark.slow
def test_trainings_that_are_killed_end_in_one_table_and_one_report(tmp_path, shards, vae_folder):
    """Three rates, two at a time; runner and one training are killed; the third rate cannot train (a minute)."""
    sections = {"every_n_images": 16}
    config = write_fit(
        tmp_path / "c.yaml", shards, vae_folder, {"max_steps": 20},
        checkpoint=sections, grounding={"every_n_images": 80, "samples": 4, "timesteps": 2}, tradeoff={},
    )  # fmt: skip
    file = write(
        tmp_path, str(config), {"model.learning_rate": [1e-3, 1e30, 2e-3], "model.stop_after_skipped_steps": [1]},
        metric={"name": "grounding/macro_cnr", "goal": "maximize"},
    )  # fmt: skip
    first = command(file, "--jobs", "2")
    wait_for(lambda: any((one / "checkpoints").is_dir() for one in folders(file)), "a checkpoint")
    first.kill()
    first.wait()
    os.killpg(int(str(next(one["pid"] for one in events(file) if one["event"] == "process"))), signal.SIGKILL)
    second = command(file, "--jobs", "2")
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 1, said
    ends = {str(one["number"]): str(one["state"]) for one in events(file) if one["event"] == "ended"}
    assert ends == {"1": "finished", "2": "failed", "3": "finished"}, said
    assert "error: 1 of 3 runs failed" in said
    for folder in (folders(file)[0], folders(file)[2]):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "train/loss" in row] == list(range(20))
    table = read_table(tmp_path / "trial" / "rows.csv")
    assert [row["state"] for row in table] == ["finished", "failed", "finished"]
    assert table[0]["images"] == "160"
    assert float(table[0]["best grounding/macro_cnr"]) >= float(table[0]["grounding/macro_cnr"])
    page = (tmp_path / "trial" / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert all(folder.name in page for folder in (folders(file)[0], folders(file)[2]))
