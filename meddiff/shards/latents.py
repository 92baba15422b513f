"""From the stored bytes of a sample to scaled latents: parsing and the posterior's addressed draw.

Source: own (design decisions 5 and 6).
"""

import io
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.shards.stamp import Stamp


class Entry(NamedTuple):
    """One sample as it comes from a shard: ``latent`` is what its tensor is made of (where pixels are, a picture), ``epoch``
    None in evaluation; ``where`` names its shard in errors; ``stamp`` is drawn onto its picture."""

    key: str
    epoch: int | None
    latent: bytes
    metadata: bytes
    where: str
    weight: float = 1.0
    stamp: Stamp | None = None


def parse_latent(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Read ``KEY.latent.npy``: float16 of ``shape``, a read-only view of ``data``.

    Raises:
        ValueError: not an .npy, or another type or shape.
    """
    header = _npy_header(shape)
    count = int(np.prod(shape))
    if data.startswith(header) and len(data) == len(header) + 2 * count:  # as the writer makes it: no parsing
        return np.frombuffer(data, "<f2", count, len(header)).reshape(shape)
    _check_header(data)
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype != np.float16 or array.shape != tuple(shape):
        raise ValueError(f"latent is {array.dtype} {array.shape}, not float16 {tuple(shape)}")
    return array


_HEADERS: dict[tuple[int, ...], bytes] = {}


def _npy_header(shape: tuple[int, ...]) -> bytes:
    if shape not in _HEADERS:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": "<f2", "fortran_order": False, "shape": tuple(shape)})
        _HEADERS[shape] = buffer.getvalue()
    return _HEADERS[shape]


def scale_latent(
    stored: NDArray[np.float16],
    address: tuple[object, ...],
    out: NDArray[np.float32],
    scaling_factor: float,
    sample_posterior: bool,
) -> None:
    """Write ``(mean + std * eps) * scaling_factor`` into ``out`` (C, h, w); eps = 0 without a posterior draw.

    Args:
        stored: (2C, h, w) mean and log-variance, or (C, h, w) mean.
        address: (seed, "posterior", epoch, key).
        scaling_factor: of the VAE; multiplies a latent before it meets the U-Net.
        sample_posterior: draw from the posterior; False takes its mean.
    """
    channels = out.shape[0]
    # torch widens half precision sixteen times faster than numpy; the copy is what it takes as writable.
    values = torch.from_numpy(stored.copy()).float().numpy()  # (2C, h, w) or (C, h, w)
    if sample_posterior:
        logvar = np.clip(values[channels:], -30.0, 20.0)  # (C, h, w)
        generator(*address).standard_normal(out=out, dtype=np.float32)
        logvar *= 0.5
        out *= np.exp(logvar, out=logvar)
        out += values[:channels]
    else:
        out[...] = values[:channels]
    out *= np.float32(scaling_factor)


def _check_header(data: bytes) -> None:
    """A header of a hundred bytes may say any shape, and room would be made for it.

    Raises:
        ValueError: it says more values than there are bytes for, or no version of the format is like this.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        return  # of Unicode names, which no latent has; NumPy reads or refuses it
    shape, _, dtype = read(stream)
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError(f"its header says shape {shape}, for which there are too few bytes")
