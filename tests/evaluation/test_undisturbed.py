"""An evaluation leaves modes, generators and autograd as they were, also when it breaks off."""

import random

import numpy as np
import pytest
import torch

from meddiff.evaluation.undisturbed import undisturbed


def test_undisturbed_restores_modes_and_generators() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    module[0].eval()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    with pytest.raises(RuntimeError), undisturbed(module):  # noqa: PT012 (it is about what lies inside)
        assert not module[1].training
        assert not torch.is_grad_enabled()
        torch.rand(5), np.random.rand(5), random.random()  # noqa: NPY002
        raise RuntimeError
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected  # noqa: NPY002
    assert [part.training for part in module] == [False, True]
    assert torch.is_grad_enabled()
