"""The open track end to end at tiny sizes: reports of one cohort to learn from, boxes of another, one training."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from meddiff.cli.main import dispatch
from tests.builders.cohort_trees import TREES

ROOT = Path(__file__).parent.parent

#: What differs from configs/xrays_small.yaml: three steps of a few weights.
SMALL = {
    "base": str(ROOT / "configs" / "xrays_small.yaml"),
    "name": "open",
    "trainer": {
        "max_steps": 3,
        "val_check_interval": 3,
    },
    "checkpoint": None,
    "grounding": {"every_n_images": 4, "timesteps": 2},
    "fidelity": None,
    "gallery": None,
    "throughput": None,
    "model": {
        "init_args": {
            "unet": {
                **yaml.safe_load((ROOT / "configs" / "xrays_small.yaml").read_text())["model"]["init_args"]["unet"],
                "sample_size": 8,
                "block_out_channels": [16, 32],
                "norm_num_groups": 8,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            },
            "text_encoder": str(ROOT / "meddiff" / "assets" / "phantom_base"),
        }
    },
}


@pytest.fixture(scope="module")
def shards(vae_folder, tmp_path_factory):
    """Cohort -> folder of shards, written by the command."""
    folder = tmp_path_factory.mktemp("open")
    for cohort in ("open-i", "nih"):
        (folder / cohort).mkdir()
        options = TREES[cohort](folder / cohort)
        where = ["--root", str(folder / cohort), "--out", str(folder / f"{cohort}-64"), "--vae", str(vae_folder)]
        machine = ["--resolution", "64", "--accelerator", "cpu", "--devices", "1"]
        assert dispatch(["prepare", cohort, *where, *machine, *options]) == 0
    return folder


def test_open_i_trains_and_nih_grounds(shards, vae_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = json.loads(json.dumps(SMALL))
    changes["model"]["init_args"]["vae"] = str(vae_folder)
    changes["data"] = {
        "init_args": {
            "shards": str(shards / "open-i-64"),
            "splits_from": {"grounding": str(shards / "nih-64")},
            "prompt": "impression",
            "batch_size": 2,
        }
    }
    Path("open.yaml").write_text(yaml.safe_dump(changes))
    assert dispatch(["fit", "-c", "open.yaml", "--trainer.accelerator", "cpu"]) == 0
    (run,) = (tmp_path / "runs" / "open").iterdir()
    with (run / "grounding" / "000000006.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    # the boxes of the NIH tree, by their images and classes
    assert {(row["key"], row["class"]) for row in rows} == {
        ("00000003_000", "Pleural Effusion"),
        ("00000006_000", "Lung Opacity"),
    }
    assert all(row["cnr"] for row in rows)
    controls = json.loads((run / "controls.json").read_text())["grounding"]
    assert {"prior", "centre", "random"} <= controls.keys()
    assert controls["centre"]["n"] == 2
    report = (run / "report.html").read_text()
    assert "centre prior" in report
    assert "random maps" in report
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("val/loss", 0) > 0 for row in metrics)
