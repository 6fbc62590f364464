"""The first-order Coulomb matrix against the operator that it was taken from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry


@pytest.fixture
def case(crystal):
    positions = torch.from_numpy(crystal.positions)
    cell = torch.from_numpy(np.array(crystal.cell))
    widths = torch.linspace(0.6, 1.5, len(crystal), dtype=torch.float64)
    geometry = ewald_geometry(crystal.positions, cell.numpy(), 1.5)
    return positions, lambda x: EwaldCoulomb(x, cell, widths, geometry, 14.4)


def test_value_and_gradient_are_those_of_the_operator(case, rng):
    positions, operator = case
    linearized = operator(positions).linearized(positions)
    left = torch.from_numpy(rng.normal(size=len(positions)))
    right = torch.from_numpy(rng.normal(size=len(positions)))
    slopes, values = [], []
    for matrix in (lambda x: operator(x).matrix(), linearized.matrix):
        moving = positions.clone().requires_grad_()
        value = left @ matrix(moving) @ right
        slopes.append(torch.autograd.grad(value, moving)[0])
        values.append(value.detach())
    torch.testing.assert_close(values[1], values[0], rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-11, atol=1e-11)
    assert slopes[0].abs().max() > 0.1


def test_gradient_is_antisymmetric(case):
    positions, operator = case
    slope = operator(positions).gradient()
    torch.testing.assert_close(slope, -slope.transpose(0, 1))
