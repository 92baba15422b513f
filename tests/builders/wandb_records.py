"""Everything that a run of W&B holds on disk: the records of its file, and the files beside it."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2

#: The file is a head and then blocks; a chunk has a head of its own (checksum, length, kind) and ends within its block.
BLOCK, CHUNK, HEAD = 32768, 7, 7
FULL, LAST = 1, 4


def payloads(file: Path) -> Iterator[bytes]:
    """The payload of every record of ``run-ID.wandb``, put together from its chunks."""
    data, place, whole = file.read_bytes(), HEAD, b""
    while place + CHUNK <= len(data):
        room = BLOCK - place % BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if room < CHUNK or not kind:  # the rest of a block
            place += room
            continue
        whole += data[place + CHUNK : place + CHUNK + length]
        place += CHUNK + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def read_records(file: Path) -> list[wandb_internal_pb2.Record]:
    """Every record of a run that has been finished; W&B's own process writes the last ones a moment later."""
    records: list[wandb_internal_pb2.Record] = []
    for _ in range(600):
        try:
            records = [wandb_internal_pb2.Record.FromString(payload) for payload in payloads(file)]
        except DecodeError:  # the last of them is half written
            records = []
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def offline_run(run: Path) -> Path:
    """W&B's folder of the one offline run of a run folder."""
    (folder,) = (run / "wandb").glob("offline-run-*")
    return folder


def everything(run: Path) -> tuple[dict[str, int], bytes, dict[str, bytes]]:
    """Of a run folder: kind of record -> how many; all records as text, numbers and names as they are; file -> content."""
    folder = offline_run(run)
    (file,) = folder.glob("run-*.wandb")
    records = read_records(file)
    kinds: dict[str, int] = {}
    for record in records:
        kind = str(record.WhichOneof("record_type"))
        kinds[kind] = kinds.get(kind, 0) + 1
    text = "\n".join(str(record) for record in records).encode()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return kinds, text + b"".join(payloads(file)), files


def wandb_records(run: Path, kind: str) -> list[wandb_internal_pb2.Record]:
    """The records of one kind (history, metric, config, run, summary, artifact) of the one offline run of a run folder."""
    (file,) = offline_run(run).glob("run-*.wandb")
    return [record for record in read_records(file) if record.WhichOneof("record_type") == kind]


def history(run: Path) -> list[dict[str, object]]:
    """Every row that was committed: name -> value; what W&B nests has its names joined by dots."""
    rows = []
    for record in wandb_records(run, "history"):
        items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        rows.append(items)
    return rows


def last_values(run: Path, kind: str) -> dict[str, object]:
    """``summary`` or ``config`` as it stands at the end; nested names joined by dots."""
    found: dict[str, object] = {}
    for record in wandb_records(run, kind):
        for item in getattr(record, kind).update:
            found[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found
