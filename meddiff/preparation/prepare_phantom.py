"""The phantom cohort as latent shards: what ``lightning prepare phantom`` and the quickstart's first use both call."""

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from meddiff.common.locks import locked
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.encode import shard_header
from meddiff.preparation.pool import write_shards
from meddiff.shards.manifest import Manifest

#: The autoencoder that ships with the suite, trained on phantoms (configs/phantom_vae.yaml).
DEFAULT_VAE = "assets/phantom_vae"


def phantom_folder(options: PhantomOptions, vae: str) -> str:
    """A folder of its own for each cohort, so that changed options never meet old shards."""
    text = json.dumps([asdict(options), vae], sort_keys=True)
    return f"data/phantom-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def prepare_phantom(
    options: PhantomOptions,
    out: str | Path,
    vae: str = DEFAULT_VAE,
    command: str = "",
    processes: int | None = None,
    show_progress: bool = True,
) -> Manifest:
    """Render, encode and write the cohort; goes on where a killed call stopped, waits where another writes it.

    Raises:
        UserError: bad options, no VAE, or ``out`` holds shards of other options.
    """
    header = shard_header(
        "phantom", command, asdict(options), vae, options.resolution, "rendered at the resolution, no resize"
    )
    with locked(out, "prepare phantom", wait=True):
        return write_shards(partial(PhantomCohort, options), out, header, processes, show_progress=show_progress)
