"""Which prototypes are used, which are dead, and which say the same twice. Source: own; spec A10 and C1."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double

#: An activation whose standard deviation over images is below this tells no two images apart: the faithful start at 224 px has
#: 1e-4 and less (spec A11, 3), a trained one some tenths.
DEAD = 1e-3
#: Prototypes with a higher ``|cosine|`` are duplicates.
ALIKE = 0.95


class PrototypeUse(NamedTuple):
    """How activations spread over images.

    Attributes:
        entropy: of the shares that prototypes have in the total variance over images, from 0 (one does all) to 1 (all alike);
            NaN where nothing varies, or of one prototype.
        effective: number of prototypes that would have this entropy if they were all alike; NaN where nothing varies.
        dead: (m,) bool, of a standard deviation below the threshold.
        spread: (m,) float64, standard deviation over images.
    """

    entropy: float
    effective: float
    dead: Tensor
    spread: Tensor

    @property
    def dead_share(self) -> float:
        """Share of dead prototypes."""
        return float(self.dead.double().mean())


class PrototypeLikeness(NamedTuple):
    """How alike prototypes are.

    Attributes:
        mean_cosine: mean \\|cosine\\| over pairs; NaN of fewer than two.
        pairs: (first, second, \\|cosine\\|) of the duplicates, the most alike first.
    """

    mean_cosine: float
    pairs: tuple[tuple[int, int, float], ...]


def prototype_use(activations: Tensor, dead_below: float = DEAD) -> PrototypeUse:
    """Which prototypes tell images apart.

    Args:
        activations: (N, m), of N of 2 or more images.
        dead_below: standard deviation over images below which a prototype is dead.

    Raises:
        UserError: another shape, or not finite.

    Example:
        >>> import torch
        >>> use = prototype_use(torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]))
        >>> round(use.effective, 6), use.dead.tolist()
        (2.0, [False, False, True])
    """
    if activations.ndim != 2 or len(activations) < 2 or not activations.shape[1]:
        raise UserError(f"activations have the shape {tuple(activations.shape)}; (N, m) with N of 2 or more is needed.")
    values = as_double(activations)
    if not bool(values.isfinite().all()):
        raise UserError("activations are not finite: the encoder has diverged, so there is no use to speak of.")
    spread = values.std(dim=0)  # (m,)
    return PrototypeUse(*shared_out(spread**2), spread < dead_below, spread)


def shared_out(variance: Tensor) -> tuple[float, float]:
    """``entropy`` and ``effective`` of :class:`PrototypeUse`, of variances over images (m,).

    Example:
        >>> import torch
        >>> [round(one, 6) for one in shared_out(torch.tensor([0.5, 0.5, 0.0, 0.0]))]
        [0.5, 2.0]
    """
    total = float(variance.sum())
    if total == 0:
        return math.nan, math.nan
    shares = variance / total
    nats = float(-torch.xlogy(shares, shares).sum())
    return (nats / math.log(len(shares)) if len(shares) > 1 else math.nan), math.exp(nats)


def prototype_likeness(prototypes: Tensor, alike: float = ALIKE) -> PrototypeLikeness:
    """How alike prototypes are, by the cosine of their vectors; opposite ones count as alike (spec A3).

    Args:
        prototypes: (m, D). Columns of standardised activations, transposed, answer the same question of what they find.
        alike: \\|cosine\\| above which two are duplicates.

    Raises:
        UserError: another shape.

    Example:
        >>> import torch
        >>> prototype_likeness(torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]])).pairs
        ((0, 1, 1.0),)
    """
    if prototypes.ndim != 2:
        raise UserError(f"prototypes have the shape {tuple(prototypes.shape)}; (m, D) is expected.")
    values = torch.nn.functional.normalize(as_double(prototypes), dim=1)
    first, second = torch.triu_indices(len(values), len(values), offset=1)
    cosines = (values @ values.T).abs()[first, second].clamp(max=1.0)  # (m (m - 1) / 2,)
    if not len(cosines):
        return PrototypeLikeness(math.nan, ())
    above = (cosines > alike).nonzero()[:, 0]
    order = above[cosines[above].argsort(descending=True, stable=True)]
    pairs = zip(first[order].tolist(), second[order].tolist(), cosines[order].tolist(), strict=True)
    return PrototypeLikeness(float(cosines.mean()), tuple(pairs))
