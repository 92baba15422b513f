"""One part of a model as it is stored, whatever the format: what network it is, and its tensors under that network's names.

Source: own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.models.weights.reading import State, read_state
from meddiff.models.weights.sources import Config, Part, Source, find_part, read_config, weights_file


@dataclass(frozen=True)
class StoredPart:
    """A U-Net, autoencoder or text tower that lies somewhere.

    Attributes:
        where: part and file, what a sentence about it begins with.
        config: as diffusers (U-Net, autoencoder) or transformers (text tower) write it.
        read: tensors under diffusers' or transformers' names; with True only names, shapes and types, on "meta".
        folder: where a tokenizer or a scheduler may lie beside it; None for a single file.
    """

    where: str
    config: Config
    read: Callable[[bool], State]
    folder: Path | None


def stored_part(source: Source, part: Part) -> StoredPart:
    """Find a part; its tensors are read when they are asked for.

    Raises:
        UserError: nothing is there, or no part of that kind.
    """
    if not isinstance(source, str):
        raise UserError(f"{part}: {source} names no folder or file to read weights from.")
    folder = find_part(source, part)
    file = weights_file(folder)
    return StoredPart(f"{part}: {file}", read_config(folder), lambda meta: read_state(file, meta), folder)
