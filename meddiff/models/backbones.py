"""U-Net and autoencoder: diffusers' own classes, built from a source."""

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.bottleneck import give_attention, split_heads
from meddiff.models.weights.digests import digest, fingerprint
from meddiff.models.weights.fitting import fill, fit_state
from meddiff.models.weights.sources import HUB_PREFIX, Config, Source, stored_place
from meddiff.models.weights.stored import StoredPart, part_config, stored_part

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    Vae: TypeAlias = AutoencoderKL | AutoencoderTiny


def build_unet(source: Source) -> "UNet2DConditionModel":
    """A ``diffusers.UNet2DConditionModel`` in train mode, float32.

    A source that tells ``encoder_hid_dim`` of a U-Net without it gets diffusers' ``encoder_hid_proj`` before its text, drawn
    from torch's generator.

    Raises:
        UserError: weights missing or of another network, or a config diffusers does not accept.
    """
    if isinstance(source, dict) and stored_place(source, "unet") is None:
        return _from_config("unet", source).train()
    return _filled("unet", stored_part(source, "unet")).train()


def _from_config(part: Literal["unet", "vae"], config: Config) -> "UNet2DConditionModel":
    """The network a config describes, freshly drawn."""
    import diffusers

    kinds = {"unet": ["UNet2DConditionModel"], "vae": ["AutoencoderKL", "AutoencoderTiny"]}[part]
    name = config.get("_class_name", kinds[0])
    if name not in kinds:
        raise UserError(f"{part}: its config.json is of a {name}; {' and '.join(kinds)} can be used.")
    kind: type[UNet2DConditionModel] = getattr(diffusers, name)
    config, heads = split_heads(config) if part == "unet" else (config, None)
    try:
        # a file may hold what an older or newer diffusers knows; what a user wrote must be known
        return give_attention(kind.from_config(config) if "_class_name" in config else kind(**config), heads)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:  # whatever layers say of odd numbers
        raise UserError(f"{part}: diffusers does not accept this config: {error}") from error


def _filled(part: Literal["unet", "vae"], stored: StoredPart) -> "UNet2DConditionModel":
    """The network with all of its stored weights; random generators are left alone unless something has to be drawn.

    Raises:
        UserError: no weights, or those of another network.
    """
    with torch.device("meta"):  # numbers that are replaced need not be drawn
        network = _from_config(part, stored.config)
    if {name for name, _ in network.named_buffers()} <= network.state_dict().keys():
        network = network.to_empty(device="cpu")
    else:  # buffers that are computed and not stored
        with torch.random.fork_rng(devices=[]):
            network = _from_config(part, stored.config)
    missing = fill(network, stored.read(False), stored.where, stored.drawn)
    for name in {name.rpartition(".")[0] for name in missing}:
        network.get_submodule(name).reset_parameters()
    return network


def _wanted_vae(stored: StoredPart) -> None:
    """Refuse an autoencoder whose latents are moved as well as scaled before they meet the U-Net."""
    odd = [name for name in ("shift_factor", "latents_mean", "latents_std") if stored.config.get(name)]
    if odd:
        raise UserError(
            f"{stored.where} has a {odd[0]} of {stored.config[odd[0]]}, and latents are only scaled here: give an autoencoder "
            f"of Stable Diffusion 1 or 2."
        )


def misfit(source: Source, part: Literal["unet", "vae"]) -> str | None:
    """One sentence when local weights do not fit their config, by names, shapes and types alone; reads no values."""
    try:
        place = stored_place(source, part)
        if place is None or place.path.startswith(HUB_PREFIX):
            return None
        stored = stored_part(source, part)
        if part == "vae":
            _wanted_vae(stored)
        with torch.device("meta"):
            network = _from_config(part, stored.config)
        fit_state(network.state_dict(), stored.read(True), stored.where, may_lack=stored.drawn)
    except UserError as error:
        return str(error)
    return None


def unet_skeleton(source: Source) -> "UNet2DConditionModel":
    """The network of a source on torch's meta device: shapes without numbers; reads no weights.

    Raises:
        UserError: no config, or one diffusers does not accept.
    """
    with torch.device("meta"):
        return _from_config("unet", part_config(source, "unet"))


def untrained_twin(unet: "UNet2DConditionModel", seed: int = 0, **changed: object) -> "UNet2DConditionModel":
    """The same network with random weights, on the same device, in eval mode; a function of ``seed`` alone.

    Args:
        changed: diffusers' arguments in which it is another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "untrained", "unet"))
        config, heads = split_heads({**unet.config, **changed})
        twin = give_attention(type(unet).from_config(config), heads)
    first = next(unet.parameters())
    if (first.device, first.dtype) != (twin.device, twin.dtype):  # diffusers warns of any type it is told
        twin = twin.to(first.device, first.dtype)
    return twin.eval().requires_grad_(False)


def load_vae(source: Source) -> "Vae":
    """The frozen autoencoder (``AutoencoderKL`` or ``AutoencoderTiny``) in eval mode, float32.

    Raises:
        UserError: weights missing or of another network, or latents that are more than scaled.
    """
    stored = stored_part(source, "vae")
    _wanted_vae(stored)
    vae: Vae = _filled("vae", stored)
    return vae.float().eval().requires_grad_(False)


def vae_identity(source: Source, known: str | None = None) -> Config:
    """What a shard manifest records of the autoencoder and what a model must agree with.

    The digest is of the numbers under diffusers' present names, so that it is the same in every format.

    Args:
        known: a digest that shards hold; where it is of the names that the weights are stored by, as shards of before have
            it, it is this autoencoder's too.

    Returns:
        class, sha256 of the weights, source, scaling_factor, latent_channels, downsample (pixels per latent).

    Raises:
        UserError: no autoencoder there, or a config without what is asked of it.
    """
    stored = stored_part(source, "vae")
    _wanted_vae(stored)
    config = stored.config
    factor = config.get("scaling_factor", 0.18215)
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(f"{stored.where} has a scaling_factor of {factor}; it must be a finite number above 0.")
    if not isinstance(config.get("latent_channels"), int):
        raise UserError(f"{stored.where} has no latent_channels in its config.json: fetch it again.")
    sha256 = digest(stored.read(False))
    if known not in (None, sha256) and stored.folder is not None and fingerprint(stored.folder) == known:
        sha256 = str(known)
    return {
        "class": config.get("_class_name", "AutoencoderKL"),
        "sha256": sha256,
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
