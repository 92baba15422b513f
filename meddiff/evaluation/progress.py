"""The progress of a measurement: a bar with rate and remaining time, also where the output is a file. Source: own."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

#: Seconds between two redrawings in a terminal and in a file. A bar is told after every batch or denoising step, and with
#: what one of them takes on top a file is still written to every five seconds.
LIVE, FILE = 0.2, 2.5


def progress_bar(total: int, unit: str, title: str, shown: bool = True, done: int = 0) -> "tqdm[None]":
    """A bar on stderr; nothing where it is not ``shown`` or nothing is left to do.

    Below another bar (that of training) it is gone when it has ended; in a file each keeps a line of its own.

    Args:
        done: items that are there already; they do not count for the rate.
    """
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=title,
        disable=not (shown and total > done),
        mininterval=LIVE if live else FILE,
        miniters=0,  # by the clock alone: tqdm's own guess lets a bar stand still when batches become slower
        position=None if live else 0,
        leave=None,
        unit_scale=unit == "image",  # parts of images have decimals
        ncols=None if live else 120,
    )


class DrawingBar:
    """A bar in images that also moves while a batch is being drawn: a batch can take a minute.

    Args:
        shown: draw it.
    """

    def __init__(self, shown: bool = False) -> None:
        self.shown = shown
        self._bar: tqdm[None] | None = None
        self._whole = 0

    @contextmanager
    def over(self, total: int, title: str, done: int = 0) -> Iterator[None]:
        """The bar, while the images are drawn."""
        with progress_bar(total, "image", title, self.shown, done) as self._bar:
            self._whole = done
            yield
        self._bar = None

    def on_step(self, images: int, steps: int) -> Callable[[int], None]:
        """What a sampler of so many steps may be given as its ``on_step`` for a batch of ``images``."""
        # the last share is left for the decoder
        return lambda step: self._to(self._whole + images * min(step, steps) / (steps + 1))

    def drawn(self, images: int) -> None:
        """A batch is whole."""
        self._whole += images
        self._to(self._whole)

    def _to(self, place: float) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.update(place - self._bar.n)
