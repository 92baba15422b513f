"""What is missing or broken where a data module over shards would read, told before anything is built. Source: own."""

from typing import Protocol

from datamodules import streaming as remote
from datamodules.prompts import Prompt, missing_texts
from meddiff.common.errors import UserError
from meddiff.shards.index import check_sizes
from meddiff.shards.manifest import Manifest
from meddiff.shards.split_folders import one_folder, splits_from_problems


class ReadsShards(Protocol):
    """What is asked of the data module."""

    shards: str | list[str]
    prompt: Prompt
    synthetic_prompts: str | None
    streaming: bool
    manifest_path: str | None
    splits_from: dict[str, str]
    train_split: str
    val_split: str

    @property
    def manifest(self) -> Manifest: ...

    def read_as(self, manifest: Manifest, where: str) -> Manifest: ...


def shard_problems(module: ReadsShards) -> list[str]:
    """One sentence for each missing or broken thing, each with its remedy; looks at the disk only."""
    wanted = (module.prompt, module.synthetic_prompts)
    if module.streaming:
        return missing_texts(*wanted) + remote.missing_pieces(module.shards, module.manifest_path)
    others, read_as = (module.splits_from, module.train_split), module.read_as
    try:
        manifest, folder = module.manifest, one_folder(module.shards)
    except UserError as error:
        return [*missing_texts(*wanted), str(error), *splits_from_problems(*others, None, read_as)]
    records = manifest.split(module.train_split)
    have = ", ".join(sorted({shard.split for shard in manifest.shards})) or "none"
    found = missing_texts(*wanted, manifest) + splits_from_problems(*others, manifest, read_as)
    if not records:
        found.append(f"no samples of split {module.train_split!r} at {folder} (it has: {have})")
    return found + check_sizes(folder, [*records, *manifest.split(module.val_split)])
