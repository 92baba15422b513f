"""Weight files as plain dicts of tensors, whatever they are stored as; nothing else in a file is ever executed. Source: own."""

import json
import pickle
from collections.abc import Collection, Iterator
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.foreign_files import instead_of_weights
from meddiff.models.weights.foreign import other_kind

#: Name -> tensor.
State = dict[str, Tensor]
#: The list of a model's shards, as transformers and diffusers write it beside them.
INDEX = ".index.json"
#: Classes that trainings of before left in their checkpoints as marks. An empty class stands in for each: whatever a file
#: does with it, nothing of the class's own runs.
HARMLESS = (
    *(
        f"{package}.callbacks.{module}.{name}"
        for package in ("pytorch_lightning", "lightning.pytorch")
        for module, name in (
            ("model_checkpoint", "ModelCheckpoint"),
            ("early_stopping", "EarlyStopping"),
            ("lr_monitor", "LearningRateMonitor"),
        )
    ),
)


def read_state(path: Path, meta: bool = False, names: Collection[str] | None = None) -> State:
    """The tensors of a ``.safetensors`` file, of all files of a ``.index.json``, or of a PyTorch file.

    A dict with ``state_dict`` in it (a training checkpoint) gives that. The tensors lie in the file, mapped into memory,
    until somebody takes their values.

    Args:
        meta: only names, shapes and types, on the device "meta"; reads a safetensors file's header alone.
        names: only those.

    Raises:
        UserError: not there, no weights, cut, or a pickle that holds more than tensors.
    """
    return {name: value for file in files_of(path) for name, value in _read_file(file, meta, names).items()}


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself beside its tensors; empty for other files.

    Raises:
        UserError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as tensors:
            return dict(tensors.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again.") from error


def files_of(path: Path) -> list[Path]:
    """A weight file itself, or all files of an index; each begins as weights do.

    Raises:
        UserError: one is not there, or is something else.
    """
    files = shard_files(path) if path.name.endswith(INDEX) else [path]
    for file in files:
        if not file.is_file():
            raise UserError(f"No weights at {file}: give a file that is there.")
        problem = instead_of_weights(file)
        if problem is not None:
            raise UserError(problem)
    return files


def shard_files(index: Path) -> list[Path]:
    """The files an index lists, each once; they lie beside it.

    Raises:
        UserError: no index, a file that is missing, or a name that leads elsewhere.
    """
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(name) for name in listed.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = instead_of_weights(index)
        if problem is None or "JSON" in problem:
            problem = f"{index} lists no weights ({type(error).__name__}): fetch it again."
        raise UserError(problem) from error
    for name in files:
        if Path(name).name != name or "\\" in name:
            raise UserError(f"{index} names {name!r}, which is no file beside it: fetch the whole folder again.")
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing or not files:
        raise UserError(
            f"{index} lists {len(files)} files and {len(missing)} are missing ({', '.join(missing[:3])}): fetch them too."
        )
    return [index.parent / name for name in files]


def _read_file(path: Path, meta: bool, names: Collection[str] | None) -> State:
    if path.suffix == ".safetensors":
        return dict(_safetensors(path, meta, names))
    return {name: value for name, value in _pickled(path, meta).items() if names is None or name in names}


def _safetensors(path: Path, meta: bool, names: Collection[str] | None) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if names is not None and name not in names:
                    continue
                if not meta:
                    yield name, tensors.get_tensor(name)
                    continue
                part = tensors.get_slice(name)
                yield (
                    name,
                    torch.empty(part.get_shape(), dtype=STORED.get(part.get_dtype(), torch.uint8), device="meta"),
                )
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again.") from error


#: safetensors' names of types; one that is not here is no float that a network of the suite is stored in.
STORED: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
}


def _pickled(path: Path, meta: bool) -> State:
    # a class of its own for each name: they are keys of a dict there
    stands = [(type("Unread", (), {}), name) for name in HARMLESS]
    try:
        with torch.serialization.safe_globals(stands):  # type: ignore[arg-type]
            # files of before PyTorch 1.6 are no zip and cannot be mapped
            content = torch.load(
                path, map_location="meta" if meta else "cpu", weights_only=True, mmap=is_zipfile(path) and not meta
            )
    except pickle.UnpicklingError as error:
        if "nsupported" in str(error) or "GLOBAL" in str(error):
            raise UserError(
                f"{path} holds Python objects beside its tensors, and reading those would run their code: save its state "
                f"dict as .safetensors where you trust it."
            ) from error
        raise UserError(f"{path} is damaged or holds no weights: fetch it again.") from error
    except Exception as error:  # torch raises whatever its parts do on a cut file
        raise UserError(f"{path} is damaged or holds no weights ({type(error).__name__}): fetch it again.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds a {type(state).__name__}, no weights by name: give a state dict.")
    kind = other_kind([str(name) for name in state])
    if kind is not None:
        raise UserError(f"{path} is {kind}.")
    odd = [f"{name!r}, a {type(one).__name__}" for name, one in state.items() if not isinstance(one, Tensor)]
    if odd:
        raise UserError(f"{path} is no state dict: it holds {odd[0]} ({len(odd)} values in all are no tensors).")
    return {str(name): value for name, value in state.items()}
