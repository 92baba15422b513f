"""How far the training stream has come, told by optimiser steps and never by what a loader has fetched.

Source: own (design decision 6).
"""


class StreamPosition:
    """Images the optimiser has seen over all ranks: a known number at a known step, and a batch for each step since.

    Args:
        batch_size: images of one optimiser step over all ranks.
    """

    def __init__(self, batch_size: int) -> None:
        self.images, self.batch_size = 0, batch_size
        self.step: int | None = None

    def at(self, step: int | None) -> int:
        """Images seen when ``trainer.global_step`` is ``step``; the known number while there is no trainer or no known step.

        Lightning restores ``global_step`` after a data module's state, so a smaller step than the known one adds nothing.
        """
        if step is None or self.step is None:
            return self.images
        return self.images + max(0, step - self.step) * self.batch_size

    def put(self, images: int, step: int | None = None) -> None:
        """Stand at ``images``, reached at ``step`` (None: no step counts until :meth:`count_from`)."""
        self.images, self.step = images, step

    def count_from(self, step: int, batch_size: int) -> None:
        """Count from ``step`` on with this batch size, unless that step is still to be restored."""
        if self.step is None or step >= self.step:
            self.images, self.step = self.at(step), step
        self.batch_size = batch_size
