"""What prototypes look at and how a U-Net is told of them, and whether the parts of a Patronus fit together. Source: own; the
stack is the published one (spec section A2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from meddiff.common.errors import UserError
from meddiff.models.prototype_unet import attends_to_text
from meddiff.models.prototypes import Init, PrototypeEncoder
from meddiff.models.text.no_text import NoText
from meddiff.models.text.tower import TextTower

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

#: How activations reach the U-Net: beside its time embedding, or as tokens of its cross-attention.
Route = Literal["time", "tokens"]
#: What is denoised.
Space = Literal["pixel", "latent"]
#: The published stack for 32 and 64 pixels: fields of 15 pixels.
LAYERS = ((3, 2, 1, 32), (3, 1, 0, 64), (3, 1, 0, 64), (3, 1, 0, 128))


@dataclass(frozen=True)
class PrototypeOptions:
    """What prototypes look at, how many there are, and how the U-Net is told of them.

    Attributes:
        layers: [kernel, stride, padding, channels] of each convolution of the encoder.
        number: of prototypes, m.
        dimension: of a prototype; channels of the last layer.
        init: of the convolutions: "kaiming", or the published "normal_0.1".
        normalise: bring each patch's features to unit variance, so that distances are of the order of 1.
        route: "time" adds them to each ResNet block beside the timestep, as published; "tokens" lets the U-Net attend to them
            beside the words.
    """

    layers: Sequence[Sequence[int]] = field(default_factory=lambda: [list(layer) for layer in LAYERS])
    number: int = 100
    dimension: int = 128
    init: Init = "kaiming"
    normalise: bool = True
    route: Route = "time"

    def __post_init__(self) -> None:
        if self.route not in ("time", "tokens"):
            raise UserError(f"prototypes.route is {self.route!r}; it must be 'time' or 'tokens'.")


def encoder_of(options: PrototypeOptions, in_channels: int) -> PrototypeEncoder:
    """A freshly drawn encoder of images or latents of so many channels.

    Raises:
        UserError: a stack or a number that cannot be.
    """
    return PrototypeEncoder(
        options.layers, in_channels, options.number, options.dimension, options.init, options.normalise
    )


def check_parts(
    unet: "UNet2DConditionModel", tower: TextTower, prototypes: PrototypeEncoder, route: Route, space: Space
) -> None:
    """Refuse parts that do not fit together.

    Raises:
        UserError: one sentence.
    """
    config = unet.config
    if space not in ("pixel", "latent"):
        raise UserError(f"space is {space!r}; it must be 'pixel' or 'latent'.")
    if space == "pixel" and config.in_channels not in (1, 3):
        raise UserError(
            f"Pixels have 1 or 3 channels, and this U-Net takes {config.in_channels}: set unet.in_channels."
        )
    attends = attends_to_text(unet)
    if route == "tokens" and not attends:
        raise UserError(
            "prototypes.route tokens needs a U-Net with cross-attention, and this one has none: take CrossAttn blocks, or "
            "route time."
        )
    if route == "time" and attends and isinstance(tower, NoText):
        raise UserError(
            "This U-Net attends to a text, and there is none: give a text_encoder, take blocks without CrossAttn, or "
            "prototypes.route tokens."
        )
    if route == "time" and cast(int | None, config.projection_class_embeddings_input_dim) != prototypes.m:
        raise UserError(
            f"This U-Net has no place for {prototypes.m} activations beside its time embedding: build it with Patronus.of."
        )
