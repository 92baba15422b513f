"""What a checkpoint of a latent diffusion model holds beside its weights. Source: own."""

from collections.abc import Mapping
from typing import cast

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.ema import EmaState, ExponentialMovingAverage


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


def plain(value: object) -> object:
    """Lists and dicts of plain values: what ``torch.load(weights_only=True)`` accepts."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
