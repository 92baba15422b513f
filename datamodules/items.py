"""From stored bytes to a training batch: parsing, addressed draws and collation (source: own; design decisions 5, 6).

Every random number of an item comes from ``generator(seed, purpose, epoch, key)``, so it is the same for any number of
workers and ranks, any batch size, and after any resume. Evaluation uses the word "val" in the place of the epoch.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.draws import generator
from common.errors import UserError

from .manifest import Manifest
from .prompts import Prompt, Texts, choose_caption

Batch = dict[str, Any]
#: What an item draws; each purpose has random numbers of its own.
PURPOSES = ("caption", "posterior", "noise", "timestep", "dropout")


class Entry(NamedTuple):
    """One sample as it comes from a shard. ``epoch`` is None in evaluation; ``where`` names its shard in errors."""

    key: str
    epoch: int | None
    latent: bytes
    metadata: bytes
    where: str
    weight: float = 1.0


@dataclass(frozen=True)
class Rules:
    """How items are made; everything that is the same for all of a run's items.

    Attributes:
        stored_shape: of ``KEY.latent.npy``; latent_shape: (C, h, w).
        sample_posterior: draw from the posterior; False takes its mean.
        prompt: which text an item gets, see :func:`datamodules.prompts.choose_caption`.
        texts: the synthetic impressions by class, for prompt "synthetic".
    """

    seed: int
    scaling_factor: float
    stored_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]
    sample_posterior: bool
    prompt: Prompt
    texts: Texts | None = None

    @classmethod
    def of(cls, manifest: Manifest, seed: int, prompt: Prompt, mean_only: bool, texts: Texts | None = None) -> "Rules":
        posterior = manifest.latent == "moments" and not mean_only
        stored, shape = manifest.stored_shape, manifest.latent_shape
        return cls(seed, manifest.scaling_factor, stored, shape, posterior, prompt, texts)


def parse_latent(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Read ``KEY.latent.npy``: float16 of ``shape``, a read-only view of ``data``.

    Raises:
        ValueError: not an .npy, or another type or shape.
    """
    header = _npy_header(shape)
    count = int(np.prod(shape))
    if data.startswith(header) and len(data) == len(header) + 2 * count:  # as the writer makes it: no parsing
        return np.frombuffer(data, "<f2", count, len(header)).reshape(shape)
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
    stored: NDArray[np.float16], rules: Rules, address: tuple[object, ...], out: NDArray[np.float32]
) -> None:
    """Write ``(mean + std * eps) * scaling_factor`` into ``out`` (C, h, w); eps = 0 without a posterior draw.

    Args:
        stored: (2C, h, w) mean and log-variance, or (C, h, w) mean.
        address: (seed, "posterior", epoch, key).
    """
    channels = rules.latent_shape[0]
    # torch widens half precision sixteen times faster than numpy; the copy is what it takes as writable.
    values = torch.from_numpy(stored.copy()).float().numpy()  # (2C, h, w) or (C, h, w)
    if rules.sample_posterior:
        logvar = np.clip(values[channels:], -30.0, 20.0)  # (C, h, w)
        generator(*address).standard_normal(out=out, dtype=np.float32)
        logvar *= 0.5
        out *= np.exp(logvar, out=logvar)
        out += values[:channels]
    else:
        out[...] = values[:channels]
    out *= np.float32(rules.scaling_factor)


def make_batch(entries: Sequence[Entry], rules: Rules) -> Batch:
    """Parse, draw and collate.

    Returns:
        key: list[str]; epoch: list[int], -1 in evaluation; caption: list[str]; labels: list[list[str]];
        latents: float32 (B, C, h, w), scaled; noise: float32 (B, C, h, w);
        timestep_uniform, dropout_uniform: float64 (B,) in [0, 1); weight: float32 (B,), 0 for padding.

    Raises:
        UserError: a sample is damaged; names its shard and key.
    """
    size = len(entries)
    latents = np.empty((size, *rules.latent_shape), np.float32)
    noise = np.empty_like(latents)
    timestep, dropout = np.empty(size), np.empty(size)
    captions: list[str] = []
    labels: list[list[str]] = []
    for place, entry in enumerate(entries):
        when = "val" if entry.epoch is None else entry.epoch
        caption, posterior, noise_, timestep_, dropout_ = ((rules.seed, what, when, entry.key) for what in PURPOSES)
        try:
            metadata = json.loads(entry.metadata)
            captions.append(choose_caption(metadata, rules.prompt, caption, rules.texts))
            labels.append(list(metadata["labels"]))
            scale_latent(parse_latent(entry.latent, rules.stored_shape), rules, posterior, latents[place])
            if not np.isfinite(latents[place]).all():
                raise ValueError("latent is not finite")
        except (ValueError, KeyError, TypeError, EOFError) as error:
            reason = f"no {error} in its json" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{entry.where} holds a damaged sample {entry.key!r} ({reason}): run prepare again for that shard"
            ) from None
        generator(*noise_).standard_normal(out=noise[place], dtype=np.float32)
        timestep[place] = generator(*timestep_).random()
        dropout[place] = generator(*dropout_).random()
    return {
        "key": [entry.key for entry in entries],
        "epoch": [-1 if entry.epoch is None else entry.epoch for entry in entries],
        "caption": captions,
        "labels": labels,
        "latents": torch.from_numpy(latents),
        "noise": torch.from_numpy(noise),
        "timestep_uniform": torch.from_numpy(timestep),
        "dropout_uniform": torch.from_numpy(dropout),
        "weight": torch.tensor([entry.weight for entry in entries], dtype=torch.float32),
    }
