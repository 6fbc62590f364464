"""The ZBL repulsion against numbers from its formula in other units."""

from __future__ import annotations

import math

import pytest
import torch

from openmm_nequiplr.nn import DistanceFloor, ZBLRepulsion


def universal(first: int, second: int, distance: float) -> float:
    """Hartree and Bohr, as Ziegler, Biersack and Littmark wrote it; eV out."""
    r = distance / 0.529177210903
    x = r * (first**0.23 + second**0.23) / 0.8854
    phi = 0.18175 * math.exp(-3.19980 * x) + 0.50986 * math.exp(-0.94229 * x)
    phi += 0.28022 * math.exp(-0.40290 * x) + 0.02817 * math.exp(-0.20162 * x)
    return 27.211386245988 * first * second / r * phi


@pytest.mark.parametrize(("first", "second", "distance"), [(8, 12, 1.1), (1, 6, 0.4), (79, 79, 2)])
def test_pair_energy(first, second, distance):
    repulsion = ZBLRepulsion([first, second], [[6.0, 6.0], [6.0, 6.0]])
    length = torch.full((1,), distance, dtype=torch.float64)
    zero, one = torch.tensor([0]), torch.tensor([1])
    index, energy = repulsion(torch.tensor([0, 1]), zero, one, length)
    assert index.tolist() == [0]
    inside = 1 - (distance / 6) ** 6 * (28 - 48 * distance / 6 + 21 * (distance / 6) ** 2)
    assert energy.item() == pytest.approx(universal(first, second, distance) * inside, rel=1e-7)


def test_vanishes_at_the_cutoff():
    repulsion = ZBLRepulsion([8.0, 12.0], [[2.0, 3.0], [3.0, 5.0]])
    types = torch.tensor([0, 1, 0, 1])
    first, second = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 2, 3, 2, 3])
    length = torch.tensor([2.999999, 2.5, 3.5, 2.9, 4.0], dtype=torch.float64)
    index, energy = repulsion(types, first, second, length)
    assert index.tolist() == [0, 3, 4]
    assert energy[0].item() == pytest.approx(0.0, abs=1e-9)
    assert energy[1].item() > 1e-5
    assert energy[2].item() > 1e-5


def test_distances_level_off_below_the_shortest():
    floor = DistanceFloor([[0.9, 1.2], [1.2, 1.5]])
    types = torch.tensor([0, 1])
    first = torch.zeros(6, dtype=torch.int64)
    second = torch.ones(6, dtype=torch.int64)
    length = torch.tensor([0.1, 0.9, 1.15, 1.1999, 1.2, 3.0], dtype=torch.float64)
    seen = floor(types, first, second, length)
    assert seen[0].item() == pytest.approx(1.1)
    assert seen[1].item() == pytest.approx(1.2 - 0.1 * math.tanh(3.0))
    assert seen[2].item() == pytest.approx(1.2 - 0.1 * math.tanh(0.5))
    assert torch.equal(seen[4:], length[4:])
    assert bool((seen.diff() > 0).all())


def test_levelling_off_has_two_continuous_derivatives():
    floor = DistanceFloor([[1.2]])
    zero = torch.zeros(2, dtype=torch.int64)
    sides = torch.tensor([1.2 - 1e-7, 1.2 + 1e-7], dtype=torch.float64, requires_grad=True)
    seen = floor(zero, zero, zero, sides)
    slope = torch.autograd.grad(seen.sum(), sides, create_graph=True)[0]
    assert slope.tolist() == pytest.approx([1.0, 1.0])
    curvature = torch.autograd.grad(slope.sum(), sides, allow_unused=True)[0]
    assert curvature.tolist() == pytest.approx([0.0, 0.0], abs=1e-4)


def test_tables_stay_in_double_precision():
    repulsion = ZBLRepulsion([1.0], [[1.0 / 3.0]]).to(torch.float32)
    assert {buffer.dtype for buffer in repulsion.buffers()} == {torch.float64}
