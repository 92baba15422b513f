"""Tensors of which each process holds a piece (DTensor, as FSDP2's ``fully_shard`` makes them). No trainer. Source: own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def in_pieces(value: object) -> bool:
    """Whether a process holds only its piece of this tensor."""
    return hasattr(value, "to_local")


def local(value: Tensor) -> Tensor:
    """This process's piece of a tensor, sharing its memory; a whole tensor as it is."""
    own: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return own.detach()


def gathered(value: Tensor) -> Tensor:
    """The whole of a tensor in pieces; called by all processes together."""
    full: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach()


@torch.no_grad()
def put(own: Tensor, value: Tensor) -> None:
    """Copy ``value``, whole or in pieces, into ``own``; each process takes its piece of a whole one, without a message."""
    local(own).copy_(local(placed_like(own, value)))


def placed_like(own: Tensor, value: Tensor) -> Tensor:
    """``value`` cut as ``own`` is; as it is where ``own`` is whole or ``value`` is in pieces already."""
    if not in_pieces(own) or in_pieces(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(own, DTensor)
    # without a source rank every process cuts its piece out of its own copy
    cut: Tensor = distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    return cut


def is_sharded(module: nn.Module) -> bool:
    """Whether any parameter of a module is in pieces."""
    return any(in_pieces(parameter) for parameter in module.parameters())


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Within the block every process holds all parameters, and a forward pass waits for nobody.

    An evaluation shares its items among processes, and not evenly: a forward pass that gathered parameters as a training
    step does would wait for a process that has none left. Entered by all processes together, left by each on its own.
    Nothing happens to a module that ``fully_shard`` has not been applied to, and within another such block.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = {id(below) for part in parts for below in part.modules() if below is not part}
    if not parts or getattr(parts[0], "held_whole", False):
        yield
        return
    for part in parts:
        vars(part)["held_whole"] = True
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            vars(part)["held_whole"] = False
            part.reshard()
            # as fully_shard decides: what is needed again at once stays, blocks within it are cut again
            part.set_reshard_after_forward(id(part) in inner, recurse=False)
