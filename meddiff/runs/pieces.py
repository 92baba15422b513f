"""Checkpoints in pieces: a folder into which each process of a training wrote what it held (torch's distributed checkpoint).

The folder holds an index (``.metadata``), files of tensors (``*.distcp``), and everything that is no tensor of the model, of
its average or of the optimiser in ``meta.pt``. Any number of processes reads what any other number wrote. torch reads the
index with ``pickle`` as it is, which would run whatever a foreign folder says; here only the classes of an index are made.
Source: own.
"""

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.planner import ReadItem

#: The part that is written last; the part that says how far the training had come.
INDEX, ABOUT = ".metadata", "meta.pt"
#: What tensors are stored under: the model by the module's names, the average and the optimiser by names of parameters.
#: Lightning's FSDP writes the model under the second name.
MODEL, MODEL_OF_FSDP, AVERAGE, OPTIMIZER = "state_dict", "model", "ema", "optimizer_0"

_OF_INDEX = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "StorageMeta",
        "MetadataIndex",
        "ChunkStorageMetadata",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "TensorProperties",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "PurePosixPath", "Path", "WindowsPath", "PureWindowsPath"},
    "collections": {"OrderedDict"},
}


class _IndexUnpickler(pickle.Unpickler):
    """Makes the classes of an index, ``torch.Size`` and types of tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if name in _OF_INDEX.get(module, ()) or (module == "torch" and _is_type(name)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an index")


def _is_type(name: str) -> bool:
    return name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)


class PiecesReader(dcp.FileSystemReader):
    """torch's reader, with an index that cannot run anything.

    Raises:
        UserError: there is no index, or none of a checkpoint.
    """

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        file = Path(self.path) / INDEX
        try:
            with file.open("rb") as stream:
                found = _IndexUnpickler(stream).load()
        except (
            OSError,
            ValueError,
            EOFError,
            AttributeError,
            ImportError,
            IndexError,
            pickle.UnpicklingError,
        ) as error:
            raise UserError(f"{self.path} is no whole checkpoint in pieces ({INDEX}: {error}).") from error
        if not isinstance(found, Metadata):
            raise UserError(f"{self.path} is no checkpoint in pieces: its {INDEX} is none.")
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class _Planner(DefaultLoadPlanner):
    """torch's planner, which reads values that are no tensors as plain ones."""

    def load_bytes(self, read_item: "ReadItem", value: io.BytesIO) -> None:
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)  # refuses what is not
        plain.seek(0)
        super().load_bytes(read_item, plain)


def stored(folder: Path, under: str) -> dict[str, Tensor]:
    """The tensors stored under a name, without values (on "meta"): names, shapes and types.

    Raises:
        UserError: no whole checkpoint in pieces.
    """
    index = PiecesReader(folder).read_metadata()
    return {
        name.removeprefix(f"{under}."): torch.empty(about.size, dtype=about.properties.dtype, device="meta")
        for name, about in index.state_dict_metadata.items()
        if name.startswith(f"{under}.") and isinstance(about, TensorStorageMetadata)
    }


def fill(state: dict[str, object], folder: Path, alone: bool = False) -> None:
    """Fill the tensors of a nested dict, whole or in pieces, and replace its other values.

    Args:
        alone: this process reads for itself; else all do so together.

    Raises:
        UserError: something is missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is meant
            dcp.load(state, storage_reader=PiecesReader(folder), planner=_Planner(), no_dist=alone)
    except UserError:
        raise
    except Exception as error:  # torch raises whatever its parts do
        inner = error
        for one in getattr(error, "failures", {}).values():
            inner = one[0] if isinstance(one, tuple) else one
        reason = " ".join(str(inner).split())[:300]
        raise UserError(
            f"{folder} cannot be read ({type(inner).__name__}: {reason}): take another checkpoint."
        ) from error


def about(folder: Path) -> dict[str, Any]:
    """What is no tensor: steps, hyperparameters, position of the stream, ..."""
    content: dict[str, Any] = torch.load(folder / ABOUT, map_location="cpu", weights_only=True)
    return content


def read_whole(folder: Path, to_train: bool) -> dict[str, Any]:
    """A checkpoint in pieces as one file would hold it; read by one process for itself.

    Args:
        to_train: with the optimiser, which is two thirds of it.

    Raises:
        UserError: damaged.
    """
    content = about(folder)
    index = PiecesReader(folder).read_metadata()
    parts = {name.split(".", 1)[0] for name in index.state_dict_metadata}
    model = MODEL if MODEL in parts else MODEL_OF_FSDP
    wanted = {model, AVERAGE} | ({OPTIMIZER} if to_train else set())
    found: dict[str, object] = {}
    for name, one in index.state_dict_metadata.items():
        if name.split(".", 1)[0] in wanted:
            stored_as = one if isinstance(one, TensorStorageMetadata) else None
            found[name] = None if stored_as is None else torch.empty(stored_as.size, dtype=stored_as.properties.dtype)
    fill(found, folder, alone=True)
    content["state_dict"] = _under(found, model)
    if isinstance(content.get("ema"), dict) and AVERAGE in parts:
        content["ema"]["shadow"] = _under(found, AVERAGE)
    if OPTIMIZER in wanted and OPTIMIZER in parts:
        content["optimizer_states"] = [
            numbered(_nested(found, cast("dict[str, tuple[object, ...]]", index.planner_data)))
        ]
    return content


def _under(found: Mapping[str, object], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): cast(Tensor, v) for name, v in found.items() if name.startswith(f"{part}.")}


def _nested(found: Mapping[str, object], places: Mapping[str, tuple[object, ...]]) -> dict[str, Any]:
    """The optimiser's state as it was handed to torch, which stores it flat and remembers each value's place."""
    state: dict[str, dict[str, object]] = {}
    groups: dict[int, dict[str, object]] = {}
    for name, value in found.items():
        place = places[name]
        if place[0] == OPTIMIZER and place[1] == "state":
            state.setdefault(str(place[2]), {})[str(place[3])] = value
        elif place[0] == OPTIMIZER:
            groups.setdefault(cast(int, place[2]), {})[str(place[3])] = value
    return {"state": state, "param_groups": [groups[i] for i in sorted(groups)]}


def numbered(by_name: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state by names of parameters as one by their number, as ``Optimizer.state_dict`` gives it.

    Example:
        >>> numbered({"state": {"b": {"step": 2}, "a": {"step": 1}}, "param_groups": [{"lr": 1, "params": ["a", "b"]}]})
        {'state': {0: {'step': 1}, 1: {'step': 2}}, 'param_groups': [{'lr': 1, 'params': [0, 1]}]}
    """
    names = [name for group in by_name["param_groups"] for name in group["params"]]
    place = {name: i for i, name in enumerate(names)}
    state = {place[name]: by_name["state"][name] for name in names if name in by_name["state"]}
    groups = [{**group, "params": [place[name] for name in group["params"]]} for group in by_name["param_groups"]]
    return {"state": state, "param_groups": groups}
