"""What the samples of a shard are made from: rows of tables and files of images, told apart without reading pixels.

Prepared again into the same folder, a cohort whose texts, boxes or images have changed since gets its changed shards anew.
The digest holds what tables say and how large files are, so that a copy of the cohort gives the same manifest; an image that
was replaced by one as large is known by its time. Source: own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from meddiff.preparation.jobs import Made
from meddiff.preparation.records import Record


class RecordSources:
    """What records below a root are made from.

    Args:
        root: of the cohort.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, records: Sequence[Record]) -> Made:
        """Of the records of one shard; files that are missing count as empty."""
        digest, newest = hashlib.sha256(), 0
        for record in records:
            files = [record.path, *map(str, record.attributes.get("mask_files", {}).values())]
            sizes = []
            for name in files:
                try:
                    found = (self.root / name).stat()
                except OSError:
                    sizes.append(-1)
                    continue
                sizes.append(found.st_size)
                newest = max(newest, found.st_mtime_ns)
            text = json.dumps([asdict(record), sizes], sort_keys=True, default=str)
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return Made(digest.hexdigest(), newest)
