"""How far are the features of generated images from those of real ones? Source: Heusel et al. (2017), Binkowski et al.
(2018); which extractor and which input range is the caller's affair (spec/tradeoff.md, section 7)."""

import math
from typing import Any

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import feature_statistics, frechet_distance, kernel_distance
from meddiff.metrics.gathering import ListMetric


class FrechetFeatureDistance(ListMetric):
    """Frechet and kernel distance between real and generated features, over any number of batches and processes.

    Keeps the features (float32) rather than their moments, because the kernel distance needs them: 5,000 x 2,048 are
    39 MiB. With NCCL the metric must be on the GPU (``.to(device)``).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> metric = FrechetFeatureDistance()
        >>> metric.update(x, real=True)
        >>> metric.update(x + 3.0, real=False)
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'frechet': 18.0, 'kid': 4662.3333, 'n_real': 4.0, 'n_fake': 4.0}
    """

    higher_is_better = False
    width: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_list("real")
        self.add_list("fake")
        # Features are gathered flat; a process without images learns their number from the others.
        self.add_state("width", default=torch.tensor(0), dist_reduce_fx="max")

    def update(self, features: Tensor, real: bool) -> None:
        """Add the features of one batch.

        Args:
            features: (N, D) float.
            real: of real images, else of generated ones.

        Raises:
            UserError: not (N, D), or another D than before.
        """
        if features.ndim != 2 or features.shape[1] == 0:
            raise UserError(f"features have the shape {tuple(features.shape)}; (N, D) is expected.")
        if int(self.width) not in (0, features.shape[1]):
            raise UserError(f"{features.shape[1]} features after {int(self.width)}: use one extractor for one metric.")
        self.width = torch.full_like(self.width, features.shape[1])
        self.append("real" if real else "fake", features)

    def compute(self) -> dict[str, float]:
        """frechet, kid, n_real, n_fake over all processes.

        The distances are NaN, not an error, with fewer than two images on a side (a sanity check) or features that are
        not finite (a model that diverged): neither should end a training run.
        """
        width = max(1, int(self.width))
        real, fake = (self.joined(name).reshape(-1, width) for name in ("real", "fake"))
        frechet = kid = math.nan
        if min(len(real), len(fake)) > 1 and bool(real.isfinite().all() and fake.isfinite().all()):
            frechet = frechet_distance(feature_statistics(real), feature_statistics(fake))
            kid = kernel_distance(real, fake)
        return {"frechet": frechet, "kid": kid, "n_real": float(len(real)), "n_fake": float(len(fake))}
