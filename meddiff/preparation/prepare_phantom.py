"""The phantom cohort as latent shards: what ``lightning prepare phantom`` and the quickstart's first use both call."""

import hashlib
import json
from functools import partial
from pathlib import Path

from meddiff.common.locks import locked
from meddiff.common.places import PHANTOM_VAE
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.encode import shard_header
from meddiff.preparation.pool import write_shards
from meddiff.shards.manifest import Manifest
from meddiff.shards.stored import Store

#: The autoencoder that ships with the suite, trained on phantoms (configs/phantom_vae.yaml).
DEFAULT_VAE = PHANTOM_VAE


def phantom_folder(options: PhantomOptions, vae: str, store: Store = "latents") -> str:
    """A folder of its own for each cohort, so that changed options never meet old shards."""
    made = {"latents": [vae], "images": ["", "images"], "both": [vae, "images"]}[store]
    text = json.dumps([options.told(), *made], sort_keys=True)
    return f"data/phantom-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def prepare_phantom(
    options: PhantomOptions,
    out: str | Path,
    vae: str = DEFAULT_VAE,
    command: str = "",
    processes: int | None = None,
    show_progress: bool = True,
    store: Store = "latents",
) -> Manifest:
    """Render, encode and write the cohort; goes on where a killed call stopped, waits where another writes it.

    Raises:
        UserError: bad options, no VAE, or ``out`` holds shards of other options.
    """
    about = ("phantom", command, options.told(), vae, options.resolution, "rendered at the resolution, no resize")
    header = shard_header(*about, store=store)
    with locked(out, "prepare phantom", wait=True):
        return write_shards(partial(PhantomCohort, options), out, header, processes, show_progress=show_progress)
