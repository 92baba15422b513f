"""The terms of SSIM place by place: a plain loop in float64, the limits, and the published code's faults."""

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.attribution.similarity import BORDERS, TERMS, Border, Term, similarity, window_matrix


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def plain(a: np.ndarray, b: np.ndarray, term: Term, window: int, sigma: float, border: Border) -> np.ndarray:
    """One channel (h, w), a window at a time."""
    half, (h, w) = window // 2, a.shape
    c1, c2, c3 = 1e-4, 9e-4, 4.5e-4
    found = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            weights, ones, others = [], [], []
            for dy in range(-half, half + 1):
                for dx in range(-half, half + 1):
                    inside = 0 <= y + dy < h and 0 <= x + dx < w
                    if not inside and border == "cut":
                        continue
                    weights.append(np.exp(-(dy**2 + dx**2) / (2 * sigma**2)))
                    ones.append(a[y + dy, x + dx] if inside else 0.0)
                    others.append(b[y + dy, x + dx] if inside else 0.0)
            share = np.array(weights) / np.sum(weights)
            one, other = np.array(ones), np.array(others)
            ma, mb = share @ one, share @ other
            va, vb, c = share @ (one - ma) ** 2, share @ (other - mb) ** 2, share @ ((one - ma) * (other - mb))
            if term == "luminance":
                found[y, x] = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            elif term == "contrast":
                found[y, x] = (2 * np.sqrt(va * vb) + c2) / (va + vb + c2)
            else:
                found[y, x] = (c + c3) / (np.sqrt(va * vb) + c3)
    return found


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("term", ["structure", "contrast", "luminance"])
def test_terms_are_those_of_a_plain_loop(term: Term, border: Border) -> None:
    a, b = drawn(0, 1, 2, 6, 9) + 0.3, drawn(1, 1, 2, 6, 9)
    for window, sigma in ((5, 1.5), (15, 1.5)):
        found = similarity(a, b, term, window, sigma, border)
        pairs = zip(a[0].double().numpy(), b[0].double().numpy(), strict=True)
        expected = np.mean([plain(one, other, term, window, sigma, border) for one, other in pairs], axis=0)
        assert found.shape == (1, 6, 9)
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("term", TERMS)
def test_a_field_is_wholly_like_itself(term: Term, border: Border) -> None:
    field = drawn(0, 3, 4, 16, 16)
    for constants in (True, False):
        found = similarity(field, field.clone(), term, border=border, constants=constants)
        torch.testing.assert_close(found, torch.ones(3, 16, 16), rtol=0, atol=1e-5)
    # the control: two draws are not alike (the published factor of 2 would put these near 1)
    if term in ("structure", "cosine"):
        assert similarity(field, drawn(9, 3, 4, 16, 16), term, border=border).abs().mean() < 0.5


@pytest.mark.parametrize("term", TERMS)
def test_flat_and_almost_flat_fields_give_numbers(term: Term) -> None:
    flat = torch.full((1, 4, 16, 16), 1000.0)
    almost = flat + 1e-4 * drawn(0, 1, 4, 16, 16)
    zero = torch.zeros(1, 4, 16, 16)
    for a in (flat, almost, zero):
        for b in (flat, almost, zero, drawn(1, 1, 4, 16, 16)):
            for border in BORDERS:
                for constants in (True, False):
                    found = similarity(a, b, term, border=border, constants=constants)
                    assert found.isfinite().all()
                    assert found.abs().max() <= 1 + 1e-5
    # what the plain formula does to such a field: squares of 1000 leave no digits for a variance of 1e-8
    rows = window_matrix(16, 15, 1.5)
    naive = rows @ almost.square() @ rows.T - (rows @ almost @ rows.T).square()
    assert naive.min() < 0


def test_contrast_is_not_structure_and_knows_no_place() -> None:
    a = drawn(0, 1, 1, 16, 16)
    assert similarity(a, 2 * a, "contrast").mean() < 0.85 < 0.99 < similarity(a, 2 * a, "structure").mean()
    assert similarity(a, -a, "contrast").mean() > 0.99 > -0.9 > similarity(a, -a, "structure").mean()
    assert similarity(a, a + 5, "luminance").mean() < 0.7 < 0.99 < similarity(a, a + 5, "structure").mean()


def test_without_constants_nothing_is_like_nothing() -> None:
    zero = torch.zeros(1, 4, 8, 8)
    assert similarity(zero, zero).mean() > 0.99
    assert similarity(zero, zero, constants=False).abs().max() == 0
    small = 1e-4 * drawn(0, 1, 4, 8, 8)
    assert similarity(small, 1e-4 * drawn(1, 1, 4, 8, 8)).min() > 0.99, "the constant drowns it"
    assert similarity(small, 1e-4 * drawn(1, 1, 4, 8, 8), constants=False).abs().mean() < 0.5


def test_half_precision_is_left_before_anything_is_squared() -> None:
    a, b = (300 * drawn(seed, 1, 4, 8, 8) for seed in (0, 1))
    found = similarity(a.bfloat16(), b.bfloat16())
    torch.testing.assert_close(found, similarity(a.bfloat16().float(), b.bfloat16().float()), rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(a, b)
    torch.testing.assert_close(inside, similarity(a, b), rtol=0, atol=0)
