"""Matrices that layers keep while their weights ask for no gradient."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from openmm_nequiplr.nn import Linear
from openmm_nequiplr.nn.e3 import o3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_follow_their_own_weights(duplicate):
    """Versions of copied weights begin anew, so one may reach that of the original."""
    layer = Linear(o3.Irreps("3x0e + 2x1o"), o3.Irreps("2x0e + 2x1o"))
    features = [torch.randn(4, 1, 3), torch.randn(4, 3, 2)]
    with torch.no_grad():
        layer.requires_grad_(False).weight.add_(1.0)
        expected = [part.clone() for part in layer(features)]
        other = duplicate(layer)
        for doubled in range(1, 6):
            other.weight.mul_(2.0)
            for mine, part in zip(other(features), expected, strict=True):
                torch.testing.assert_close(mine, part * 2.0**doubled)
        for mine, part in zip(layer(features), expected, strict=True):
            torch.testing.assert_close(mine, part)
