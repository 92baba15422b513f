"""``lightning doctor --plan``: what fits, how fast, how long, how much disk."""

import re
from pathlib import Path

import pytest
import yaml

from meddiff.cli.plan import Machines, merged
from meddiff.cli.plan_numbers import GIB, Training
from meddiff.models.footprint import STABLE_DIFFUSION_2, footprint
from tests.builders.command import call
from tests.builders.tiny import TEXT, UNET


@pytest.fixture(scope="module")
def full_size() -> dict[str, Training]:
    """Stable Diffusion 2 on 16 GPUs."""
    half, single = (footprint(*STABLE_DIFFUSION_2, precision) for precision in ("bf16", "32"))
    return {
        "ddp": Training(half, learnable=False, average=True, half=True, gpus=16, sharded=False, buckets=True),
        "learnable": Training(half, learnable=True, average=True, half=True, gpus=16, sharded=False),
        "fsdp": Training(half, learnable=True, average=True, half=True, gpus=16, sharded=True),
        "cpu": Training(single, learnable=False, average=False, half=False, gpus=1, sharded=False),
    }


def test_published_numbers_come_out(full_size: dict[str, Training]) -> None:
    """mosaicml/diffusion trains this U-Net on 16 A100s at 585 images/s, which is 28 % of their peak."""
    assert full_size["ddp"].footprint.unet == 865_910_724
    assert full_size["ddp"].footprint.unet_flops == pytest.approx(804.3e9, rel=0.001)
    assert full_size["ddp"].images_per_second(312e12, 0.28) == pytest.approx(585, rel=0.04)


def test_the_memory_is_that_of_a_step_that_was_measured(full_size: dict[str, Training]) -> None:
    """float32 on a CPU, batch 1, frozen, no average, activations kept: 15.7 GiB at its peak (test_full_size.py)."""
    plan = full_size["cpu"]
    fixed = {name: value for name, value in plan.fixed().items() if name != "CUDA"}
    assert (sum(fixed.values()) + plan.image(False)) / GIB == pytest.approx(15.7, rel=0.05)


def test_what_shares_and_what_learns(full_size: dict[str, Training]) -> None:
    frozen, learnable, shared = (full_size[name].fixed() for name in ("ddp", "learnable", "fsdp"))
    assert learnable["AdamW"] > 1.3 * frozen["AdamW"]
    for name in ("weights", "gradients", "AdamW", "average"):
        assert shared[name] == pytest.approx(learnable[name] / 16)
    assert "buckets of DDP" in frozen
    assert "buckets of DDP" not in learnable
    assert "buckets of DDP" not in shared
    for name, plan in full_size.items():
        most = plan.largest(80 * GIB, checkpointing=False)
        assert plan.memory(most, False) <= 80 * GIB < plan.memory(most + 1, False), name
        assert plan.largest(80 * GIB, True) > most


def small(folder: Path, **changes: object) -> str:
    config = {
        "trainer": {"max_steps": 100, "precision": "bf16-mixed"},
        "checkpoint": {"every_n_images": 320},
        "grounding": {"every_n_images": 1600, "samples": 10, "timesteps": 4},
        "model": {
            "class_path": "lightning_modules.LatentDiffusionModule",
            "init_args": {"unet": UNET, "text_encoder": TEXT},
        },
        "data": {"init_args": {"shards": "nowhere", "batch_size": 32}},
    }
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**config, **changes}))
    return str(file)


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(
        capsys, "doctor", "--plan", small(tmp_path), "--gpus", "4x1", "--peak_tflops", "100", "--mfu", "0.5"
    )
    assert code == 0
    assert re.search(r"\n +8 +0\.\d GiB|\n +8 +[1-9]\.\d GiB no .*<- this config", out)  # 32 images on four GPUs
    assert "50 % of 100 TFLOP/s" in out
    assert "10 checkpoints" in out
    assert "grounding 1.2 %" in out  # three times 40 passes on 3 x 3,200
    assert "nowhere: not here" in out


def test_later_files_win_and_bases_are_read(tmp_path: Path) -> None:
    last = tmp_path / "last.yaml"
    last.write_text("model: {init_args: {ema_decay: null}}")
    model = merged(["configs/learnable.yaml", str(last)])["model"]
    assert isinstance(model, dict)
    assert model["init_args"]["freeze_text_encoder"] is False  # of learnable.yaml
    assert model["init_args"]["caption_dropout"] == 0.3  # of its base, frozen.yaml
    assert model["init_args"]["ema_decay"] is None


def test_strategy_and_micro_batches_are_those_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"init_args": {"shards": "nowhere", "batch_size": 64, "max_batch_per_device": 8}}
    file = small(tmp_path, data=data)
    code, out, _ = call(capsys, "doctor", "--plan", file, "configs/strategy/fsdp2_16.yaml", "--gpus", "4x80")
    assert code == 0
    assert re.search(r"\n +8 .*<- this config", out)
    assert "buckets" not in out
    code, out, _ = call(capsys, "doctor", "--plan", small(tmp_path, trainer={"strategy": "ddp", "max_steps": 1}))
    assert "buckets of DDP" in out


def test_what_a_config_refers_to_stands_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prototypes beside words: its tower is ``${model.init_args.unet}``, through two bases."""
    code, out, err = call(capsys, "doctor", "--plan", "configs/patronus_latent.yaml", "--gpus", "1x24")
    assert code == 0, err
    assert "not here" not in out
    model = {"init_args": {"unet": UNET, "text_encoder": "${model.init_args.unett}"}}
    code, _, err = call(capsys, "doctor", "--plan", small(tmp_path, model=model))
    assert code == 2
    assert "refers to a place that is not there" in err


def test_pictures_take_what_their_pixels_take(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--plan", "configs/patronus_pixel.yaml", "--gpus", "1x80")
    assert code == 0
    assert "data/chexpert-224: not here (224 px: some 33 kB an image)" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gpus", "3x80"], "cannot be shared by 3 ranks .* use 30 or 33"),
        (["--gpus", "many"], "number x GiB, e.g. 16x80"),
        (["--mfu", "1.5"], "mfu is 1.5"),
        (["--verify", "somewhere"], "either --verify PATH or --plan CONFIG"),
    ],
)
def test_what_cannot_be_planned_gets_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, _, err = call(capsys, "doctor", "--plan", small(tmp_path), *arguments)
    assert code == 2
    assert re.search(sentence, err)
    assert "Traceback" not in err


def test_a_config_that_trains_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "doctor", "--plan", small(tmp_path, model={"class_path": "x", "init_args": {}}))
    assert code == 2
    assert "trains no latent diffusion model" in err
    assert Machines.of("16x80") == Machines(16, 80)
