"""A noise schedule by the names of diffusers' schedulers: what it may say, and its shortest form. No torch.

Names beside the betas say how diffusers' samplers walk over them. Those that Stable Diffusion's pipelines set themselves
whatever a file says (``steps_offset`` 1, ``clip_sample`` false) are no choice here either. Source: own; the names and
zero terminal SNR (Lin et al. 2024) are diffusers'.
"""

from collections.abc import Mapping
from typing import Literal, TypeGuard

from meddiff.common.errors import UserError
from meddiff.common.ranges import Range

PredictionType = Literal["epsilon", "v_prediction"]
#: As diffusers' schedulers take it.
ScheduleConfig = dict[str, bool | int | float | str]
#: As a user writes it.
GivenSchedule = dict[str, bool | int | float | str | None]
TIMESTEPS = 1000
PREDICTIONS = ("epsilon", "v_prediction")
ZERO_SNR = "rescale_betas_zero_snr"
BETA_SCHEDULES = ("scaled_linear", "linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")
#: What the cumulative alphas depend on.
ALPHAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", ZERO_SNR)
#: The paper's grounding timesteps reach to 781.
FEWEST_TIMESTEPS = 782
#: Stable Diffusion's betas.
STABLE_DIFFUSION: ScheduleConfig = {
    "num_train_timesteps": TIMESTEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
#: How every sampler here walks unless the schedule says otherwise.
WALK: ScheduleConfig = {
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,  # PLMS as Stable Diffusion uses it, without the Runge-Kutta start
    "algorithm_type": "dpmsolver++",
}
#: What a schedule may name and has one value only.
ONLY: GivenSchedule = {
    "steps_offset": 1,
    "clip_sample": False,
    "skip_prk_steps": True,
    "thresholding": False,
    "trained_betas": None,
}
NAMES = (*STABLE_DIFFUSION, "prediction_type", ZERO_SNR, "timestep_spacing", "set_alpha_to_one", *ONLY)


def schedule_config(prediction_type: PredictionType, num_train_timesteps: int = TIMESTEPS) -> ScheduleConfig:
    """The scaled-linear schedule of Stable Diffusion, as diffusers' schedulers take it."""
    return {**STABLE_DIFFUSION, "num_train_timesteps": num_train_timesteps, "prediction_type": prediction_type}


def completed(
    given: Mapping[str, object] | None, prediction_type: PredictionType, where: str = "noise_schedule"
) -> ScheduleConfig:
    """``given`` with Stable Diffusion's betas for what it does not name, without what every schedule here has.

    Two configs of one schedule become equal, and that of Stable Diffusion becomes :func:`schedule_config`.

    Args:
        given: names of diffusers' schedulers.
        prediction_type: what the U-Net predicts.
        where: begins a sentence about it.

    Raises:
        UserError: a name or value that is not understood, or zero terminal SNR with epsilon.

    Example:
        >>> completed({"clip_sample": False}, "epsilon") == schedule_config("epsilon")
        True
        >>> completed({"rescale_betas_zero_snr": True}, "v_prediction")["timestep_spacing"]
        'trailing'
    """
    named = {name: value for name, value in (given or {}).items() if not name.startswith("_")}
    problem = _problem(named, prediction_type)
    if problem:
        raise UserError(f"{where}: {problem}")
    config: ScheduleConfig = {**schedule_config(prediction_type)}
    kinds = {"num_train_timesteps": int, "beta_schedule": str, "beta_start": float, "beta_end": float}
    for name, kind in kinds.items():
        value = named.get(name)
        if _plain(value):
            config[name] = kind(value)
    if named.get(ZERO_SNR):
        config[ZERO_SNR] = True
        config["timestep_spacing"] = "trailing"  # any other never starts from the timestep that holds no image
    spacing = named.get("timestep_spacing")
    if _plain(spacing):
        config["timestep_spacing"] = spacing
    if named.get("set_alpha_to_one"):
        config["set_alpha_to_one"] = True
    return config


def _plain(value: object) -> TypeGuard[bool | int | float | str]:
    return isinstance(value, bool | int | float | str)


def _problem(named: Mapping[str, object], prediction_type: PredictionType) -> str | None:
    unknown = [name for name in named if name not in NAMES]
    if unknown:
        return f"{unknown[0]} is not understood: it takes {', '.join(NAMES)}."
    for name, only in ONLY.items():
        if name in named and named[name] != only:
            return f"{name} is {_short(named[name])}; only {_short(only)} is understood."
    choices = {"beta_schedule": BETA_SCHEDULES, "timestep_spacing": SPACINGS, "prediction_type": PREDICTIONS}
    for name, allowed in choices.items():
        if named.get(name) is not None and named[name] not in allowed:
            return f"{name} is {named[name]!r}; it must be {', '.join(allowed[:-1])} or {allowed[-1]}."
    told = named.get("prediction_type")
    if told is not None and told != prediction_type:
        return f"its prediction_type is {told} and the model's {prediction_type}: say it once, as prediction_type."
    for name in (ZERO_SNR, "set_alpha_to_one"):
        if not isinstance(named.get(name), bool | None):
            return f"{name} is {_short(named[name])}; it must be true or false."
    beta = Range(0, 1, above=True, below=True)
    numbers = {"beta_start": beta, "beta_end": beta, "num_train_timesteps": Range(FEWEST_TIMESTEPS, whole=True)}
    for name, rule in numbers.items():
        value = named.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not rule.holds(value):
            return f"{name} is {_short(value)}; it must {rule}."
    if named.get(ZERO_SNR) and prediction_type == "epsilon":
        return (
            f"{ZERO_SNR} leaves nothing of the image at the last timestep, where epsilon says nothing about it: set "
            f"prediction_type to v_prediction, or {ZERO_SNR} to false."
        )
    return None


def _short(value: object) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or value is True or value is False
        else f"{value!r:.40}"
    )


def walk(config: Mapping[str, object]) -> dict[str, object]:
    """All that a sampler of diffusers takes of a schedule: its betas, and how it walks over them."""
    return {**WALK, **config}
