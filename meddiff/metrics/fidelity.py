"""How far are the features of generated images from those of real ones? Source: Heusel et al. (2017), Binkowski et al.
(2018); which extractor and which input range is the caller's affair (spec/tradeoff.md, section 7)."""

import math

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import FeatureStatistics, feature_statistics, frechet_distance, kernel_distance
from meddiff.metrics.gathering import ListMetric


class FrechetFeatureDistance(ListMetric):
    """Frechet and kernel distance between real and generated features, over any number of batches and processes.

    Keeps the features (float32) rather than their moments, because the kernel distance needs them: 5,000 x 2,048 are
    39 MiB. With NCCL the metric must be on the GPU (``.to(device)``).

    Args:
        keep_real: `reset` forgets the generated features only, for one reference that meets many sets; its statistics are
            computed once, which is half of the work.
        sync_on_compute: see :class:`ListMetric`.

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
    real: list[Tensor]

    def __init__(self, keep_real: bool = False, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        self.keep_real = keep_real
        self._reference: FeatureStatistics | None = None  # of the real features
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
        self._reference = None if real else self._reference
        self.append("real" if real else "fake", features)

    def reset(self) -> None:
        """Forget the features; with ``keep_real`` those of generated images only."""
        real, width = list(self.real), self.width
        super().reset()
        if self.keep_real:
            self.real, self.width = real, width
        else:
            self._reference = None

    def compute(self) -> dict[str, float]:
        """frechet, kid, n_real, n_fake over all processes.

        The distances are NaN, not an error, with fewer than two images on a side (a sanity check) or features that are
        not finite (a model that diverged): neither should end a training run.
        """
        width = max(1, int(self.width))
        real, fake = (self.joined(name).reshape(-1, width) for name in ("real", "fake"))
        frechet = kid = math.nan
        if min(len(real), len(fake)) > 1 and bool(real.isfinite().all() and fake.isfinite().all()):
            frechet = frechet_distance(self._statistics(real), feature_statistics(fake))
            kid = kernel_distance(real, fake)
        return {"frechet": frechet, "kid": kid, "n_real": float(len(real)), "n_fake": float(len(fake))}

    def _statistics(self, real: Tensor) -> FeatureStatistics:
        """Those of the real features of all processes (N, D), kept until there are others."""
        kept = self._reference
        # Another process may have been given more, and the metric may have been moved.
        if kept is None or kept.n != len(real) or kept.mean.device != real.device:
            kept = self._reference = feature_statistics(real)
        return kept
