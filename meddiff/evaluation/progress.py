"""The progress of a measurement: a bar with rate and remaining time, also where the output is a file. Source: own."""

import sys
from collections.abc import Iterator
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

    @contextmanager
    def over(self, total: int, title: str, done: int = 0) -> Iterator[None]:
        """The bar, while the images are drawn."""
        with progress_bar(total, "image", title, self.shown, done) as self._bar:
            yield
        self._bar = None

    def batch(self, images: int, steps: int = 0) -> "Batch":
        """A batch of ``images`` that is drawn in so many steps."""
        return Batch(self, images, steps)

    def update(self, images: float) -> None:
        """So many images more are done."""
        if self._bar is not None:
            self._bar.update(images)


class Batch:
    """A batch that is being drawn: its ``step`` may be given to a sampler as ``on_step``."""

    def __init__(self, bar: DrawingBar, images: int, steps: int) -> None:
        self.bar, self.images, self.steps = bar, images, steps
        self._told = 0.0

    def step(self, done: int) -> None:
        """So many steps are done; the last share is left for the decoder."""
        self._tell(self.images * min(done, self.steps) / (self.steps + 1))

    def drawn(self) -> None:
        """The images are there."""
        self._tell(self.images)

    def _tell(self, place: float) -> None:
        self.bar.update(place - self._told)
        self._told = place
