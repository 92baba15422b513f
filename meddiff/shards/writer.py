"""Latent shards: WebDataset tars whose bytes depend on the samples alone (source: own; design, "Shard schema").

Any process can write any shard (:mod:`meddiff.shards.planning` says which there are, :mod:`meddiff.shards.one_shard`
writes one) and the folder comes out the same; :class:`ShardWriter` remembers what is already done.
"""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import PART, remove_leftovers, write_json
from meddiff.common.outside import own_file
from meddiff.shards.manifest import MANIFEST_NAME, Manifest, ShardRecord
from meddiff.shards.members import plain
from meddiff.shards.one_shard import Pair, write_shard
from meddiff.shards.planning import ShardPlan, keys_digest, plan_shards, shard_name
from meddiff.shards.schema import SplitCounts

PARTIAL = ".partial"


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
        elif any(note.name != "header.json" for note in (self.out / PARTIAL).glob("*.json")):
            # a header without a shard is what a call left that failed before its first one
            try:
                self._refuse_other(json.loads((self.out / PARTIAL / "header.json").read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.out / PARTIAL} holds shards and does not say how they were made ({error}): choose another --out "
                    "or remove it"
                ) from error
        own_file(self.out / PARTIAL)
        write_json(self.out / PARTIAL / "header.json", self._identity(self.header.to_json()))

    def plan(self, split: str, keys: Sequence[str]) -> list[ShardPlan]:
        """The shards a split needs, done or not (:func:`plan_shards`)."""
        return plan_shards(split, keys, self.samples_per_shard)

    def done(self, plan: ShardPlan) -> ShardRecord | None:
        """The record of a shard that is already there, whole, of the same keys and made from the same; else None."""
        note, path = self.out / PARTIAL / f"{plan.name}.json", self.out / plan.name
        record = self._earlier.get(plan.name)
        if note.exists():
            record = ShardRecord(**json.loads(note.read_text(encoding="utf-8")))
        if (
            record is None
            or record.name != plan.name
            or record.keys_sha256 != keys_digest(plan.keys)
            or not path.is_file()
        ):
            return None
        if path.stat().st_size != record.bytes or (record.made and plan.made and record.made != plan.made):
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
            record = write_shard(self.out / plan.name, samples, self.header.stored_shape, self.header.pictures)
            left_out = dict(unreadable or {})
            if record.keys_sha256 != keys_digest(key for key in plan.keys if key not in left_out):
                raise UserError(
                    f"{plan.name} got {record.samples} samples that are not the {len(plan.keys)} planned ones"
                )
            record = dataclasses.replace(
                record, keys_sha256=keys_digest(plan.keys), unreadable=left_out, made=plan.made
            )
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
            plan = ShardPlan(shard_name(split, number), split, tuple(keys))
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
        remove_leftovers(self.out)  # of killed writers
        for name in (*self.records, MANIFEST_NAME):  # and those of before, whose names had no ending
            for leftover in self.out.glob(f".{name}.*"):
                if not leftover.name.endswith(PART):
                    leftover.unlink(missing_ok=True)
        return manifest

    def _identity(self, header: dict[str, object]) -> dict[str, object]:
        """What must agree to continue: all but the command line, which may spell the same folder differently, and the
        access, which changes no shard."""
        other = ("command", "shards", "counts", "funnel", "access")
        kept = {name: value for name, value in header.items() if name not in other}
        # Through JSON, so that tuples and lists compare as they are stored.
        text = json.dumps(kept | {"samples_per_shard": self.samples_per_shard}, default=plain)
        identity: dict[str, object] = json.loads(text)
        return identity

    def _refuse_other(self, earlier: dict[str, object]) -> None:
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


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) < 90 else text[:87] + "..."


def _counts(shards: Iterable[ShardRecord]) -> dict[str, SplitCounts]:
    counts: dict[str, SplitCounts] = {}
    for shard in shards:
        split = counts.setdefault(shard.split, {"samples": 0, "labels": {}})
        split["samples"] += shard.samples
        split["labels"] = dict(sorted((Counter(split["labels"]) + Counter(shard.labels)).items()))
        if shard.unreadable:
            split["unreadable"] = split.get("unreadable", 0) + len(shard.unreadable)
        if shard.boxes:
            split["boxes"] = dict(Counter(split.get("boxes", {})) + Counter(shard.boxes))
    return counts
