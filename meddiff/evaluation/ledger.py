"""Results as they come, one JSON line each, so that a stopped evaluation goes on where it was. Source: own."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar, cast

from meddiff.common.errors import UserError
from meddiff.common.outside import own_file
from meddiff.evaluation.drawing import weights_digest
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

E = TypeVar("E", bound=Mapping[str, Any])


class Ledger(Generic[E]):
    """Append-only file of results under fixed settings.

    The first line holds the settings; each further line is one result. A line that a kill cut short is dropped.

    Args:
        path: the file; its folder is made. None keeps the results in memory.
        settings: what the results depend on (JSON types).

    Raises:
        UserError: the file holds results of other settings.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, object]) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.entries: list[E] = []
        self._stream: BinaryIO | None = None
        if path is None:
            return
        own_file(path).parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.is_file():
            for place, (line, end) in enumerate(_lines(path)):
                if place == 0:
                    self._compare(line)
                else:
                    self.entries.append(cast(E, line))
                whole = end
        self._stream = path.open("r+b" if whole else "wb")
        self._stream.truncate(whole)
        self._stream.seek(whole)
        if not whole:
            self._write(self.settings)

    def _compare(self, before: dict[str, Any]) -> None:
        if before == self.settings:
            return
        other = sorted(k for k in before.keys() | self.settings.keys() if before.get(k) != self.settings.get(k))
        raise UserError(
            f"{self.path} holds results of other settings ({', '.join(other)}): give another --out, or delete it."
        )

    def add(self, entry: E) -> None:
        """Keep one result; it is on disk when this returns (unless the ledger is kept in memory)."""
        self.entries.append(entry)
        self._write(entry)

    def _write(self, value: Mapping[str, object]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(value).encode() + b"\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(parsed line, offset behind it) of every whole line."""
    end = 0
    with path.open("rb") as stream:
        for line in stream:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            yield json.loads(line), end


def open_ledger(
    out: Path | None, name: str, model: LatentDiffusion, split: LatentShardsDataset, options: Mapping[str, object]
) -> Ledger[Any]:
    """The ledger of a grounding pass: results depend on weights, shards and options, not on the batch size.

    Args:
        out: folder of the file ``name``; None keeps the results in memory.

    Raises:
        UserError: the file holds results of other settings.
    """
    if out is None:
        return Ledger(None, {})
    about = {"model": weights_digest(model.unet, model.text_encoder), "shards": str(split.folder)}
    return Ledger(out / name, {**about, **{k: value for k, value in options.items() if k != "batch_size"}})
