"""Everything between a folder of latent shards and a batch: manifest, index, stream, data modules."""

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
