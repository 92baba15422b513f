"""One WebDataset tar, whole or not at all, whose bytes depend on its samples alone. Source: own; design, "Shard schema"."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from meddiff.common.check_sums import HashingStream
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.outside import sample_key
from meddiff.shards.manifest import Pictures, ShardRecord
from meddiff.shards.members import encode_sample
from meddiff.shards.planning import keys_digest
from meddiff.shards.sample import CohortSample

#: A sample and what is stored as its latent: moments (2C, h, w) or mean (C, h, w); None where pictures alone are stored.
Pair: TypeAlias = tuple[CohortSample, NDArray[np.floating] | None]


def write_shard(
    path: str | Path,
    samples: Iterable[Pair],
    shape: tuple[int, ...] | None = None,
    pictures: Pictures = "evaluation",
) -> ShardRecord:
    """Write one shard, whole or not at all; needs nothing but its own samples, so any process may do it.

    Args:
        path: DIR/<split>-00000.tar.
        samples: (sample, moments) in sorted key order, all of one split.
        shape: the shape all moments must have.
        pictures: of which splits the images are stored.

    Returns:
        The shard's line of the manifest.

    Raises:
        UserError: keys out of order or repeated, mixed splits, a sample that cannot be stored; the file is untouched.
    """
    path = Path(path)
    keys: list[str] = []
    labels: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    split = path.name.rsplit("-", 1)[0]
    with atomic_open(path) as stream:
        digest = HashingStream(stream)
        # Fixed owner, mode and time: the bytes depend on the samples alone.
        with TarWriter(digest, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False) as tar:
            for sample, moments in samples:
                sample_key(sample.key)
                if keys and sample.key <= keys[-1]:
                    what = "occurs twice" if sample.key == keys[-1] else f"comes after {keys[-1]!r}"
                    raise UserError(f"sample key {sample.key!r} {what} in {path.name}: give unique, sorted keys")
                if sample.split != split:
                    raise UserError(f"sample {sample.key!r} is of split {sample.split!r}, {path.name} is for {split!r}")
                tar.write({"__key__": sample.key, **encode_sample(sample, moments, shape, pictures)})
                keys.append(sample.key)
                labels.update(set(sample.labels))
                boxes.update(
                    kept=len(sample.boxes),
                    cut=sample.attributes.get("boxes_cut", 0),
                    lost=sample.attributes.get("boxes_lost", 0),
                )
        sha256, keys_sha256 = digest.finish(), keys_digest(keys)
    return ShardRecord(
        path.name,
        split,
        len(keys),
        digest.bytes,
        sha256,
        keys_sha256,
        labels=dict(sorted(labels.items())),
        boxes=dict(boxes) if any(boxes.values()) else {},
    )
