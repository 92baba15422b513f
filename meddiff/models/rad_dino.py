"""RadDINO's features (a Dinov2 trained on chest X-rays) from a local folder of its weights.

Two protocols that do not compare: the native image, and the detour over 299 px of a published benchmark, which squashes images
and enlarges what is left. Source: Perez-Garcia et al. 2025; preprocessing as the model's own configuration states it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.places import locate

if TYPE_CHECKING:
    from transformers import Dinov2Model

#: Of all three channels, on values in 0..1.
MEAN, STD = 0.5307, 0.2583
SQUASHED = 299


def load_rad_dino(folder: str | Path) -> "Dinov2Model":
    """The network in eval mode, float32, frozen.

    Raises:
        UserError: nothing there, or another network.
    """
    from transformers import Dinov2Config, Dinov2Model

    place = locate(folder)
    wanted = f"give the folder of rad-dino (config.json and model.safetensors) instead of {folder}"
    if not (place / "config.json").is_file():
        raise UserError(f"No config.json at {folder}: {wanted}.")
    try:
        config = Dinov2Config.from_pretrained(place, local_files_only=True)
        if config.model_type != "dinov2":
            raise ValueError(f"model type {config.model_type}")
        model = Dinov2Model.from_pretrained(place, config=config, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} holds no Dinov2 ({str(error).splitlines()[0]}): {wanted}.") from error
    return model.eval().requires_grad_(False).float()


def rad_dino_input(images: Tensor, side: int, squash: int | None = None) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, side, side), normalised.

    Args:
        side: the shorter side becomes this, by antialiased bicubic, and the middle is cut out.
        squash: images are first brought to bytes of this size, whatever their shape (the benchmark's detour).
    """
    values = (images.float() + 1.0) / 2.0
    if squash is not None:
        small = F.interpolate(values, size=(squash, squash), mode="bilinear", align_corners=False, antialias=True)
        values = (small.clamp(0, 1) * 255).round() / 255
    height, width = values.shape[-2:]
    scale = side / min(height, width)
    size = (round(height * scale), round(width * scale))
    if size != (height, width):
        values = F.interpolate(values, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return (values[..., top : top + side, left : left + side] - MEAN) / STD


@torch.no_grad()
def rad_dino_features(model: "Dinov2Model", images: Tensor, squash: int | None = None) -> Tensor:
    """The class token after the last norm, (B, D), of images (B, 3, H, W) in [-1, 1]."""
    size = model.config.image_size
    found: Tensor = model(rad_dino_input(images, size if isinstance(size, int) else min(size), squash)).pooler_output
    return found
