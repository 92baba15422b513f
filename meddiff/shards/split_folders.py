"""Splits of one experiment in several folders: reports in one cohort, boxes in another (MIMIC-CXR, MS-CXR). Source: own."""

from collections.abc import Callable, Mapping, Sequence

from meddiff.common.errors import UserError
from meddiff.shards.access import Access
from meddiff.shards.index import check_sizes
from meddiff.shards.manifest import Manifest
from meddiff.shards.stored import with_latents

#: (name, access) of cohorts.
Cohorts = list[tuple[str, Access]]
#: What two folders must share for one model to read both.
FACTS: dict[str, Callable[[Manifest], object]] = {
    "VAE": lambda one: (one.vae["class"], one.vae["sha256"]),
    "kind of latents": lambda one: one.latent,
    "latent shape": lambda one: one.latent_shape,
    "resolution": lambda one: one.resolution,
}


def one_folder(shards: str | Sequence[str]) -> str:
    """The folder of shards that are read at random.

    Raises:
        UserError: several, or a tar.
    """
    folders = [shards] if isinstance(shards, str) else shards
    if len(folders) != 1 or folders[0].endswith(".tar"):
        raise UserError(f"shards {shards} are not one folder: give the folder that holds manifest.json")
    return folders[0]


#: What a manifest says to who reads a folder; refuses one that does not hold it.
ReadAs = Callable[[Manifest, str], Manifest]


def splits_from_problems(
    folders: Mapping[str, str], train_split: str, manifest: Manifest | None, read_as: ReadAs = with_latents
) -> list[str]:
    """What is wrong with splits that are read from folders of their own, a sentence each.

    Args:
        folders: split -> its folder.
        train_split: which has to be in the main folder.
        manifest: of the shards that are trained on, which must go with them; None while these are missing too.
        read_as: how both are read.
    """
    if train_split in folders:
        return [f"splits_from names {train_split!r}, the split of training: give its folder as shards"]
    return [
        line for split, other in folders.items() for line in _other_folder_problems(split, other, manifest, read_as)
    ]


def _other_folder_problems(split: str, other: str, manifest: Manifest | None, read_as: ReadAs) -> list[str]:
    """Sentences that say why ``split`` cannot be read from the folder ``other``."""
    try:
        theirs = read_as(Manifest.read(other), other)
    except UserError as error:
        return [f"splits_from.{split}: {error}"]
    if manifest is not None and (unequal := [name for name, fact in FACTS.items() if fact(theirs) != fact(manifest)]):
        return [
            f"splits_from.{split}: {other} was prepared with another {', '.join(unequal)} than the cohort "
            f"{manifest.cohort} that is trained on; prepare it again with the same --vae and --resolution"
        ]
    shards = theirs.split(split)
    if not shards:
        have = ", ".join(sorted({shard.split for shard in theirs.shards})) or "none"
        return [f"splits_from.{split}: no samples of split {split!r} at {other} (it has: {have})"]
    return check_sizes(other, shards)


def cohorts_of(manifest: Manifest | None, folders: Mapping[str, str]) -> Cohorts:
    """Name and access of every cohort that an experiment reads.

    Args:
        manifest: of the main folder; None leaves it out.
        folders: split -> the folder it is read from instead.

    Raises:
        UserError: a manifest is missing or damaged.
    """
    manifests = [*([] if manifest is None else [manifest]), *map(Manifest.read, folders.values())]
    return [one.cohort_access for one in manifests]
