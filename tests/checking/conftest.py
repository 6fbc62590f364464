"""Models whose dynamics is known: free atoms that only meet a wall, and one full of holes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from openmm_nequiplr.data import Structure

CUBE = 2.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], float)


@pytest.fixture
def structures() -> list[Structure]:
    """Four clusters; the last one in a cell."""
    rng = np.random.default_rng(5)
    positions = [CUBE + rng.uniform(-0.1, 0.1, CUBE.shape) for _ in range(4)]
    symbols = ("Na", "Cl", "Cl", "O", "Na")
    free = [Structure(symbols, x) for x in positions[:3]]
    return [*free, Structure(symbols, positions[3], cell=np.diag([6.0, 7.0, 8.0]), pbc=True)]


@pytest.fixture
def harmless(make_model):
    """No charges, no energy but the ZBL repulsion below 1.8 Å."""
    model = make_model(
        zbl=True, electrostatic_energy="coulomb", shortest_distances=((1.8,) * 3,) * 3
    )
    model = copy.deepcopy(model)
    for name in ("energy_scales", "electronegativity_scales", "electronegativity_shifts"):
        dict(model.named_buffers())[name].zero_()
    return model


@pytest.fixture
def full_of_holes(make_model):
    """A random network with energies of many eV, and nothing that keeps atoms apart."""
    model = copy.deepcopy(make_model(electrostatic_energy="coulomb"))
    dict(model.named_buffers())["energy_scales"].mul_(30.0)
    return model
