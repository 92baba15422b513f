"""EMA against its recursion; swapped in and back."""

import pytest
import torch
from torch import nn

from meddiff.common.errors import UserError
from meddiff.models.ema import ExponentialMovingAverage


def test_ema_follows_the_warm_up_recursion() -> None:
    layer = nn.Linear(3, 2).double()
    ema = ExponentialMovingAverage(layer.named_parameters(), decay=0.9)
    expected = {name: p.detach().clone().float() for name, p in layer.named_parameters()}
    for n in range(30):
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(torch.randn_like(p))
        decay = min(0.9, (1 + n) / (10 + n))
        for name, p in layer.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().float()
        ema.update()
    for name, shadow in ema.state_dict()["shadow"].items():
        torch.testing.assert_close(shadow, expected[name])


def test_ema_swaps_in_and_back_bit_for_bit() -> None:
    layer = nn.Linear(3, 2)
    ema = ExponentialMovingAverage(layer.named_parameters(), decay=0.5)
    with torch.no_grad():
        layer.weight.add_(1.0)
    ema.update()
    raw = layer.weight.detach().clone()
    seen = []

    def evaluate() -> None:
        with ema.swapped_in():
            seen.append(layer.weight.detach().clone())
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        evaluate()
    assert not torch.equal(seen[0], raw)
    assert torch.equal(layer.weight, raw)


def test_ema_of_half_precision_parameters_does_not_stand_still() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    ema = ExponentialMovingAverage(layer.named_parameters(), decay=0.9999)
    ema.updates = 10**6
    with torch.no_grad():
        layer.weight.fill_(1.0)
    start = ema.shadow[0].clone()
    for _ in range(10):
        ema.update()
    assert ((ema.shadow[0] - start).abs() > 0).all()


def test_ema_refuses_other_parameters() -> None:
    ema = ExponentialMovingAverage(nn.Linear(3, 2).named_parameters(), decay=0.9)
    other = ExponentialMovingAverage(nn.Linear(3, 2, bias=False).named_parameters(), decay=0.9)
    with pytest.raises(UserError, match="freeze_text_encoder"):
        ema.load_state_dict(other.state_dict())
