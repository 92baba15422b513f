"""Random access to samples in ordinary WebDataset tars: an offset index and ``pread`` (source: own; design decision 6).

The tar headers are walked once, payloads are never read for it; the result is kept beside the shards in ``.index.npz``.
"""

import json
import os
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.outside import sample_key
from meddiff.shards.manifest import Manifest, ShardRecord

CACHE_NAME = ".index.npz"
CACHE_VERSION = 1
LATENT, METADATA, PICTURE = "latent.npy", "json", "png"
AGAIN = "run prepare again, it rewrites only that shard"


@dataclass(frozen=True)
class TarTable:
    """The members of one tar.

    Attributes:
        keys: sample keys in file order.
        suffixes: member names after ``KEY.``.
        members: int64 (m, 4), one row each: sample number, suffix number, offset of the payload, size in bytes.
    """

    keys: tuple[str, ...]
    suffixes: tuple[str, ...]
    members: NDArray[np.int64]


def scan_tar(path: str | Path) -> TarTable:
    """Walk the headers of a tar.

    Raises:
        UserError: it is missing, cut short or not a tar, a sample's members are apart, or a key could name another place.
    """
    path = Path(path)
    keys: dict[str, int] = {}
    suffixes: dict[str, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    try:
        size, end = path.stat().st_size, 0
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                key, dot, suffix = member.name.partition(".")
                if not member.isreg() or not dot:
                    continue
                if key not in keys:
                    sample_key(key, str(path))
                number = keys.setdefault(key, len(keys))
                if rows and number < rows[-1][0]:
                    raise UserError(f"{path} holds the members of sample {key!r} apart from each other: {AGAIN}")
                rows.append((number, suffixes.setdefault(suffix, len(suffixes)), member.offset_data, member.size))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {AGAIN}") from None
    except tarfile.TarError as error:
        raise UserError(f"{path} is truncated or not a tar file ({error}): {AGAIN}") from None
    # A tar ends with two empty blocks; a file cut between two members has none.
    if size < end + 2 * tarfile.BLOCKSIZE:
        raise UserError(f"{path} is truncated: {size} bytes, its members need {end + 2 * tarfile.BLOCKSIZE}: {AGAIN}")
    return TarTable(tuple(keys), tuple(suffixes), np.array(rows, np.int64).reshape(-1, 4))


def check_sizes(folder: str | Path, records: Sequence[ShardRecord]) -> list[str]:
    """A sentence for every shard that is missing or has not the size the manifest gives; looks at the disk only."""
    problems = []
    for record in records:
        path = Path(folder) / record.name
        try:
            size = path.stat().st_size
        except OSError:
            problems.append(f"{path} is missing: {AGAIN}")
            continue
        if size < record.bytes:
            problems.append(f"{path} is truncated: {size} of {record.bytes} bytes; {AGAIN}")
        elif size > record.bytes:
            problems.append(f"{path} has {size} bytes, the manifest says {record.bytes}; {AGAIN}")
    return problems


def load_tables(folder: str | Path, records: Sequence[ShardRecord], cache: bool = True) -> list[TarTable]:
    """The table of every shard, from the cache where it is still true, else by walking the tar.

    Args:
        cache: read and refresh ``.index.npz``; a folder that cannot be written to is fine.

    Raises:
        UserError: a shard is missing, has the wrong size, or is not a tar.
    """
    folder = Path(folder)
    if problems := check_sizes(folder, records):
        raise UserError(problems[0])
    stamps = [_stamp(folder / record.name) for record in records]
    known = _read_cache(folder / CACHE_NAME) if cache else {}
    tables = [known.get(stamp) or scan_tar(folder / stamp[0]) for stamp in stamps]
    fresh = dict(zip(stamps, tables, strict=True))
    if cache and any(stamp not in known for stamp in stamps):
        # Keep what other splits put there, as long as their shards have not changed.
        mine = {file.name for file in folder.glob("*.tar")}
        others = {
            stamp: table for stamp, table in known.items() if stamp[0] in mine and _stamp(folder / stamp[0]) == stamp
        }
        _write_cache(folder / CACHE_NAME, others | fresh)
    return tables


Stamp = tuple[str, int, int]  # name, bytes, time of change in ns


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return (path.name, -1, -1)
    return (path.name, status.st_size, status.st_mtime_ns)


def _read_cache(path: Path) -> dict[Stamp, TarTable]:
    """What an earlier run saw; anything unreadable counts as nothing, because the tars are the truth."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            if head["version"] != CACHE_VERSION:
                return {}
            tables = {}
            for number, entry in enumerate(head["shards"]):
                text = arrays[f"keys{number}"].tobytes().decode()
                # the cache travels with the folder: it is as much from outside as the tars
                keys = tuple(map(sample_key, text.split("\n"))) if text else ()
                table = TarTable(keys, tuple(entry["suffixes"]), arrays[f"members{number}"])
                tables[(entry["name"], entry["bytes"], entry["mtime_ns"])] = table
            return tables
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UserError):
        return {}


def _write_cache(path: Path, tables: dict[Stamp, TarTable]) -> None:
    head = [
        {"name": name, "bytes": size, "mtime_ns": time, "suffixes": table.suffixes}
        for (name, size, time), table in tables.items()
    ]
    text = json.dumps({"version": CACHE_VERSION, "shards": head}).encode()
    arrays: dict[str, NDArray[np.generic]] = {"head": np.frombuffer(text, np.uint8)}
    for number, table in enumerate(tables.values()):
        arrays[f"keys{number}"] = np.frombuffer("\n".join(table.keys).encode(), np.uint8)
        arrays[f"members{number}"] = table.members
    try:
        with atomic_open(path) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except OSError:
        pass  # a read-only or full disk: the index is rebuilt next time


class ShardIndex:
    """Where the members of every sample of one split are, in sorted key order.

    Attributes:
        paths: the tars; keys: (n) sample keys; shard: int32 (n,), number of the tar that holds a sample.

    Raises:
        UserError: the split is not there, a shard is broken, or a sample lacks one of the members ``needed``.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        split: str,
        cache: bool = True,
        needed: Sequence[str] = (LATENT, METADATA),
    ) -> None:
        folder, records = Path(folder), manifest.split(split)
        if not manifest.samples(split):
            have = ", ".join(sorted({shard.split for shard in manifest.shards})) or "none"
            raise UserError(f"no samples of split {split!r} at {folder} (it has: {have}): name another split")
        self.paths = [folder / record.name for record in records]
        tables = load_tables(folder, records, cache)
        for record, table in zip(records, tables, strict=True):
            if len(table.keys) != record.samples:
                raise UserError(
                    f"{folder / record.name} has {len(table.keys)} samples, the manifest says {record.samples}: {AGAIN}"
                )
        self.keys = [key for table in tables for key in table.keys]
        if any(a >= b for a, b in zip(self.keys, self.keys[1:], strict=False)):
            raise UserError(f"the keys of split {split!r} at {folder} are not in sorted order: run prepare again")
        self.shard = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table.keys) for table in tables])
        self.columns = _columns(tables, len(self.keys))
        for suffix in needed:
            lost = np.flatnonzero(self.columns[suffix][:, 1] < 0) if suffix in self.columns else np.array([0])
            if len(lost):
                where = self.paths[self.shard[lost[0]]]
                raise UserError(f"{where} holds sample {self.keys[lost[0]]!r} without its {suffix}: {AGAIN}")

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, samples: NDArray[np.int64]) -> "ShardIndex":
        """The same index of some of the samples, by rising number."""
        chosen = copy(self)
        chosen.keys, chosen.shard = [self.keys[sample] for sample in samples], self.shard[samples]
        chosen.columns = {suffix: column[samples] for suffix, column in self.columns.items()}
        return chosen

    def suffixes(self, sample: int) -> list[str]:
        """Names of the members a sample has, without ``KEY.``."""
        return sorted(suffix for suffix, column in self.columns.items() if column[sample, 1] >= 0)


def _columns(tables: Sequence[TarTable], n: int) -> dict[str, NDArray[np.int64]]:
    """suffix -> int64 (n, 2): offset and size of that member in each sample's tar, (-1, -1) where it has none."""
    columns: dict[str, NDArray[np.int64]] = {}
    first = 0
    for table in tables:
        for number, suffix in enumerate(table.suffixes):
            column = columns.setdefault(suffix, np.full((n, 2), -1, np.int64))
            rows = table.members[table.members[:, 1] == number]  # (k, 4)
            column[first + rows[:, 0]] = rows[:, 2:]
        first += len(table.keys)
    return columns


class ShardReader:
    """Reads members by ``pread``; every process opens its own descriptors, at most ``max_open`` at a time.

    ``pread`` has no file position, so nothing is shared between workers; descriptors close on exec and stay
    behind when the reader is pickled.
    """

    def __init__(self, index: ShardIndex, max_open: int = 64) -> None:
        self.index, self.max_open = index, max_open
        self._open: OrderedDict[int, int] = OrderedDict()  # shard number -> descriptor, least recently used first
        self._process = os.getpid()

    def read(self, sample: int, suffix: str) -> bytes:
        """The payload of ``KEY.<suffix>``.

        Raises:
            UserError: the sample has no such member, or the file ends before it.
        """
        shard = int(self.index.shard[sample])
        column = self.index.columns.get(suffix)
        offset, size = (-1, -1) if column is None else (int(value) for value in column[sample])
        if size < 0:
            raise UserError(f"{self.index.paths[shard]} holds sample {self.index.keys[sample]!r} without its {suffix}")
        data = os.pread(self._descriptor(shard), size, offset)
        if len(data) != size:
            path, key = self.index.paths[shard], self.index.keys[sample]
            raise UserError(f"{path} is truncated: {suffix} of sample {key!r} is cut at {len(data)} of {size} bytes")
        return data

    def _descriptor(self, shard: int) -> int:
        if self._process != os.getpid():  # after a fork: these numbers are copies of the parent's
            self.close()
            self._process = os.getpid()
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= self.max_open:
            os.close(self._open.popitem(last=False)[1])
        path = self.index.paths[shard]
        try:
            self._open[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): {AGAIN}") from None
        return self._open[shard]

    def close(self) -> None:
        """Close all descriptors; the next read opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()
