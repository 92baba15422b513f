"""Models that are asked, on the dashboard, where the words of a phrase point in a picture; and the control. Source: own."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.attribution.naming import names_class
from meddiff.attribution.overlay import overlay
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.notebook import LoadedModel, load
from meddiff.preparation.images import UnreadableImage, decode_image
from meddiff.reports.dashboard.app import Answer
from meddiff.shards.members import png_bytes

#: Side of the pictures that are sent to the browser.
SHOWN = 384
#: Findings that the phrase does not name and that are asked as well.
ABSENT = 4


class AskedModels:
    """Asks every model the same.

    Args:
        paths: as :func:`meddiff.notebook.load` takes them.
        timesteps: how many of the paper's 40; fewer are faster and noisier.
        vae: autoencoder, as ``load`` takes it.
        ema: the averaged weights.
        device: as ``load`` takes it.

    Raises:
        UserError: no model there, or no autoencoder for it.
    """

    def __init__(
        self, paths: Sequence[str], timesteps: int, vae: str | None = None, ema: bool = False, device: str = "auto"
    ) -> None:
        self.timesteps = timesteps
        self.models = {path: load(path, vae, ema, device) for path in dict.fromkeys(paths)}
        for model in self.models.values():
            assert model.resolution > 0  # reads the autoencoder: what is missing is said now, not at the first question
        self.names = [Path(path).name if len(self.models) == 1 else path for path in self.models]

    def __call__(self, picture: bytes, phrase: str) -> list[Answer]:
        """Word maps of each model, and of findings that the phrase does not name.

        Raises:
            UserError: no picture, or no word in the phrase.
        """
        try:
            pixels = decode_image(picture)
        except UnreadableImage as error:
            raise UserError(
                f"This is no picture that can be read ({error}): give a PNG, JPEG, TIFF or DICOM file."
            ) from None
        found = zip(self.names, self.models.values(), strict=True)
        return [self._answer(name, model, pixels, phrase) for name, model in found]

    def _answer(self, name: str, model: LoadedModel, pixels: NDArray[np.uint8], phrase: str) -> Answer:
        maps = model.ground(pixels, phrase, self.timesteps)
        own = maps.named()
        absent = absent_findings(phrase)
        others = {finding: model.ground(pixels, f"{finding}.", self.timesteps).named() for finding in absent}
        return {
            "model": name,
            "phrase": data_uri(maps.image, own),
            "words": [
                {"word": word, "picture": data_uri(maps.image, heat)}
                for word, heat in zip(maps.words, maps.heat, strict=True)
            ],
            "absent": [
                {"finding": finding, "picture": data_uri(maps.image, heat), "alike": correlation(own, heat)}
                for finding, heat in others.items()
            ],
        }


def absent_findings(phrase: str, number: int = ABSENT) -> list[str]:
    """The first findings that a phrase does not name.

    Example:
        >>> absent_findings("Small left pleural effusion.", 2)
        ['Atelectasis', 'Cardiomegaly']
    """
    return [name for name in FINDINGS if not names_class(phrase, name, QUERY_WORDS.get(name, ()))][:number]


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float | None:
    """Pearson's r over the pixels of two maps; None where one has a single value."""
    if float(one.std()) == 0 or float(other.std()) == 0:
        return None
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def data_uri(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> str:
    """A map over its picture, at most :data:`SHOWN` pixels wide and high, as a PNG in an address."""
    drawn = Image.fromarray(overlay(image, heat))
    drawn.thumbnail((SHOWN, SHOWN))
    return "data:image/png;base64," + base64.b64encode(png_bytes(drawn)).decode()
