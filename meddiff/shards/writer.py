"""Latent shards: WebDataset tars whose bytes depend on the samples alone (source: own; design, "Shard schema").

Shard k of a split is samples ``k * samples_per_shard`` onwards of its sorted keys, so any process can write any shard
and the folder comes out the same. The core is :func:`write_shard`; :class:`ShardWriter` remembers what is already done.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from meddiff.shards.members import check_key, encode_sample, plain
from meddiff.shards.sample import CohortSample

PARTIAL = ".partial"
Pair = tuple[CohortSample, NDArray[np.floating]]


@dataclass(frozen=True)
class ShardPlan:
    """One shard still on paper: its file name, its split and the sorted keys that belong into it."""

    name: str
    split: str
    keys: tuple[str, ...]


def _shard_name(split: str, number: int) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise UserError(f"split {split!r} cannot name a shard: use letters, digits and underscores only")
    return f"{split}-{number:05d}.tar"


def plan_shards(split: str, keys: Sequence[str], samples_per_shard: int) -> list[ShardPlan]:
    """Slice the sorted keys of a split into shards.

    Raises:
        UserError: bad split name, bad or duplicate key.
    """
    ordered = sorted(keys)
    for before, key in zip(["", *ordered], ordered, strict=False):
        check_key(key)
        if before == key:
            raise UserError(f"sample key {key!r} occurs twice in split {split!r}: every image needs a name of its own")
    return [
        ShardPlan(_shard_name(split, number), split, tuple(ordered[start : start + samples_per_shard]))
        for number, start in enumerate(range(0, len(ordered), samples_per_shard))
    ]


class _Digest:
    """A write-only stream that hashes and counts what passes, so a shard is never read back for its digest."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.sha256, self.bytes = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.stream.write(data)


def _keys_digest(keys: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def write_shard(path: str | Path, samples: Iterable[Pair], shape: tuple[int, ...] | None = None) -> ShardRecord:
    """Write one shard, whole or not at all; needs nothing but its own samples, so any process may do it.

    Args:
        path: DIR/<split>-00000.tar.
        samples: (sample, moments) in sorted key order, all of one split.
        shape: the shape all moments must have.

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
        digest = _Digest(stream)
        # Fixed owner, mode and time: the bytes depend on the samples alone.
        with TarWriter(digest, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False) as tar:
            for sample, moments in samples:
                check_key(sample.key)
                if keys and sample.key <= keys[-1]:
                    what = "occurs twice" if sample.key == keys[-1] else f"comes after {keys[-1]!r}"
                    raise UserError(f"sample key {sample.key!r} {what} in {path.name}: give unique, sorted keys")
                if sample.split != split:
                    raise UserError(f"sample {sample.key!r} is of split {sample.split!r}, {path.name} is for {split!r}")
                tar.write({"__key__": sample.key, **encode_sample(sample, moments, shape)})
                keys.append(sample.key)
                labels.update(set(sample.labels))
                boxes.update(
                    kept=len(sample.boxes),
                    cut=sample.attributes.get("boxes_cut", 0),
                    lost=sample.attributes.get("boxes_lost", 0),
                )
    sha256, keys_sha256 = digest.sha256.hexdigest(), _keys_digest(keys)
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


class ShardWriter:
    """Writes the shards of a cohort into ``out`` and can be killed and continued at any time.

    Finished shards leave a record in ``out/.partial``; the last act turns the records into ``manifest.json``.
    A shard whose file still has the recorded size and sha256 and whose keys are unchanged is not written again.
    Different processes may call :meth:`write_planned` on different plans; one calls :meth:`finish` at the end.

    Args:
        out: the folder; made when missing.
        header: a :class:`Manifest` without shards and counts.
        samples_per_shard: samples per tar.

    Raises:
        UserError: ``out`` already holds shards made with other options.
    """

    def __init__(self, out: str | Path, header: Manifest, samples_per_shard: int = 1024) -> None:
        if samples_per_shard < 1:
            raise UserError(f"samples_per_shard is {samples_per_shard}: give 1 or more")
        self.out, self.samples_per_shard = Path(out), samples_per_shard
        self.header = dataclasses.replace(header, shards=(), counts={}, funnel=())
        self.records: dict[str, ShardRecord] = {}
        self._earlier: dict[str, ShardRecord] = {}
        if (self.out / MANIFEST_NAME).exists():
            finished = Manifest.read(self.out)
            self._refuse_other(dataclasses.replace(finished, shards=(), counts={}).to_json())
            self._earlier = {record.name: record for record in finished.shards}
        elif (self.out / PARTIAL / "header.json").exists():
            self._refuse_other(json.loads((self.out / PARTIAL / "header.json").read_text(encoding="utf-8")))
        write_json(self.out / PARTIAL / "header.json", self._identity(self.header.to_json()))

    def plan(self, split: str, keys: Sequence[str]) -> list[ShardPlan]:
        """The shards a split needs, done or not (:func:`plan_shards`)."""
        return plan_shards(split, keys, self.samples_per_shard)

    def done(self, plan: ShardPlan) -> ShardRecord | None:
        """The record of a shard that is already there, whole and of the same keys; else None."""
        note, path = self.out / PARTIAL / f"{plan.name}.json", self.out / plan.name
        record = self._earlier.get(plan.name)
        if note.exists():
            record = ShardRecord(**json.loads(note.read_text(encoding="utf-8")))
        if record is None or record.keys_sha256 != _keys_digest(plan.keys) or not path.is_file():
            return None
        if path.stat().st_size != record.bytes:
            return None
        with path.open("rb") as stream:
            return record if hashlib.file_digest(stream, "sha256").hexdigest() == record.sha256 else None

    def write_planned(
        self, plan: ShardPlan, samples: Iterable[Pair], unreadable: Mapping[str, str] | None = None
    ) -> ShardRecord:
        """Write one planned shard from exactly its samples, and leave its record.

        Args:
            unreadable: planned key -> why there is no sample for it; may be filled while ``samples`` is consumed.

        Raises:
            UserError: other samples than planned, or the disk does not take them; shards already there stay as they are.
        """
        try:
            record = write_shard(self.out / plan.name, samples, self.header.stored_shape)
            left_out = dict(unreadable or {})
            if record.keys_sha256 != _keys_digest(key for key in plan.keys if key not in left_out):
                raise UserError(
                    f"{plan.name} got {record.samples} samples that are not the {len(plan.keys)} planned ones"
                )
            record = dataclasses.replace(record, keys_sha256=_keys_digest(plan.keys), unreadable=left_out)
            write_json(self.out / PARTIAL / f"{plan.name}.json", dataclasses.asdict(record))
        except OSError as error:
            raise _cannot_write(self.out / plan.name, error) from error
        self.records[plan.name] = record
        return record

    def write_split(
        self, split: str, keys: Sequence[str], make: Callable[[tuple[str, ...]], Iterable[Pair]]
    ) -> Iterator[tuple[ShardPlan, bool]]:
        """Write the missing shards of a split; yields (plan, newly written) after each, for a progress bar.

        Args:
            make: sorted keys of one shard -> its (sample, moments); called for missing shards only, so nothing
                is rendered or encoded twice.
        """
        for plan in self.plan(split, keys):
            record = self.done(plan)
            if record is None:
                self.write_planned(plan, make(plan.keys))
            else:
                self.records[plan.name] = record
            yield plan, record is None

    def write(self, split: str, samples: Iterable[Pair]) -> None:
        """Write a split from one iterator in sorted key order; shards already there are passed over, not rewritten."""
        pairs, last, number = iter(samples), "", 0
        while block := list(islice(pairs, self.samples_per_shard)):
            keys = [sample.key for sample, _ in block]
            if keys[0] <= last:
                raise UserError(f"sample key {keys[0]!r} comes after {last!r} in {split!r}: give unique, sorted keys")
            plan = ShardPlan(_shard_name(split, number), split, tuple(keys))
            self.records[plan.name] = self.done(plan) or self.write_planned(plan, block)
            last, number = keys[-1], number + 1

    def collect(self, plans: Iterable[ShardPlan]) -> list[ShardRecord]:
        """The records of all shards of the folder, also those that other processes wrote.

        Raises:
            UserError: a planned shard is missing.
        """
        for plan in plans:
            record = self.records.get(plan.name) or self.done(plan)
            if record is None:
                raise UserError(f"{self.out / plan.name} was not written: run prepare again, it writes what is missing")
            self.records[plan.name] = record
        return [self.records[name] for name in sorted(self.records)]

    def finish(self, plans: Iterable[ShardPlan] | None = None, funnel: Sequence[tuple[str, int, int]] = ()) -> Manifest:
        """Write ``manifest.json`` and clear the traces of the work.

        Args:
            plans: all shards of the folder, when other processes wrote some; None = those this writer saw.
            funnel: for the manifest.

        Raises:
            UserError: a planned shard is missing.
        """
        shards = tuple(self.collect(plans or ()))
        manifest = dataclasses.replace(self.header, shards=shards, counts=_counts(shards), funnel=tuple(funnel))
        try:
            manifest.write(self.out)
        except OSError as error:
            raise _cannot_write(self.out / MANIFEST_NAME, error) from error
        for name in set(self._earlier) - set(self.records):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
        for name in (*self.records, MANIFEST_NAME):  # what a killed writer left half-written
            for leftover in self.out.glob(f".{name}.*"):
                leftover.unlink(missing_ok=True)
        return manifest

    def _identity(self, header: dict[str, Any]) -> dict[str, Any]:
        """What must agree to continue: all but the command line, which may spell the same folder differently."""
        kept = {name: value for name, value in header.items() if name not in ("command", "shards", "counts", "funnel")}
        # Through JSON, so that tuples and lists compare as they are stored.
        return json.loads(json.dumps(kept | {"samples_per_shard": self.samples_per_shard}, default=plain))

    def _refuse_other(self, earlier: dict[str, Any]) -> None:
        now = self._identity(self.header.to_json())
        # A finished manifest does not say how many samples a shard has; other slices have other keys and are rewritten.
        then = self._identity(earlier) | {k: v for k, v in earlier.items() if k == "samples_per_shard"}
        other = [name for name in now if now[name] != then.get(name)]
        if other:
            raise UserError(
                f"{self.out} already holds shards with another {', '.join(sorted(other))} "
                f"({_short(then.get(other[0]))}, now {_short(now[other[0]])}): choose another --out or remove it"
            )


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path} ({error.strerror or error}): the shards finished so far are whole; make room or mend the "
        "folder and run the same command again, it goes on from there"
    )


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) < 90 else text[:87] + "..."


def _counts(shards: Iterable[ShardRecord]) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {}
    for shard in shards:
        split = counts.setdefault(shard.split, {"samples": 0, "labels": Counter()})
        split["samples"] += shard.samples
        split["labels"].update(shard.labels)
        if shard.unreadable:
            split["unreadable"] = split.get("unreadable", 0) + len(shard.unreadable)
        if shard.boxes:
            split["boxes"] = dict(Counter(split.get("boxes", {})) + Counter(shard.boxes))
    for split in counts.values():
        split["labels"] = dict(sorted(split["labels"].items()))
    return counts
