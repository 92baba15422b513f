"""Table 2 end to end at tiny sizes: MS-COCO's captions to learn from, its instance masks to find the words' objects on."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from meddiff.cli.main import dispatch
from meddiff.evaluation.coco import coco_samples
from meddiff.evaluation.coco_priors import coco_priors
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.cohort_trees import TREES
from tests.builders.tiny import TEXT, UNET

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def shards(vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a small download, written by the command."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "root").mkdir()
    options = TREES["mscoco"](folder / "root")
    where = ["--root", str(folder / "root"), "--out", str(folder / "shards"), "--vae", str(vae_folder)]
    machine = ["--resolution", "64", "--accelerator", "cpu", "--devices", "1"]
    assert dispatch(["prepare", "mscoco", *where, *machine, *options]) == 0
    return folder / "shards"


@pytest.mark.parametrize("encoder", ["frozen", "learnable"])
def test_the_configs_are_those_of_table_2(encoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(["fit", "-c", f"configs/mscoco/{encoder}.yaml", "--print_config"])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model, data, trainer = config["model"]["init_args"], config["data"]["init_args"], config["trainer"]
    assert (trainer["devices"], trainer["num_nodes"], data["batch_size"], trainer["max_steps"]) == (1, 1, 16, 150000)
    assert (model["caption_dropout"], model["caption_dropout_on"]) == (0.3, "all")
    assert model["freeze_text_encoder"] == (encoder == "frozen")
    for name in ("checkpoint", "coco", "fidelity"):  # both rows of the table are measured
        every = config[name]["every_n_images"]
        assert 10000 * data["batch_size"] % every == 0
        assert 150000 * data["batch_size"] % every == 0
    assert config["grounding"] is None


@pytest.mark.parametrize("encoder", ["frozen", "learnable"])
def test_both_train_and_ground_captions(
    encoder: str, shards: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    split = LatentShardsDataset(shards, "grounding")
    changes = {
        "base": str(ROOT / "configs" / "mscoco" / f"{encoder}.yaml"),
        "trainer": {"max_steps": 3, "val_check_interval": 3, "accelerator": "cpu", "precision": "32-true"},
        "checkpoint": {"every_n_images": 2},
        "coco": {"every_n_images": 4, "captioned": None, "timesteps": 1},
        "fidelity": None,  # two images make no distribution
        "model": {"init_args": {"unet": UNET, "text_encoder": TEXT, "vae": str(vae_folder)}},
        "data": {"init_args": {"shards": str(shards), "batch_size": 2, "num_workers": 0}},
    }
    Path("coco.yaml").write_text(yaml.safe_dump(changes))
    assert dispatch(["fit", "-c", "coco.yaml"]) == 0
    (run,) = (tmp_path / "runs" / f"mscoco_{encoder}").iterdir()
    samples, _ = coco_samples(split)
    for images_seen in (0, 4, 6):
        with (run / "grounding" / f"{images_seen:09d}.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        assert {(row["key"], row["class"]) for row in rows} == {(one.key, one.label) for one in samples}
    header, *lines = list(csv.reader((run / "tradeoff.csv").open(newline="")))
    assert {"grounding/macro_auroc", "grounding/macro_cnr"} <= set(header)
    assert len(lines) == 3
    controls = json.loads((run / "controls.json").read_text())["grounding"]
    assert controls.keys() == {"prior", "centre", "random"}


def test_the_prior_is_not_told_its_answer_by_other_captions(shards: Path) -> None:
    """However often the captions of an image name its class, the prior knows the other images only."""
    split = LatentShardsDataset(shards, "grounding")
    samples, _ = coco_samples(split)
    once = {(one.key, one.label): one for one in reversed(samples)}
    assert len(once) < len(samples), "the tree has images with several captions of one class"
    assert coco_priors(split, samples)["prior"] == coco_priors(split, list(once.values())[::-1])["prior"]
