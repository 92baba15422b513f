"""An evaluation is seen while it runs, and its cost before the first one; by the first rank only."""

import re
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import pytest

from callbacks import AttentionGalleryCallback, GroundingCallback, ImagesProgressBar
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common import progress
from meddiff.evaluation.drawing import draw_prompts
from meddiff.evaluation.fidelity import FidelityOptions
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import make_model
from tests.builders.tiny import make_shards, model_config


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, n=30, val=2, grounding=8, fidelity=4)


@pytest.fixture(autouse=True)
def _every_time_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is told draws at once, so that what is drawn is what was told."""
    monkeypatch.setattr(progress, "FILE", 0.0)
    monkeypatch.setattr(progress, "LIVE", 0.0)


def drawn(text: str, title: str) -> list[int]:
    """The percentages that a bar showed."""
    return [int(percent) for percent in re.findall(rf"(?<!\w ){title}: +(\d+)%", text)]


def test_a_bar_is_told_of_every_batch_of_a_grounding_pass(
    cohort: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, split = make_model(vae_folder), LatentShardsDataset(cohort, "grounding")
    options = GroundingOptions(samples=4, timesteps=4, batch_size=2)
    Grounding(options, show_progress=True).run(model, split, None, Ranks())
    shown = drawn(capsys.readouterr().err, "grounding")
    assert len(set(shown)) >= 4 * 4 // 2
    assert shown[0] == 0
    assert shown[-1] == 100
    Grounding(options).run(model, split, None, Ranks())
    assert not drawn(capsys.readouterr().err, "grounding"), "the control: nobody asked for it"


def test_a_bar_moves_within_a_batch_of_drawn_images(
    cohort: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, prompts = 6, {"a": "Large right pleural effusion.", "b": "No acute findings."}
    way = SamplingOptions("dpm++", steps, 2.0)
    draw_prompts(
        make_model(vae_folder),
        tmp_path / "some",
        prompts,
        FidelityOptions(sampling=way, batch_size=2),
        show_progress=True,
    )
    shown = drawn(capsys.readouterr().err, "drawing some")
    assert len(set(shown)) >= steps
    assert shown == sorted(shown)
    assert shown[-1] == 100


class Watched(GroundingCallback):
    """Keeps what had been said when it began to measure."""

    def measure(self, *arguments: object) -> Mapping[str, float]:
        if not hasattr(self, "before"):
            self.before = self.capsys.readouterr().out
        return super().measure(*arguments)


@pytest.mark.parametrize("bars", [True, False])
def test_training_says_the_cost_first_and_shows_the_bars_it_may(
    bars: bool, cohort: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = Watched(16, gain=3, samples=4, timesteps=2, batch_size=4)
    watched.capsys = capsys
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        callbacks=[
            watched,
            AttentionGalleryCallback(16, shown=2, timesteps=1),
            *([ImagesProgressBar()] if bars else []),
        ],
        enable_progress_bar=bars,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        use_distributed_sampler=False,
        val_check_interval=100,
        check_val_every_n_epoch=None,
    )
    module, data = LatentDiffusionModule(**model_config(vae_folder)), LatentShardsDataModule(str(cohort), batch_size=8)
    trainer.fit(module, data)
    # 4 phrases at 2 timesteps, 3 of them asked for an absent finding, too, and 2 at 1
    assert "evaluations: 16 U-Net forward passes each time" in watched.before
    said = capsys.readouterr()
    assert "evaluations:" not in said.out, "it is said once"
    shown = drawn(said.err, "grounding")
    # at step 0 and at the end
    assert (shown.count(0) == 2 and 100 in shown) if bars else not shown
    assert bool(drawn(said.err, "controls of grounding")) == bars
