"""The step benchmark times the same training: the same draws give the plain loop the same losses and weights as ours."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from benchmarks.contenders import RATE, SIZES, Ours, Setting, UnetAlone, plain_of
from benchmarks.made_shards import write_shards
from benchmarks.plain_loop import InMemory
from benchmarks.step import Contenders, measure, switches
from meddiff.shards.batches import TokenBatch
from meddiff.shards.dataset import LatentShardsDataset

STEPS = 4


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("made")
    write_shards(folder, 40, (4, 8, 8))
    return Setting("tiny", True, 8, torch.device("cpu"), False, folder)


class Batches(L.Callback):
    """What a training is given and what it loses."""

    def __init__(self) -> None:
        self.batches: list[TokenBatch] = []
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: dict[str, Tensor], batch: TokenBatch, index: int
    ) -> None:
        self.batches.append(batch)
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("speed", [{}, {"text_cache": 16, "channels_last": True, "activation_checkpointing": "all"}])
def test_the_plain_loop_trains_the_same_network(setting: Setting, frozen: bool, speed: dict[str, object]) -> None:
    same = Setting(setting.size, frozen, setting.batch, setting.device, setting.half, setting.shards, speed)
    ours, plain, seen = Ours(same), plain_of(same), Batches()
    ours.module.configure_model()
    before = {name: value.clone() for name, value in ours.module.model.state_dict().items()}
    assert all(torch.equal(value, plain.model.state_dict()[name]) for name, value in before.items())
    ours.run(STEPS - 1, [seen], warm_up=0)
    assert len(seen.batches) == STEPS
    for batch, expected in zip(seen.batches, seen.losses, strict=True):
        found = plain.step(batch["latents"], batch["noise"], batch["timesteps"], batch["tokens"])
        assert found == pytest.approx(expected, rel=1e-5)
    after = ours.module.model.state_dict()
    # Adam moves a weight by its rate whatever the gradient: where that is rounding alone, it may go either way
    apart = torch.cat([(after[name] - value).abs().flatten() for name, value in plain.model.state_dict().items()])
    assert float(apart.max()) < 2.1 * STEPS * RATE
    assert float((apart < 0.05 * RATE).float().mean()) > 0.99
    # the controls: both did train, and with other noise the loss is another
    moved = max(float((after[name] - value).abs().max()) for name, value in before.items())
    assert moved > RATE / 2
    other = plain.loss(batch["latents"], batch["noise"].flip(0), batch["timesteps"], batch["tokens"])
    assert abs(float(other) - expected) > 1e-3


def test_every_row_is_measured_and_the_order_turns() -> None:
    calls: list[str] = []

    def row(name: str, seconds: float) -> float:
        calls.append(name)
        return seconds

    def too_large(steps: int) -> float:
        raise torch.OutOfMemoryError

    rows = {"a": lambda steps: row("a", steps), "c": too_large, "b": lambda steps: row("b", 2.0 * steps)}
    found = measure(rows, 3, 2)
    assert {name: seconds for name, (seconds, _) in found.items()} == {"a": 3, "b": 6.0}
    assert calls == ["a", "b", "a", "b", "b", "a"]


def test_the_table_has_a_row_for_each_way(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    contenders = Contenders(setting, {"ours": {"text_cache": 16}})
    for batch in (8, 4):
        contenders.table(batch, 1, 1, 1e11)
        printed = capsys.readouterr().out
        assert f"batch {batch}," in printed
        rows = [line.split() for line in printed.splitlines() if line.startswith(("ours", "U-Net alone", "plain"))]
        assert len(rows) == 3
        assert all(float(row[-2]) > 0 for row in rows)
        alone, plain = (next(row for row in rows if row[0] == name) for name in ("U-Net", "plain"))
        assert float(alone[-5]) == 1.0
        assert float(plain[-4]) == 1.0


def test_switches_are_read_as_yaml(tmp_path: Path) -> None:
    file = tmp_path / "fast.yaml"
    file.write_text("model:\n  init_args:\n    speed:\n      compile: whole\n      ema_every: 5\n")
    assert switches(["ema_every=7", "channels_last=true"], file) == {
        "compile": "whole",
        "ema_every": 7,
        "channels_last": True,
    }


def test_captions_are_those_of_the_shards(setting: Setting) -> None:
    ours = Ours(setting)
    ours.module.configure_model()
    data = InMemory(LatentShardsDataset(setting.shards, "train"), ours.module.model)
    moments, tokens = data[3]
    assert moments.shape == (8, 8, 8)
    assert torch.equal(tokens, ours.module.tokenize([data.captions[3]])[0])
    assert UnetAlone(ours).run(1) > 0
    assert set(SIZES) == {"quickstart", "sd2", "tiny"}
