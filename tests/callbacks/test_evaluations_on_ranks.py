"""The evaluations in two real processes (gloo, plain DDP) find what one process finds."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from meddiff.common.findings import FINDINGS
from meddiff.models.domain_classifier import build_classifier, save_classifier
from meddiff.runs.tables import read_table
from tests.builders.command_runs import finish, write_config
from tests.builders.tiny import make_shards


def callbacks(classifier: Path) -> list[dict[str, object]]:
    every = {"every_n_images": 16}
    return [
        {"class_path": "callbacks.GroundingCallback", "init_args": {**every, "samples": 9, "timesteps": 2}},
        {
            "class_path": "callbacks.FidelityCallback",
            "init_args": {
                **every,
                "samples": 5,
                "shown": 2,
                "weights": {"domain": str(classifier)},
                "sampling": {"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0},
            },
        },
        {"class_path": "callbacks.AttentionGalleryCallback", "init_args": {**every, "shown": 3, "timesteps": 1}},
        {
            "class_path": "callbacks.DenoisingSaliencyCallback",
            "init_args": {**every, "samples": 3, "timesteps": 1, "shown": 2, "tools": ["attention"]},
        },
        {"class_path": "callbacks.TradeoffCallback"},
        {"class_path": "tests.builders.recorder.KeyRecorder"},
    ]


def test_two_ranks_find_what_one_finds(tmp_path: Path, vae_folder: Path) -> None:
    shards = make_shards(tmp_path / "shards", vae_folder, n=60, val=4, grounding=16, fidelity=10)
    torch.manual_seed(0)
    network = {"growth_rate": 8, "block_config": [2, 2], "num_init_features": 8}
    save_classifier(build_classifier(network, list(FINDINGS)), network, tmp_path / "classifier")
    tables, folders = [], []
    for ranks in (1, 2):
        folder = tmp_path / f"ranks{ranks}"
        path = write_config(
            folder, shards, vae_folder, ranks, 0, True, max_steps=4, callbacks=callbacks(tmp_path / "classifier")
        )
        config = yaml.safe_load(path.read_text())
        # no dropout layers: their draws belong to a rank, and the weights would part after the first step
        config["model"]["init_args"]["unet"].pop("dropout")
        path.write_text(yaml.safe_dump(config))
        finish(["-c", str(path)], folder / "record", ranks)
        (run,) = (folder / "runs" / "resume").iterdir()
        folders.append(run)
        tables.append(read_table(run / "tradeoff.csv"))
    one, two = tables
    assert [row["images"] for row in one] == [row["images"] for row in two] == ["0", "16", "32"]
    for mine, theirs in zip(one, two, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            # after a step the weights differ by the rounding of an average over two halves
            tolerance = 1e-5 if mine["images"] == "0" else 2e-3
            assert float(theirs[name] or "nan") == pytest.approx(
                float(value or "nan"), rel=tolerance, abs=tolerance, nan_ok=True
            ), name
    controls = [json.loads((run / "controls.json").read_text()) for run in folders]
    assert controls[1]["grounding"]["prior"] == pytest.approx(controls[0]["grounding"]["prior"])
    for name, values in controls[0]["fidelity"]["fd_domain"].items():
        assert controls[1]["fidelity"]["fd_domain"][name] == pytest.approx(values, rel=1e-4), name
    curves = [read_table(run / "saliency" / "000000016.csv") for run in folders]
    assert len(curves[0]) == len(curves[1]) > 5
    for mine, theirs in zip(*curves, strict=True):
        assert [mine[name] for name in ("tool", "class", "figure", "n")] == [
            theirs[name] for name in ("tool", "class", "figure", "n")
        ]
        assert float(theirs["value"] or "nan") == pytest.approx(float(mine["value"] or "nan"), abs=2e-3, nan_ok=True)
    shown = [json.loads((run / "media" / "saliency" / "000000016.json").read_text()) for run in folders]
    assert [one["phrase"] for one in shown[0]] == [one["phrase"] for one in shown[1]] != []
    for run in folders:
        assert len(json.loads((run / "media" / "attention" / "000000016.json").read_text())) == 3
        assert (run / "report.html").is_file()
