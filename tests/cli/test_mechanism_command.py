"""``lightning evaluate mechanism`` as it is typed: all checkpoints of a run, or those that are named."""

from pathlib import Path

import pytest
import torch

from meddiff.cli.main import main
from meddiff.cli.mechanism import started_from
from meddiff.runs.folder import read_run
from meddiff.runs.kept_checkpoints import kept_checkpoints
from meddiff.runs.open_run import open_run
from meddiff.runs.tables import read_table
from tests.builders.command_runs import finish, write_config

SMALL = ["--mechanism.timesteps", "1", "--mechanism.samples", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """A run of 14 steps of 8 with a learnable tower, a checkpoint every third."""
    folder = tmp_path_factory.mktemp("mechanism_command")
    config = write_config(folder, shards, vae_folder, ranks=1, workers=0, frozen=False)
    finish(["-c", str(config)], folder / "keys", ranks=1)
    return next((folder / "runs" / "resume").iterdir())


def evaluate(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "mechanism", *arguments, "--device", "cpu"])
    return int(end.value.code or 0)


def test_all_that_was_kept_is_measured_and_the_report_reads_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--run", str(run), *SMALL) == 0
    printed = capsys.readouterr().out
    assert "| | 0 images | 24 images | 48 images | 72 images | 96 images | 112 images |" in printed
    rows = read_table(run / "evaluation" / "000000112" / "mechanism.csv")
    stages = {int(row["images"]): int(row["step"]) for row in rows}
    assert stages == {0: 0, 24: 3, 48: 6, 72: 9, 96: 12, 112: 14}
    assert list(stages)[1:] == [kept.images for kept in kept_checkpoints(run)[0]]
    moved = {int(row["images"]): float(row["value"]) for row in rows if row["figure"] == "moved/end"}
    assert moved[0] < 1e-6 < moved[24] < moved[112]
    assert read_run(run).mechanism() == rows
    assert read_run(run).problems == []


def test_a_drawn_tower_is_drawn_as_it_was_then(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the run's own seed (7), not from that of the process that evaluates: most rows no training has touched."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # that of the training, which ran in this process
    opened = open_run(run)
    before = started_from(opened)
    assert before is not None
    table, then = (one.text_encoder.token_table.weight.detach().flatten() for one in (opened.model, before))
    assert float(torch.cosine_similarity(table, then, dim=0)) > 0.99


def test_checkpoints_that_are_named_are_the_stages(run: Path, tmp_path: Path) -> None:
    named = [str(run / "checkpoints" / f"step-{step:08d}.ckpt") for step in (9, 3)]
    assert evaluate("--ckpt", *named, "--out", str(tmp_path / "out"), *SMALL) == 0
    rows = read_table(tmp_path / "out" / "mechanism.csv")
    assert list(dict.fromkeys(row["images"] for row in rows)) == ["0", "24", "72"]


def test_a_checkpoint_that_is_not_whole_is_refused_when_named_and_passed_over_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run / "checkpoints" / "step-00000003.ckpt"
    broken = whole.with_name("step-00000004.ckpt")
    broken.write_bytes(whole.read_bytes()[:1000])
    try:
        assert evaluate("--ckpt", str(whole), str(broken), "--out", str(tmp_path / "a"), *SMALL) == 2
        assert "step-00000004.ckpt is not a checkpoint of this suite" in capsys.readouterr().err
        kept, problems = kept_checkpoints(run)
        assert [one.step for one in kept] == [3, 6, 9, 12, 14]
        assert len(problems) == 1
    finally:
        broken.unlink()


def test_checkpoints_of_two_runs_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run / "checkpoints" / "step-00000003.ckpt"
    other = tmp_path / one.name
    other.write_bytes(one.read_bytes())
    assert evaluate("--ckpt", str(one), str(other), *SMALL) == 2
    assert "several folders" in capsys.readouterr().err
