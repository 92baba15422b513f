"""``scheduler/scheduler_config.json`` of a pipeline: read beside a U-Net, and written. No torch.

What is taken is what the weights were trained with (betas, what is predicted) and how their timesteps are spaced. What
belongs to one sampler (solver orders, sigmas) is not: the suite's samplers are its own three. Source: own; the layout is
diffusers'.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.places import locate
from meddiff.models.schedule_config import PREDICTIONS, ZERO_SNR, PredictionType, ScheduleConfig, completed, walk
from meddiff.models.weights.sources import HUB_PREFIX, Config, Source, read_config

FOLDER, FILE = "scheduler", "scheduler_config.json"
#: Sampler -> diffusers' class.
CLASSES = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}
#: diffusers' classes of which the betas are known, and how each spaces its timesteps where a file says nothing.
SPACING = {
    "PNDMScheduler": "leading",
    "DDIMScheduler": "leading",
    "DDIMInverseScheduler": "leading",
    "DDPMScheduler": "leading",
    "LCMScheduler": "leading",
    **dict.fromkeys(
        (
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "UniPCMultistepScheduler",
            "DEISMultistepScheduler",
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "HeunDiscreteScheduler",
            "LMSDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
        ),
        "linspace",
    ),
}
#: What diffusers' classes take where a file does not name it.
UNNAMED: ScheduleConfig = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
}
#: Switches that make another process, or another image, of the same betas.
SWITCHES = ("trained_betas", "thresholding", "use_flow_sigmas")


def schedule_file(source: Source) -> Path | None:
    """The ``scheduler_config.json`` that belongs to a U-Net; None where there is none, as beside a single file.

    Args:
        source: a pipeline's folder, its ``unet`` folder, ``hub:ORG/NAME``, or a dict whose ``checkpoint`` is one of them.

    Raises:
        UserError: the hub cannot be asked.
    """
    where = source.get("checkpoint") if isinstance(source, dict) else source
    if not isinstance(where, str):
        return None
    if where.startswith(HUB_PREFIX):
        repository = where.removeprefix(HUB_PREFIX)
        if repository.count("/") != 1:  # a single file
            return None
        from huggingface_hub import snapshot_download

        try:
            where = snapshot_download(repository, allow_patterns=[f"{FOLDER}/{FILE}"])
        except Exception as error:
            raise UserError(
                f"unet: the hub does not say whether {repository!r} has a {FOLDER}/{FILE} ({type(error).__name__}): check "
                f"the name and the network, or set --model.noise_schedule."
            ) from error
    root = locate(where)
    folders = [root] if (root / "unet").is_dir() or not (root / "config.json").is_file() else [root, root.parent]
    files = [folder / FOLDER / FILE for folder in folders]
    return next((file for file in files if file.is_file()), None)


def stored_schedule(source: Source) -> ScheduleConfig | None:
    """The schedule a U-Net was trained with as its pipeline says it, in the form of
    :func:`meddiff.models.schedule_config.completed`; None where nothing says it.

    Raises:
        UserError: it is not one that this suite can train with.
    """
    file = schedule_file(source)
    return None if file is None else read_schedule(read_config(file.parent, file.name), f"unet: {file}")


def read_schedule(stored: Config, where: str) -> ScheduleConfig:
    """What a ``scheduler_config.json`` says, in the form of :func:`meddiff.models.schedule_config.completed`.

    Raises:
        UserError: another process than noising with betas, or values that are not understood.
    """
    kind = stored.get("_class_name")
    if kind is not None and kind not in SPACING:
        raise UserError(
            f"{where} is of a {kind}, whose noise is not that of Stable Diffusion (flow matching, say): give a U-Net with "
            f"one of {', '.join(list(SPACING)[:4])}, ..."
        )
    named = {**UNNAMED, **{name: value for name, value in stored.items() if value is not None}}
    prediction = named["prediction_type"]
    if prediction not in PREDICTIONS:
        raise UserError(
            f"{where} says prediction_type {prediction}; only {' and '.join(PREDICTIONS)} can be trained and drawn from."
        )
    odd = [name for name in SWITCHES if stored.get(name) not in (None, False)]
    if str(stored.get("variance_type")).startswith("learned"):
        odd.append("variance_type")
    if odd:
        raise UserError(f"{where} sets {odd[0]}, which is not understood: give a U-Net that was trained without it.")
    kept = {name: named[name] for name in (*UNNAMED, ZERO_SNR) if name in named}
    spacing = stored.get("timestep_spacing")
    # diffusers writes every default: that of a class was nobody's choice
    if spacing is not None and (named.get(ZERO_SNR) or spacing != SPACING.get(str(kind), "leading")):
        kept["timestep_spacing"] = spacing
    if kind in (CLASSES["pndm"], CLASSES["ddim"]):  # no other class knows it
        kept["set_alpha_to_one"] = stored.get("set_alpha_to_one", kind == CLASSES["ddim"])
    return completed(kept, prediction, where)


def unet_schedule(unet: Source, given: Mapping[str, object] | None, prediction: PredictionType) -> ScheduleConfig:
    """The schedule of a model: what was given, else that of the U-Net's pipeline, else Stable Diffusion's.

    Args:
        prediction: what the model is told that its U-Net predicts.

    Raises:
        UserError: not understood, or zero terminal SNR with epsilon.
    """
    if given is None:
        stored = stored_schedule(unet)
        given = None if stored is None else {**stored, "prediction_type": prediction}
    return completed(given, prediction)


def schedule_problems(init_args: Mapping[str, object]) -> list[str]:
    """One sentence when the schedule of a model cannot be used; looks at local files alone.

    What a pipeline's folder predicts is compared by :func:`lightning_modules.preflight.prediction_problem`.
    """
    unet, given = cast(Source, init_args.get("unet") or {}), init_args.get("noise_schedule")
    told = cast(PredictionType, init_args.get("prediction_type", "epsilon"))
    where = unet.get("checkpoint") if isinstance(unet, dict) else unet
    config: ScheduleConfig | None = None
    try:
        if isinstance(given, Mapping):
            config = completed(given, told)
        elif isinstance(where, str) and not where.startswith(HUB_PREFIX):
            config = stored_schedule(unet)
            if config is not None and config["prediction_type"] != told:
                if schedule_file(unet) == locate(where) / FOLDER / FILE and isinstance(unet, str):
                    return []
                return [
                    f"unet: {where} was trained with prediction_type {config['prediction_type']}, the model says {told}: "
                    f"set prediction_type: {config['prediction_type']}."
                ]
    except UserError as error:
        return [str(error)]
    if config is not None and config.get(ZERO_SNR) and _sampler(init_args.get("sampling")) == "pndm":
        return [f"sampling.sampler is pndm, which cannot draw from zero terminal SNR ({ZERO_SNR}): set ddim or dpm++."]
    return []


def _sampler(sampling: object) -> object:
    """Of the options of a model, as they are parsed or built; the default where they say nothing."""
    return sampling.get("sampler", "pndm") if isinstance(sampling, Mapping) else getattr(sampling, "sampler", "pndm")


def scheduler_settings(config: ScheduleConfig, sampler: str) -> Config:
    """What ``scheduler_config.json`` holds so that diffusers draws as this suite does.

    Defaults that diffusers' classes do not share are left out: ``OtherScheduler.from_config`` then takes its own, as
    :func:`meddiff.models.sampling.build_scheduler` does.

    Args:
        sampler: whose class is named; ``ddim`` in the place of ``pndm``, which cannot start from pure noise.
    """
    import diffusers

    name = CLASSES["ddim" if sampler == "pndm" and config.get(ZERO_SNR) else sampler]
    return {"_class_name": name, "_diffusers_version": diffusers.__version__, **walk(config)}


def write_scheduler(folder: Path, config: ScheduleConfig, sampler: str) -> None:
    """Write ``folder/scheduler/scheduler_config.json``."""
    write_json(folder / FOLDER / FILE, scheduler_settings(config, sampler))
