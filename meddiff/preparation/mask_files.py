"""Masks in image files: what is inside, and the boxes around them. Source: own.

- Inside is what is not 0: a value, of a palette its number, of colours any of them; 16-bit and palette masks always so.
- 8-bit greys and colours of two clusters, one near 0 and one near the largest value with rims between them, are cut at
  half: JPEG leaves such rims, and so does smoothing. A JPEG of several levels is no mask.
- Alpha: what is transparent is outside. Where the colours are one and alpha is not, alpha is the mask.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.preparation.pixels import DAMAGED, FORMATS, UnreadableImage, reason, refuse_pages, refuse_what_is_no_file
from meddiff.preparation.records import Record
from meddiff.preparation.safe_files import inside
from meddiff.shards.sample import Box

Mask: TypeAlias = NDArray[np.bool_]
#: Modes whose values are brightness, not numbers of instances.
_GREYS = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")
#: Different values from which on greys are a smooth edge rather than numbers of instances.
_SMOOTH = 8
#: How near to 0 the rims of a JPEG are, but for few of them.
_NEAR = 16
#: Parts of a mask that get a box each; of more, one box holds all.
MOST_PARTS = 64


@dataclass(frozen=True)
class MaskFiles:
    """Masks of a record from the files its attributes name."""

    root: Path

    def __call__(self, record: Record, size: tuple[int, int]) -> dict[str, Mask]:
        """name -> bool (H, W).

        Raises:
            UnreadableImage: a mask cannot be read or is of another size.
        """
        masks = {}
        for name, path in record.attributes.get("mask_files", {}).items():
            try:
                mask = read_mask(inside(self.root, path))
            except UnreadableImage as error:
                raise UnreadableImage(f"mask {path}: {error}") from None
            if mask.shape != tuple(size):
                was = f"{mask.shape[1]} x {mask.shape[0]}"
                raise UnreadableImage(f"mask {path}: {was} pixels, its image has {size[1]} x {size[0]}")
            masks[name] = mask
        return masks


def read_mask(path: str | Path) -> Mask:
    """The mask of an image file.

    Returns:
        bool (H, W).

    Raises:
        UnreadableImage: as :func:`meddiff.preparation.images.read_image`, or a JPEG of several grey levels.
    """
    path = Path(path)
    refuse_what_is_no_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            refuse_pages(image)
            values = np.asarray(image)
            lossy = image.format in ("JPEG", "MPO")
            greys = image.mode in _GREYS
            alpha = _alpha(image)
            colours = values if values.ndim == 2 else values[..., : len(image.getbands()) - (image.mode[-1] == "A")]
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except DAMAGED as error:
        raise UnreadableImage(reason(error, path)) from error
    brightest = colours if colours.ndim == 2 else colours.max(axis=2)
    inside = _cut(brightest, lossy) if greys else brightest != 0
    if alpha is None or alpha.min() == alpha.max():
        return inside
    seen = _cut(alpha, lossy=False)
    inside &= seen
    # of one colour, or black on transparent: only alpha tells the two apart
    return inside if inside.any() and (colours != colours[:1, :1]).any() else seen


def _alpha(image: Image.Image) -> NDArray[np.uint8] | None:
    """(H, W), also of a palette or a colour that stands for transparent; None where the file has none."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return None
    return np.asarray(image.convert("RGBA"))[..., 3]


def _cut(values: NDArray[np.uint8], lossy: bool) -> Mask:
    """Not 0, or above half where the greys are two clusters."""
    counts = np.bincount(values.reshape(-1), minlength=256)
    top = int(counts.nonzero()[0][-1])
    if not lossy and top < 128:
        return values != 0
    quarter = top // 4
    low, middle, high = counts[1 : quarter + 1], counts[quarter + 1 : top - quarter], counts[top - quarter :]
    rims = 2 * middle.sum() <= high.sum()
    if lossy:
        # rims are spread over all greys, a level of its own is a peak among them
        peak = np.convolve(middle, np.ones(17, int)).max(initial=0) if len(middle) else 0
        if not rims and 2 * peak > middle.sum():
            raise UnreadableImage("a JPEG of several grey levels is no mask: store it as PNG")
        return values > top / 2
    # what a JPEG leaves in other formats: several values at both ends, those at the lower one next to 0
    ringing = (high > 0).sum() > 1 and low.any() and low[_NEAR:].sum() <= high.sum()
    # numbers of instances beside one for "ignore" (255) lie at both ends too, but have none between
    smooth = (counts[1:] > 0).sum() >= _SMOOTH and middle.any() and low.sum() <= high.sum()
    return values > top / 2 if rims and (ringing or smooth) else values != 0


def mask_boxes(name: str, mask: Mask) -> tuple[Box, ...]:
    """A box around each part of a mask that hangs together (also over corners), in its pixels; () for an empty one."""
    from scipy import ndimage

    parts, number = ndimage.label(mask, np.ones((3, 3), int))
    if number > MOST_PARTS:
        parts = mask.astype(np.int32)
    return tuple(
        Box(name, float(x.start), float(y.start), float(x.stop - x.start), float(y.stop - y.start))
        for y, x in ndimage.find_objects(parts)
    )
