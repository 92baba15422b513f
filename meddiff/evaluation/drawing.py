"""The images of an evaluation: drawn once, kept as files, taken up again where a stopped evaluation left them. Source: own."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import file_in, terminal
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

#: Prompts, keys -> images, uint8 (B, H, W, 3).
Draw = Callable[[list[str], list[str]], NDArray[np.uint8]]
#: What an image depends on beside its prompt and its key; JSON values.
Settings = dict[str, object]
SETTINGS, PROMPTS = "settings.json", "prompts.json"
#: Values of each tensor that identify it; training moves all of them.
PROBES = 256


def folder_needed(out: Path | None, name: str) -> Path:
    """The folder a measurement draws into.

    Raises:
        UserError: there is none.
    """
    if out is None:
        raise UserError(f"{name} keeps the images it draws: give it a folder.")
    return out


def weights_digest(*networks: torch.nn.Module) -> str:
    """Tells two states of networks apart by up to 256 values of each tensor, on any device, in a fraction of a second."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            flat = value.detach().reshape(-1)
            digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
            probes = flat[:: max(1, flat.numel() // PROBES)].contiguous().cpu()
            digest.update(probes.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class DrawingOptions(Protocol):
    """What the options of every part that draws have in common."""

    @property
    def sampling(self) -> SamplingOptions | None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


def draw_prompts(
    model: LatentDiffusion,
    folder: Path,
    prompts: Mapping[str, str],
    options: DrawingOptions,
    borrow: Sequence[Path] = (),
    unet: "UNet2DConditionModel | None" = None,
    show_progress: bool = False,
) -> Settings:
    """:func:`draw_images` with a model; returns the settings that the images were drawn with.

    Args:
        unet: another network in the place of the module's own (a control).
    """
    sampling = options.sampling or model.sampling
    settings = drawing_settings(model, options.seed, sampling, unet)

    def draw(texts: list[str], keys: list[str]) -> NDArray[np.uint8]:
        return model.sample(texts, keys, options.seed, sampling, unet=unet)

    draw_images(folder, prompts, settings, draw, options.batch_size, borrow, show_progress)
    return settings


def drawing_settings(
    model: LatentDiffusion, seed: int, sampling: SamplingOptions, unet: "UNet2DConditionModel | None" = None
) -> Settings:
    """What an image depends on beside its prompt and its key."""
    weights = weights_digest(unet or model.unet, model.text_encoder)
    return {"seed": seed, **asdict(sampling), "model": weights, "autoencoder": weights_digest(model.vae)}


def draw_images(
    folder: Path,
    prompts: Mapping[str, str],
    settings: Settings,
    draw: Draw,
    batch_size: int,
    borrow: Sequence[Path] = (),
    show_progress: bool = False,
) -> None:
    """Have ``folder/KEY.png`` for every key of ``prompts``; draws only what is missing.

    Args:
        folder: of one part of an evaluation; also holds the settings and the prompts.
        prompts: key -> prompt.
        settings: from :func:`drawing_settings`.
        draw: makes the images.
        batch_size: images drawn at a time; changes no result.
        borrow: folders that may have some of the images already.
        show_progress: draw a progress bar.

    Raises:
        UserError: the folder holds images of other settings or prompts, or a key cannot name a file in it.
    """
    for key in prompts:
        file_in(folder, f"{key}.png")
    known = _check(folder, prompts, settings)
    write_json(folder / SETTINGS, settings)
    if known.keys() != {*known, *prompts}:
        write_json(folder / PROMPTS, {**known, **prompts})
    for other in borrow:
        _borrow(other, folder, prompts, settings)
    missing = [key for key in prompts if not (folder / f"{key}.png").is_file()]
    done = len(prompts) - len(missing)
    hidden = not (show_progress and missing)
    with tqdm(
        total=len(prompts), initial=done, unit="image", desc=f"drawing {terminal(folder.name)}", disable=hidden
    ) as bar:
        for start in range(0, len(missing), batch_size):
            keys = missing[start : start + batch_size]
            for key, pixels in zip(keys, draw([prompts[key] for key in keys], keys), strict=True):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                with atomic_open(folder / f"{key}.png") as stream:
                    stream.write(buffer.getvalue())
            bar.update(len(keys))


def _check(folder: Path, prompts: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The prompts that ``folder`` has images of, or is to have."""
    again = f"delete {folder}, or write this evaluation to another folder."
    before = _read(folder / SETTINGS)
    other = [name for name in settings if before and before.get(name) != settings[name]]
    if other:
        named = ", ".join(
            name if name in ("model", "autoencoder") else f"{name} {before.get(name)} instead of {settings[name]}"
            for name in other
        )
        raise UserError(f"{folder} holds images drawn with other settings ({named}): {again}")
    known = _read(folder / PROMPTS)
    changed = [key for key, prompt in prompts.items() if known.get(key, prompt) != prompt]
    if changed:
        raise UserError(f"{folder} holds an image of another prompt for {changed[0]} ({len(changed)} in all): {again}")
    return known


def _borrow(other: Path, folder: Path, prompts: Mapping[str, str], settings: Settings) -> None:
    """Copy the images that another part drew from the same key and prompt under the same settings."""
    if other == folder or _read(other / SETTINGS) != settings:
        return
    theirs = _read(other / PROMPTS)
    for key, prompt in prompts.items():
        source, target = other / f"{key}.png", folder / f"{key}.png"
        if theirs.get(key) == prompt and source.is_file() and not target.is_file():
            with source.open("rb") as image, atomic_open(target) as stream:
                shutil.copyfileobj(image, stream)


def _read(path: Path) -> dict[str, str]:
    """A JSON file; an absent one is empty."""
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def finished_keys(folder: Path, settings: Settings) -> list[str]:
    """Keys of a folder drawn under ``settings`` to the last image; none otherwise."""
    if _read(folder / SETTINGS) != settings:
        return []
    keys = list(_read(folder / PROMPTS))
    return keys if all(file_in(folder, f"{key}.png").is_file() for key in keys) else []


def read_images(folder: Path, keys: Sequence[str]) -> Tensor:
    """uint8 (N, 3, H, W).

    Raises:
        UserError: a file is missing or damaged.
    """
    images = []
    for key in keys:
        try:
            with Image.open(file_in(folder, f"{key}.png")) as image:
                images.append(np.array(image.convert("RGB")))
        except OSError as error:
            raise UserError(
                f"{folder / f'{key}.png'} cannot be read ({error}): delete it and evaluate again."
            ) from None
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (N, 3, H, W)


def signed(images: Tensor) -> Tensor:
    """uint8 images -> float in [-1, 1]."""
    return images.float() / 127.5 - 1.0
