"""The prior of prototype activations."""

import numpy as np
import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.models.prototype_prior import PrototypePrior


class Planted(PrototypePrior):
    """Knows the answer: standardised activations are standard normal, so the best prediction of noise is sigma x."""

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self._levels(timesteps)[1] * noisy


def trained(steps: int = 300) -> tuple[PrototypePrior, torch.Tensor]:
    """On two clusters, far apart and of another scale in each entry."""
    torch.manual_seed(0)
    side = torch.randint(0, 2, (2000, 1)).float() * 2 - 1
    data = 3.0 + torch.tensor([0.5, 0.05, 1.0, 0.2]) * (side + 0.1 * torch.randn(2000, 4))
    prior = PrototypePrior(4, width=48, depth=2, dropout=0.0)
    prior.standardise(data)
    optimizer = torch.optim.AdamW(prior.parameters(), 3e-3)
    for _ in range(steps):
        rows = data[torch.randint(0, len(data), (128,))]
        loss = prior.loss(rows, torch.randn_like(rows), torch.randint(0, 1000, (128,))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prior.eval(), data


def test_at_eta_0_nothing_is_drawn_and_at_1_something_is() -> None:
    prior = PrototypePrior(5, width=16, depth=1).eval()
    torch.manual_seed(1)
    one = prior.sample(["a", "b"], 0)
    torch.manual_seed(2)
    assert torch.equal(one, prior.sample(["a", "b"], 0))
    assert torch.equal(one[1:], prior.sample(["b"], 0))  # whatever else is in the batch
    assert not torch.equal(one, prior.sample(["a", "b"], 1))
    random = prior.sample(["a", "b"], 0, eta=1.0)
    assert not torch.equal(one, random)
    assert torch.equal(random, prior.sample(["a", "b"], 0, eta=1.0))


def test_the_walk_is_that_of_ddim() -> None:
    """With the true noise of a normal distribution any number of steps ends in it, and few steps end near many.

    The published sampler, which draws anew at every step, ends elsewhere each time.
    """
    prior = Planted(3, width=8, depth=1)
    prior.standardise(torch.tensor([[9.0, 4.0, 6.0], [11.0, 6.0, 6.0]]))
    many = prior.sample([f"k{i}" for i in range(400)], 0, steps=500)
    few = prior.sample([f"k{i}" for i in range(400)], 0, steps=100)
    torch.testing.assert_close(few, many, rtol=0, atol=0.15)
    random = prior.sample([f"k{i}" for i in range(400)], 0, steps=100, eta=1.0)
    for drawn in (few, random):
        np.testing.assert_allclose(drawn.mean(0), [10.0, 5.0, 6.0], atol=0.25)
        np.testing.assert_allclose(drawn.std(0)[:2], [2**0.5] * 2, rtol=0.15)


def test_it_learns_what_belongs_together() -> None:
    prior, data = trained()
    drawn = prior.sample([f"k{i}" for i in range(300)], 0, steps=50)
    np.testing.assert_allclose(drawn.mean(0), data.mean(0), atol=0.15)
    np.testing.assert_allclose(drawn.std(0), data.std(0), rtol=0.35)
    high = drawn > data.mean(0)
    assert float((high[:, 0] == high[:, 2]).float().mean()) > 0.9  # independent entries would agree in half
    assert float((high[:, 0] == high[:, 1]).float().mean()) > 0.9


def test_entries_are_standardised_and_a_constant_one_is_left_alone() -> None:
    prior = PrototypePrior(2, width=8, depth=1)
    prior.standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert prior.mean.tolist() == [2.0, 5.0]
    assert prior.std[1] == 1.0
    assert set(prior.state_dict()) >= {"mean", "std"}  # a checkpoint holds them


@pytest.mark.parametrize(("steps", "eta", "told"), [(0, 0.0, "steps"), (1001, 0.0, "steps"), (5, 1.5, "eta")])
def test_walks_that_cannot_be_are_refused(steps: int, eta: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        PrototypePrior(2, width=8, depth=1).sample(["a"], 0, steps, eta)
