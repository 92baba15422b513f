"""What every map metric asks of its input, and what "undefined" means to all of them. Source: own."""

import math

import numpy as np
import torch
from torch import Tensor

from meddiff.common.errors import UserError

NAN = float("nan")

#: Types whose values a float32 holds exactly.
SHORT = (torch.float32, torch.float16, torch.bfloat16)


def as_double(values: Tensor) -> Tensor:
    """Detached float64 copy; on the CPU where the device (Apple's) has no float64.

    Example:
        >>> as_double(torch.tensor([1, 2])).dtype
        torch.float64
    """
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).double()


def check_shape(maps: Tensor) -> None:
    """Refuse what is not (N, H, W).

    Raises:
        UserError: not three dimensions, or no pixels.
    """
    if maps.ndim != 3 or maps.shape[1] * maps.shape[2] == 0:
        raise UserError(f"maps have the shape {tuple(maps.shape)}; (N, H, W) with at least one pixel is expected.")


def native_rows(maps: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`map_rows`, but float32 where that holds every value of the maps: half the memory to walk through."""
    check_shape(maps)
    short = maps.dtype in SHORT and maps.device.type != "mps"
    values = (maps.detach().float() if short else as_double(maps)).flatten(1)
    low, high = bounds(values)  # NaN passes through both; ten times faster than isfinite().all()
    finite = (low > -math.inf) & (high < math.inf)
    return values if bool(finite.all()) else values.masked_fill(~finite[:, None], 0.0), finite


def map_rows(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps as rows, and which of them can be scored.

    Args:
        maps: (N, H, W) of any number type.

    Returns:
        values: (N, H*W) float64; zeros where a map is not finite, so that no NaN leaks into its neighbours' sums.
        finite: (N,) bool, every pixel of the map is a finite number.

    Raises:
        UserError: not three dimensions, or no pixels.
    """
    values, finite = native_rows(maps)
    return values.double(), finite


def mask_rows(masks: Tensor, maps: Tensor, name: str = "masks") -> Tensor:
    """Masks as rows (N, H*W) beside ``maps`` (N, H, W), on the device where the maps are scored.

    Raises:
        UserError: not boolean, or another shape than the maps', or not (N, H, W).
    """
    check_shape(maps)
    if masks.dtype != torch.bool:
        raise UserError(f"{name} are {masks.dtype}; a boolean tensor is expected: compare with a threshold first.")
    if masks.shape != maps.shape:
        raise UserError(
            f"{name} have the shape {tuple(masks.shape)} but the maps {tuple(maps.shape)}: resize one first."
        )
    return masks.to("cpu" if maps.device.type == "mps" else maps.device).flatten(1)


def varies(rows: Tensor) -> Tensor:
    """(N,) bool: the row (N, P) holds two different values. Exact, where a computed variance only comes near zero."""
    low, high = bounds(rows)
    return low != high


def bounds(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value (N,) of rows (N, P); ten times faster than one ``aminmax`` along an axis."""
    return rows.amin(dim=1), rows.amax(dim=1)


def defined(values: Tensor, where: Tensor) -> Tensor:
    """``values`` (N,) with NaN where ``where`` (N,) is false."""
    return values.masked_fill(~where, NAN)


def above(values: Tensor, cut: Tensor) -> Tensor:
    """``values > cut``, exact as in float64 also where the values are float32.

    Args:
        values: (N, ...) float32 or float64.
        cut: float64, broadcastable to the values; NaN is above nothing and below nothing.
    """
    near = cut.to(values.dtype)
    # The largest float32 that is not above the cut lets the same float32 values pass as the cut itself.
    near = torch.where(near.double() > cut, torch.nextafter(near, torch.full_like(near, -math.inf)), near)
    if values.device.type == "cpu":  # numpy compares seven times faster
        return torch.from_numpy(values.numpy() > near.numpy())
    return values > near


def count_true(rows: Tensor) -> Tensor:
    """(N,) int64: how many of each boolean row (N, P) are true."""
    if rows.device.type == "cpu":  # numpy counts booleans three times faster
        return torch.tensor([int(np.count_nonzero(row)) for row in rows.numpy()], dtype=torch.int64)
    return rows.view(torch.uint8).sum(dim=1, dtype=torch.int32).long()
