"""One sample as the members of a tar: names and bytes that depend on the sample alone (source: own; design)."""

import dataclasses
import io
import json
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.shards.manifest import Pictures
from meddiff.shards.sample import CohortSample

#: Splits whose samples also carry the image and its masks.
IMAGE_SPLITS = ("grounding", "fidelity")
#: A tar header has 100 bytes for a member's name.
MAX_NAME_BYTES = 100


def slug(name: str) -> str:
    """A mask's name as a file name part: "Pleural Effusion" -> "pleural_effusion"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "mask"


def encode_sample(
    sample: CohortSample,
    moments: NDArray[np.floating] | None,
    shape: tuple[int, ...] | None = None,
    pictures: Pictures = "evaluation",
) -> dict[str, bytes]:
    """The members of one sample: name after ``KEY.`` -> bytes.

    Args:
        moments: (2C, h, w) mean and log-variance or (C, h, w) mean, before scaling; stored as float16. None: no latents.
        shape: the shape ``moments`` must have, if known.
        pictures: whether the image goes in whatever the split; masks are those of evaluation alone.

    Raises:
        UserError: wrong shape, a value float16 cannot hold, masks whose names cannot be stored.
    """
    names = {slug(name): name for name in sorted(sample.masks)}
    if len(names) != len(sample.masks):
        raise UserError(f"sample {sample.key!r} has masks that would share a file name: {sorted(sample.masks)}")
    members = {"json": _metadata(sample, names)}
    if moments is not None:
        members["latent.npy"] = _latent_bytes(sample, moments, shape)
    if sample.split in IMAGE_SPLITS or pictures == "all":
        members["png"] = png_bytes(Image.fromarray(sample.image))
    if sample.split in IMAGE_SPLITS:
        members |= {f"mask.{short}.png": png_bytes(_mask(sample.masks[name])) for short, name in names.items()}
    too_long = [name for name in members if len(f"{sample.key}.{name}".encode()) > MAX_NAME_BYTES]
    if too_long:
        raise UserError(f"sample {sample.key!r} has a mask with too long a name for a tar ({too_long[0]}): shorten it")
    return members


def _latent_bytes(sample: CohortSample, moments: NDArray[np.floating], shape: tuple[int, ...] | None) -> bytes:
    if moments.ndim != 3 or (shape is not None and moments.shape != tuple(shape)):
        raise UserError(f"sample {sample.key!r} has latents of shape {moments.shape}, the manifest says {shape}")
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(moments, dtype="<f2")
    if not np.isfinite(half).all():
        raise UserError(f"sample {sample.key!r} has latents not finite in float16: check its image and the VAE")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, half, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _metadata(sample: CohortSample, mask_names: dict[str, str]) -> bytes:
    """``KEY.json``: everything but pixels; sorted keys, so equal samples give equal bytes."""
    values = dataclasses.asdict(dataclasses.replace(sample, image=np.empty(0, np.uint8), masks={}))
    del values["image"], values["masks"], values["key"]
    height, width = sample.image.shape[:2]
    values |= {"width": width, "height": height}
    values["mask_names"] = mask_names if sample.split in IMAGE_SPLITS else {}
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=plain).encode()


def plain(value: object) -> object:
    """A value of numpy as JSON has it, for ``json.dumps(default=...)``."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def _mask(mask: NDArray[np.bool_]) -> Image.Image:
    # Through uint8: Pillow reads a numpy bool array as packed bits in some versions.
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("1", dither=Image.Dither.NONE)


def png_bytes(image: Image.Image) -> bytes:
    """The picture as a PNG file holds it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
