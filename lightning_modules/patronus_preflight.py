"""What can be known to be wrong of a training with prototypes before anything is built. No torch. Source: own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from meddiff.common.ranges import NOT_NEGATIVE, SHARE, Range, range_problems
from meddiff.models.receptive_field import Layer, output_size
from meddiff.models.weights.sources import Source

if TYPE_CHECKING:
    from meddiff.shards.manifest import Manifest

RANGES: dict[str, Range] = {
    "prototype_dropout": SHARE,
    "prototypes_learning_rate": NOT_NEGATIVE,
    "distinctness": NOT_NEGATIVE,
    "distinctness_margin": SHARE,
}


def prototype_problems(init_args: Mapping[str, object]) -> list[str]:
    """One sentence for each number that cannot be, and for each combination that does nothing."""
    problems = range_problems(init_args, RANGES)
    if init_args.get("text_encoder") is None:
        told = [
            name
            for name, idle in (("text_encoder_learning_rate", None), ("freeze_text_encoder", True))
            if init_args.get(name, idle) != idle
        ]
        problems += [f"{name} is set and there is no text_encoder: give one, or drop it." for name in told]
    if init_args.get("space") == "pixel" and init_args.get("vae") is not None:
        problems.append("space is pixel, which no autoencoder makes: set vae to null, or space to latent.")
    problems += stack_problems(init_args)
    return problems


def stack_problems(init_args: Mapping[str, object]) -> list[str]:
    """A sentence when the patches of prototypes do not fit into what is denoised."""
    options, unet = init_args.get("prototypes"), init_args.get("unet")
    layers = options.get("layers") if isinstance(options, Mapping) else getattr(options, "layers", None)
    size = unet.get("sample_size") if isinstance(unet, Mapping) else None
    if not isinstance(layers, Sequence) or not isinstance(size, int):
        return []
    stack = [tuple(layer) for layer in layers if isinstance(layer, Sequence)]
    whole = all(len(layer) == 4 and all(isinstance(n, int) for n in layer) and layer[1] > 0 for layer in stack)
    if not whole or output_size(cast(list[Layer], stack), size) > 0:
        return []  # what is no stack is said where it is built
    return [
        f"prototypes.layers do not fit into an input of {size} x {size} cells: take smaller kernels or strides, or fewer "
        f"layers."
    ]


def pixel_problems(manifest: "Manifest", init_args: Mapping[str, object]) -> list[str]:
    """A sentence when pictures of shards are not of the size that the U-Net takes."""
    from meddiff.models.weights.stored import part_config

    size = part_config(cast(Source, init_args["unet"]), "unet").get("sample_size")
    if size is None or size in (manifest.resolution, [manifest.resolution] * 2):
        return []
    return [
        f"The pictures are of {manifest.resolution} x {manifest.resolution} pixels and unet.sample_size is {size}: prepare "
        f"them with --resolution {size}, or set unet.sample_size."
    ]
