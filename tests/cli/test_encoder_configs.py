"""The configs of domain encoders train as they are written, on stand-ins of the real widths in the folders that they name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from meddiff.cli.main import dispatch
from meddiff.models.latent_diffusion import model_of
from meddiff.models.text.transformers_tower import TransformersTower
from meddiff.runs.open_run import open_run
from meddiff.runs.tables import read_table
from tests.builders.command import call
from tests.builders.tiny import UNET
from tests.builders.towers import PIECES, unigram_files, word_piece_files

CONFIGS = Path(__file__).parents[2] / "configs" / "encoders"
#: What a laptop has less of than 16 GPUs; everything else is the config's.
SMALL = {
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 2,
        "limit_val_batches": 1,
    },
    "checkpoint": {"every_n_images": 8},
    **dict.fromkeys(("grounding", "fidelity", "gallery", "tradeoff")),
}


def stable_diffusion(folder: Path, vae: Path) -> None:
    """A U-Net that takes texts of 1,024 channels, an autoencoder, a schedule."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(**{**UNET, "cross_attention_dim": 1024}).save_pretrained(folder / "unet")
    shutil.copytree(vae, folder / "vae")
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    word_piece_files(folder)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=768,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)


def t5(folder: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    size = unigram_files(folder)
    config = T5Config(vocab_size=size, d_model=1024, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)


#: config -> (folder of its tower, its maker, does a projection stand between, mask inside, mask for the U-Net)
TOWERS: dict[str, tuple[str, Callable[[Path], None], bool, bool, bool]] = {
    "cxr_bert": ("BiomedVLP-CXR-BERT-specialized", bert, True, True, True),
    "cxr_bert_learnable": ("BiomedVLP-CXR-BERT-specialized", bert, True, True, True),
    "biovil_t": ("BiomedVLP-BioViL-T", bert, True, False, False),
    "radbert": ("RadBERT", bert, True, True, True),
    "t5": ("t5-v1_1-large", t5, False, True, True),
}


def test_every_config_is_tested() -> None:
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(TOWERS)


@pytest.mark.parametrize("name", TOWERS)
def test_it_trains_as_written(
    name: str,
    shards: Path,
    vae_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, make, projected, inside, outside = TOWERS[name]
    stable_diffusion(tmp_path / "weights" / "stable-diffusion-2-base", vae_folder)
    (tmp_path / "weights" / folder).mkdir()
    make(tmp_path / "weights" / folder)
    # shards of this autoencoder: the stand-in is the fixture's
    data = {"init_args": {"shards": str(shards), "splits_from": None, "batch_size": 4, "num_workers": 0}}
    small = {"base": str(CONFIGS / f"{name}.yaml"), **SMALL, "data": data}
    Path("small.yaml").write_text(yaml.safe_dump(small))
    assert dispatch(["fit", "-c", "small.yaml"]) == 0
    (run,) = (tmp_path / "runs" / name).iterdir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("images", 0) for row in rows) == 8
    assert any(row.get("val/loss", 0) > 0 for row in rows)

    model = model_of(open_run(run).module)
    tower = model.text_encoder
    assert isinstance(tower, TransformersTower)
    assert (tower.mask_padding, tower.attention_mask, tower.tokenizer.max_length) == (inside, outside, 128)
    assert (model.unet.encoder_hid_proj is not None) is projected
    assert model.freeze_text_encoder is not name.endswith("learnable")
    assert model.ema is not None
    assert any(one.startswith("text_encoder.") for one in model.ema.names) is name.endswith("learnable")
    if name != "cxr_bert":
        return

    assert dispatch(["export", "--run", str(run), "--out", "exported"]) == 0
    assert "attends to no padding" in capsys.readouterr().out
    few = ["--grounding.timesteps", "1", "--grounding.samples", "6"]
    assert dispatch(["evaluate", "grounding", "--run", str(run), "--out", "of_run", *few]) == 0
    told = ["--model", "exported", "--shards", str(shards), "--out", "of_folder", *few]
    assert dispatch(["evaluate", "grounding", *told]) == 0
    ours, theirs = (read_table(Path(folder) / "grounding.csv") for folder in ("of_run", "of_folder"))
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert (one["key"], one["phrase"], one["words"]) == (other["key"], other["phrase"], other["words"])
        assert float(one["cnr"]) == pytest.approx(float(other["cnr"]), abs=1e-4)
    words = read_table(Path("of_folder") / "words.csv")
    assert {"CLS", "SEP"} <= {row["word"] for row in words}


def test_without_its_weights_a_config_says_what_to_fetch(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "fit", "-c", str(CONFIGS / "cxr_bert.yaml"), "--data.shards", str(shards))
    assert code == 2
    assert "text_encoder: no weights at weights/BiomedVLP-CXR-BERT-specialized" in err
    assert "unet: no weights at weights/stable-diffusion-2-base" in err
    assert "Traceback" not in err
