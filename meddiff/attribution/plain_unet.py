"""A network that runs layer by layer, each once: what any tool that looks inside needs. Source: own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Context without compiled code."""
    if any(part._compiled_call_impl is not None for part in network.modules()):
        # each entry would be compiled anew: other processors, and Python that keeps their sums
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def layer_by_layer(unet: "UNet2DConditionModel") -> Iterator[None]:
    """Context without compiled code and without gradient checkpointing; both are back afterwards."""
    with ExitStack() as stack:
        stack.enter_context(uncompiled(unet))
        if unet.is_gradient_checkpointing:
            # layers that run again in a backward pass would be seen again
            unet.disable_gradient_checkpointing()
            stack.callback(unet.enable_gradient_checkpointing)
        yield
