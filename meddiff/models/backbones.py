"""U-Net and autoencoder: diffusers' own classes, built from a source."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import nn

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import State, read_state
from meddiff.models.weights.sources import (
    Config,
    Source,
    find_part,
    fingerprint,
    part_config,
    read_config,
    weights_file,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    Vae: TypeAlias = AutoencoderKL | AutoencoderTiny

#: What diffusers called the layers of an attention block before 0.18; the published autoencoders still do.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def build_unet(source: Source) -> "UNet2DConditionModel":
    """A ``diffusers.UNet2DConditionModel`` in train mode, float32.

    Raises:
        UserError: weights missing or of another network, or a config diffusers does not accept.
    """
    if isinstance(source, dict):
        return _from_config("unet", source).train()
    folder = find_part(source, "unet")
    return _filled("unet", folder).train()


def _from_config(part: Literal["unet", "vae"], config: Config) -> "UNet2DConditionModel":
    """The network a config describes, freshly drawn."""
    import diffusers

    kinds = {"unet": ["UNet2DConditionModel"], "vae": ["AutoencoderKL", "AutoencoderTiny"]}[part]
    name = config.get("_class_name", kinds[0])
    if name not in kinds:
        raise UserError(f"{part}: its config.json is of a {name}; {' and '.join(kinds)} can be used.")
    kind: type[UNet2DConditionModel] = getattr(diffusers, name)
    try:
        # a file may hold what an older or newer diffusers knows; what a user wrote must be known
        return kind.from_config(config) if "_class_name" in config else kind(**config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{part}: diffusers does not accept this config: {error}") from error


def _filled(part: Literal["unet", "vae"], folder: Path) -> "UNet2DConditionModel":
    """The network of a folder with the folder's weights, all of them; random generators are left alone.

    Raises:
        UserError: no weights, or those of another network.
    """
    config, file = read_config(folder), weights_file(folder)
    with torch.device("meta"):  # numbers that are replaced need not be drawn
        network = _from_config(part, config)
    state = fit_state(network.state_dict(), renamed(network, read_state(file)), f"{part}: {file}", may_lack=())
    if {name for name, _ in network.named_buffers()} <= state.keys():
        network = network.to_empty(device="cpu")
    else:  # buffers that are computed and not stored
        with torch.random.fork_rng(devices=[]):
            network = _from_config(part, config)
    network.load_state_dict(state)
    return network


def renamed(network: nn.Module, state: State) -> State:
    """``state`` with the older names of attention layers changed, where the network itself has none of those names."""
    if any(re.search(r"attentions\.\d+\.query\.", name) for name in network.state_dict()):
        return state

    def new(name: str) -> str:
        return re.sub(
            r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{OLD_ATTENTION[m[2]]}.", name
        )

    return {new(name): value for name, value in state.items()}


def misfit(source: Source, part: Literal["unet", "vae"]) -> str | None:
    """One sentence when a local folder's weights do not fit its config, by names, shapes and types alone; reads no values."""
    if isinstance(source, dict):
        return None
    try:
        folder = find_part(source, part)
        with torch.device("meta"):
            network = _from_config(part, read_config(folder))
        file = weights_file(folder)
        fit_state(network.state_dict(), renamed(network, read_state(file, meta=True)), f"{part}: {file}")
    except UserError as error:
        return str(error)
    return None


def untrained_twin(unet: "UNet2DConditionModel", seed: int = 0) -> "UNet2DConditionModel":
    """The same network with random weights, on the same device, in eval mode; a function of ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "untrained", "unet"))
        twin = type(unet).from_config(unet.config)
    first = next(unet.parameters())
    return twin.to(first.device, first.dtype).eval().requires_grad_(False)


def load_vae(source: str) -> "Vae":
    """The frozen autoencoder (``AutoencoderKL`` or ``AutoencoderTiny``) in eval mode, float32.

    Raises:
        UserError: weights missing or of another network.
    """
    folder = find_part(source, "vae")
    vae: Vae = _filled("vae", folder)
    return vae.float().eval().requires_grad_(False)


def vae_identity(source: str) -> Config:
    """What a shard manifest records of the autoencoder and what a model must agree with.

    Returns:
        class, sha256 of the weights, source, scaling_factor, latent_channels, downsample (pixels per latent).

    Raises:
        UserError: no autoencoder there, or a config without what is asked of it.
    """
    folder: Path = find_part(source, "vae")
    config = part_config(str(folder), "vae")
    factor = config.get("scaling_factor", 0.18215)
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(f"vae: {folder}/config.json says scaling_factor {factor}; it must be a finite number above 0.")
    if not isinstance(config.get("latent_channels"), int):
        raise UserError(f"vae: {folder}/config.json has no latent_channels: fetch it again.")
    return {
        "class": config.get("_class_name", "AutoencoderKL"),
        "sha256": fingerprint(folder),
        "source": source,
        "scaling_factor": float(factor),
        "latent_channels": int(config["latent_channels"]),
        "downsample": vae_downsample(config),
    }


def vae_downsample(config: Config) -> int:
    """Pixels per latent along one side."""
    if config.get("_class_name") == "AutoencoderTiny":
        return 2 ** (len(config["encoder_block_out_channels"]) - 1)
    return 2 ** (len(config["block_out_channels"]) - 1)
