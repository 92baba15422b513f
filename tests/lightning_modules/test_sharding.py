"""FSDP2 in two real processes (gloo) against DDP: losses, averages, checkpoints in pieces and in one file, grounding."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.cli.lost_process import lost_process
from meddiff.cli.main import dispatch
from meddiff.common.errors import UserError
from meddiff.models.pieces import whole
from meddiff.runs import names
from meddiff.runs.checkpoints import clear_leftovers, find_checkpoint, part_of, read_checkpoint
from meddiff.runs.open_run import open_run
from tests.builders.rank_program import run_on_ranks, seen

STEPS = 4
#: Sums of two halves are taken in another order than those of the whole.
CLOSE = 1e-5


def checkpoint(folder: Path, name: str, step: int, to_train: bool = False) -> dict[str, object]:
    return read_checkpoint(folder / name / f"step-{step:08d}.ckpt", to_train)


def felt(name: str, value: Tensor) -> Tensor:
    """Without the biases of keys: attention does not feel them, their gradient is rounding, and Adam makes steps of it."""
    return value.view(3, -1)[[0, 2]] if name.endswith("attn.in_proj_bias") else value


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(felt(name, value), felt(name, b[name]), rtol=CLOSE, atol=CLOSE, msg=name)


#: The loss of the second process alone, once and then twice in a row.
POISON = {"at": [0, 2, 3], "rank": 1, "stop_after_skipped_steps": 2}
LATE = {"at": [2, 4, 5], "rank": 1, "stop_after_skipped_steps": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """Runs in two processes, one after the other: each begins anew, or goes on from another's checkpoint."""
    place, frozen = tmp_path_factory.mktemp("ranks"), {"steps": STEPS, "frozen": True}
    rest = {"steps": STEPS, "frozen": False}
    run_on_ranks(
        2,
        place,
        shards,
        vae_folder,
        {"name": "frozen/ddp", "strategy": "ddp", **frozen},
        {"name": "frozen/pieces", **frozen},
        {"name": "learnable/ddp", "strategy": "ddp", "ground": True, **rest},
        {"name": "learnable/pieces", "ground": True, **rest},
        {"name": "learnable/file", "strategy": "fsdp2-one-file", **rest},
        {"name": "learnable/pieces-on", "resume": "learnable/pieces/step-00000002.ckpt", **rest},
        {"name": "learnable/ddp-then-pieces", "resume": "learnable/ddp/step-00000002.ckpt", **rest},
        {
            "name": "learnable/pieces-then-ddp",
            "strategy": "ddp",
            "resume": "learnable/pieces/step-00000002.ckpt",
            **rest,
        },
        {"name": "learnable/stopped", "poison": POISON, **rest},
        {"name": "learnable/stopped-later", "poison": POISON, "defer": True, **rest},
        {"name": "skipped", "strategy": "ddp", "poison": LATE, "steps": 8, "every": 1},
    )
    return place


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return place / "learnable"


@pytest.mark.parametrize("kind", ["frozen", "learnable"])
def test_losses_and_weights_are_those_of_ddp(place: Path, kind: str) -> None:
    folder, names = place / kind, ("pieces",) if kind == "frozen" else ("pieces", "file")
    for rank in (0, 1):
        expected = seen(folder, "ddp", rank)
        assert len(expected["losses"]) == STEPS
        for name in names:
            assert seen(folder, name, rank)["losses"] == pytest.approx(expected["losses"], abs=CLOSE)
            assert seen(folder, name, rank)["keys"] == expected["keys"]
    tower = {name.startswith("text_encoder") for name in checkpoint(folder, "pieces", STEPS)["ema"]["shadow"]}
    assert (True in tower) is (kind == "learnable")
    # the controls: the ranks have images of their own, and the model learns
    assert not {*seen(folder, "pieces", 0)["keys"][0]} & {*seen(folder, "pieces", 1)["keys"][0]}
    ddp = checkpoint(folder, "ddp", STEPS, to_train=True)
    assert any(not torch.equal(v, checkpoint(folder, "ddp", 2)["state_dict"][n]) for n, v in ddp["state_dict"].items())
    for name in names:
        found = checkpoint(folder, name, STEPS, to_train=True)
        assert_close(found["state_dict"], ddp["state_dict"])
        for theirs, ours in zip(found["optimizer_states"], ddp["optimizer_states"], strict=True):
            assert [group["name"] for group in theirs["param_groups"]] == [g["name"] for g in ours["param_groups"]]
            assert [group["params"] for group in theirs["param_groups"]] == [g["params"] for g in ours["param_groups"]]
            for number, values in ours["state"].items():
                assert_close(theirs["state"][number], values)


def test_the_average_is_every_process_s_piece(folder: Path) -> None:
    ddp = checkpoint(folder, "ddp", STEPS)["ema"]
    for name in ("pieces", "file"):
        ema = checkpoint(folder, name, STEPS)["ema"]
        assert ema["updates"] == STEPS
        assert_close(ema["shadow"], ddp["shadow"])
        # the control: the first process's rows in the place of the second's are not it
        differ = 0
        for value in ema["shadow"].values():
            half = -(-len(value) // 2)
            differ += not torch.allclose(value[half:], value[: len(value) - half], rtol=CLOSE, atol=CLOSE)
        assert differ > len(ema["shadow"]) / 4
    parts = list((folder / "pieces" / f"step-{STEPS:08d}.ckpt").glob("*.distcp"))
    assert len(parts) == 2
    assert min(part.stat().st_size for part in parts) > 0.3 * max(part.stat().st_size for part in parts)


@pytest.mark.parametrize("name", ["pieces-on", "ddp-then-pieces", "pieces-then-ddp"])
def test_a_run_goes_on_from_every_kind(folder: Path, name: str) -> None:
    for rank in (0, 1):
        expected = seen(folder, "ddp", rank)
        assert seen(folder, name, rank)["keys"] == expected["keys"][2:]
        assert seen(folder, name, rank)["losses"] == pytest.approx(expected["losses"][2:], abs=CLOSE)
    ddp, found = checkpoint(folder, "ddp", STEPS), checkpoint(folder, name, STEPS)
    assert_close(found["state_dict"], ddp["state_dict"])
    assert_close(found["ema"]["shadow"], ddp["ema"]["shadow"])


def test_grounding_during_training_is_that_of_ddp(folder: Path) -> None:
    """Three samples for two processes, one at a time: forward passes that gathered weights would wait for ever."""
    (expected,), (found,) = seen(folder, "ddp")["grounding"], seen(folder, "pieces")["grounding"]
    assert any("cnr" in name for name in expected)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", ["stopped", "stopped-later"])
def test_all_leave_out_the_same_steps_and_stop_together(folder: Path, name: str) -> None:
    """At once, and as on a GPU, where the fused step is left out on the device and read later."""
    errors = [seen(folder, name, rank)["error"] for rank in (0, 1)]
    assert errors[0] == errors[1]
    assert "stopped at step 3 after 2 steps in a row were left out: the loss is not finite" in errors[0][0]
    assert (folder / name / "step-00000002.ckpt").exists()  # the first bad step was left out, and training went on
    assert not (folder / name / "step-00000004.ckpt").exists()


def test_plain_ddp_leaves_out_the_same_steps_and_notes_them_once(place: Path) -> None:
    """The loss of the second process alone is not finite, once and then twice in a row."""
    errors = [seen(place, "skipped", rank)["error"] for rank in (0, 1)]
    assert errors[0] == errors[1]
    said = "stopped at step 5 after 2 steps in a row were left out: the loss is not finite in a batch of 4 samples"
    assert said in str(errors[0][0])
    rows = [json.loads(line) for line in (place / "skipped-run" / names.SKIPPED).read_text().splitlines()]
    assert [(row["step"], row["what"], len(row["keys"])) for row in rows] == [(i, "the loss", 4) for i in LATE["at"]]
    files = sorted((place / "skipped").glob("step-*.ckpt"))
    assert [file.name for file in files] == [f"step-0000000{i}.ckpt" for i in range(1, 6)]
    states = [read_checkpoint(file)["state_dict"] for file in files]
    same = [all(torch.equal(old[name], new[name]) for name in old) for old, new in pairwise(states)]
    assert same == [False, True, False, True]


def test_one_process_opens_and_exports_both_kinds(folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    pieces = open_run(None, folder / "pieces" / f"step-{STEPS:08d}.ckpt", vae=str(vae_folder))
    one = open_run(None, folder / "file" / f"step-{STEPS:08d}.ckpt", vae=str(vae_folder))
    assert pieces.images == one.images == STEPS * 8
    assert_close(dict(pieces.module.state_dict()), dict(one.module.state_dict()))
    assert find_checkpoint(folder / "pieces").name == f"step-{STEPS:08d}.ckpt"
    for name, opened in (("pieces", pieces), ("file", one)):
        out = tmp_path / name
        assert (
            dispatch(["export", "--ckpt", str(opened.file), "--vae", str(vae_folder), "--ema", "--out", str(out)]) == 0
        )
        assert (out / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_folder_that_runs_something_is_refused(folder: Path, tmp_path: Path) -> None:
    import pickle
    import shutil

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    copy = tmp_path / "copy.ckpt"
    shutil.copytree(folder / "pieces" / "step-00000002.ckpt", copy)
    (copy / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_checkpoint(copy)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists()  # the control


def test_a_folder_that_was_cut_off_is_passed_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    for step in (2, 4):
        shutil.copytree(folder / "pieces" / f"step-0000000{step}.ckpt", tmp_path / f"step-0000000{step}.ckpt")
    assert find_checkpoint(tmp_path).name == "step-00000004.ckpt"
    (tmp_path / "step-00000004.ckpt" / ".metadata").unlink()
    assert find_checkpoint(tmp_path).name == "step-00000002.ckpt"
    assert "cut off" in capsys.readouterr().err


def test_what_a_killed_writer_left_is_cleared(folder: Path, tmp_path: Path) -> None:
    import shutil

    kept = tmp_path / "step-00000002.ckpt"
    shutil.copytree(folder / "pieces" / kept.name, kept)
    half = part_of(tmp_path / "step-00000004.ckpt")
    shutil.copytree(kept, half)
    assert find_checkpoint(tmp_path) == kept  # also before: the name is no checkpoint's
    clear_leftovers(tmp_path)
    assert not half.exists()
    assert (kept / ".metadata").is_file()


def test_only_a_lost_process_is_told_as_one() -> None:
    """In one process no network speaks of another, whatever an error says."""
    assert lost_process(RuntimeError("Connection closed by peer"), None) is None


def test_what_is_whole_is_left_alone() -> None:
    layer = torch.nn.Linear(2, 2)
    before = layer.weight
    with whole(layer):
        assert layer.weight is before
