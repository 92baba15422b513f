"""How good are latents, and reconstructions from them? Over any number of batches and processes.

Source: InfoDiffusion's protocol as Patronus uses it, spec/patronus_and_visual_analysis.md A8; own intervals.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double
from meddiff.metrics.functional.disentanglement import tad
from meddiff.metrics.functional.latent_probe import FOLDS, ROWS, SEED, latent_auroc
from meddiff.metrics.functional.reconstruction_error import reconstruction
from meddiff.metrics.functional.usage import DEAD, prototype_use
from meddiff.metrics.gathering import ListMetric
from meddiff.metrics.intervals import mean_interval


class LatentQuality(ListMetric):
    """Latent AUROC, TAD with captured attributes, and use of the latents, of labelled images.

    Args:
        attributes: names of the columns of labels.
        rows, folds, seed: of the protocol.
        dead_below: standard deviation below which a latent is dead.
        sync_on_compute: see :class:`ListMetric`.

    Raises:
        UserError: no attributes, or one twice.

    Example:
        >>> import torch
        >>> metric, s = LatentQuality(["nodule"]), torch.linspace(-1, 1, 60)
        >>> metric.update(torch.stack([s, s * 0], 1), (s[:, None] > 0).float(), torch.arange(60))
        >>> found = metric.compute()
        >>> found["latent_auroc"] > 0.99, found["captured"], found["dead_share"]
        (True, 1.0, 0.5)
    """

    higher_is_better = True
    state_dtype = torch.float64

    def __init__(
        self,
        attributes: Sequence[str],
        rows: int = ROWS,
        folds: int = FOLDS,
        seed: int = SEED,
        dead_below: float = DEAD,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__(sync_on_compute)
        if not attributes or len(set(attributes)) != len(attributes):
            raise UserError(f"attributes are {list(attributes)}; a list of different names is needed.")
        self.attributes = list(attributes)
        self.protocol, self.dead_below = (rows, folds, seed), dead_below
        for name in ("activations", "labels", "places", "groups"):
            self.add_list(name)

    def update(self, activations: Tensor, labels: Tensor, places: Tensor, groups: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            activations: (N, m).
            labels: (N, A), 0, 1 or NaN.
            places: (N,) whole numbers: each image's place in the split, which decides what the first rows are and how they
                are shuffled, whatever the batches and processes.
            groups: (N,) whole numbers of the patients; None: every image is its own.

        Raises:
            UserError: shapes that do not fit.
        """
        n = len(places)
        fits = activations.ndim == 2 and len(activations) == n and labels.shape == (n, len(self.attributes))
        if not fits or (groups is not None and len(groups) != n):
            raise UserError(
                f"activations {tuple(activations.shape)} and labels {tuple(labels.shape)} do not fit {n} places and "
                f"{len(self.attributes)} attributes: one row an image is expected."
            )
        self.append("activations", as_double(activations))
        self.append("labels", as_double(labels))
        self.append("places", places)
        self.append("groups", places if groups is None else groups)

    def compute(self) -> dict[str, float]:
        """``latent_auroc`` with ``_low`` and ``_high``, ``tad``, ``captured``, ``usage_entropy``, ``dead_share``, ``rows``,
        and ``NAME/auroc`` with its ends, ``NAME/best`` (of the best single latent), ``NAME/latent``, ``NAME/captured``.

        Raises:
            UserError: fewer rows or groups than folds.
        """
        places = self.joined("places")
        order = places.argsort(stable=True)
        labels = self.joined("labels").reshape(len(places), -1)[order]
        values = self.joined("activations").reshape(len(places), -1)[order]
        groups = self.joined("groups")[order].tolist()
        probe, single = (
            latent_auroc(values, labels, groups, *self.protocol),
            tad(values, labels, groups, *self.protocol),
        )
        use = prototype_use(values, self.dead_below)
        result = {
            "latent_auroc": probe.mean.value,
            "latent_auroc_low": probe.mean.low,
            "latent_auroc_high": probe.mean.high,
            "tad": single.tad,
            "captured": single.captured,
            "usage_entropy": use.entropy,
            "dead_share": use.dead_share,
            "rows": float(probe.rows),
        }
        for a, name in enumerate(self.attributes):
            result |= {
                f"{name}/auroc": probe.attributes[a].value,
                f"{name}/auroc_low": probe.attributes[a].low,
                f"{name}/auroc_high": probe.attributes[a].high,
                f"{name}/best": float(single.best[a]),
                f"{name}/latent": float(single.latent[a]),
                f"{name}/captured": float(single.in_folds[a]),
            }
        return result


class ReconstructionError(ListMetric):
    """Mean squared error and SSIM of reconstructions, with intervals over images.

    Args:
        data_range: largest minus smallest value that images can have.
        sync_on_compute: see :class:`ListMetric`.

    Example:
        >>> import torch
        >>> metric, x = ReconstructionError(), torch.zeros(2, 1, 16, 16)
        >>> metric.update(x, x)
        >>> metric.compute()
        {'mse': 0.0, 'mse_low': nan, 'mse_high': nan, 'ssim': 1.0, 'ssim_low': nan, 'ssim_high': nan, 'images': 2.0}
    """

    higher_is_better = False
    state_dtype = torch.float64

    def __init__(self, data_range: float = 255.0, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        self.data_range = data_range
        for name in ("mse", "ssim"):
            self.add_list(name)

    def update(self, images: Tensor, originals: Tensor) -> None:
        """Add one batch, as for :func:`~meddiff.metrics.functional.reconstruction_error.reconstruction`."""
        found = reconstruction(images, originals, self.data_range)
        self.append("mse", found.mse)
        self.append("ssim", found.ssim)

    def compute(self) -> dict[str, float]:
        """``mse`` and ``ssim``, each with ``_low`` and ``_high``, over the ``images`` that are finite."""
        result: dict[str, float] = {}
        for name in ("mse", "ssim"):
            values = self.joined(name).cpu().sort().values  # the sum must not hang on the order of processes
            known = values[values.isfinite()].numpy()
            low, high = mean_interval(known[None], range(len(known)))
            result |= {name: float(known.mean()) if len(known) else math.nan, f"{name}_low": low, f"{name}_high": high}
        return {**result, "images": float(len(known))}
