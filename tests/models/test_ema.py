"""EMA against its recursion, the objective against diffusers' scheduler and the formulas of the papers."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from meddiff.common.errors import UserError
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.noise_schedule import loss_weights, schedule_config, timesteps_from_uniform


def test_ema_follows_the_warm_up_recursion():
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


def test_ema_swaps_in_and_back_bit_for_bit():
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


def test_ema_of_half_precision_parameters_does_not_stand_still():
    layer = nn.Linear(4, 4).bfloat16()
    ema = ExponentialMovingAverage(layer.named_parameters(), decay=0.9999)
    ema.updates = 10**6
    with torch.no_grad():
        layer.weight.fill_(1.0)
    start = ema.shadow[0].clone()
    for _ in range(10):
        ema.update()
    assert ((ema.shadow[0] - start).abs() > 0).all()


def test_ema_refuses_other_parameters():
    ema = ExponentialMovingAverage(nn.Linear(3, 2).named_parameters(), decay=0.9)
    other = ExponentialMovingAverage(nn.Linear(3, 2, bias=False).named_parameters(), decay=0.9)
    with pytest.raises(UserError, match="freeze_text_encoder"):
        ema.load_state_dict(other.state_dict())


def test_timesteps_cover_the_range():
    u = torch.tensor([0.0, 0.5, 0.9999999999], dtype=torch.float64)
    assert timesteps_from_uniform(u, 1000).tolist() == [0, 500, 999]
    counts = torch.bincount(timesteps_from_uniform(torch.rand(200_000, dtype=torch.float64), 1000), minlength=1000)
    assert counts.min() > 120
    assert counts.max() < 290


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights(prediction):
    alphas = DDPMScheduler(**schedule_config(prediction)).alphas_cumprod
    t = torch.tensor([0, 250, 500, 999])
    snr = alphas[t] / (1 - alphas[t])
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(loss_weights(alphas, t, prediction, 5.0), expected)
    assert loss_weights(alphas, t, prediction, None).tolist() == [1.0] * 4
