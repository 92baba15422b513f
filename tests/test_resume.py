"""Kill -9 in the middle of an epoch, go on, and end with the same bits as if nothing had happened."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from meddiff.runs.checkpoints import Checkpoint
from tests.builders.command_runs import STEPS, finish, start, write_config
from tests.builders.tiny import model_config

KILL_AFTER = 7  # of 14 steps: between two checkpoints, in the middle of an epoch


def kill_in_the_middle(arguments: list[str], record: Path) -> None:
    """SIGKILL to every process of the run once step KILL_AFTER has been trained."""
    process = start(arguments, record)
    first = Path(f"{record}.0")
    deadline = time.monotonic() + 300
    while not (first.is_file() and len(first.read_text().splitlines()) >= KILL_AFTER):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def steps(record: Path, ranks: int) -> dict[int, list[object]]:
    """step -> what each rank trained on; a step trained twice keeps the last record."""
    found: dict[int, list[object]] = {}
    for rank in range(ranks):
        for line in Path(f"{record}.{rank}").read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row["step"], [None] * ranks)[rank] = (row["epoch"], row["keys"])
    return found


def run_folder(folder: Path) -> Path:
    (only,) = (folder / "runs" / "resume").iterdir()
    return only


def last_checkpoint(folder: Path) -> Checkpoint:
    path = run_folder(folder) / "checkpoints" / f"step-{STEPS:08d}.ckpt"
    return torch.load(path, weights_only=True)


def assert_equal(a: object, b: object, where: str = "") -> None:
    """Bit for bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, f"{where}: {a} != {b}"


def initial_state(vae: Path) -> dict[str, torch.Tensor]:
    """The weights every run of this file starts from."""
    from lightning_modules import LatentDiffusionModule

    module = LatentDiffusionModule(**model_config(vae, init_seed=7))
    module.configure_model()
    return module.state_dict()


#: ranks, workers, frozen: each value of each once; all the other combinations are slow.
CASES = [(1, 2, True), (2, 0, False)]
OTHERS = [(r, w, f) for r in (1, 2) for w in (0, 2) for f in (True, False) if (r, w, f) not in CASES]


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path
) -> Callable[[int, int, bool], Path]:
    """Ranks, workers, frozen -> the folder of a training that nobody stopped, trained when it is first asked for."""

    @cache
    def whole(ranks: int, workers: int, frozen: bool) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "run"
        config = write_config(folder, shards, vae_folder, ranks, workers, frozen)
        finish(["-c", str(config)], folder / "keys", ranks)
        return folder

    return whole


@pytest.mark.parametrize(
    ("ranks", "workers", "frozen"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, shards, vae_folder, uninterrupted, ranks, workers, frozen):
    whole, broken = uninterrupted(ranks, workers, frozen), tmp_path / "broken"
    config = write_config(broken, shards, vae_folder, ranks, workers, frozen)
    kill_in_the_middle(["-c", str(config)], broken / "keys")
    killed_at = max(steps(broken / "keys", ranks))
    assert KILL_AFTER <= killed_at < STEPS
    for rank in range(ranks):
        (broken / f"keys.{rank}").rename(broken / f"before.{rank}")
    finish(["--resume", str(run_folder(broken))], broken / "keys", ranks)

    expected, resumed = steps(whole / "keys", ranks), steps(broken / "keys", ranks)
    before = steps(broken / "before", ranks)
    assert sorted(expected) == list(range(1, STEPS + 1))
    assert min(resumed) > 1, "the resumed run began again"
    assert sorted(resumed) == list(range(min(resumed), STEPS + 1))
    assert min(resumed) <= killed_at + 1
    assert all(expected[step] == seen for step, seen in resumed.items())
    assert all(expected[step] == seen for step, seen in before.items() if None not in seen)
    # The control: an epoch's keys differ from the next one's, so equality is no accident.
    assert expected[1] != expected[7]

    a, b = last_checkpoint(whole), last_checkpoint(broken)
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "captions"):
        assert_equal(a[part], b[part], part)
    assert a["LatentShardsDataModule"] == b["LatentShardsDataModule"]
    assert a["ema"]["updates"] == STEPS
    averaged = any(name.startswith("text_encoder") for name in a["ema"]["shadow"])
    assert averaged is not frozen
    assert [group["name"] for group in a["optimizer_states"][0]["param_groups"]] == ["unet", "text_encoder"][
        : 2 - frozen
    ]
    start = initial_state(vae_folder)
    for name, value in a["state_dict"].items():
        # Frozen: every bit of the tower as it was drawn; learnable: no tensor of it left alone; the U-Net always moves.
        if name.startswith("model.text_encoder"):
            assert torch.equal(value, start[name]) is frozen, name
    assert any(not torch.equal(v, start[n]) for n, v in a["state_dict"].items() if n.startswith("model.unet"))

    def curve(folder: Path) -> list[tuple[object, ...]]:
        rows = map(json.loads, (run_folder(folder) / "metrics.jsonl").read_text().splitlines())
        return [(r["step"], r["images"], r.get("train/loss"), r.get("val/loss")) for r in rows]

    assert curve(whole) == curve(broken)


def test_ranks_and_accumulation_train_on_the_same_images(tmp_path, shards, vae_folder, uninterrupted):
    """Global batch b is the same set of images for 1 rank, 2 ranks, and 2 accumulated micro-batches."""
    accumulated = tmp_path / "accumulated"
    config = write_config(accumulated, shards, vae_folder, 1, 0, True, max_steps=7, accumulate_grad_batches=2)
    finish(["-c", str(config)], accumulated / "keys", 1)
    # two processes cost two starts: those of the test above have trained on what is asked here
    trained = {"one": (1, uninterrupted(1, 2, True)), "two": (2, uninterrupted(2, 0, False))}
    seen = {}
    for name, (ranks, folder) in {**trained, "accumulated": (1, accumulated)}.items():
        rows = [
            json.loads(line) for r in range(ranks) for line in Path(f"{folder / 'keys'}.{r}").read_text().splitlines()
        ]
        # Rows of a micro-batch carry the step before the optimiser moved: order by position in the file.
        per_rank = {r: [key for row in rows if row["rank"] == r for key in row["keys"]] for r in range(ranks)}
        share = 8 // ranks
        seen[name] = [
            sorted(key for r in range(ranks) for key in per_rank[r][b * share : (b + 1) * share]) for b in range(7)
        ]
    assert seen["one"] == seen["two"] == seen["accumulated"]
