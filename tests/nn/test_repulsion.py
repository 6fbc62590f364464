"""The ZBL repulsion against numbers from its formula in other units."""

from __future__ import annotations

import math

import pytest
import torch

from openmm_nequiplr.nn import ZBLRepulsion


def universal(first: int, second: int, distance: float) -> float:
    """Hartree and Bohr, as Ziegler, Biersack and Littmark wrote it; eV out."""
    r = distance / 0.529177210903
    x = r * (first**0.23 + second**0.23) / 0.8854
    phi = 0.18175 * math.exp(-3.19980 * x) + 0.50986 * math.exp(-0.94229 * x)
    phi += 0.28022 * math.exp(-0.40290 * x) + 0.02817 * math.exp(-0.20162 * x)
    return 27.211386245988 * first * second / r * phi


@pytest.mark.parametrize(("first", "second", "distance"), [(8, 12, 1.1), (1, 6, 0.4), (79, 79, 2)])
def test_pair_energy(first, second, distance):
    repulsion = ZBLRepulsion(6.0)
    numbers = torch.tensor([first, second], dtype=torch.float64)
    length = torch.full((2,), distance, dtype=torch.float64)
    energy = repulsion(numbers, torch.tensor([[0, 1], [1, 0]]), length).sum()
    inside = 1 - (distance / 6) ** 6 * (28 - 48 * distance / 6 + 21 * (distance / 6) ** 2)
    assert energy.item() == pytest.approx(universal(first, second, distance) * inside, rel=1e-7)


def test_vanishes_at_the_cutoff():
    numbers = torch.tensor([8.0, 12.0], dtype=torch.float64)
    length = torch.tensor([3.0, 3.5], dtype=torch.float64)
    index = torch.tensor([[0, 0], [1, 1]])
    assert ZBLRepulsion(3.0)(numbers, index, length).tolist() == pytest.approx([0.0, 0.0])
