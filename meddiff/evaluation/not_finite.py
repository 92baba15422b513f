"""What a measurement says of images that are no numbers: nothing, and why. Source: own."""

import math
import warnings
from collections.abc import Sequence

from meddiff.evaluation.measurement import Result, Table
from meddiff.models.autoencoder import NotFiniteImages


def tell(error: NotFiniteImages, what: str) -> None:
    """One sentence on why there are no figures."""
    warnings.warn(f"{what} has no figures: {error}", UserWarning, stacklevel=3)


def without_figures(error: NotFiniteImages, part: str, figures: Sequence[str], first: tuple[str, ...]) -> Result:
    """The result of a measurement whose images are not all finite: its figures undefined, its table empty.

    A figure of the images that are left would stand for other prompts than those of the other models.

    Args:
        part: name of the measurement and of its table.
        figures: names of its main figures.
        first: columns of the table.
    """
    tell(error, part)
    return Result(dict.fromkeys(figures, math.nan), {part: Table([], first)})
