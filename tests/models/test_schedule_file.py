"""The noise schedule that lies beside a U-Net: taken, refused in a sentence, kept by checkpoints, written again."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from lightning_modules import LatentDiffusionModule
from lightning_modules.preflight import prediction_problem
from meddiff.common.errors import UserError
from meddiff.evaluation.provenance import model_digest
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.sampling import Sampler, build_scheduler
from meddiff.models.schedule_config import schedule_config
from meddiff.models.weights.schedule_file import read_schedule, schedule_problems, stored_schedule, write_scheduler
from tests.builders.tiny import TEXT, model_config, quiet_trainer
from tests.builders.weight_files import make_model

RADEDIT = {"beta_schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0195}
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with RadEdit-like betas."""
    folder = make_model(tmp_path / "model")
    DDIMScheduler(**RADEDIT, timestep_spacing="trailing", clip_sample=False).save_pretrained(folder / "scheduler")
    return folder


def change(folder: Path, **values: object) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "theirs",
    [
        PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1),
        DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        DPMSolverMultistepScheduler(**SD),
        EulerDiscreteScheduler(**SD, timestep_spacing="linspace"),
        DDPMScheduler(**SD),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_way_to_write_stable_diffusion_is_stable_diffusion(theirs: DDPMScheduler, tmp_path: Path) -> None:
    """Also its digest: a folder's schedule makes no other model of what was measured before."""
    theirs.save_pretrained(tmp_path / "scheduler")
    assert stored_schedule(str(tmp_path)) == schedule_config("epsilon")


def test_betas_of_the_folder_train_the_model(folder: Path) -> None:
    model = LatentDiffusion.build(str(folder), TEXT)
    theirs = DDPMScheduler(**RADEDIT).alphas_cumprod
    assert torch.equal(model.noise_schedule.alphas_cumprod, theirs)
    assert build_scheduler("ddim", model.noise_schedule.config).config.timestep_spacing == "trailing"
    inside = LatentDiffusion.build(str(folder / "unet"), TEXT)
    assert inside.noise_schedule.config == model.noise_schedule.config
    told = LatentDiffusion.build(str(folder), TEXT, noise_schedule={})
    assert told.noise_schedule.config == schedule_config("epsilon")
    assert not torch.equal(told.noise_schedule.alphas_cumprod, theirs)


def test_what_a_part_says_it_predicts_counts_too(folder: Path) -> None:
    """The folder of the U-Net alone, and a dict with a checkpoint: the pipeline around them says it."""
    change(folder, prediction_type="v_prediction")
    for unet in (str(folder), str(folder / "unet"), {"checkpoint": str(folder)}):
        arguments = {**model_config("nowhere"), "unet": unet, "vae": None}
        problems = schedule_problems(arguments) + prediction_problem(arguments)
        assert len(problems) == 1
        assert "set prediction_type: v_prediction" in problems[0]
        told = {**arguments, "prediction_type": "v_prediction"}
        assert schedule_problems(told) + prediction_problem(told) == []


def test_a_file_that_is_cut_is_told_once(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text('{"beta_start": 0.00')
    arguments = {**model_config("nowhere"), "unet": str(folder), "vae": None}
    (said,) = LatentDiffusionModule.preflight(**arguments)
    assert "scheduler_config.json is not JSON" in said
    assert len(LatentDiffusionModule.preflight(**arguments, noise_schedule={})) == 1


def test_models_of_other_schedules_have_other_digests(folder: Path) -> None:
    """So that no image of one is taken for an image of the other."""
    digests = [
        model_digest(LatentDiffusion.build(str(folder), TEXT, noise_schedule=given)) for given in (None, {}, RADEDIT)
    ]
    assert len(set(digests)) == 3, "RadEdit's spacing is another one, too"
    assert model_digest(LatentDiffusion.build(str(folder), TEXT)) == digests[0]


def test_nothing_beside_it(tmp_path: Path) -> None:
    assert stored_schedule({"sample_size": 8}) is None
    assert stored_schedule("hub:ORG/NAME/FILE.safetensors") is None
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"")
    assert stored_schedule(str(file)) is None
    folder = make_model(tmp_path / "model")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert stored_schedule(str(folder)) is None
    assert LatentDiffusion.build(str(folder), TEXT).noise_schedule.config == schedule_config("epsilon")


def test_a_dict_with_a_checkpoint(folder: Path) -> None:
    assert stored_schedule({"checkpoint": str(folder), "ema": True}) == stored_schedule(str(folder))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is of a FlowMatchEulerDiscreteScheduler, whose noise"),
        ({"prediction_type": "sample"}, "says prediction_type sample; only epsilon and v_prediction"),
        ({"prediction_type": "flow_prediction"}, "says prediction_type flow_prediction"),
        ({"trained_betas": [0.1, 0.2]}, "sets trained_betas, which is not understood"),
        ({"use_flow_sigmas": True}, "sets use_flow_sigmas"),
        ({"thresholding": True}, "sets thresholding"),
        ({"variance_type": "learned_range"}, "sets variance_type"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ({"num_train_timesteps": 100}, "num_train_timesteps is 100"),
        ({"beta_end": "much"}, "beta_end is 'much'; it must"),
        ({"rescale_betas_zero_snr": True}, "set prediction_type to v_prediction"),
        ({"timestep_spacing": "odd"}, "timestep_spacing is 'odd'; it must be"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(folder: Path, values: dict[str, object], said: str) -> None:
    change(folder, **values)
    with pytest.raises(UserError) as told:
        stored_schedule(str(folder))
    assert said in str(told.value)
    assert "scheduler_config.json" in str(told.value)
    problems = LatentDiffusionModule.preflight(**{**model_config("nowhere"), "unet": str(folder), "vae": None})
    assert len(problems) == 1
    assert said in problems[0]
    # who names a schedule does not ask the file
    given = {
        "unet": str(folder),
        "vae": None,
        "noise_schedule": {},
        "prediction_type": values.get("prediction_type", ""),
    }
    if "prediction_type" not in values:
        given["prediction_type"] = "epsilon"
        assert LatentDiffusionModule.preflight(**{**model_config("nowhere"), **given}) == []


def test_a_schedule_of_the_configuration_is_checked_before_anything_is_built() -> None:
    def problems(**more: object) -> list[str]:
        return LatentDiffusionModule.preflight(**{**model_config("nowhere"), "vae": None, **more})

    zero = {"noise_schedule": {"rescale_betas_zero_snr": True}, "prediction_type": "v_prediction"}
    assert problems(**zero, sampling={"sampler": "ddim"}) == []
    (said,) = problems(**zero)
    assert "sampling.sampler is pndm" in said
    (said,) = problems(noise_schedule={"rescale_betas_zero_snr": True})
    assert "epsilon says nothing" in said
    (said,) = problems(noise_schedule={"betas": 1})
    assert "betas is not understood" in said


def trained(folder: Path, **more: object) -> dict[str, object]:
    """The checkpoint of a module that has not trained."""
    module = LatentDiffusionModule(**{**model_config("nowhere"), "vae": None, **more})  # type: ignore[arg-type]
    trainer = quiet_trainer(folder, 1)
    trainer.strategy.connect(module)
    module.configure_model()
    trainer.save_checkpoint(folder / "one.ckpt")
    content: dict[str, object] = torch.load(folder / "one.ckpt", weights_only=True)
    return content


def opened(checkpoint: dict[str, object], **more: object) -> LatentDiffusionModule:
    """A module given a checkpoint's state, as a training that goes on does it."""
    module = LatentDiffusionModule(**{**model_config("nowhere"), "vae": None, **more})  # type: ignore[arg-type]
    module.configure_model()
    module.on_load_checkpoint(checkpoint)
    return module


def test_a_checkpoint_keeps_the_schedule_and_needs_no_folder(folder: Path, tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, unet=str(folder))
    architecture = checkpoint["architecture"]
    assert isinstance(architecture, dict)
    assert architecture["noise_schedule"] == stored_schedule(str(folder))
    # as open_run does it: the architecture in the place of the sources
    arguments = {**checkpoint["hyper_parameters"], **architecture}  # type: ignore[dict-item]
    module = LatentDiffusionModule(**arguments)
    module.configure_model()
    assert torch.equal(module.model.noise_schedule.alphas_cumprod, DDPMScheduler(**RADEDIT).alphas_cumprod)


def test_a_checkpoint_of_before_loads_as_before(folder: Path, tmp_path: Path) -> None:
    """It was trained with Stable Diffusion's betas whatever lay beside its U-Net."""
    checkpoint = trained(tmp_path, unet=str(folder))
    del checkpoint["architecture"]["noise_schedule"]  # type: ignore[attr-defined]
    assert opened(checkpoint, unet=str(folder)).model.noise_schedule.config == schedule_config("epsilon")
    # told a schedule, it takes that
    told = opened(checkpoint, unet=str(folder), noise_schedule=RADEDIT)
    assert told.model.noise_schedule.config["beta_schedule"] == "linear"


@pytest.mark.parametrize("sampler", ["pndm", "ddim", "dpm++"])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("own", ["pndm", "ddim", "dpm++"])
def test_what_is_written_draws_as_we_do(own: Sampler, sampler: Sampler, zero: bool, tmp_path: Path) -> None:
    """Whichever class the file names, the others made of it take what ours take."""
    given = {"rescale_betas_zero_snr": True} if zero else {}
    config = NoiseSchedule("v_prediction", given).config
    write_scheduler(tmp_path, config, own)
    named = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    kinds = {"pndm": PNDMScheduler, "ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
    first = {one.__name__: one for one in kinds.values()}[named].from_pretrained(tmp_path / "scheduler")
    assert named == ("DDIMScheduler" if zero and own == "pndm" else kinds[own].__name__)
    if zero and sampler == "pndm":
        return
    theirs, ours = kinds[sampler].from_config(first.config), build_scheduler(sampler, config)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(7)
    assert torch.equal(theirs.timesteps, ours.timesteps)
    for name, value in ours.config.items():
        if not name.startswith("_"):
            assert theirs.config[name] == value, name
    assert read_schedule(json.loads((tmp_path / "scheduler/scheduler_config.json").read_text()), "it") == config
