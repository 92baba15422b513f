"""Bad inputs by kind: what is spoilt, and the command that meets it. The table of ``docs/bad_inputs.md`` is made of these."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml
from PIL import Image

from meddiff.common.errors import UserError
from tests.builders.command import write_fit
from tests.builders.run_folders import make_run

#: As deep as no file that a person or this suite writes, and far deeper than Python's own stack.
DEEP = 50_000
DIGITS = 400


@dataclass(frozen=True)
class Place:
    """A folder with whole inputs of every kind, of which a case spoils one.

    Attributes:
        folder: of all of them; ``config`` is a file for ``fit``, ``run`` a run folder, ``shards`` a folder of shards,
            ``images`` an own folder with a table, ``sweep`` a sweep file.
    """

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "fit.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "t" / "20260101-000000"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep.yaml"

    def named(self, text: str) -> str:
        """``{run}``, ``{config}`` ... with the paths in their place."""
        for name in ("config", "run", "shards", "images", "sweep", "folder"):
            text = text.replace(f"{{{name}}}", str(getattr(self, name)))
        return text

    def masked(self, text: str) -> str:
        """The same backwards, so that a sentence is the same on every machine."""
        for name in ("config", "run", "shards", "images", "sweep", "folder"):
            text = text.replace(str(getattr(self, name)), f"{name.upper()}")
        return text


def make_place(folder: Path, vae: Path, shards: Path) -> Place:
    """All of them whole; the shards are a copy."""
    place = Place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shards, place.shards)
    write_fit(place.config, place.shards, vae)
    make_run(place.run, evaluations=2, overlays=1, samples=1, size=16)
    (place.run / "checkpoints").mkdir()
    evaluation = place.run / "evaluation" / "000016000"
    evaluation.mkdir(parents=True)
    (evaluation / "evaluation.json").write_text(json.dumps({"model": "m", "images": 16000, "seed": 0, "parts": {}}))
    (evaluation / "summary.json").write_text(json.dumps({"grounding": {"cnr": 1.0}}))
    place.images.mkdir()
    for name in "abc":
        Image.new("L", (32, 32), 90).save(place.images / f"{name}.png")
    (place.images / "metadata.csv").write_text("image,text\na.png,a\nb.png,b\nc.png,c\n")
    place.sweep.write_text(
        yaml.safe_dump(
            {
                "program": "meddiff",
                "method": "grid",
                "parameters": {"seed_everything": {"values": [0, 1]}},
                "command": ["lightning", "fit", "-c", str(place.config), "${args}"],
            }
        )
    )
    return place


Spoil = Callable[[Place], None]


@dataclass(frozen=True)
class Bad:
    """One kind of bad input.

    Attributes:
        door: which door it comes through.
        what: the kind, in words.
        command: of ``lightning``, with places such as ``{run}``.
        spoil: makes a whole place bad.
        code: exit code; 0 where the input is read, or left out with a warning.
    """

    door: str
    what: str
    command: str
    spoil: Spoil
    code: int = 2


def nothing(place: Place) -> None:
    """The command itself is what is bad."""


def write(name: str, content: str | bytes) -> Spoil:
    """A file of the place, with other content."""

    def spoil(place: Place) -> None:
        file = Path(place.named(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        data = place.named(content).encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        file.write_bytes(data)

    return spoil


def edit(name: str, change: Callable[[dict], object]) -> Spoil:
    """A JSON file of the place, changed."""

    def spoil(place: Place) -> None:
        file = Path(place.named(name))
        values = json.loads(file.read_text())
        change(values)
        file.write_text(json.dumps(values))

    return spoil


def instead(name: str, kind: str) -> Spoil:
    """A pipe, device or folder where a file was."""

    def spoil(place: Place) -> None:
        file = Path(place.named(name))
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        elif kind == "loop":
            file.symlink_to(file.name)
        else:
            file.mkdir()

    return spoil


def sparse(name: str, size: int) -> Spoil:
    """A file that is too large to be read, of which nothing takes room."""

    def spoil(place: Place) -> None:
        with Path(place.named(name)).open("wb") as stream:
            stream.truncate(size)

    return spoil


def member(suffix: str, change: Callable[[bytes], bytes]) -> Spoil:
    """``KEY.<suffix>`` of the first training sample with other bytes, in a shard and a manifest that are otherwise whole."""

    def spoil(place: Place) -> None:
        import hashlib
        import io
        import tarfile

        manifest = json.loads((place.shards / "manifest.json").read_text())
        record = next(one for one in manifest["shards"] if one["split"] == "train")
        file, out, done = place.shards / record["name"], io.BytesIO(), False
        with tarfile.open(file) as before, tarfile.open(fileobj=out, mode="w") as after:
            for info in before:
                data = before.extractfile(info).read()
                if not done and info.name.endswith(suffix):
                    data, done = change(data), True
                    info.size = len(data)
                after.addfile(info, io.BytesIO(data))
        file.write_bytes(out.getvalue())
        record |= {"bytes": len(out.getvalue()), "sha256": hashlib.sha256(out.getvalue()).hexdigest()}
        (place.shards / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def sample(change: Callable[[dict], object]) -> Spoil:
    """``KEY.json`` of the first training sample, changed."""

    def changed(data: bytes) -> bytes:
        values = json.loads(data)
        change(values)
        return json.dumps(values).encode()

    return member(".json", changed)


def huge_png(side: int) -> bytes:
    """The head of a picture of ``side`` x ``side`` pixels, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def read_batch(place: Place, err: IO[str]) -> int:
    """The first batch of the whole training split, as every verb reads it; exit code, and the sentence in ``err``."""
    from datamodules import LatentShardsDataModule
    from meddiff.shards.manifest import Manifest

    try:
        whole = Manifest.read(place.shards).samples("train")
        data = LatentShardsDataModule(str(place.shards), batch_size=whole)
        data.setup("fit")
        next(iter(data.train_dataloader()))
    except UserError as error:
        print(f"error: {error}", file=err)
        return 2
    return 0
