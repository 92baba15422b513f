"""How alike two fields are at each place: the terms of SSIM apart, and the cosine between channels.

With Gaussian-weighted means m, variances v and covariance c of a window (Wang et al. 2004, K1 = 0.01, K2 = 0.03, L = 1):

    luminance = (2 m_a m_b + C1) / (m_a^2 + m_b^2 + C1)
    contrast  = (2 s_a s_b + C2) / (v_a + v_b + C2)
    structure = (c + C3) / (s_a s_b + C3)

DF-RISE compares by the structure alone (spec section B2). In float32 whatever the network computes in; a variance that
rounding makes negative counts as zero, so that flat fields give 1 and no NaN. The constants call two flat fields alike; where
flat means that nothing is there (what a prompt adds), ``constants=False`` leaves them out and calls these 0.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

Term = Literal["structure", "contrast", "luminance", "cosine"]
#: At the edge a window is cut and its weights sum to 1 again, or what is outside counts as zeros (the published code).
Border = Literal["cut", "zero"]
TERMS: tuple[Term, ...] = get_args(Term)
BORDERS: tuple[Border, ...] = get_args(Border)
C1, C2 = 0.01**2, 0.03**2
C3 = C2 / 2


def similarity(
    a: Tensor,
    b: Tensor,
    term: Term = "structure",
    window: int = 15,
    sigma: float = 1.5,
    border: Border = "cut",
    constants: bool = True,
) -> Tensor:
    """Likeness of two fields (N, C, h, w) at each place: (N, h, w) float32, the mean over channels; 1 where they agree.

    Args:
        window: side of the window in latent pixels, odd.
        sigma: of its Gaussian, in latent pixels.
        border: what the window meets outside the field.
        constants: whether C1 to C3 stand in the terms.

    Example:
        >>> field = torch.arange(32.0).view(1, 2, 4, 4)
        >>> bool((similarity(field, field) - 1).abs().max() < 1e-6)
        True
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        if term == "cosine":
            return _ratio((a * b).sum(dim=1), a.norm(dim=1) * b.norm(dim=1), 0.0)
        return _term(a, b, term, window, sigma, border, float(constants)).mean(dim=1)


def _term(a: Tensor, b: Tensor, term: Term, window: int, sigma: float, border: Border, constants: float) -> Tensor:
    rows = window_matrix(a.shape[-2], window, sigma, border).to(a.device)  # (h, h)
    columns = window_matrix(a.shape[-1], window, sigma, border).to(a.device).T  # (w, w)

    def mean(field: Tensor) -> Tensor:
        return rows @ field @ columns

    if term == "luminance":
        one, other = mean(a), mean(b)
        return _ratio(2 * one * other, one.square() + other.square(), constants * C1)
    if border == "cut":  # moments about a common level: squares of a large one would swallow them
        a, b = (field - field.mean(dim=(-2, -1), keepdim=True) for field in (a, b))
    mean_a, mean_b = mean(a), mean(b)
    var_a = (mean(a.square()) - mean_a.square()).clamp(min=0)
    var_b = (mean(b.square()) - mean_b.square()).clamp(min=0)
    deviations = var_a.sqrt() * var_b.sqrt()
    if term == "contrast":
        return _ratio(2 * deviations, var_a + var_b, constants * C2)
    # no covariance exceeds the deviations but by rounding
    covariance = (mean(a * b) - mean_a * mean_b).clamp(-deviations, deviations)
    return _ratio(covariance, deviations, constants * C3)


def _ratio(above: Tensor, below: Tensor, constant: float) -> Tensor:
    """(above + constant) / (below + constant); 0 where there is nothing to divide by."""
    known = below + constant > 0
    return torch.where(known, (above + constant) / torch.where(known, below + constant, 1.0), 0.0)


def window_matrix(side: int, window: int, sigma: float, border: Border = "cut") -> Tensor:
    """(side, side) float32: row i holds the weights of a Gaussian window around i; both axes apart are the whole window."""
    places = torch.arange(side, dtype=torch.float64)
    apart = places[:, None] - places
    weights = torch.exp(-apart.square() / (2 * sigma**2)).masked_fill(apart.abs() > window // 2, 0.0)
    if border == "cut":
        return (weights / weights.sum(dim=1, keepdim=True)).float()
    inside = torch.arange(-(window // 2), window // 2 + 1, dtype=torch.float64)
    return (weights / torch.exp(-inside.square() / (2 * sigma**2)).sum()).float()
