"""Images of an evaluation: drawn once, resumed, refused under other settings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.evaluation.drawing import (
    draw_images,
    draw_prompts,
    drawing_settings,
    finished_keys,
    read_images,
    signed,
    weights_digest,
)
from meddiff.evaluation.fidelity import FidelityOptions
from meddiff.models.backbones import untrained_twin
from meddiff.models.sampling import SamplingOptions
from tests.builders.drawn_parts import QUICK, make_model, stamps

SETTINGS = {"seed": 0, "steps": 2}


class Painter:
    """Draws a flat image of the key's hash and remembers what it was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.keys: list[str] = []
        self.batches: list[int] = []
        self.stop_after = stop_after

    def __call__(self, prompts: list[str], keys: list[str]) -> np.ndarray:
        if self.stop_after is not None and len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        assert prompts == [f"text {key}" for key in keys]
        self.keys += keys
        self.batches.append(len(keys))
        return np.stack([np.full((8, 8, 3), sum(key.encode()) % 256, np.uint8) for key in keys])


def texts(*keys: str) -> dict[str, str]:
    return {key: f"text {key}" for key in keys}


def test_a_stopped_drawing_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    prompts = texts(*"abcdefg")
    with pytest.raises(KeyboardInterrupt):
        draw_images(tmp_path, prompts, SETTINGS, Painter(stop_after=2), 2)
    assert sorted(stamps(tmp_path)) == ["a.png", "b.png", "c.png", "d.png"]
    assert finished_keys(tmp_path, SETTINGS) == []
    rest = Painter()
    draw_images(tmp_path, prompts, SETTINGS, rest, 2)
    assert (rest.keys, rest.batches) == (["e", "f", "g"], [2, 1])
    more = Painter()
    draw_images(tmp_path, texts(*"ch"), SETTINGS, more, 2)  # a larger evaluation later
    assert more.keys == ["h"]
    assert sorted(finished_keys(tmp_path, SETTINGS)) == list("abcdefgh")
    assert finished_keys(tmp_path, {**SETTINGS, "seed": 1}) == []
    images = read_images(tmp_path, ["h", "a"])
    assert images.shape == (2, 3, 8, 8)
    assert images[:, 0, 0, 0].tolist() == [ord("h"), ord("a")]


def test_other_settings_and_other_prompts_are_refused(tmp_path: Path) -> None:
    draw_images(tmp_path, texts("a"), SETTINGS, Painter(), 2)
    with pytest.raises(UserError, match="steps 2 instead of 3"):
        draw_images(tmp_path, texts("a"), {**SETTINGS, "steps": 3}, Painter(), 2)
    with pytest.raises(UserError, match="another prompt for a"):
        draw_images(tmp_path, {"a": "something else"}, SETTINGS, Painter(), 2)
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_images_are_borrowed_only_for_the_same_key_prompt_and_settings(tmp_path: Path) -> None:
    draw_images(tmp_path / "one", texts("a", "b"), SETTINGS, Painter(), 2)
    painter = Painter()
    draw_images(tmp_path / "two", texts("b", "c"), SETTINGS, painter, 2, borrow=[tmp_path / "one"])
    assert painter.keys == ["c"]
    assert (tmp_path / "two" / "b.png").read_bytes() == (tmp_path / "one" / "b.png").read_bytes()
    drawn: list[str] = []

    def draw(prompts: list[str], keys: list[str]) -> np.ndarray:
        drawn.extend(keys)
        return np.zeros((len(keys), 8, 8, 3), np.uint8)

    draw_images(tmp_path / "reworded", {"a": "another text"}, SETTINGS, draw, 2, borrow=[tmp_path / "one"])
    assert drawn == ["a"]
    painter = Painter()
    other = {**SETTINGS, "seed": 1}
    draw_images(tmp_path / "three", texts("b"), other, painter, 2, borrow=[tmp_path / "one", tmp_path / "none"])
    assert painter.keys == ["b"]


def test_a_damaged_image_is_told(tmp_path: Path) -> None:
    draw_images(tmp_path, texts("a"), SETTINGS, Painter(), 2)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match="delete it and evaluate again"):
        read_images(tmp_path, ["a"])


def test_bytes_come_back_as_they_were_and_scaled(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(1, 8, 8, 3)).astype(np.uint8)
    draw_images(tmp_path, {"a": ""}, SETTINGS, lambda prompts, keys: pixels, 1)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), pixels[0])
    assert signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_the_model_draws_the_same_whatever_the_batch_and_settings_tell_models_apart(
    tmp_path: Path, vae_folder: Path
) -> None:
    model = make_model(vae_folder)
    prompts = {"a": "edema", "b": "normal", "c": "effusion"}

    def drawn(name: str, batch_size: int, unet: UNet2DConditionModel | None = None) -> torch.Tensor:
        options = FidelityOptions(sampling=QUICK, batch_size=batch_size)
        draw_prompts(model, tmp_path / name, prompts, options, unet=unet)
        return read_images(tmp_path / name, list(prompts)).int()

    one, three = drawn("one", 1), drawn("three", 3)
    assert (one - three).abs().max() <= 1
    twin = untrained_twin(model.unet, 5)
    assert (drawn("untrained", 3, unet=twin) - three).abs().float().mean() > 0.1
    settings = drawing_settings(model, 0, QUICK)
    assert settings == json.loads((tmp_path / "three" / "settings.json").read_text())
    assert drawing_settings(model, 0, QUICK, twin)["model"] != settings["model"]
    assert drawing_settings(model, 0, SamplingOptions("ddim", 2, 2.0)) != settings
    with torch.no_grad():  # the smallest step of training
        for parameter in model.unet.parameters():
            parameter += 1e-7 * parameter.abs().mean() + 1e-6
    assert drawing_settings(model, 0, QUICK)["model"] != settings["model"]
    with pytest.raises(UserError, match=r"other settings \(model\)"):
        drawn("three", 3)


def test_a_digest_follows_values_names_and_types() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.BatchNorm1d(40))
    before = weights_digest(network)
    assert weights_digest(network.to(memory_format=torch.contiguous_format)) == before
    assert weights_digest(network.bfloat16()) != before
    assert weights_digest(network.float()) != before  # rounded
    assert weights_digest(network[0]) != weights_digest(network[0], network[1])
