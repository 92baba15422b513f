"""Everything between a folder of latent shards and a batch: manifest, index, stream, data modules."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .datasets import LatentShardsDataset, TrainStream
    from .items import make_batch
    from .latent_shards import LatentShardsDataModule
    from .manifest import Manifest, ShardRecord
    from .shard_index import ShardIndex, ShardReader
    from .stream import epoch_permutation, micro_batch_positions

__all__ = [
    "LatentShardsDataModule",
    "LatentShardsDataset",
    "Manifest",
    "ShardIndex",
    "ShardReader",
    "ShardRecord",
    "TrainStream",
    "epoch_permutation",
    "make_batch",
    "micro_batch_positions",
]

_HOMES = {
    "LatentShardsDataModule": "latent_shards",
    "LatentShardsDataset": "datasets",
    "Manifest": "manifest",
    "ShardIndex": "shard_index",
    "ShardReader": "shard_index",
    "ShardRecord": "manifest",
    "TrainStream": "datasets",
    "epoch_permutation": "stream",
    "make_batch": "items",
    "micro_batch_positions": "stream",
}


def __getattr__(name: str) -> Any:
    # At first use, because the shard writer's processes need the manifest only, and importing Lightning takes seconds.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
