"""Makers of small models with prototypes."""

from typing import TYPE_CHECKING, Literal

from tests.builders.tiny import TEXT, UNET

if TYPE_CHECKING:
    from meddiff.models.patronus import Patronus

#: Fields of 5 cells.
STACK = [[3, 1, 1, 8], [3, 1, 0, 16]]
#: Attends to no text; the published bottleneck.
PLAIN_UNET: dict[str, object] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "mid_attention_heads": 4,
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}
PROTOTYPES: dict[str, object] = {"layers": STACK, "number": 6, "dimension": 16}


def tiny_patronus(
    route: Literal["time", "tokens"] = "time",
    text: bool = False,
    space: Literal["pixel", "latent"] = "latent",
    channels: int = 4,
    vae: str | None = None,
    seed: int = 0,
) -> "Patronus":
    """A model of random weights, in eval mode."""
    from meddiff.models.patronus import Patronus
    from meddiff.models.prototype_options import PrototypeOptions

    unet = UNET if text or route == "tokens" else PLAIN_UNET
    unet = {**unet, "in_channels": channels, "out_channels": channels}
    options = PrototypeOptions(layers=STACK, number=6, dimension=16, route=route)
    return Patronus.of(unet, TEXT if text else None, vae, options, space, seed=seed).eval()
