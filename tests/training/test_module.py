"""The average of the weights in a training module."""

from __future__ import annotations

import torch
from torch import nn

from openmm_nequiplr.training.module import averaged


def test_average_follows_its_definition():
    model = nn.Linear(2, 2).double()
    nn.init.constant_(model.weight, 1.0)
    average = averaged(model, decay=0.9)
    expected = 1.0
    for n in range(1, 200):
        nn.init.constant_(model.weight, float(n))
        average.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    weight = average.module.weight
    torch.testing.assert_close(weight, torch.full_like(weight, expected))
    assert float(model.weight[0, 0]) == 199.0
    assert not weight.requires_grad
    other = averaged(nn.Linear(2, 2).double(), decay=0.9)
    other.load_state_dict(average.state_dict())
    for each in (average, other):
        each.update_parameters(model)
    assert torch.equal(weight, other.module.weight)
