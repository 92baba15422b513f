"""From stored bytes to a training batch: parsing, addressed draws and collation (source: own; design decisions 5, 6).

Every random number of an item comes from ``generator(seed, purpose, epoch, key)``, so it is the same for any number of
workers and ranks, any batch size, and after any resume. Evaluation uses the word "val" in the place of the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.prompts import Prompt, Texts, choose_caption
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.shards.batches import LatentBatch
from meddiff.shards.checked import parse_sample
from meddiff.shards.index import LATENT, PICTURE
from meddiff.shards.latents import Entry, parse_latent, scale_latent
from meddiff.shards.manifest import Manifest
from meddiff.shards.pixels import Pixels

#: What an item draws; each purpose has random numbers of its own.
PURPOSES = ("caption", "posterior", "noise", "timestep", "dropout")


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

    #: The member of a sample that its tensor is made of.
    payload: ClassVar[str] = LATENT

    @classmethod
    def of(cls, manifest: Manifest, seed: int, prompt: Prompt, mean_only: bool, texts: Texts | None = None) -> "Rules":
        posterior = manifest.latent == "moments" and not mean_only
        stored, shape = manifest.stored_shape, manifest.latent_shape
        return cls(seed, manifest.scaling_factor, stored, shape, posterior, prompt, texts)

    def fill(self, entry: Entry, address: tuple[object, ...], out: NDArray[np.float32]) -> None:
        """Write the tensor of a sample into ``out`` (C, h, w).

        Args:
            address: of its posterior's draw.

        Raises:
            ValueError, EOFError: what is stored is damaged.
        """
        scale_latent(
            parse_latent(entry.latent, self.stored_shape), address, out, self.scaling_factor, self.sample_posterior
        )


@dataclass(frozen=True)
class PixelRules(Rules):
    """How items are made of pictures: pixels stand for latents, and all draws keep their addresses.

    Attributes:
        pixels: how a picture becomes a tensor.
    """

    payload: ClassVar[str] = PICTURE
    pixels: Pixels = field(kw_only=True)

    def fill(self, entry: Entry, address: tuple[object, ...], out: NDArray[np.float32]) -> None:
        """As of the parent; nothing is drawn."""
        out[...] = self.pixels.read(entry.latent, entry.stamp)


def make_batch(entries: Sequence[Entry], rules: Rules) -> LatentBatch:
    """Parse, draw and collate.

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
            metadata = parse_sample(entry.metadata)
            captions.append(choose_caption(metadata, rules.prompt, caption, rules.texts))
            labels.append(list(metadata["labels"]))
            rules.fill(entry, posterior, latents[place])
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
