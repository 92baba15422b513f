"""The model card from what is known of weights, data and run; hostile and missing values."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from meddiff.reports.model_card import MASKED, DataFacts, ModelFacts, model_card
from meddiff.runs.folder import read_run

DIGEST = "ab" * 32
MODEL = ModelFacts(
    images=1000,
    frozen=True,
    ema=False,
    half=False,
    single_file=False,
    schedule={"beta_start": 0.00085, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"},
    sampling={"sampler": "dpm++", "steps": 25, "guidance_scale": 4.0},
    parameters={"unet": 1234567},
    digests={"unet": DIGEST},
    resolution=64,
    tokens=77,
)
HOSTILE = [
    "/data/hospital/p10",
    "Dr. Meyer's patient",
    "<script>alert(1)</script>",
    "a|b",
    "moderate edema",
    "p10001217",
]


def write_run(folder: Path, text: str) -> None:
    """A run whose configuration, tables and controls hold ``text`` wherever a text can stand."""
    arguments = dict.fromkeys(("learning_rate", "weight_decay", "learning_rate_schedule", "caption_dropout_on"), text)
    config = {
        "name": text,
        "seed_everything": text,
        "model": {"class_path": text, "init_args": {**arguments, "unet": text, "ema_decay": 0.5}},
        "trainer": {"precision": text, "max_steps": text, "devices": [text]},
        "gallery": {"prompts": [text]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    cells = text.replace(",", "").replace('"', "")
    (folder / "tradeoff.csv").write_text(
        f"images,grounding/cnr,grounding/{cells}/cnr,fidelity/fid_{cells}\n900,0.5,1,2\n"
    )
    (folder / "controls.json").write_text(json.dumps({"grounding": {text: {"cnr": 1.0}, "prior": {"cnr": text}}}))


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_run_do_not_reach_the_card(text: str, tmp_path: Path) -> None:
    write_run(tmp_path, text)
    card = model_card(MODEL, DataFacts([(f"{text}!", text)], ""), read_run(tmp_path))
    assert text not in card.replace("\\", "")
    assert "| **the raw weights after 900 images** | 0.500 |" in card, "the number beside them does"
    assert "these weights**" not in card, "they are later ones"
    assert "| model.ema_decay | 0.5 |" in card
    assert "Controls: not measured" in card, "a control of text is none"
    assert "a cohort is credentialed" in card


def test_a_name_of_a_cohort_is_written(tmp_path: Path) -> None:
    """The control of the test above: what is of the fixed form does reach it."""
    card = model_card(MODEL, DataFacts([("mimic-cxr", "credentialed"), ("nih", "public")], DIGEST), None)
    assert "MIMIC-CXR is credentialed" in card
    assert "| cohort | MIMIC-CXR (credentialed) |" in card
    assert "| also read | nih (public) |" in card
    assert f"| sha256 of manifest.json | `{DIGEST}` |" in card
    assert "| seed | not known |" in card
    assert "| parameters, unet | 1,234,567 |" in card


def test_settings_of_a_run(tmp_path: Path) -> None:
    config = {
        "seed_everything": 7,
        "model": {"init_args": {"learning_rate": 5e-5, "learning_rate_schedule": "cosine", "min_snr_gamma": None}},
        "trainer": {"precision": "bf16-mixed", "max_steps": 30},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    card = model_card(MODEL, None, read_run(tmp_path))
    for line in (
        "| seed | 7 |",
        "| model.learning_rate | 5e-05 |",
        "| model.learning_rate_schedule | cosine |",
        "| trainer.precision | bf16-mixed |",
        "| trainer.max_steps | 30 |",
        "| sampling.sampler | dpm++ |",
    ):
        assert line in card
    assert "min_snr_gamma" not in card
    assert "text encoder frozen" in card


def test_a_card_says_where_diffusers_draws_otherwise() -> None:
    assert MASKED in model_card(replace(MODEL, masked=True), None, None)
    assert MASKED not in model_card(MODEL, None, None)
