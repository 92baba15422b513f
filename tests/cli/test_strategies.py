"""``configs/strategy``: each file states only what differs, and parses on top of the paper's configs."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy

from callbacks import GroundingCallback
from lightning_modules.sharding import refuse_whole
from meddiff.cli.preflight import speed_problems
from meddiff.common.errors import UserError
from tests.builders.command import call

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = {
    "ddp": "lightning.pytorch.strategies.DDPStrategy",
    "fsdp": "lightning.pytorch.strategies.FSDPStrategy",
    "fsdp2": "lightning_modules.FullyShardedStrategy",
}


@pytest.mark.parametrize(("name", "base"), [("ddp", "frozen"), ("fsdp", "learnable"), ("fsdp2", "learnable")])
def test_a_strategy_is_added_with_a_second_config(capsys: pytest.CaptureFixture[str], name: str, base: str) -> None:
    files = ["-c", str(CONFIGS / f"{base}.yaml"), "-c", str(CONFIGS / "strategy" / f"{name}_16.yaml")]
    code, out, err = call(capsys, "fit", *files, "--print_config")
    assert code == 0, err
    found = yaml.safe_load(out)
    trainer = found["trainer"]
    assert trainer["strategy"]["class_path"] == CLASSES[name]
    assert (trainer["num_nodes"], trainer["devices"]) == (2, 8)
    assert trainer["precision"] == ("16-mixed" if name == "ddp" else "bf16-mixed")
    # the rest is the base's
    assert trainer["max_steps"] == (30_000 if base == "frozen" else 60_000)
    assert found["model"]["init_args"]["freeze_text_encoder"] is (base == "frozen")
    assert (found["data"]["init_args"]["batch_size"], found["data"]["init_args"]["max_batch_per_device"]) == (256, 16)
    assert (found["model"]["init_args"]["ema_decay"] is None) is (name == "fsdp")


def test_a_batch_for_other_ranks_is_refused_before_weights_are_read(
    capsys: pytest.CaptureFixture[str], shards: Path, vae_folder: Path, tmp_path: Path
) -> None:
    from tests.builders.command import write_fit

    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {"devices": 3})
    code, _, err = call(capsys, "fit", "-c", str(config))
    assert code == 2
    assert "batch_size 8" in err
    assert "use 6 or 9" in err
    code, _, err = call(capsys, "fit", "-c", str(config), "--data.max_batch_per_device", "2")
    assert code == 2
    assert "use 9" in err or "use 6" in err


def test_weights_that_cannot_be_cut_are_refused(
    capsys: pytest.CaptureFixture[str], shards: Path, vae_folder: Path, tmp_path: Path
) -> None:
    from tests.builders.command import write_fit

    strategy = {"class_path": "lightning_modules.FullyShardedStrategy"}
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {"devices": 2, "strategy": strategy})
    code, _, err = call(capsys, "fit", "-c", str(config), "--model.speed.channels_last", "true")
    assert code == 2
    assert "speed.channels_last lays weights out in a way in which FSDP cannot cut them" in err
    assert "Traceback" not in err


def test_a_cache_of_texts_is_refused_where_the_tower_is_cut_before_data_are_made(
    capsys: pytest.CaptureFixture[str], shards: Path, vae_folder: Path, tmp_path: Path
) -> None:
    from tests.builders.command import write_fit

    older = {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {"strategy": older})
    code, _, err = call(capsys, "fit", "-c", str(config), "--model.speed.text_cache", "8")
    assert code == 2
    assert "speed.text_cache keeps states of a frozen text tower that FSDP shares" in err
    whole = {"strategy": "lightning_modules.FullyShardedStrategy"}
    assert not speed_problems(Namespace(whole), {"speed": {"text_cache": 8}}), "its frozen tower is whole"


def test_the_older_fsdp_says_what_it_cannot_do() -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[GroundingCallback(every_n_images=8)]
    )
    with pytest.raises(UserError, match=r"GroundingCallback, model\.ema_decay, which must be null: take FSDP2"):
        refuse_whole(trainer, 0.9)
    refuse_whole(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), None)
    section = yaml.safe_load((CONFIGS / "strategy" / "fsdp_16.yaml").read_text())
    assert {name for name in ("grounding", "fidelity", "gallery", "tradeoff") if section[name] is None} == {
        "grounding", "fidelity", "gallery", "tradeoff"
    }  # fmt: skip
    assert section["model"]["init_args"]["ema_decay"] is None
    assert FSDPStrategy.__name__ in section["trainer"]["strategy"]["class_path"]
