"""The progress of drawing: a bar in images that also moves while a batch is being drawn. Source: own."""

from collections.abc import Iterator
from contextlib import contextmanager

from meddiff.common.progress import Bar, progress_bar


class DrawingBar:
    """A bar in images that also moves while a batch is being drawn: a batch can take a minute.

    Args:
        shown: draw it.
    """

    def __init__(self, shown: bool = False) -> None:
        self.shown = shown
        self._bar: Bar | None = None

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
