"""The suite in a notebook: the six lines of the README as they stand there, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import meddiff
from meddiff.common.errors import UserError
from meddiff.metrics.functional import resize_maps
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.notebook import LoadedModel, windows
from meddiff.phantoms import PhantomCohort, PhantomOptions
from tests.builders.pipelines import make_pipeline
from tests.builders.tiny import TEXT, UNET, model_config

README = Path(__file__).parents[1] / "README.md"
QUICK = SamplingOptions("dpm++", 2, 2.0)


def chest(height: int, width: int) -> NDArray[np.uint8]:
    """A phantom, uint8 (height, width)."""
    phantom = PhantomCohort(PhantomOptions(n=4, resolution=128))[0].image
    return np.asarray(Image.fromarray(phantom).resize((width, height)))


@pytest.fixture
def loaded(vae_folder: Path) -> LoadedModel:
    """A tiny model with random weights that reads 64 px images."""
    return LoadedModel(LatentDiffusion.build(UNET, TEXT, str(vae_folder), sampling=QUICK))


@pytest.fixture
def run(vae_folder: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``runs/quickstart/TIME`` in the working directory, after two steps."""
    from meddiff.cli.main import dispatch

    monkeypatch.chdir(tmp_path)
    config = tmp_path / "tiny.yaml"
    import yaml

    config.write_text(
        yaml.safe_dump(
            {
                "name": "quickstart",
                "trainer": {"max_steps": 2, "accelerator": "cpu", "val_check_interval": 2},
                "model": {
                    "class_path": "lightning_modules.LatentDiffusionModule",
                    "init_args": {**model_config(vae_folder), "sampling": vars(QUICK)},
                },
                "data": {
                    "class_path": "datamodules.LatentShardsDataModule",
                    "init_args": {"shards": str(shards), "batch_size": 4},
                },
            }
        )
    )
    assert dispatch(["fit", "-c", str(config)]) == 0
    return next((tmp_path / "runs" / "quickstart").iterdir())


def test_the_six_lines_of_the_readme(run: Path, tmp_path: Path) -> None:
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    code = block.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    Image.fromarray(chest(512, 640)).save(tmp_path / "chest.png")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    heat = names["heat"]
    assert isinstance(heat, np.ndarray)
    assert heat.shape == (512, 640)
    assert np.isfinite(heat).all()
    assert heat.std() > 0
    assert Image.open(tmp_path / "overlay.png").size == (640, 512)
    assert Image.open(tmp_path / "drawn.png").size == (64, 64)


def test_the_drawn_image_is_the_commands_and_the_trained_weights_are_used(run: Path, tmp_path: Path) -> None:
    from meddiff.cli.main import dispatch

    prompt = "Large right pleural effusion."
    arguments = ["--sampler", QUICK.sampler, "--steps", str(QUICK.steps), "--guidance_scale", str(QUICK.guidance_scale)]
    assert dispatch(["sample", "--ckpt", str(run), "--prompts", prompt, *arguments, "--out", "there"]) == 0
    model = meddiff.load("runs/quickstart")
    (image,) = model.sample(prompt, seed=0)
    np.testing.assert_allclose(np.asarray(image, int), np.asarray(Image.open("there/0000-000.png"), int), atol=1)
    with torch.no_grad():  # other weights draw another image
        for parameter in model.model.unet.parameters():
            parameter.mul_(1.5)
    assert np.abs(np.asarray(model.sample(prompt)[0], int) - np.asarray(image, int)).max() > 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70), (64, 200), (7, 5)])
def test_maps_have_the_size_of_the_image(loaded: LoadedModel, height: int, width: int) -> None:
    maps = loaded.ground(chest(height, width), "Left pleural effusion, no edema.", timesteps=2)
    assert maps["effusion"].shape == (height, width)
    assert maps["Pleural Effusion"].shape == (height, width)
    assert np.isfinite(maps.heat).all()
    np.testing.assert_allclose(maps["pleural effusion"], (maps["pleural"] + maps["effusion"]) / 2, rtol=1e-5)


def test_windows_cover_every_pixel() -> None:
    for height, width in ((5, 5), (5, 6), (10, 5), (7, 31), (512, 640)):
        corners, side = windows(height, width)
        covered = np.zeros((height, width), int)
        for y, x in corners:
            assert y + side <= height
            assert x + side <= width
            covered[y : y + side, x : x + side] += 1
        assert covered.min() >= 1
        assert len(corners) == -(-max(height, width) // side)


def test_what_a_word_points_at_moves_with_the_window(loaded: LoadedModel) -> None:
    """A square image on its own and as the left part of a wider one: the first window sees the same pixels."""
    square = chest(64, 64)
    wide = np.concatenate([square, square[:, ::-1]], axis=1)  # (64, 128): two windows without overlap
    alone = loaded.ground(square, "Edema.", timesteps=2)["edema"]
    together = loaded.ground(wide, "Edema.", timesteps=2)["edema"]
    np.testing.assert_allclose(together[:, :64], alone, rtol=1e-4, atol=1e-6)
    assert np.abs(together[:, 64:] - alone).max() > 1e-4


def test_any_kind_of_image(loaded: LoadedModel, tmp_path: Path) -> None:
    grey = chest(64, 80)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    low, high = int(grey.min()), int(grey.max())
    full = np.round((grey.astype(float) - low) * 255 / (high - low)).astype(np.uint8)  # as deep images are read

    def map_of(image: object) -> NDArray[np.float32]:
        return loaded.ground(image, "Edema.", timesteps=1)["edema"]  # type: ignore[arg-type]

    expected = map_of(grey)
    for same in (str(tmp_path / "grey.png"), tmp_path / "grey.png", Image.fromarray(grey), grey[..., None]):
        np.testing.assert_allclose(map_of(same), expected, rtol=1e-5)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for same in (colour, Image.fromarray(colour)):
        np.testing.assert_allclose(map_of(same), expected, rtol=1e-5)
    expected = map_of(full)
    for same in (tmp_path / "deep.png", deep, grey.astype(np.float32) / 255):
        np.testing.assert_allclose(map_of(same), expected, rtol=1e-5)


def test_bad_input_is_one_sentence(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No image to ground at"):
        loaded.ground(tmp_path / "nothing.png", "Edema.")
    with pytest.raises(UserError, match="shape"):
        loaded.ground(np.zeros((4, 4, 7), np.uint8), "Edema.")
    with pytest.raises(UserError, match="not finite"):
        loaded.ground(np.full((64, 64), np.nan), "Edema.")
    with pytest.raises(UserError, match="no word"):
        loaded.ground(chest(64, 64), "  ")
    with pytest.raises(UserError, match="'heart' is no word of"):
        loaded.ground(chest(64, 64), "Edema.", timesteps=1)["heart"]
    with pytest.raises(UserError, match="No checkpoint"):
        meddiff.load(tmp_path / "runs")


def test_a_model_folder_loads(vae_folder: Path) -> None:
    model = meddiff.load("assets/phantom_base", vae="assets/phantom_vae", device="cpu")
    assert model.resolution == 128
    assert model.model.noise_schedule.prediction_type == "v_prediction"
    assert model.ground(chest(128, 128), "Large circle.", timesteps=1)["circle"].shape == (128, 128)


@pytest.mark.filterwarnings("ignore:.*of one that was never trained")
def test_a_pipeline_of_others_loads_and_parts_come_from_elsewhere(vae_folder: Path, tmp_path: Path) -> None:
    """As diffusers saves it: whole, as a U-Net with parts of other folders, and by its relative path."""
    whole = make_pipeline(tmp_path / "whole", "sd2")
    square, phrase = chest(64, 64), "Left pleural effusion."

    def heat(model: LoadedModel) -> NDArray[np.float32]:
        return model.ground(square, phrase, timesteps=2).heat

    model = meddiff.load(whole, device="cpu")
    assert (model.resolution, model.model.noise_schedule.prediction_type) == (64, "v_prediction")
    expected = heat(model)
    parts = meddiff.load(
        whole / "unet", vae=str(whole), text_encoder=str(whole), prediction_type="v_prediction", device="cpu"
    )
    np.testing.assert_allclose(heat(parts), expected, rtol=1e-5)
    # control: another text encoder points elsewhere
    other = make_pipeline(tmp_path / "other", "sd2", seed=1)
    assert np.abs(heat(meddiff.load(whole, text_encoder=str(other), device="cpu")) - expected).max() > 1e-4


def test_what_a_run_knows_is_not_told_to_it(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no published model"):
        meddiff.load(run, text_encoder="elsewhere")
    with pytest.raises(UserError, match="is no published model"):
        meddiff.load(run, prediction_type="epsilon")
    file = next((run / "checkpoints").rglob("*.ckpt"))
    assert meddiff.load(file, device="cpu").resolution == 64


def test_asking_leaves_random_generators_alone(loaded: LoadedModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    loaded.ground(chest(64, 64), "Edema.", timesteps=1)
    loaded.sample("Edema.")
    torch.testing.assert_close(torch.rand(3), expected)


def test_every_tool_by_timestep_in_one_line(loaded: LoadedModel) -> None:
    found = loaded.explain(
        chest(80, 64), "Small left effusion.", tools=("attention", "concept", "relevance"), timesteps=2
    )
    assert found.timesteps == [581, 181]
    assert list(found.maps) == ["word Small", "word left", "word effusion", "(end token)", "concept", "relevance"]
    assert all(maps.shape[0] == 2 for maps in found.maps.values())
    assert found.panels().width > 0
    assert found.animation().startswith(b"GIF8")
    assert set(found.shares) >= {"end", "function"}
    # the same words as the grounding pass sees them: a mean over its timesteps of the square image
    square = chest(64, 64)
    grounded = loaded.ground(square, "Small left effusion.", timesteps=2)
    explained = loaded.explain(square, "Small left effusion.", tools=("attention",), timesteps=2)
    maps = resize_maps(explained.maps["word effusion"].mean(dim=0)[None], (64, 64))[0]
    np.testing.assert_allclose(maps.numpy(), grounded.heat[2], atol=1e-5)
    with pytest.raises(UserError, match="tools are magic"):
        loaded.explain(square, "Effusion.", tools=("magic",))
