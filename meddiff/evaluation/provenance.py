"""What a result was made from: digests of models and of stored samples, and the record that an image carries with it.

A result is taken for another only where all of it is equal; a path says nothing, what lies there may have changed.
Source: own.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from meddiff.common.files import atomic_open
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.index import METADATA

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

#: Values of each tensor that go into its digest as they are, beside the sum over all of them.
PROBES = 256
#: Name of the text of a PNG that says what the image was made from.
MADE = "meddiff"
#: What is made from what; JSON values.
Settings = dict[str, object]


def weights_digest(*networks: torch.nn.Module) -> str:
    """Tells two states of networks apart, on any device, in a fraction of a second.

    Of each tensor up to 256 values count as they are, and the sum over the bits of all: one changed value changes it.
    """
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            flat = value.detach().reshape(-1)
            digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|{_bit_sum(flat)}".encode())
            probes = flat[:: max(1, flat.numel() // PROBES)].contiguous().cpu()
            digest.update(probes.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _bit_sum(flat: Tensor) -> int:
    """Sum over the bit patterns of a vector's values: integers, so any order and any device give the same."""
    size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(flat.element_size())
    if size is None or not flat.numel():
        return 0
    return int(flat.contiguous().view(size).sum(dtype=torch.int64))


def model_digest(model: LatentDiffusion, unet: "UNet2DConditionModel | None" = None) -> str:
    """Weights of U-Net and text tower, and what the same weights compute differently with: sizes, heads, what is predicted.

    Args:
        unet: another network in the place of the model's own.
    """
    network = unet or model.unet
    configs = [dict(network.config), dict(model.text_encoder.config), dict(model.noise_schedule.config)]
    # underscores: where it was read from and by which version
    plain = [{name: value for name, value in sorted(one.items()) if not name.startswith("_")} for one in configs]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256((weights_digest(network, model.text_encoder) + text).encode()).hexdigest()


def sample_digest(split: LatentShardsDataset, index: int) -> str:
    """sha256 of all that a grounding result takes of a stored sample: latent, ``KEY.json`` and exact masks."""
    digest = hashlib.sha256()
    masks = [f"mask.{slug}.png" for slug in sorted(split.metadata(index)["mask_names"])]
    for suffix in (split.payload, METADATA, *masks):
        digest.update(hashlib.sha256(split.reader.read(index, suffix)).digest())
    return digest.hexdigest()


def split_digest(split: LatentShardsDataset) -> str:
    """Of all samples of a split, by the check sums of its shards, and of a part of it by its keys too."""
    shards = [[shard.name, shard.sha256] for shard in split.manifest.split(split.split)]
    return hashlib.sha256(json.dumps([split.split, shards, *split.part]).encode()).hexdigest()


def made_from(settings: Mapping[str, object], prompt: str) -> Settings:
    """The record of one image. A prompt goes in by its digest: it may be a patient's report."""
    return {**settings, "prompt": hashlib.sha256(prompt.encode()).hexdigest()}


def write_image(path: Path, pixels: NDArray[np.uint8], made: Settings) -> None:
    """A PNG that says what it was made from: whole or absent, and never without its record.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(MADE, json.dumps(made, sort_keys=True))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    with atomic_open(path) as stream:
        stream.write(buffer.getvalue())


def image_made_from(path: Path) -> Settings | None:
    """What an image says it was made from; None where it says nothing."""
    try:
        with Image.open(path) as image:  # the text stands before the pixels, which are not read
            found = json.loads(str(image.info.get(MADE, "null")))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Names under which two records hold different JSON values."""
    then, today = (json.loads(json.dumps(one)) for one in (before, now))
    return sorted(name for name in then.keys() | today.keys() if then.get(name) != today.get(name))
