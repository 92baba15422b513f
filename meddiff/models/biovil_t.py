"""BioViL-T as a local folder holds it: how alike a chest X-ray, or each patch of it, and a phrase are.

Its image encoder comes with code of its own, which is not run here: the folder holds both encoders as TorchScript, written once
with the publisher's package (docs/rivals.md says how), and the vocabulary.

- ``image.pt``: (1, 3, 448, 448) float32 in 0..1 -> patches (1, D, h, w), projected into the space of both
- ``text.pt``: token ids (1, L) int64, mask (1, L) int64 -> (1, D), projected
- ``vocab.txt`` or ``tokenizer.json``

Source: Bannur et al. 2023; its preprocessing and the smoothing of its maps as the publisher's package has them.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.text.tokenizer_files import read_tokenizer

#: Pixels of the short side, and of the square that is cut out of the middle.
SHORT, CROP = 512, 448
FILES = ("image.pt", "text.pt")
#: Tokens that the published text encoder reads.
LONGEST = 512
Pixels = NDArray[np.uint8]


class Crop(NamedTuple):
    """What of an image the model sees: rows ``top`` to ``bottom`` - 1, columns ``left`` to ``right`` - 1."""

    top: int
    bottom: int
    left: int
    right: int


def seen_of(size: tuple[int, int]) -> Crop:
    """The middle of an image (height, width), in its own pixels.

    Example:
        >>> seen_of((512, 512)), seen_of((128, 256))
        (Crop(top=32, bottom=480, left=32, right=480), Crop(top=8, bottom=120, left=72, right=184))
    """
    side = CROP * min(size) / SHORT
    (top, bottom), (left, right) = ((round((one - side) / 2), round((one + side) / 2)) for one in size)
    return Crop(top, bottom, left, right)


def prepared(image: Pixels) -> Tensor:
    """uint8 (H, W) or (H, W, 3) -> (1, 3, 448, 448) float32: grey from darkest to brightest, short side 512, the middle."""
    grey = np.array(Image.fromarray(image).convert("L"), np.float64)
    span = float(np.ptp(grey))
    grey = (grey - grey.min()) / span * 255 if span else grey * 0
    scale = SHORT / min(grey.shape)
    high, wide = (round(side * scale) for side in grey.shape)
    whole = Image.fromarray(grey.astype(np.uint8)).resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - CROP) / 2), round((high - CROP) / 2)
    pixels = torch.from_numpy(np.array(whole.crop((left, top, left + CROP, top + CROP)), np.float32)) / 255
    return pixels.expand(1, 3, -1, -1).contiguous()


class BiovilT:
    """Both encoders.

    Args:
        folder: with the files of this module's head.
        device: that computes; results are on the CPU.

    Attributes:
        made: sha256 of both encoders.

    Raises:
        UserError: a file that is missing or cannot be read.
    """

    def __init__(self, folder: Path, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008 (a constant)
        self.device = device
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"biovil_t: {folder} has no {' and no '.join(missing)}: write both encoders there as TorchScript."
            )
        try:
            self.image, self.text = (torch.jit.load(folder / name, map_location=device).eval() for name in FILES)
        except RuntimeError as error:
            raise UserError(f"biovil_t: {folder} holds no TorchScript that can be read: write it again.") from error
        digest = hashlib.sha256()
        for name in FILES:
            with (folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        self.made = digest.hexdigest()
        from tokenizers import Tokenizer

        serialized = read_tokenizer(folder).serialized
        if serialized is None:
            raise UserError(f"biovil_t: {folder} holds CLIP's vocabulary: put BioViL-T's vocab.txt there.")
        self.tokenizer = Tokenizer.from_str(serialized)

    @torch.no_grad()
    def similarity(self, image: Pixels, phrase: str) -> Tensor:
        """Cosines of the patches with the phrase, (h, w) float32; image as in :func:`prepared`.

        Raises:
            UserError: encoders whose results do not fit together.
        """
        patches, text = self._patches(image), self._text(phrase)
        _same_space(patches, text)
        both = (torch.nn.functional.normalize(one, dim=1) for one in (patches, text))
        return torch.einsum("bdhw,bd->hw", *both)

    @torch.no_grad()
    def image_vector(self, image: Pixels) -> Tensor:
        """(D,) float32 of length 1: the mean over the projected patches; image as in :func:`prepared`."""
        return torch.nn.functional.normalize(self._patches(image).mean(dim=(2, 3)), dim=1)[0]

    @torch.no_grad()
    def text_vector(self, text: str) -> Tensor:
        """(D,) float32 of length 1."""
        return torch.nn.functional.normalize(self._text(text), dim=1)[0]

    def tokens(self, text: str) -> int:
        """How many tokens a text has; the published model reads :data:`LONGEST`."""
        return len(self.tokenizer.encode(text).ids)

    def _patches(self, image: Pixels) -> Tensor:
        found: Tensor = self.image(prepared(image).to(self.device))
        return found.float().cpu()

    def _text(self, text: str) -> Tensor:
        ids = torch.tensor([self.tokenizer.encode(text).ids])  # (1, L)
        found: Tensor = self.text(ids.to(self.device), torch.ones_like(ids).to(self.device))
        return found.float().cpu()


def _same_space(patches: Tensor, text: Tensor) -> None:
    if patches.ndim != 4 or text.ndim != 2 or patches.shape[1] != text.shape[1]:
        raise UserError(
            f"biovil_t: patches of {tuple(patches.shape)} and texts of {tuple(text.shape)} do not fit together: "
            "(1, D, h, w) and (1, D) are expected."
        )
