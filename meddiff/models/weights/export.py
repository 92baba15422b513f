"""A trained U-Net and text tower as a diffusers folder: the form every source of this suite is read from.

``unet/`` and ``scheduler/`` are what diffusers writes, ``text_encoder/`` and ``tokenizer/`` what transformers writes.
Source: own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from meddiff.models.schedule_config import ScheduleConfig
from meddiff.models.weights.clip_folder import write_clip_folder
from meddiff.models.weights.network_files import write_network
from meddiff.models.weights.schedule_file import write_scheduler

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from meddiff.models.text.tower import TextTower


def write_model(
    folder: Path,
    unet: "UNet2DConditionModel",
    text_encoder: "TextTower",
    schedule: ScheduleConfig,
    rows: Tensor | None = None,
    rows_seed: int = 0,
    half: bool = True,
) -> None:
    """Write ``unet/``, ``text_encoder/`` and ``scheduler/``; ``half`` rounds to float16 (memory keeps float32).

    Args:
        schedule: :func:`meddiff.models.noise_schedule.schedule_config`, with the prediction type the U-Net was trained for.
        rows: see :func:`meddiff.models.weights.clip_folder.write_clip_folder`; None writes the whole tower and its tokenizer.
    """
    write_network(unet, folder / "unet", half)
    if rows is None:
        text_encoder.save(folder, half)
    else:
        write_clip_folder(
            text_encoder.state_dict(), text_encoder.config, folder / "text_encoder", rows, rows_seed, half
        )
    write_scheduler(folder, schedule, "ddim")
