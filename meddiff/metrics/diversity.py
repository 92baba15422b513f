"""How different are images that were drawn for one prompt? Source: Dombrowski et al. (AAAI 2024), Table 4 (MS-SSIM)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.ms_ssim import pairwise_similarity, scales_for
from meddiff.metrics.gathering import ListMetric


def summarise_similarity(values: Sequence[float]) -> dict[str, float]:
    """mean and std (n - 1) of the pairs that have a value; pairs, and undefined (pairs without one).

    Example:
        >>> summarise_similarity([0.5, float("nan"), 1.5])
        {'mean': 1.0, 'std': 0.7071067811865476, 'pairs': 2.0, 'undefined': 1.0}
    """
    known = [value for value in values if math.isfinite(value)]
    mean = math.fsum(known) / len(known) if known else math.nan
    spread = math.fsum((value - mean) ** 2 for value in known)
    return {
        "mean": mean,
        "std": math.sqrt(spread / (len(known) - 1)) if len(known) > 1 else math.nan,
        "pairs": float(len(known)),
        "undefined": float(len(values) - len(known)),
    }


class PairwiseSimilarity(ListMetric):
    """MS-SSIM of all pairs within groups of images, over any number of groups and processes; lower is more diverse.

    What a group is decides what is measured: images of one prompt (how much a prompt leaves open), or images of any
    prompts (what the paper's code does by mistake, spec/tradeoff.md section 0 fact 9).

    Args:
        data_range: of the images' values; None takes it from each pair (the paper's way).
        sync_on_compute: see :class:`ListMetric`.

    Example:
        >>> import torch
        >>> x = torch.arange(32 * 32).reshape(1, 1, 32, 32) % 251
        >>> metric = PairwiseSimilarity()
        >>> metric.update(torch.cat([x, x, 255 - x]))
        >>> scores = metric.compute()
        >>> scores["pairs"], scores["undefined"], scores["scales"], scores["mean"] < 1
        (3.0, 0.0, 2.0, True)
    """

    higher_is_better = False
    state_dtype = torch.float64
    scales: Tensor

    def __init__(self, data_range: float | None = 255.0, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        self.data_range = data_range
        self.add_list("values")
        self.add_state("scales", default=torch.tensor(0), dist_reduce_fx="max")

    def update(self, images: Tensor) -> None:
        """Add one group.

        Args:
            images: (N, C, H, W), N of 2 or more.

        Raises:
            UserError: fewer than two images, too small ones, or another number of scales than before.
        """
        values = pairwise_similarity(images, self.data_range)
        scales = scales_for(*images.shape[-2:])
        if int(self.scales) not in (0, scales):
            raise UserError(f"MS-SSIM of {scales} scales after {int(self.scales)}: compare images of one size.")
        self.scales = torch.full_like(self.scales, scales)
        self.append("values", values)

    def pairs(self) -> list[float]:
        """MS-SSIM of every pair of this process (of all, inside `compute`): group after group, in each in the order of
        ``itertools.combinations``; NaN where it is undefined."""
        values: list[float] = self.joined("values").tolist()
        return values

    def compute(self) -> dict[str, float]:
        """As `summarise_similarity`, over all processes, and ``scales``, at how many scales images were compared."""
        return {**summarise_similarity(self.pairs()), "scales": float(self.scales)}
