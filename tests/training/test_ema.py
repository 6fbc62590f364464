"""Averaged weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openmm_nequiplr.training.ema import WeightAverage


def _set(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_average_follows_its_definition():
    model = nn.Linear(2, 2).double()
    _set(model, 1.0)
    average = WeightAverage(model, decay=0.9)
    expected, value = 1.0, 1.0
    for n in range(1, 200):
        value = float(n)
        _set(model, value)
        average.update(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with average.applied(model):
        torch.testing.assert_close(model.weight, torch.full_like(model.weight, expected))
    torch.testing.assert_close(model.bias, torch.full_like(model.bias, value))


def test_swap_is_exact_even_after_an_error():
    model = nn.Linear(3, 3)
    average = WeightAverage(model, decay=0.5)
    _set(model, 2.0)
    before = model.weight.detach().clone()

    def fail() -> None:
        with average.applied(model):
            assert not torch.equal(model.weight, before)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(model.weight, before)


def test_state_dict_carries_the_average():
    model = nn.Linear(2, 2)
    first, second = WeightAverage(model, 0.9), WeightAverage(nn.Linear(2, 2), 0.9)
    _set(model, 5.0)
    first.update(model)
    second.load_state_dict(first.state_dict())
    assert int(second.num_updates) == 1
    other = nn.Linear(2, 2)
    with first.applied(model), second.applied(other):
        assert torch.equal(model.weight, other.weight)


def test_no_average():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.0)
    _set(model, 3.0)
    average.update(model)
    with average.applied(model):
        assert torch.equal(model.weight, torch.full_like(model.weight, 3.0))
