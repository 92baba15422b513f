"""U-Net and autoencoder: diffusers' own classes, built from a source."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.weights.sources import Config, Source, find_part, fingerprint, part_config, read_config

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    Vae: TypeAlias = AutoencoderKL | AutoencoderTiny

#: Plain loading: diffusers otherwise asks for `accelerate`.
LOADING: Config = {"use_safetensors": True, "low_cpu_mem_usage": False}


def build_unet(source: Source) -> "UNet2DConditionModel":
    """A ``diffusers.UNet2DConditionModel`` in train mode, float32.

    Raises:
        UserError: weights missing, or a config diffusers does not accept.
    """
    from diffusers import UNet2DConditionModel

    try:
        if isinstance(source, dict):
            return UNet2DConditionModel(**source).train()
        return UNet2DConditionModel.from_pretrained(find_part(source, "unet"), **LOADING).train()
    except (TypeError, ValueError) as error:
        raise UserError(f"unet: diffusers does not accept this config: {error}") from error


def untrained_twin(unet: "UNet2DConditionModel", seed: int = 0) -> "UNet2DConditionModel":
    """The same network with random weights, on the same device, in eval mode; a function of ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "untrained", "unet"))
        twin = type(unet).from_config(unet.config)
    first = next(unet.parameters())
    return twin.to(first.device, first.dtype).eval().requires_grad_(False)


def load_vae(source: str) -> "Vae":
    """The frozen autoencoder (``AutoencoderKL`` or ``AutoencoderTiny``) in eval mode, float32."""
    import diffusers

    folder = find_part(source, "vae")
    name = read_config(folder).get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise UserError(f"vae: {folder} is a {name}; AutoencoderKL and AutoencoderTiny are supported.")
    vae = getattr(diffusers, name).from_pretrained(folder, **LOADING)
    return vae.float().eval().requires_grad_(False)


def vae_identity(source: str) -> Config:
    """What a shard manifest records of the autoencoder and what a model must agree with.

    Returns:
        class, sha256 of the weights, source, scaling_factor, latent_channels, downsample (pixels per latent).
    """
    folder: Path = find_part(source, "vae")
    config = part_config(str(folder), "vae")
    return {
        "class": config.get("_class_name", "AutoencoderKL"),
        "sha256": fingerprint(folder),
        "source": source,
        "scaling_factor": float(config.get("scaling_factor", 0.18215)),
        "latent_channels": int(config["latent_channels"]),
        "downsample": vae_downsample(config),
    }


def vae_downsample(config: Config) -> int:
    """Pixels per latent along one side."""
    if config.get("_class_name") == "AutoencoderTiny":
        return 2 ** (len(config["encoder_block_out_channels"]) - 1)
    return 2 ** (len(config["block_out_channels"]) - 1)
