"""16 and 4 real processes (gloo, a tiny model) do what one does. Minutes: each imports torch on its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from meddiff.common.findings import FINDINGS
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.runs.checkpoints import find_checkpoint, read_checkpoint
from meddiff.shards.manifest import Manifest
from tests.builders.children import ROOT, environment
from tests.builders.command_runs import finish, write_config
from tests.builders.rank_program import run_on_ranks, seen
from tests.builders.tiny import make_shards

pytestmark = pytest.mark.slow
RANKS, BATCH, STEPS, KILLED = 16, 32, 6, 3


def keys(folder: Path, name: str, ranks: int) -> list[list[str]]:
    """What each step trained on, in the order of the stream: ranks lie side by side."""
    shares = [seen(folder, name, rank)["keys"] for rank in range(ranks)]
    return [[key for share in shares for key in share[step]] for step in range(min(map(len, shares)))]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("many") / "shards", vae_folder, n=60, val=4, grounding=16, fidelity=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cohort: Path, vae_folder: Path) -> Path:
    """On 16: a run to its end, and one of whose processes the sixth is killed in the middle of a pass; that one resumed on
    16 and on 4; the first step on one process."""
    place = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, list(FINDINGS)), network, place / "classifier")
    rest = {"strategy": "ddp", "batch": BATCH, "steps": STEPS}
    measured = {"ground": True, "classifier": str(place / "classifier"), **rest}
    died = run_on_ranks(
        RANKS,
        place,
        cohort,
        vae_folder,
        {"name": "whole", **measured},
        {"name": "killed", "dies": [5, KILLED], **rest},
        dies=True,
    )
    (place / "died.txt").write_text(died.stderr)
    resume = {"resume": "killed/step-00000002.ckpt"}
    run_on_ranks(RANKS, place, cohort, vae_folder, {"name": "on-16", **resume, **rest})
    four = {"batch": BATCH, "steps": 3}
    run_on_ranks(
        4,
        place,
        cohort,
        vae_folder,
        {"name": "on-4", **resume, **rest},
        {"name": "ddp-4", "strategy": "ddp", "frozen": False, **four},
        {"name": "pieces-4", "frozen": False, "ground": True, **four},
        {"name": "frozen-pieces-4", **four},
        {"name": "frozen-ddp-4", "strategy": "ddp", **four},
        {"name": "pieces-4-on", "resume": "pieces-4/step-00000002.ckpt", "frozen": False, **four},
    )
    run_on_ranks(1, place, cohort, vae_folder, {"name": "one", **(measured | {"steps": 1})})
    return place


def test_every_sample_once_in_each_pass_over_the_stream(folder: Path, cohort: Path) -> None:
    stream = [key for step in keys(folder, "whole", RANKS) for key in step]
    assert len(stream) == STEPS * BATCH
    n = Manifest.read(cohort).samples("train")
    passes = [stream[i : i + n] for i in range(0, len(stream) - n + 1, n)]
    assert len(passes) >= 3
    for one in passes:
        assert len(set(one)) == n
    assert passes[0] != passes[1]  # the control: another order, so that this is no list read again
    assert {len(seen(folder, "whole", rank)["keys"][0]) for rank in range(RANKS)} == {BATCH // RANKS}


def test_the_gradient_is_that_of_one_process(folder: Path) -> None:
    many, one = (torch.load(folder / name / "gradients.pt", weights_only=True) for name in ("whole", "one"))
    assert many.keys() == one.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    for name, value in one.items():
        assert float((many[name] - value).abs().max()) <= 1e-5 * largest, name
    # the control: one rank's own losses are not the mean of all
    losses = [seen(folder, "whole", rank)["losses"][0] for rank in range(RANKS)]
    assert sum(losses) / RANKS == pytest.approx(seen(folder, "one")["losses"][0], abs=1e-5)
    assert max(losses) - min(losses) > 1e-3


def test_measurements_are_those_of_one_process(folder: Path) -> None:
    """Of the weights before training: five images and three phrases for sixteen processes, so most have nothing to do."""
    for side in ("fidelity_first", "grounding_first"):
        (many,), (one,) = seen(folder, "whole")[side], seen(folder, "one")[side]
        assert one
        assert many == pytest.approx(one, rel=1e-4, abs=1e-5, nan_ok=True)


def test_one_killed_the_others_end_with_a_sentence(folder: Path) -> None:
    told = (folder / "died.txt").read_text()
    assert "Another process of this training has ended" in told
    assert "lightning fit --resume" in told
    assert "Connection closed by peer" not in told.replace("Another process", "")
    trained = [len(seen(folder, "killed", rank)["keys"]) for rank in range(RANKS)]
    assert max(trained) <= KILLED + 1


def test_resumed_on_16_equals_uninterrupted(folder: Path) -> None:
    whole = keys(folder, "whole", RANKS)
    assert keys(folder, "killed", RANKS)[:KILLED] == whole[:KILLED]
    assert keys(folder, "on-16", RANKS) == whole[2:]
    assert whole[2:] != whole[: len(whole) - 2]  # the control: a stream begun anew would not pass
    a, b = (read_checkpoint(folder / name / f"step-{STEPS:08d}.ckpt") for name in ("whole", "on-16"))
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], value, rtol=0, atol=1e-6, msg=name)
    for name, value in a["ema"]["shadow"].items():
        torch.testing.assert_close(b["ema"]["shadow"][name], value, rtol=0, atol=1e-6, msg=name)


def test_resumed_on_4_the_stream_goes_on(folder: Path) -> None:
    assert keys(folder, "on-4", 4) == keys(folder, "whole", RANKS)[2:]


def test_pieces_on_4(folder: Path) -> None:
    for kind in ("", "frozen-"):
        for rank in range(4):
            expected = seen(folder, f"{kind}ddp-4", rank)["losses"]
            assert seen(folder, f"{kind}pieces-4", rank)["losses"] == pytest.approx(expected, abs=1e-5)
    expected = seen(folder, "pieces-4")["losses"]
    assert seen(folder, "pieces-4-on")["losses"] == pytest.approx(expected[2:], abs=1e-6)
    assert len(list((folder / "pieces-4" / "step-00000003.ckpt").glob("*.distcp"))) == 4


@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_the_command_ends_with_a_sentence_and_goes_on(
    tmp_path: Path, shards: Path, vae_folder: Path, launcher: str
) -> None:
    config = write_config(tmp_path, shards, vae_folder, 2, 0, True, max_steps=100_000)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *(torchrun if launcher == "torchrun" else []), "-m", "meddiff", "fit", "-c", str(config)]
    record = tmp_path / "keys"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"KEY_RECORD": str(record)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not Path(f"{record}.1").is_file() or len(Path(f"{record}.1").read_text().splitlines()) < 5:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.kill(process_of_rank(1, record), 9)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "error: Another process of this training has ended" in output
    assert "--resume" in output
    (run,) = (tmp_path / "runs" / "resume").iterdir()
    assert find_checkpoint(run, to_train=True).name == "step-00000003.ckpt"
    finish(["--resume", str(run), "--trainer.max_steps", "6"], tmp_path / "on", 2)
    assert find_checkpoint(run, to_train=True).name == "step-00000006.ckpt"


def process_of_rank(rank: int, record: Path) -> int:
    """The process that trains as ``rank``, told by its environment."""
    wanted = {f"LOCAL_RANK={rank}", f"KEY_RECORD={record}"}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted <= environ and b"fit" in command:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")
