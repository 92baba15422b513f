"""Maps that are kept to be drawn: a file a phrase and tool beside the ledger, or in memory. Source: own."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.files import atomic_open
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.saliency_tools import Channel

#: Folder of an evaluation that holds them.
MAPS = "saliency_maps"
STEPS = "timesteps"


class Kept(NamedTuple):
    """Timesteps (S), and of each channel its maps (S, h, w) float32."""

    timesteps: list[int]
    maps: dict[Channel, NDArray[np.float32]]


class KeptMaps:
    """Maps by the address of what was asked.

    Args:
        folder: is made with the first maps; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._found: dict[str, Kept] = {}

    def add(self, address: str, timesteps: Sequence[int], maps: Mapping[Channel, Tensor]) -> None:
        """Keep the maps (S, h, w) of each channel; the file is whole or absent."""
        self._found[address] = Kept(list(timesteps), {name: one.numpy() for name, one in maps.items()})
        if self.folder is not None:
            arrays = {"|".join(name): one.numpy() for name, one in maps.items()}
            content = io.BytesIO()
            with zipfile.ZipFile(
                content, "w", zipfile.ZIP_DEFLATED
            ) as stored:  # as np.savez_compressed, whose names are typed
                for name, values in {STEPS: np.array(timesteps), **arrays}.items():
                    one = io.BytesIO()
                    np.save(one, values, allow_pickle=False)
                    stored.writestr(f"{name}.npy", one.getvalue())
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_open(self._file(self.folder, address)) as stream:
                stream.write(content.getvalue())

    def get(self, address: str) -> Kept | None:
        """What was kept; None where there is nothing that can be read."""
        if address not in self._found and self.folder is not None:
            try:
                with np.load(self._file(self.folder, address), allow_pickle=False) as stored:
                    maps = {Channel(*name.split("|", 1)): stored[name] for name in stored.files if name != STEPS}
                    self._found[address] = Kept([int(one) for one in stored[STEPS]], maps)
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                return None
        return self._found.get(address)

    def has(self, address: str) -> bool:
        """Whether :meth:`get` has something."""
        return self.get(address) is not None

    def gather(self, ranks: Ranks) -> None:
        """What the ranks keep in memory, on every rank; files are everybody's already."""
        if self.folder is None:
            self._found = dict(ranks.gather(list(self._found.items())))

    @staticmethod
    def _file(folder: Path, address: str) -> Path:
        # an address holds a patient's key and phrase: no name for a file
        return folder / f"{hashlib.sha256(address.encode()).hexdigest()[:24]}.npz"
