"""Grounding gain: what of a score cannot be had without grounding. The metric over batches and processes.

Source: own; what it says and why: :mod:`meddiff.metrics.gain_summary`.
"""

from collections.abc import Sequence

import torch

from meddiff.common.errors import UserError
from meddiff.metrics.functional.gain import PairedScores
from meddiff.metrics.gain_summary import GAIN_CONTROLS, Asking, gain_figures, gain_rows
from meddiff.metrics.gathering import ListMetric


class GroundingGain(ListMetric):
    """The least of the gains over the controls of word maps, over any number of batches and processes.

    A process may see any number of askings, also none. Askings that a distributed sampler repeats to fill the last batch
    count twice: shard without padding. With NCCL the metric must be on the GPU (``.to(device)``).

    Args:
        sync_on_compute: see :class:`ListMetric`.

    Example:
        >>> import torch
        >>> from meddiff.metrics.functional import grounding_gain
        >>> places = torch.zeros(8, 16, 16, dtype=torch.bool)
        >>> places[:, 2:7, 1:6] = True
        >>> maps = places + torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> metric = GroundingGain()
        >>> metric.update("absent", grounding_gain(maps, places, control_maps=maps), range(8))
        >>> metric.compute()["gain"]
        0.0
        >>> metric.reset()
        >>> metric.update("mirrored_box", grounding_gain(maps, places, control_places=places.flip(2)), range(8))
        >>> metric.compute()["gain"] > 2
        True
    """

    higher_is_better = True
    state_dtype = torch.float64

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        self.add_list("scores")

    def update(
        self, control: str, scores: PairedScores, images: Sequence[int], partners: Sequence[int] | None = None
    ) -> None:
        """Add one batch under one control.

        Args:
            control: one of :data:`~meddiff.metrics.gain_summary.GAIN_CONTROLS`.
            scores: of N maps; what is NaN is left out.
            images: N numbers that tell images apart on all processes: askings of one image are not independent.
            partners: N numbers of the other image of each, where the control has one (the twin, the other patient).

        Raises:
            UserError: unknown control, or not N numbers.
        """
        if control not in GAIN_CONTROLS:
            raise UserError(f"{control!r} is no control of a gain: there are {', '.join(GAIN_CONTROLS)}.")
        others = images if partners is None else partners
        if not len(scores.asked) == len(images) == len(others):
            raise UserError(f"{len(images)} images and {len(others)} partners for {len(scores.asked)} scores.")
        columns = (torch.tensor(list(some), dtype=torch.float64) for some in (images, others))
        image, partner = (column.to(scores.asked.device) for column in columns)
        kind = torch.full_like(scores.asked, GAIN_CONTROLS.index(control))
        self.append("scores", torch.stack([kind, image, partner, scores.asked, scores.control], dim=1))

    def askings(self) -> list[Asking]:
        """Those of this process (of all, inside `compute`)."""
        table = self.joined("scores").reshape(-1, 5).tolist()
        return [Asking(GAIN_CONTROLS[int(row[0])], int(row[1]), int(row[2]), *row[3:]) for row in table]

    def rows(self) -> list[dict[str, str | float]]:
        """What :func:`~meddiff.metrics.gain_summary.gain_rows` makes of them."""
        # in one order for any number of processes: sums are rounded alike
        return gain_rows(sorted(self.askings()))

    def compute(self) -> dict[str, float]:
        """``gain``, its 95 % interval ``gain_low`` and ``gain_high``, and ``gain_CONTROL``, over all processes."""
        return gain_figures(self.rows())
