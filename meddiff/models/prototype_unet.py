"""A U-Net that is told numbers beside its timestep, made of one that is not. Source: own; the embedding is diffusers'.

The embedding of Patronus (spec section A2.2), Linear(m, 4 c) - SiLU - Linear(4 c, 4 c), added by a layer of its own in every
ResNet block, is diffusers' ``class_embed_type="projection"`` with ``class_embeddings_concat``: W [SiLU(t); SiLU(s)] is the sum
of two layers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from meddiff.common.errors import UserError
from meddiff.models.backbones import untrained_twin
from meddiff.models.weights.sources import Config, Source, stored_place

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

#: Layers of a ResNet block that read the time embedding, and with it what is joined to it.
TIME_LAYER = ".time_emb_proj.weight"


def place_of(number: int) -> Config:
    """diffusers' arguments of a U-Net that is told ``number`` activations."""
    return {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": number,
        "class_embeddings_concat": True,
    }


def told_prototypes_config(source: Source, number: int) -> Config | None:
    """Arguments of a U-Net that is drawn, with a place for the activations; None if it is read from somewhere.

    Raises:
        UserError: it is to be told of classes, too.
    """
    if not isinstance(source, dict) or stored_place(source, "unet") is not None:
        return None
    _told_already(source, number)
    return {**source, **place_of(number)}


def attends_to_text(unet: "UNet2DConditionModel") -> bool:
    """Whether any layer has cross-attention."""
    return any(name.rpartition(".")[2] == "attn2" for name, _ in unet.named_modules())


@torch.no_grad()
def told_prototypes(unet: "UNet2DConditionModel", number: int) -> "UNet2DConditionModel":
    """A U-Net with a place for ``number`` activations; one that has it already is given back.

    The embedding is drawn from torch's generator, and what the ResNet blocks read of it is multiplied by 0 at first: the
    network computes what it computed before, whatever it is told, and learns the rest.

    Raises:
        UserError: the U-Net is told of classes already.
    """
    if _told_already(unet.config, number):
        return unet
    base = unet.state_dict()
    told = untrained_twin(unet, torch.initial_seed(), **place_of(number))
    state = told.state_dict()
    for name, value in base.items():
        if name.endswith(TIME_LAYER):
            state[name].zero_()
            state[name][:, : value.shape[1]] = value
        else:
            state[name].copy_(value)
    return told.requires_grad_(True).train(unet.training)


def _told_already(config: Mapping[str, object], number: int) -> bool:
    """Whether a U-Net has a place for ``number`` activations.

    Raises:
        UserError: that place is taken by something else.
    """
    if all(config.get(name) == value for name, value in place_of(number).items()):
        return True
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        raise UserError(
            "This U-Net is told of classes, or of another number of prototypes: take one without, or its own number."
        )
    return False
