"""A model written as a folder and read again: the base model of the embedded cohort travels this way."""

import json
from pathlib import Path

import pytest
import torch

from lightning_modules import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet
from meddiff.models.noise_schedule import schedule_config
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.models.weights.export import write_model
from meddiff.models.weights.token_rows import untrained_rows
from tests.builders.tiny import TEXT, UNET, model_config

TOKENIZER = ClipTokenizer()

TEXTS = ["Small left pneumothorax.", ""]
SCALED = {**TEXT, "embedding_std": 0.5, "position_std": 0.1}


def make_parts() -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(3)
    return build_unet(UNET), build_text_encoder(SCALED).eval()


def write(folder: Path, rows: torch.Tensor | None, half: bool) -> tuple[torch.nn.Module, torch.nn.Module]:
    unet, tower = make_parts()
    write_model(folder, unet, tower, schedule_config("v_prediction"), rows, rows_seed=5, half=half)
    return unet, tower


def test_the_whole_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    unet, tower = write(tmp_path, None, half=False)
    again, words = build_unet(str(tmp_path)), build_text_encoder(str(tmp_path)).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in unet.state_dict().items())
    assert torch.equal(tower(TOKENIZER.tokenize(TEXTS)[0]), words(TOKENIZER.tokenize(TEXTS)[0]))


def test_transformers_reads_the_text_tower(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    _, tower = write(tmp_path, None, half=False)
    theirs = transformers.CLIPTextModel.from_pretrained(tmp_path / "text_encoder").eval()
    tokens = TOKENIZER.tokenize(TEXTS)[0]
    with torch.no_grad():
        expected = theirs(tokens).last_hidden_state
    torch.testing.assert_close(tower(tokens), expected, rtol=1e-4, atol=1e-5)


def test_kept_rows_are_kept_and_the_others_drawn_again(tmp_path: Path) -> None:
    kept = TOKENIZER.tokenize(TEXTS)[0].unique()
    _, tower = write(tmp_path, kept, half=True)
    again = build_text_encoder(str(tmp_path)).eval()
    table, before = again.token_embedding.weight.detach(), tower.token_embedding.weight.detach()
    torch.testing.assert_close(table[kept], before[kept], rtol=1e-3, atol=1e-3)
    others = torch.ones(len(table), dtype=torch.bool)
    others[kept] = False
    assert torch.equal(table[others], untrained_rows(5, 0.5, *table.shape)[others])
    assert table[others].std() == pytest.approx(0.5, rel=0.01)
    torch.testing.assert_close(
        again(TOKENIZER.tokenize(TEXTS)[0]), tower(TOKENIZER.tokenize(TEXTS)[0]), rtol=0, atol=2e-2
    )
    size = (tmp_path / "text_encoder" / "model.safetensors").stat().st_size
    assert size < 49408 * TEXT["width"] * 2, "half precision of the whole table alone would be larger"


def test_a_folder_without_the_seed_is_refused(tmp_path: Path) -> None:
    write(tmp_path, torch.tensor([0, 1]), half=True)
    file = tmp_path / "text_encoder" / "config.json"
    config = json.loads(file.read_text())
    del config["token_rows"]
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="no token_rows"):
        build_text_encoder(str(tmp_path))


def test_another_prediction_type_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    write(tmp_path, None, half=True)
    arguments = {**model_config("nowhere"), "unet": str(tmp_path), "vae": None}
    assert LatentDiffusionModule.preflight(**arguments, prediction_type="v_prediction") == []
    problems = LatentDiffusionModule.preflight(**arguments)
    assert len(problems) == 1
    assert "set prediction_type: v_prediction" in problems[0]
