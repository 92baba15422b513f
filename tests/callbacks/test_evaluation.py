"""The evaluations during training: what they write, that training does not notice, that ranks change nothing."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from callbacks import (
    AttentionGalleryCallback,
    FidelityCallback,
    GroundingCallback,
    RunCheckpoint,
    ThroughputCallback,
    TradeoffCallback,
)
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.evaluation.fidelity import CONTROLS
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table
from tests.builders.tiny import UNET, make_shards, model_config, quiet_trainer

BATCH, STEPS = 8, 6
#: Run folder, and the module as it was trained.
Run = tuple[Path, LatentDiffusionModule]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """Shards with enough grounding and fidelity phantoms to evaluate on."""
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return make_shards(folder, vae_folder, n=64, val=4, grounding=16, fidelity=12)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain classifier with random weights: distances are defined, if meaningless."""
    torch.manual_seed(0)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(build_classifier(network, list(FINDINGS)), network, folder)
    return folder


def make_callbacks(classifier: Path, every: int = 3 * BATCH) -> list[L.Callback]:
    return [
        GroundingCallback(every, gain=4, samples=10, timesteps=2),
        FidelityCallback(
            every,
            samples=6,
            weights={"domain": str(classifier)},
            sampling=SamplingOptions("dpm++", 2, 2.0),
            controls=[*CONTROLS],
            compare_with=[SamplingOptions("pndm", 4, 2.0)],
            shown=2,
        ),
        AttentionGalleryCallback(every, shown=3, timesteps=1),
        ThroughputCallback(every_n_steps=2),
        TradeoffCallback(),
    ]


def fit(
    folder: Path, cohort: Path, vae: Path, callbacks: list[L.Callback], steps: int = STEPS, ckpt: Path | None = None
) -> LatentDiffusionModule:
    L.seed_everything(7, verbose=False)
    unet = {**UNET, "dropout": 0.1}  # dropout makes the global generator matter
    module = LatentDiffusionModule(**{**model_config(vae), "unet": unet})
    data = LatentShardsDataModule(str(cohort), batch_size=BATCH)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=JsonlLogger(folder),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, RunCheckpoint) for one in callbacks),
        default_root_dir=folder,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        val_check_interval=100,
        check_val_every_n_epoch=None,
    )
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    finally:  # a fixture of the module's scope: the environment is put back around tests only
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            os.environ.pop(name, None)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path, vae_folder: Path, classifier: Path) -> Run:
    """One training with every callback."""
    folder = tmp_path_factory.mktemp("run") / "name" / "time"
    return folder, fit(folder, cohort, vae_folder, make_callbacks(classifier))


def test_training_does_not_notice_the_evaluations(run: Run, tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    plain = fit(tmp_path / "plain", cohort, vae_folder, [])
    evaluated = run[1].state_dict()
    assert all(torch.equal(value, evaluated[name]) for name, value in plain.state_dict().items())
    assert plain.training == run[1].training
    # control: one step more is seen by this comparison
    longer = fit(tmp_path / "longer", cohort, vae_folder, [], steps=STEPS + 1)
    assert not all(torch.equal(value, evaluated[name]) for name, value in longer.state_dict().items())


def test_one_row_at_step_0_at_every_interval_and_none_twice(run: Run) -> None:
    rows = read_table(run[0] / "tradeoff.csv")
    assert [int(row["images"]) for row in rows] == [0, 24, 48]
    assert [int(row["step"]) for row in rows] == [0, 3, 6]
    for row in rows:
        for name in ("grounding/cnr", "grounding/macro_cnr", "grounding/mask_cnr", "grounding/eos_cnr", "fidelity/n"):
            assert np.isfinite(float(row[name])), name
        assert float(row["fidelity/fd_domain"]) > 0
        assert "fidelity/pndm/kid_domain" in row
        gains = [float(row[f"grounding/gain_{name}"]) for name in ("absent", "other_patient", "mirrored_box")]
        assert abs(float(row["grounding/gain"])) <= min(map(abs, gains))
    logged = [row for row in read_metrics(run[0] / "metrics.jsonl") if "grounding/cnr" in row]
    assert [row["images"] for row in logged] == [0, 24, 48]
    assert float(rows[1]["grounding/cnr"]) == pytest.approx(logged[1]["grounding/cnr"], rel=1e-5)
    assert any("throughput/images_per_s" in row for row in read_metrics(run[0] / "metrics.jsonl"))


def test_per_sample_tables_and_pictures(run: Run, cohort: Path) -> None:
    with (run[0] / "grounding" / "000000024.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 10
    assert {row["class"] for row in table} <= set(FINDINGS)
    mean = float(np.mean([float(row["cnr"]) for row in table]))
    row = read_table(run[0] / "tradeoff.csv")[1]
    assert float(row["grounding/cnr"]) == pytest.approx(mean, abs=1e-5)
    for name, number in (("attention", 3), ("samples", 2)):
        folder = run[0] / "media" / name
        entries = json.loads((folder / "000000048.json").read_text())
        assert len(entries) == number
        for entry in entries:
            files = [value for key, value in entry.items() if key in ("image", "map", "mask", "real") and value]
            assert files
            assert all((folder / file).stat().st_size > 50 for file in files)
    controls = json.loads((run[0] / "controls.json").read_text())["fidelity"]
    assert controls["n"] == 6
    assert set(controls["fd_domain"]) == {"real_vs_real", "autoencoder", "noise", "untrained"}
    # an untrained U-Net here too, but another draw of its weights: far from real images, not the run's own figure
    found = controls["fd_domain"]["untrained"]
    first = float(read_table(run[0] / "tradeoff.csv")[0]["fidelity/fd_domain"])
    assert found > controls["fd_domain"]["real_vs_real"]
    assert found != first
    assert (run[0] / "report.html").stat().st_size > 1000


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(
    run: Run, tmp_path: Path, cohort: Path, vae_folder: Path, classifier: Path
) -> None:
    folder = tmp_path / "name" / "time"
    checkpoints = RunCheckpoint(2 * BATCH)
    checkpoints.dirpath = str(folder / "checkpoints")
    fit(folder, cohort, vae_folder, [*make_callbacks(classifier), checkpoints], steps=5)  # beyond the checkpoint
    newest = folder / "checkpoints" / "step-00000004.ckpt"
    assert newest.is_file()
    fit(folder, cohort, vae_folder, make_callbacks(classifier), ckpt=newest)
    rows, expected = read_table(folder / "tradeoff.csv"), read_table(run[0] / "tradeoff.csv")
    assert [row["images"] for row in rows] == ["0", "24", "48"]
    assert rows == expected


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda c: [GroundingCallback(BATCH + 1)], "no multiple of the batch size"),
        (lambda c: [GroundingCallback(BATCH, query_words={"Edema": ["edema"]})], "no query words for"),
        (lambda c: [FidelityCallback(BATCH, samples=50, weights={"domain": str(c)})], "set samples to 6"),
        (lambda c: [FidelityCallback(BATCH, samples=6, weights={"domain": "nowhere"})], "No weights at nowhere"),
        (lambda c: [FidelityCallback(BATCH, samples=6, weights={"vgg": str(c)})], "No feature extractor 'vgg'"),
        (lambda c: [TradeoffCallback(), GroundingCallback(BATCH)], "must stand after"),
        (lambda c: [TradeoffCallback()], "nothing to collect"),
    ],
)
def test_bad_input_is_refused_before_training(
    make: Callable[[Path], list[L.Callback]],
    sentence: str,
    tmp_path: Path,
    cohort: Path,
    vae_folder: Path,
    classifier: Path,
) -> None:
    with pytest.raises(UserError, match=sentence):
        fit(tmp_path, cohort, vae_folder, make(classifier))


def test_validate_evaluates_the_untouched_weights(run: Run, tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    """The first point of every curve, without training: what step 0 of the fit found."""
    L.seed_everything(7, verbose=False)
    module = LatentDiffusionModule(**{**model_config(vae_folder), "unet": {**UNET, "dropout": 0.1}})
    callbacks = [make_callbacks(tmp_path / "none")[0], TradeoffCallback(report=False)]
    trainer = quiet_trainer(tmp_path, 1, callbacks=callbacks, use_distributed_sampler=False)
    trainer.validate(module, LatentShardsDataModule(str(cohort), batch_size=BATCH), verbose=False)
    found, expected = read_table(tmp_path / "tradeoff.csv"), read_table(run[0] / "tradeoff.csv")[0]
    assert len(found) == 1
    assert {name: found[0][name] for name in found[0]} == {name: expected[name] for name in found[0]}
    assert "grounding/cnr" in found[0]


def test_w_and_b_holds_curves_and_pictures_offline(
    tmp_path: Path, cohort: Path, vae_folder: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="test", save_dir=str(tmp_path), offline=True)
    trainer = quiet_trainer(tmp_path, 1, callbacks=make_callbacks(classifier), use_distributed_sampler=False)
    trainer.loggers = [logger]
    trainer.fit(LatentDiffusionModule(**model_config(vae_folder)), LatentShardsDataModule(str(cohort), BATCH))
    logger.experiment.finish()
    offline = next((tmp_path / "wandb").glob("offline-run-*"))
    pictures = [path.name for path in (offline / "files" / "media" / "images").rglob("*.png")]
    for kind in ("attention", "samples"):
        assert any(kind in name for name in pictures), pictures
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(offline)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    row = read_table(tmp_path / "tradeoff.csv")[-1]
    for name in ("grounding/cnr", "fidelity/fd_domain"):
        assert name in shown
        assert f"{float(row[name]):.3f}"[:5] in shown, f"{name} is {row[name]} in the table"
