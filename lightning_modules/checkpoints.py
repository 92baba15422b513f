"""What a checkpoint of a latent diffusion model holds beside its weights. Source: own."""

from collections.abc import Mapping
from typing import cast

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.ema import EmaState, ExponentialMovingAverage
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule


def restore_average(ema: ExponentialMovingAverage, checkpoint: Mapping[str, object]) -> None:
    """Put the average of a checkpoint back; one that is switched on now starts from the checkpoint's weights.

    Args:
        checkpoint: its ``state_dict`` under the module's names.

    Raises:
        UserError: it does not fit, or is missing although the training kept one.
    """
    if "ema" in checkpoint:
        ema.load_state_dict(cast(EmaState, checkpoint["ema"]))
        return
    arguments = checkpoint.get("hyper_parameters")
    if isinstance(arguments, dict) and arguments.get("ema_decay") is not None:
        raise UserError("The checkpoint holds no average although its training kept one: take another checkpoint.")
    weights = cast(dict[str, Tensor], checkpoint["state_dict"])
    ema.restart({name: weights[f"model.{name}"] for name in ema.names})
    rank_zero_warn("The checkpoint holds no average: it starts from the checkpoint's weights.")


def architecture(model: LatentDiffusion) -> dict[str, object]:
    """The arguments that rebuild the model with random weights and its schedule; plain values."""
    unet = {key: value for key, value in dict(model.unet.config).items() if not key.startswith("_")}
    return {
        "unet": plain(unet),
        "text_encoder": model.text_encoder.config,
        "noise_schedule": dict(model.noise_schedule.config),
    }


def restore_schedule(model: LatentDiffusion, checkpoint: Mapping[str, object], told: object) -> None:
    """Give ``model`` the noise schedule that a checkpoint was trained with; of before there was a choice, Stable Diffusion's.

    Args:
        told: the schedule the training is told to take now, which stays; None means that it is told none.
    """
    if told is not None:
        return
    parts = checkpoint.get("architecture")
    stored = parts.get("noise_schedule") if isinstance(parts, dict) else None
    prediction = model.noise_schedule.prediction_type
    config = {**stored, "prediction_type": prediction} if isinstance(stored, dict) else None
    model.noise_schedule = NoiseSchedule(prediction, config).to(model.device)


def plain(value: object) -> object:
    """Lists and dicts of plain values: what ``torch.load(weights_only=True)`` accepts."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
