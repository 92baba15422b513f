"""The noise schedule that a published model was trained with, as its ``scheduler_config.json`` says it.

Source: own; names and values that a file leaves out are diffusers'.
"""

from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType, ScheduleConfig
from meddiff.models.weights.sources import Config, read_config

FILE = "scheduler_config.json"
#: What diffusers' classes take where a file does not name it.
UNNAMED: ScheduleConfig = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
}


def scheduler_config(root: Path) -> Config | None:
    """``scheduler_config.json`` of a pipeline, or beside a U-Net; None where there is none.

    Raises:
        UserError: it is no JSON.
    """
    places = [root / "scheduler", root, *([root.parent / "scheduler"] if root.name == "unet" else [])]
    folder = next((one for one in places if (one / FILE).is_file()), None)
    return None if folder is None else read_config(folder, FILE)


def training_schedule(config: Config, source: str) -> ScheduleConfig:
    """What a scheduler file says of training.

    Raises:
        UserError: it cannot be what a Stable Diffusion model was trained with.
    """
    schedule = {**UNNAMED, **{name: config[name] for name in (*UNNAMED, "timestep_spacing") if name in config}}
    wrong = ""
    if "Flow" in str(config.get("_class_name", "")):
        wrong = f"a {config['_class_name']}, which is of flow matching"
    elif schedule["prediction_type"] not in ("epsilon", "v_prediction"):
        wrong = f"prediction_type {schedule['prediction_type']}"
    elif config.get("trained_betas") is not None:
        wrong = "trained_betas"
    elif schedule["num_train_timesteps"] != UNNAMED["num_train_timesteps"]:
        wrong = f"{schedule['num_train_timesteps']} timesteps instead of 1000"
    if wrong:
        raise UserError(
            f"{source}: its scheduler says {wrong}: only epsilon and v over Stable Diffusion's timesteps are read."
        )
    return schedule


def prediction_of(schedule: ScheduleConfig) -> PredictionType:
    """What a schedule says that the U-Net predicts."""
    return "v_prediction" if schedule["prediction_type"] == "v_prediction" else "epsilon"


def noise_schedule(config: ScheduleConfig) -> NoiseSchedule:
    """A schedule with the betas of ``config``, not Stable Diffusion's."""
    from diffusers import DDIMScheduler

    schedule = NoiseSchedule(prediction_of(config))
    schedule.config = config
    schedule.alphas_cumprod = DDIMScheduler(**config).alphas_cumprod.float()
    return schedule
