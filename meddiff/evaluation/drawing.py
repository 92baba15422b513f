"""The images of an evaluation: drawn once, kept as files, taken up again where a stopped evaluation left them. Source: own."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.attribution.scheduled import draw_along
from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import file_in, terminal
from meddiff.common.text_files import read_bytes
from meddiff.evaluation.progress import DrawingBar
from meddiff.evaluation.provenance import (
    Settings,
    differences,
    image_made_from,
    made_from,
    model_digest,
    weights_digest,
    write_image,
)
from meddiff.models.autoencoder import Draw, NotFiniteImages, whole_images
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

SETTINGS, PROMPTS = "settings.json", "prompts.json"


def folder_needed(out: Path | None, name: str) -> Path:
    """The folder a measurement draws into.

    Raises:
        UserError: there is none.
    """
    if out is None:
        raise UserError(f"{name} keeps the images it draws: give it a folder.")
    return out


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
    along: Sequence[int] | None = None,
) -> Settings:
    """:func:`draw_images` with a model; returns the settings that the images were drawn with.

    Args:
        along: timesteps to draw along by DDIM, with the options' guidance; None takes the sampler's own.
        unet: another network in the place of the module's own (a control).
    """
    sampling = options.sampling or model.sampling
    settings = drawing_settings(model, options.seed, sampling, unet)
    if along is not None:  # as text: settings are compared as they come back from a file
        settings |= {"timesteps": str(list(along))}
    steps, bar = sampling.steps if along is None else len(along), DrawingBar(show_progress)

    def draw(texts: list[str], keys: list[str]) -> NDArray[np.uint8]:
        batch = bar.batch(len(keys), steps)
        try:
            if along is not None:
                return draw_along(model, texts, keys, options.seed, along, sampling.guidance_scale, on_step=batch.step)
            return model.sample(texts, keys, options.seed, sampling, unet=unet, on_step=batch.step)
        finally:
            batch.drawn()

    draw_images(folder, prompts, settings, draw, options.batch_size, borrow, bar)
    return settings


def drawing_settings(
    model: LatentDiffusion, seed: int, sampling: SamplingOptions, unet: "UNet2DConditionModel | None" = None
) -> Settings:
    """What an image depends on beside its prompt and its key."""
    autoencoder = weights_digest(model.vae)
    return {"seed": seed, **asdict(sampling), "model": model_digest(model, unet), "autoencoder": autoencoder}


def draw_images(
    folder: Path,
    prompts: Mapping[str, str],
    settings: Settings,
    draw: Draw,
    batch_size: int,
    borrow: Sequence[Path] = (),
    bar: DrawingBar = DrawingBar(),  # noqa: B008 (draws nothing)
) -> None:
    """Have ``folder/KEY.png`` for every key of ``prompts``; draws only what is missing.

    Args:
        folder: of one part of an evaluation; also holds the settings and the prompts.
        prompts: key -> prompt.
        settings: from :func:`drawing_settings`.
        draw: makes the images.
        batch_size: images drawn at a time; changes no result.
        borrow: folders that may have some of the images already.
        bar: is opened; ``draw`` tells it of every step.

    Raises:
        UserError: the folder holds images of other settings or prompts, or a key cannot name a file in it.
        NotFiniteImages: some are no numbers and have no file; the others are there.
    """
    for key in prompts:
        file_in(folder, f"{key}.png")
    known = _check(folder, prompts, settings)
    if _read(folder / SETTINGS) != settings:
        write_json(folder / SETTINGS, settings)
    if _read(folder / PROMPTS) != {**known, **prompts}:
        write_json(folder / PROMPTS, {**known, **prompts})
    for other in borrow:
        _borrow(other, folder, prompts, settings)
    lost: list[str] = []
    missing = [key for key in prompts if not (folder / f"{key}.png").is_file()]
    done = len(prompts) - len(missing)
    with bar.over(len(prompts), f"drawing {terminal(folder.name)}", done):
        for start in range(0, len(missing), batch_size):
            keys = missing[start : start + batch_size]
            whole, broken = whole_images(draw, [prompts[key] for key in keys], keys)
            lost += broken
            for key, pixels in whole.items():
                write_image(folder / f"{key}.png", pixels, made_from(settings, prompts[key]))
    if lost:
        raise NotFiniteImages(np.empty(0, np.uint8), lost, len(prompts))


def _check(folder: Path, prompts: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The prompts that ``folder`` has images of, or is to have.

    Only images can be in the way: what a call has written that failed before its first image is replaced.
    """
    again = f"delete {folder}, or write this evaluation to another folder."
    before, known = _read(folder / SETTINGS), _read(folder / PROMPTS)
    there = {key: prompt for key, prompt in known.items() if (folder / f"{key}.png").is_file()}
    if there and (other := differences(before, settings)):
        raise UserError(f"{folder} holds images drawn with other settings ({_named(before, settings, other)}): {again}")
    changed = [key for key, prompt in prompts.items() if there.get(key, prompt) != prompt]
    if changed:
        raise UserError(f"{folder} holds an image of another prompt for {changed[0]} ({len(changed)} in all): {again}")
    for key, prompt in prompts.items():
        made = image_made_from(folder / f"{key}.png") if (folder / f"{key}.png").is_file() else {}
        if made is None and key not in there:
            raise UserError(f"{folder / key}.png was not drawn by an evaluation: {again}")
        if made and (other := differences(made, wanted := made_from(settings, prompt))):
            raise UserError(
                f"{folder / key}.png was drawn with other settings ({_named(made, wanted, other)}): {again}"
            )
    return there


def _named(before: Mapping[str, object], now: Mapping[str, object], names: Sequence[str]) -> str:
    """The settings in ``names`` and both of their values; of those that are digests the name."""
    return ", ".join(
        name if name in ("model", "autoencoder", "prompt") else f"{name} {before.get(name)} instead of {now.get(name)}"
        for name in names
    )


def _vouched(folder: Path, key: str, prompt: str, settings: Settings) -> bool:
    """Whether an image says that it was drawn so; those of before say nothing, and the folder's records must do."""
    file = file_in(folder, f"{key}.png")
    if not file.is_file():
        return False
    made = image_made_from(file)
    return made is None or not differences(made, made_from(settings, prompt))


def _borrow(other: Path, folder: Path, prompts: Mapping[str, str], settings: Settings) -> None:
    """Copy the images that another part drew from the same key and prompt under the same settings."""
    if other == folder or _read(other / SETTINGS) != settings:
        return
    theirs = _read(other / PROMPTS)
    for key, prompt in prompts.items():
        source, target = other / f"{key}.png", folder / f"{key}.png"
        if theirs.get(key) == prompt and _vouched(other, key, prompt, settings) and not target.is_file():
            with source.open("rb") as image, atomic_open(target) as stream:
                shutil.copyfileobj(image, stream)


def _read(path: Path) -> dict[str, str]:
    """A JSON file; an absent one is empty."""
    try:
        found = parse_json(read_bytes(path)) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): delete the folder and evaluate again.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no mapping of names to values: delete the folder and evaluate again.")
    return found


def finished_keys(folder: Path, settings: Settings) -> list[str]:
    """Keys of a folder drawn under ``settings`` to the last image; none otherwise."""
    if _read(folder / SETTINGS) != settings:
        return []
    prompts = _read(folder / PROMPTS)
    return list(prompts) if all(_vouched(folder, key, text, settings) for key, text in prompts.items()) else []


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
