"""Whether latent shards were made for a model: with its autoencoder, at its size. Source: own."""

from typing import TYPE_CHECKING

from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.models.weights.sources import Source
    from meddiff.shards.manifest import Manifest


def over_shards(shards: str, arguments: "Mapping[str, object]") -> tuple[str, dict[str, object]]:
    """Class and arguments of the data module that reads other shards for a run, pixels where its own has channels."""
    kept = {str(name): arguments[name] for name in ("prompt", "resolution", "channels") if name in arguments}
    kind = "ImageShards" if "channels" in kept else "LatentShards"
    return f"datamodules.{kind}DataModule", {"shards": shards, **kept}


def refuse_other_shards(
    manifest: "Manifest", shards: str, vae: "Source", latent_shape: tuple[int, int, int] | None, name: str
) -> None:
    """Refuse shards of another autoencoder or resolution, with the command that makes the right ones.

    Args:
        manifest: of the shards.
        shards: their folder; the new ones go beside it.
        vae: source of the model's autoencoder, whose weights are hashed.
        latent_shape: (C, h, w) the model takes; None: it takes any size.
        name: of the model, for the folder.

    Raises:
        UserError: one sentence; it names folders of this machine and is for a terminal.
    """
    from meddiff.models.backbones import vae_identity
    from meddiff.shards.remake import remake_command

    made = manifest.vae
    identity = vae_identity(vae, str(made["sha256"]))
    downsample, channels = int(identity["downsample"]), int(identity["latent_channels"])
    resolution = manifest.resolution if latent_shape is None else latent_shape[1] * downsample
    wanted = (channels, resolution // downsample, resolution // downsample)
    wrong = ""
    if latent_shape is not None and latent_shape[1] != latent_shape[2]:
        raise UserError(f"{name} takes latents of {latent_shape[1]} x {latent_shape[2]}: shards hold square images.")
    if made["sha256"] != identity["sha256"]:
        wrong = f"another autoencoder ({str(made['sha256'])[:12]}, the model's is {str(identity['sha256'])[:12]})"
    elif abs(float(made["scaling_factor"]) - float(identity["scaling_factor"])) > 1e-6:
        wrong = f"scaling_factor {made['scaling_factor']}, the model's is {identity['scaling_factor']}"
    elif manifest.resolution != resolution or tuple(manifest.latent_shape) != wanted:
        wrong = f"images of {manifest.resolution} px, the model takes {resolution} px"
    if wrong:
        place = vae if isinstance(vae, str) else str(vae.get("checkpoint"))
        command = remake_command(manifest, f"{shards.rstrip('/')}-{name}", place, resolution)
        raise UserError(f"The shards in {shards} were made with {wrong}; make those of this model with: {command}")


def refuse_shards_of(model: "LatentDiffusion", manifest: "Manifest", shards: str, name: str) -> None:
    """The same for a model that is open; of one whose autoencoder is gone only the size is compared.

    Raises:
        UserError: as :func:`refuse_other_shards`.
    """
    from meddiff.models.weights.sources import missing_part

    source = model.autoencoder.source
    if source is None or missing_part(source, "vae") is not None:
        manifest.check(latent_shape=model.latent_shape, where=f"the latent shards in {shards}")
    else:
        refuse_other_shards(manifest, shards, source, model.latent_shape, name)
