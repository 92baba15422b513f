"""The cohort of :mod:`tests.builders.folder_tree` prepared, three samples to a shard, and what was left out of it."""

import csv
from pathlib import Path

from meddiff.preparation.prepare_cohort import Machine, prepare_reading, read_cohort
from meddiff.shards.manifest import Manifest
from meddiff.shards.stored import Store

#: In this process, through Lightning; a pool has to start processes.
HERE = Machine(accelerator="cpu", devices=1)


def prepare_folder(
    root: Path, out: Path, vae: Path, machine: Machine = HERE, limit: int | None = None, store: Store = "latents"
) -> Manifest:
    """Read the cohort at ``root`` and write its shards at 64 px to ``out``.

    Args:
        vae: folder of the autoencoder.
        limit: images of each split; null means all.
        store: latents, images or both.

    Raises:
        UserError: as ``lightning prepare`` does.
    """
    reading = read_cohort("folder", root, limit=limit)
    manifest = prepare_reading(
        reading, out, str(vae), 64, machine, samples_per_shard=3, show_progress=False, store=store
    )
    assert manifest is not None  # only ranks but the first have none
    return manifest


def rejected(out: Path) -> list[list[str]]:
    """Lines of ``rejected.csv``, its header first."""
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))
