"""Results as they come, one JSON line each, so that a stopped evaluation goes on where it was. Source: own."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar, cast

from meddiff.common.errors import UserError
from meddiff.common.outside import own_file
from meddiff.common.schemas import problem_of
from meddiff.common.text_files import check_file
from meddiff.evaluation.provenance import differences, model_digest
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.records import parse_record
from meddiff.shards.dataset import LatentShardsDataset

#: Counts up when the same maps are scored by other rules: results of before are no longer of these settings.
RULES = 2
#: Bytes: a hundred times the longest of this suite's own.
LARGEST = 2**32
REMEDY = "move it away and evaluate again, or give another --out"
E = TypeVar("E", bound=Mapping[str, Any])


class Ledger(Generic[E]):
    """Append-only file of results under fixed settings.

    The first line holds the settings; each further line is one result. A line that a kill cut short is dropped. Until a
    pass is whole its results lie under a name of their own settings, so that a pass that failed is in nobody's way.

    Args:
        path: the file; its folder is made with the first result. None keeps the results in memory.
        settings: what the results depend on (JSON types).
        kind: what one result is; a line that is something else is refused.

    Raises:
        UserError: the file holds results of other settings, or lines that are no results.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, object], kind: type[E]) -> None:
        self.path, self.settings, self._kind = path, json.loads(json.dumps(settings)), kind
        self.entries: list[E] = []
        self._file = path
        self._whole = 0
        self._stream: BinaryIO | None = None
        if path is None:
            return
        if not (own_file(path).is_file() and self._read(path)):
            digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
            self._file = own_file(path.with_name(f".{path.stem}-{digest[:12]}{path.suffix}"))
            if self._file.is_file():
                self._read(self._file)

    def _read(self, file: Path) -> bool:
        """Take the results of a file; False where it has none and other settings.

        Raises:
            UserError: it has some.
        """
        entries: list[E] = []
        whole = 0
        other: list[str] = []
        for place, (line, end) in enumerate(_lines(file)):
            if place == 0:
                other = differences(line, self.settings)
            elif (problem := problem_of(self._kind, line)) is not None:
                raise UserError(f"{file}, line {place + 1} is no result of this evaluation ({problem}): {REMEDY}.")
            else:
                entries.append(cast(E, line))
            whole = end
        if other and entries:
            raise UserError(
                f"{file} holds results of other settings ({', '.join(other)}): give another --out, or delete it."
            )
        if not other:
            self.entries, self._whole = entries, whole
        return not other

    def add(self, entry: E) -> None:
        """Keep one result; it is on disk when this returns (unless the ledger is kept in memory)."""
        self.entries.append(entry)
        if self._file is None:
            return
        if self._stream is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._file.open("r+b" if self._whole else "wb")
            self._stream.truncate(self._whole)
            self._stream.seek(self._whole)
            if not self._whole:
                self._write(self.settings)
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
        whole = kind is None and self._file is not None and self._file != self.path
        if whole and self._file is not None and self._file.is_file() and self.path is not None:
            self._file.replace(self.path)


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(parsed line, offset behind it) of every whole line.

    Raises:
        UserError: a line is no mapping in JSON.
    """
    check_file(path, largest=LARGEST)
    end = 0
    with path.open("rb") as stream:
        for place, line in enumerate(stream, 1):
            end += len(line)
            if not line.endswith(b"\n"):
                return
            yield parse_record(line, f"{path}, line {place}", REMEDY), end


def open_ledger(
    out: Path | None,
    name: str,
    model: LatentDiffusion,
    split: LatentShardsDataset,
    options: Mapping[str, object],
    kind: type[E],
) -> Ledger[E]:
    """The ledger of a grounding pass: results depend on weights, on options but for the batch size, and on their sample.

    What a result depends on of its sample stands with the result (:func:`sample_digest`), so that of a cohort that has
    grown or changed only the new is computed.

    Args:
        out: folder of the file ``name``; None keeps the results in memory.
        options: of the measurement; its ``ema`` says which weights are meant.
        kind: what one result is.

    Raises:
        UserError: the file holds results of other settings, or lines that are no results.
    """
    if out is None:
        return Ledger(None, {}, kind)
    with model.weights(bool(options.get("ema"))):
        about: dict[str, object] = {"model": model_digest(model), "rules": RULES}
    about |= {"latents": [split.manifest.latent, split.manifest.scaling_factor], "split": split.split}
    return Ledger(out / name, {**about, **{k: value for k, value in options.items() if k != "batch_size"}}, kind)
