"""Published models as others save them: what their files say is done, what they do not say is measured, others are refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.models.backbones import vae_identity
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.pipeline import find_pipeline, load_pipeline, read_pipeline
from meddiff.models.prediction_probe import contradiction, noise_correlation
from meddiff.models.weights.single_file import Layout, write_single_file
from meddiff.models.weights.sources import Part
from meddiff.models.weights.stored import stored_part
from tests.builders.original_files import ALL_TOKENS, write_original
from tests.builders.pipelines import KINDS, edit_json, make_pipeline, set_scheduler, teach_noise
from tests.builders.tiny import make_vae
from tests.builders.towers import LENGTH, WIDTH, bert

pytestmark = pytest.mark.filterwarnings("ignore:.*of one that was never trained")
PARTS: tuple[Part, ...] = ("unet", "text_encoder", "vae")
TEXT = "Large right pleural effusion, no edema."


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> folder as diffusers wrote it."""
    root = tmp_path_factory.mktemp("published")
    return {name: make_pipeline(root / name, name) for name in KINDS}


@pytest.fixture(scope="module")
def noise_teller(tmp_path_factory: pytest.TempPathFactory, pipelines: dict[str, Path]) -> Path:
    """A pipeline whose U-Net was trained to give the noise back."""
    from diffusers import UNet2DConditionModel

    folder = shutil.copytree(pipelines["sd1"], tmp_path_factory.mktemp("taught") / "taught")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert teach_noise(unet, 24) < 0.3
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture
def copy(pipelines: dict[str, Path], tmp_path: Path) -> Path:
    """A pipeline to be changed."""
    return shutil.copytree(pipelines["sd1"], tmp_path / "copy")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


# ---- what the files say ---------------------------------------------------------------------------------------------


def test_a_pipeline_computes_what_diffusers_computes(pipelines: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """Text states up to the end token (the first padding may be another), and the U-Net's prediction from them."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = pipelines[kind]
    model = load_pipeline(str(folder))
    assert (model.noise_schedule.prediction_type, model.sampling.sampler) == {
        "sd1": ("epsilon", "pndm"),
        "sd2": ("v_prediction", "ddim"),
    }[kind]
    assert not model.unet.training
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")(TEXT, return_tensors="pt").input_ids
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    network = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    torch.manual_seed(0)
    noisy, steps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        theirs = tower(ids).last_hidden_state  # (1, 10, D)
        text = model.encode_texts([TEXT])
        ours = text.states[:, : ids.shape[1]]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        expected = network(noisy, steps, encoder_hidden_states=theirs).sample
        found = model.unet(noisy, steps, encoder_hidden_states=ours).sample
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        other = load_pipeline(str(make_pipeline(tmp_path / "other", kind, seed=1)))  # control: other weights
        text = other.encode_texts([TEXT])
        assert (text.states[:, : ids.shape[1]] - theirs).abs().max() > 1e-2
        assert (other.unet(noisy, steps, encoder_hidden_states=ours).sample - expected).abs().max() > 1e-2


def test_betas_are_those_of_the_file(copy: Path) -> None:
    """Linear betas and trailing spacing, as RadEdit's; control: they are not Stable Diffusion's."""
    from diffusers import DDIMScheduler

    values = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}
    set_scheduler(copy, "DDIMScheduler", prediction_type="epsilon", **values)
    schedule = load_pipeline(str(copy)).noise_schedule
    expected = DDIMScheduler(**values).alphas_cumprod  # type: ignore[arg-type]
    torch.testing.assert_close(schedule.alphas_cumprod, expected)
    assert schedule.config["timestep_spacing"] == "trailing"
    assert (expected - NoiseSchedule().alphas_cumprod).abs().max() > 0.05


def test_a_file_without_a_prediction_type_means_epsilon(copy: Path) -> None:
    set_scheduler(copy, "PNDMScheduler")
    assert load_pipeline(str(copy)).noise_schedule.prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [("PNDMScheduler", "pndm"), ("DPMSolverMultistepScheduler", "dpm++"), ("EulerDiscreteScheduler", "ddim")],
)
def test_the_sampler_is_that_of_the_scheduler(copy: Path, scheduler: str, sampler: str) -> None:
    set_scheduler(copy, scheduler, prediction_type="epsilon")
    found = find_pipeline(str(copy))
    assert found.sampler == sampler
    assert any("EulerDiscreteScheduler" in note for note in found.notes) == (scheduler == "EulerDiscreteScheduler")


def test_the_trained_text_encoder_of_roentgen_v2_is_preferred(
    pipelines: dict[str, Path], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_pipeline(tmp_path / "other", "sd1", seed=1)
    shutil.copytree(other / "text_encoder", copy / "text_encoder_and_tokenizer")
    shutil.copytree(other / "tokenizer", copy / "text_encoder_and_tokenizer", dirs_exist_ok=True)
    untouched = load_pipeline(str(pipelines["sd1"])).text_encoder.state_dict()
    assert "text_encoder_and_tokenizer" not in "".join(lines(capsys))
    found = load_pipeline(str(copy)).text_encoder.state_dict()
    assert any("text_encoder_and_tokenizer/, the trained one" in line for line in lines(capsys))
    trained = load_pipeline(str(other)).text_encoder.state_dict()
    assert all(torch.equal(found[name], trained[name]) for name in trained)
    assert any(not torch.equal(found[name], untouched[name]) for name in untouched)
    given = load_pipeline(str(copy), text_encoder=str(copy / "text_encoder")).text_encoder.state_dict()
    assert all(torch.equal(given[name], untouched[name]) for name in given), "what is given goes before it"


def test_a_unet_alone_with_parts_from_elsewhere(copy: Path, tmp_path: Path) -> None:
    """As RadEdit is stored: U-Net in one folder, text encoder and autoencoder of others, with a scale of its own."""
    vae = make_vae(tmp_path / "vae", seed=3)
    edit_json(vae / "config.json", scaling_factor=0.13025)
    alone = shutil.copytree(copy / "unet", tmp_path / "radedit-like")
    with pytest.raises(UserError, match="has no text_encoder/"):
        find_pipeline(str(alone))
    found = find_pipeline(str(alone), vae=str(vae), text_encoder=str(copy))
    assert (found.name, found.schedule, found.latent_shape) == ("radedit-like", None, (4, 8, 8))
    model = load_pipeline(str(alone), str(vae), str(copy), "epsilon")
    assert model.scaling_factor == pytest.approx(0.13025)
    assert load_pipeline(str(copy)).scaling_factor == pytest.approx(0.18215)
    set_scheduler(alone, "DDIMScheduler", prediction_type="v_prediction")
    assert load_pipeline(str(alone), str(vae), str(copy)).noise_schedule.prediction_type == "v_prediction"


def test_a_pipeline_class_of_their_own_with_the_family_s_parts(copy: Path) -> None:
    edit_json(copy / "model_index.json", _class_name="RoentGenPipeline")
    assert any("calls itself RoentGenPipeline" in note for note in find_pipeline(str(copy)).notes)


# ---- single files ---------------------------------------------------------------------------------------------------


def test_a_single_file_is_the_folder_it_was_written_from(
    pipelines: dict[str, Path], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every part with equal numbers; what it predicts is measured, for a file does not say it."""
    folder = pipelines[kind]
    file = write_file(folder, tmp_path / "model.safetensors", "sd1" if kind == "sd1" else "sd2")
    assert find_pipeline(str(file)).name == tmp_path.name, "model.safetensors is no name"
    ours, theirs = load_pipeline(str(file)), load_pipeline(str(folder))
    assert any("measured: v_prediction" in line for line in lines(capsys)), "untrained weights look like v"
    for one, other in ((ours.unet, theirs.unet), (ours.text_encoder, theirs.text_encoder), (ours.vae, theirs.vae)):
        state, expected = one.state_dict(), other.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert vae_identity(str(file))["sha256"] == vae_identity(str(folder))["sha256"]
    assert load_pipeline(str(file), prediction_type="epsilon").noise_schedule.prediction_type == "epsilon"


@pytest.mark.parametrize("version", [1, 2])
def test_an_original_training_checkpoint(version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the first publications are: no word about heads, sizes or what is predicted."""
    file = write_original(tmp_path / f"colleague-{version}.ckpt", version, vocabulary=ALL_TOKENS)
    found = find_pipeline(str(file))
    assert (found.name, found.says_size, found.schedule) == (f"colleague-{version}", False, None)
    assert found.latent_shape == (4, 64, 64), "where nothing says it, Stable Diffusion's"
    model = read_pipeline(found, latent_size=(8, 8))
    assert model.latent_shape == (4, 8, 8)
    assert any("what its U-Net predicts is not said" in line for line in lines(capsys))
    assert model.encode_texts([TEXT]).states.isfinite().all()
    with pytest.raises(UserError, match=r"vae: .*holds no autoencoder but a U-Net"):
        find_pipeline(str(unet_alone(file, tmp_path / "unet.safetensors")))
    parts = find_pipeline(str(tmp_path / "unet.safetensors"), vae=str(file), text_encoder=str(file))
    assert read_pipeline(parts, "epsilon", latent_size=(8, 8)).noise_schedule.prediction_type == "epsilon"


def test_averages_and_sizes_are_told_beside_a_file(tmp_path: Path) -> None:
    """Control: the raw weights of the same file are others."""
    file = write_original(tmp_path / "both.ckpt", 1, ema=True, vocabulary=ALL_TOKENS)
    told = find_pipeline({"checkpoint": str(file), "ema": True, "sample_size": 8})
    assert (told.name, told.says_size, told.latent_shape) == ("both-ema", True, (4, 8, 8))
    averaged = read_pipeline(told, "epsilon").unet.state_dict()
    raw = read_pipeline(find_pipeline(str(file)), "epsilon", latent_size=(8, 8)).unet.state_dict()
    assert all(not torch.equal(averaged[name], raw[name]) for name in raw)
    with pytest.raises(UserError, match="names no model"):
        find_pipeline({"width": 3})


def test_a_unet_with_the_text_tower_of_a_bert(copy: Path, tmp_path: Path) -> None:
    """As RadEdit: tokens as many as told, words by the tokenizer's offsets, another autoencoder, linear betas."""
    tower = bert(tmp_path / "bert").source
    assert isinstance(tower, dict)
    folder = make_pipeline(tmp_path / "whole", "sd1", cross_attention_dim=WIDTH)
    alone = shutil.copytree(folder / "unet", tmp_path / "radedit-like")
    set_scheduler(alone, "DDIMScheduler", prediction_type="epsilon", beta_schedule="linear")
    vae = make_vae(tmp_path / "vae", seed=3)
    model = load_pipeline(str(alone), str(vae), {"checkpoint": tower["checkpoint"], "max_length": LENGTH})
    text = model.encode_texts(["Small cardiomegaly."])
    assert text.states.shape == (1, LENGTH, WIDTH)
    assert [word.text for word in model.text_encoder.tokenizer.words("Small cardiomegaly.")] == [
        "Small",
        "cardiomegaly.",
    ]
    assert model.noise_schedule.config["beta_schedule"] == "linear"
    with pytest.raises(UserError, match="width"):  # control: a U-Net of another width
        load_pipeline(str(copy / "unet"), str(vae), {"checkpoint": tower["checkpoint"], "max_length": LENGTH})


def write_file(folder: Path, file: Path, layout: Layout) -> Path:
    """The parts of a folder as one file."""
    parts = {part: stored_part(str(folder), part) for part in PARTS}
    write_single_file(file, {part: (one.config, one.read(False)) for part, one in parts.items()}, layout, half=False)
    return file


def unet_alone(file: Path, alone: Path) -> Path:
    """The U-Net's tensors of an original checkpoint."""
    from safetensors.torch import save_file

    state = torch.load(file, weights_only=True)["state_dict"]
    save_file(
        {name: value.clone() for name, value in state.items() if name.startswith("model.diffusion_model.")}, alone
    )
    return alone


# ---- what the weights say -------------------------------------------------------------------------------------------


def test_a_trained_v_model_is_known_by_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The base model that ships, a v model, with its scheduler file as it is, turned round, and taken away."""
    base = shutil.copytree(locate("assets/phantom_base"), tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pipeline(str(base))
    edit_json(base / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.warns(UserWarning, match="prediction_type is epsilon, but at the last timestep") as caught:
        model = load_pipeline(str(base))
    assert model.noise_schedule.prediction_type == "epsilon", "it is warned of, not changed behind one's back"
    assert "\n" not in str(caught[0].message)
    with pytest.warns(UserWarning, match="of one that was never trained"):
        load_pipeline(str(base))
    capsys.readouterr()
    shutil.rmtree(base / "scheduler")
    assert load_pipeline(str(base)).noise_schedule.prediction_type == "v_prediction"
    assert any("measured: v_prediction" in line for line in lines(capsys))


def test_a_trained_epsilon_model_is_known_by_its_weights(
    noise_teller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_pipeline(str(noise_teller))
    assert noise_correlation(model) > 0.85
    folder = shutil.copytree(noise_teller, tmp_path / "taught")
    set_scheduler(folder, "DDIMScheduler", prediction_type="v_prediction")
    with pytest.warns(UserWarning, match="prediction_type is v_prediction, but .* predicts epsilon"):
        load_pipeline(str(folder))
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = load_pipeline(str(folder), prediction_type="epsilon")
    assert told.noise_schedule.prediction_type == "epsilon"
    assert any("epsilon as given; its scheduler says v_prediction" in line for line in lines(capsys))
    shutil.rmtree(folder / "scheduler")
    assert load_pipeline(str(folder)).noise_schedule.prediction_type == "epsilon"
    assert any("measured: epsilon" in line for line in lines(capsys))


def test_weights_between_the_two_are_not_guessed_at(
    noise_teller: Path, pipelines: dict[str, Path], tmp_path: Path
) -> None:
    """Half of the last layer of a model that tells the noise."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(noise_teller, tmp_path / "between")
    shutil.rmtree(folder / "scheduler")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state, other = load_file(file), load_file(pipelines["sd1"] / "unet" / file.name)
    state["conv_out.weight"][:2], state["conv_out.bias"][:2] = other["conv_out.weight"][:2], other["conv_out.bias"][:2]
    save_file(state, file)
    with pytest.raises(UserError, match=r"weights do not tell \(correlation .*give prediction_type"):
        load_pipeline(str(folder))
    assert load_pipeline(str(folder), prediction_type="epsilon").noise_schedule.prediction_type == "epsilon"


def test_asking_the_weights_leaves_the_model_and_the_generators_alone(pipelines: dict[str, Path]) -> None:
    model = LatentDiffusion.build(str(pipelines["sd1"]), str(pipelines["sd1"]))
    model.train()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = noise_correlation(model)
    torch.testing.assert_close(torch.rand(2), expected)
    assert model.unet.training
    assert noise_correlation(model) == first
    assert contradiction(0.6, "epsilon", "x") is None
    assert contradiction(0.6, "v_prediction", "x") is None


# ---- what is of another family --------------------------------------------------------------------------------------


def sdxl(folder: Path) -> None:
    (folder / "text_encoder_2").mkdir()


def sdxl_index(folder: Path) -> None:
    edit_json(
        folder / "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
    )


def transformer(folder: Path) -> None:
    shutil.move(folder / "unet", folder / "transformer")


def conditioner(folder: Path) -> None:
    edit_json(folder / "model_index.json", _class_name="CompDiffPipeline", demographic_encoder=["compdiff", "Encoder"])


def unet_says(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "unet" / "config.json", **values)


def plain_blocks(folder: Path) -> None:
    edit_json(
        folder / "unet" / "config.json",
        down_block_types=["DownBlock2D"] * 2,
        up_block_types=["UpBlock2D"] * 2,
        mid_block_type="UNetMidBlock2D",
    )


def scheduler_says(kind: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: set_scheduler(folder, kind, **values)


def vae_says(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "vae" / "config.json", **values)


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "sdxl": (sdxl, "text_encoder_2 .*two text encoders"),
    "sdxl by its index": (sdxl_index, "a StableDiffusionXLPipeline with text_encoder_2"),
    "transformer": (transformer, "with transformer .*a transformer denoises"),
    "own conditioner": (conditioner, "a CompDiffPipeline with demographic_encoder"),
    "no words": (unet_says(_class_name="UNet2DModel"), "holds a UNet2DModel"),
    "no cross-attention": (plain_blocks, "without cross-attention"),
    "classes": (unet_says(num_class_embeds=9), "class-conditioned"),
    "added conditions": (unet_says(addition_embed_type="text_time"), r"added conditions \(text_time\)"),
    "image projection": (unet_says(encoder_hid_dim_type="image_proj"), "conditioned on image_proj"),
    "inpainting": (unet_says(in_channels=9), r"an inpainting model's U-Net \(9 input channels\)"),
    "instructions": (unet_says(in_channels=8), r"\(8 input channels\)"),
    "learned sigma": (unet_says(out_channels=8), "4 input and 8 output channels"),
    "flow": (scheduler_says("FlowMatchEulerDiscreteScheduler"), "FlowMatchEulerDiscreteScheduler"),
    "predicts the sample": (scheduler_says("DDIMScheduler", prediction_type="sample"), "prediction_type sample"),
    "shifted latents": (vae_says(shift_factor=0.1159), "shift_factor 0.1159"),
    "sixteen channels": (vae_says(latent_channels=16), "16 channels and the U-Net .* takes 4"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_other_families_are_refused_by_their_small_files(copy: Path, name: str) -> None:
    """In one sentence that names what was found; weights that are no weights are not looked at."""
    change, words = OTHERS[name]
    find_pipeline(str(copy))  # control: unchanged it is taken
    change(copy)
    for file in copy.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match=words) as refused:
        find_pipeline(str(copy))
    assert "\n" not in str(refused.value)


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No model at .*nothing"):
        find_pipeline(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="holds no U-Net"):
        find_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps(["no names"]))
    with pytest.raises(UserError, match="no names and values"):
        find_pipeline(str(tmp_path))


def test_without_a_network_the_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="The hub has no usable 'nobody/nothing-at-all'"):
        find_pipeline("hub:nobody/nothing-at-all")
