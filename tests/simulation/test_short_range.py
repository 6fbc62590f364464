"""Models without equilibration in OpenMM: the forces of the evaluator, and no Coulomb sum."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from openmm_nequiplr import create_system
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import current_evaluation, from_atoms, get_computation
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import context_of


@pytest.mark.parametrize("name", ["rock_salt", "cluster"])
def test_energy_and_forces(make_model, request, name):
    atoms, model = request.getfixturevalue(name), make_model(equilibration=False)
    structure = from_atoms(atoms)
    system = create_system(structure.topology, model, solver="iterative")
    assert get_computation(system).settings.long_range == "graph"
    context = context_of(system, structure.positions)
    state = context.getState(energy=True, forces=True)
    graph = model.build_graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    expected = Evaluator(copy.deepcopy(model))(graph)
    energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
    forces = state.getForces(asNumpy=True)._value / EV_TO_KJ_PER_MOL / 10.0
    assert energy == pytest.approx(expected.energy, rel=1e-6)
    np.testing.assert_allclose(forces, expected.forces, atol=2e-5)
    context.getIntegrator().step(2)
    assert not current_evaluation(context).charges.any()
