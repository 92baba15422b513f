"""What an evaluation finds can be monitored: checkpoints are chosen by it, training stops on it, a resumed run knows it."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from callbacks import GroundingCallback, RunCheckpoint
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.runs.tables import read_table
from tests.builders.tiny import make_shards, model_config

BATCH = 8
MONITORED = "grounding/macro_cnr"


class Seen(L.Callback):
    """The monitored figure before each step, and the steps that were trained."""

    def __init__(self) -> None:
        self.before: list[float | None] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        found = trainer.callback_metrics.get(MONITORED)
        self.before.append(None if found is None else float(found))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("monitored") / "s", vae_folder, n=44, val=4, grounding=6, fidelity=2)


def fit(
    folder: Path, cohort: Path, vae: Path, callbacks: list[L.Callback], steps: int, ckpt: Path | None = None
) -> tuple[L.Trainer, Seen]:
    L.seed_everything(3, verbose=False)
    seen = Seen()
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, seen],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    module = LatentDiffusionModule(**model_config(vae, learning_rate=1e-2))
    trainer.fit(module, LatentShardsDataModule(str(cohort), batch_size=BATCH), ckpt_path=ckpt, weights_only=True)
    return trainer, seen


def evaluation(every: int = 2) -> GroundingCallback:
    return GroundingCallback(every * BATCH, timesteps=1)


def figures(folder: Path) -> dict[int, float]:
    """Step -> mean of classes' mean CNRs, from the tables of the run."""
    found = {}
    for file in sorted((folder / "grounding").glob("0*.csv")):
        by_class: dict[str, list[float]] = {}
        for row in read_table(file):
            by_class.setdefault(row["class"], []).append(float(row["cnr"]))
        means = [sum(values) / len(values) for values in by_class.values()]
        found[int(file.stem) // BATCH] = sum(means) / len(means)
    return found


def test_figures_are_in_the_trainers_metrics(tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    trainer, seen = fit(tmp_path, cohort, vae_folder, [evaluation()], steps=4)
    measured = figures(tmp_path)
    assert list(measured) == [0, 2, 4]
    assert float(trainer.callback_metrics[MONITORED]) == pytest.approx(measured[4], abs=1e-4)
    assert len(set(measured.values())) == 3, "equal figures would show nothing"
    assert seen.before == pytest.approx([measured[0], measured[0], measured[2], measured[2]], abs=1e-4)


def test_the_best_checkpoint_is_chosen_by_grounding(tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    best = {}
    for mode in ("max", "min"):
        folder = tmp_path / mode
        saver = ModelCheckpoint(
            folder / "best",
            filename="{step}",
            monitor=MONITORED,
            mode=mode,
            save_top_k=1,
            every_n_train_steps=1,
            save_on_train_epoch_end=False,
        )
        fit(folder, cohort, vae_folder, [evaluation(1), saver], steps=5)
        measured = {step: value for step, value in figures(folder).items() if step > 0}
        wanted = (max if mode == "max" else min)(measured, key=lambda step: measured[step])
        (file,) = (folder / "best").glob("*.ckpt")
        assert saver.best_model_path == str(file)
        assert torch.load(file, weights_only=True)["global_step"] == wanted
        assert float(saver.best_model_score or 0) == pytest.approx(measured[wanted], abs=1e-4)
        best[mode] = wanted
    assert best["max"] != best["min"]


def test_training_stops_on_grounding(tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    """No model gains 10 CNR a check, so that one stops it; with more patience than checks it goes on to the end."""
    steps = {}
    for patience in (1, 100):
        stopper = EarlyStopping(MONITORED, min_delta=10.0, patience=patience, mode="max")
        trainer, _ = fit(tmp_path / str(patience), cohort, vae_folder, [evaluation(), stopper], steps=8)
        steps[patience] = trainer.global_step
    assert steps[1] < 8
    assert steps[100] == 8


def test_a_resumed_run_knows_the_last_figure_before_it_evaluates(
    tmp_path: Path, cohort: Path, vae_folder: Path
) -> None:
    saver = RunCheckpoint(3 * BATCH)
    saver.dirpath = str(tmp_path / "checkpoints")
    fit(tmp_path, cohort, vae_folder, [evaluation(2), saver], steps=3)
    measured = figures(tmp_path)
    checkpoint = tmp_path / "checkpoints" / "step-00000003.ckpt"
    _, seen = fit(tmp_path / "on", cohort, vae_folder, [evaluation(4)], steps=4, ckpt=checkpoint)
    assert 2 in measured
    assert seen.before == pytest.approx([measured[2]], abs=1e-4)
    # the control: a run that starts has what it measured itself
    _, fresh = fit(tmp_path / "fresh", cohort, vae_folder, [evaluation(4)], steps=1)
    assert fresh.before == pytest.approx([measured[0]], abs=1e-4)
    assert measured[0] != pytest.approx(measured[2], abs=1e-4)
