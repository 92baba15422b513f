"""Whether weights fit a network: names, shapes, types and finite values, compared before one number is used.

Libraries load what has the right name and leave the rest as it was drawn (or not even drawn): a file of another network
then runs and gives pictures. Here a network gets all of its tensors, from the file, or the file is refused. Source: own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.pieces import local
from meddiff.models.weights.reading import State

#: What DistributedDataParallel, ``torch.compile`` and training modules put before the names of a network.
PREFIXES = ("module.", "_orig_mod.", "model.")
#: Tensors that networks of torch may lack without harm: batch norm counts its batches, and nothing here reads the count.
MAY_LACK = ("*num_batches_tracked",)
#: Types that a float32 network is stored in; narrower ones (float8, int8) need scales that a plain load does not apply.
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHOWN = 3


def fit_state(
    wanted: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    where: str,
    spare: Sequence[str] = (),
    may_lack: Sequence[str] = MAY_LACK,
    prefixes: Sequence[str] = PREFIXES,
) -> State:
    """``state`` under the names of ``wanted``: exactly those, in ``wanted``'s types.

    To fill a large network with, :func:`fill` takes less memory.

    Args:
        wanted: the network's own ``state_dict()``.
        state: what a file holds; tensors on "meta" are compared without their values.
        where: part and file, what the sentence begins with.
        spare: names (``*`` stands for anything) that the file may hold beyond the network's and that are left out.
        may_lack: names that the file may lack; the network's own values stay.
        prefixes: taken off a name, any number of times, where that makes it one of ``wanted``.

    Returns:
        a state dict that ``load_state_dict`` takes without a complaint.

    Raises:
        UserError: something is missing, extra, of another shape or type, or not finite.
    """
    found = _fitting(wanted, state, where, spare, may_lack, prefixes)
    return {name: found[name].to(own.dtype) if name in found else own for name, own in wanted.items()}


def fill(
    network: nn.Module, state: Mapping[str, Tensor], where: str, may_lack: Sequence[str] = (), spare: Sequence[str] = ()
) -> list[str]:
    """Copy ``state`` into a network, tensor by tensor, so that no second copy of all of them is made in another type.

    Args:
        network: on the CPU; its own numbers need not have been drawn.
        state: what a file holds.
        where: part and file, what the sentence begins with.
        may_lack: names that the file may lack.
        spare: see :func:`fit_state`.

    Returns:
        names that the file lacks; they are as they were.

    Raises:
        UserError: as :func:`fit_state`; nothing has been copied then.
    """
    own = network.state_dict()
    found = _fitting(own, state, where, spare, may_lack, PREFIXES)
    for name, value in found.items():
        own[name].copy_(value)
    return [name for name in own if name not in found]


def _fitting(
    wanted: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    where: str,
    spare: Sequence[str],
    may_lack: Sequence[str],
    prefixes: Sequence[str],
) -> State:
    """The stored tensors under the network's names, of the types they are stored in; raises where they do not fit."""
    found, extra = _named(wanted, state, prefixes)
    extra = [name for name in extra if not matches(bare_name(name, prefixes), spare)]
    missing = [name for name in wanted if name not in found and not matches(name, may_lack)]
    shapes = [
        f"{name} is {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in found.items()
        if value.shape != wanted[name].shape
    ]
    types = [
        f"{name} is {_type(value)} instead of {_type(wanted[name])}"
        for name, value in found.items()
        if not converts(value.dtype, wanted[name].dtype)
    ]
    total = len(wanted)
    problems = [
        f"{len(some)}{of} {what} ({first_three(some)})"
        for some, of, what in (
            (missing, f" of {total} tensors", "are missing"),
            (extra, "", "are of no use in it"),
            (shapes, "", "have another shape"),
            (types, "", "have another type"),
        )
        if some
    ]
    if problems:
        raise UserError(
            f"{where} does not fit: {', '.join(problems)}; this is another network: give the weights of this one."
        )
    broken = [name for name, value in found.items() if not holds_finite(value, wanted[name].dtype)]
    if broken:
        raise UserError(
            f"{where} holds numbers that are not finite in {len(broken)} of {total} tensors ({first_three(broken)}): "
            f"it comes from a training that broke, take an earlier one or fetch it again."
        )
    return found


def bare_name(name: str, prefixes: Sequence[str] = PREFIXES) -> str:
    """A name without the prefixes it begins with, in any order and number, and without compiled parts' ``_orig_mod.``.

    Example:
        >>> bare_name("module._orig_mod.conv_in.weight")
        'conv_in.weight'
    """
    name = name.replace("_orig_mod.", "")
    while any(name.startswith(prefix) for prefix in prefixes):
        name = next(name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix))
    return name


def _named(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], prefixes: Sequence[str]
) -> tuple[State, list[str]]:
    """Tensors under the network's names, and the names that are none of its; an exact name goes before a stripped one."""
    places = {bare_name(name, prefixes): name for name in wanted}
    found: State = {name: value for name, value in state.items() if name in wanted}
    extra = []
    for name, value in state.items():
        place = places.get(bare_name(name, prefixes))
        if name in wanted:
            continue
        if place is None or place in found:
            extra.append(name)
        else:
            found[place] = value
    return found, extra


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of ``patterns``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def converts(stored: torch.dtype, own: torch.dtype) -> bool:
    """Whether a tensor may be copied into another type: floats into floats, integers into integers.

    Example:
        >>> converts(torch.float16, torch.float32), converts(torch.int8, torch.float32)
        (True, False)
    """
    if own in FLOATS:
        return stored in FLOATS
    return stored == own or not (own.is_floating_point or stored.is_floating_point or stored.is_complex)


def holds_finite(values: Tensor, own: torch.dtype | None = None) -> bool:
    """Whether all values are finite, also as type ``own``; one walk through memory, no copy. True on "meta"."""
    values = local(values)
    if values.is_meta or not values.is_floating_point() or not values.numel():
        return True
    low, high = (float(value) for value in values.detach().aminmax())  # NaN passes through both
    limit = torch.finfo(own).max if own is not None and own.is_floating_point else math.inf
    return math.isfinite(low) and math.isfinite(high) and max(-low, high) <= limit


def first_three(names: Sequence[str]) -> str:
    """The first three of some names, and that there are more.

    Example:
        >>> first_three(["a", "b", "c", "d"])
        'a, b, c, ...'
    """
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
