"""One lattice has one energy, forces and stress, whatever vectors it is written by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.model.evaluation import Evaluator
from openmm_nequiplr.model.scripted import script_model
from openmm_nequiplr.model.solving import SolverOptions
from openmm_nequiplr.simulation.pme import PointChargeCoulomb

TIGHT = {"dense": {}, "iterative": {"charge_tolerance": 1e-8}}


@pytest.fixture
def lattice(rng, crystal):
    """24 atoms in an oblique cell, and twelve other bases of it, some of them left-handed."""
    atoms = crystal * (2, 2, 1)
    atoms.rattle(0.05, seed=2)
    bases = []
    for _ in range(12):
        basis = np.eye(3, dtype=int)[rng.permutation(3)]
        for _ in range(6):
            row, other = rng.choice(3, 2, replace=False)
            basis[row] += rng.integers(-2, 3) * basis[other]
        bases.append(basis)
    assert {round(np.linalg.det(basis)) for basis in bases} == {1, -1}
    return atoms, [basis @ atoms.cell.array for basis in bases]


def evaluate(model, atoms, cell, coulomb=None, stress=True, **options):
    evaluator = Evaluator(model, **options)
    dense = not evaluator.iterative(len(atoms), True)
    graph = model.build_graph(atoms.numbers, atoms.positions, cell, True, 1.0, lattice_sum=dense)
    return evaluator(graph, True, stress, point_charge_coulomb=coulomb)


@pytest.mark.parametrize("solver", TIGHT)
def test_the_sums_of_torch(make_model, lattice, solver):
    model = make_model(num_layers=1)
    atoms, cells = lattice
    exact = evaluate(model, atoms, atoms.cell.array, solver="dense")
    size = abs(exact.parts["coulomb"])
    for cell in cells:
        found = evaluate(model, atoms, cell, solver=solver, **TIGHT[solver])
        assert abs(found.energy - exact.energy) < 1e-6 * size
        np.testing.assert_allclose(found.forces, exact.forces, rtol=0, atol=2e-6)
        np.testing.assert_allclose(found.stress, exact.stress, rtol=0, atol=1e-7)
    if solver == "iterative":  # at the default tolerance what it promises
        largest = np.abs(exact.forces).max()
        for cell in cells[:4]:
            found = evaluate(model, atoms, cell, solver=solver)
            assert np.abs(found.forces - exact.forces).max() < 3e-4 * largest


def test_openmm_sums(make_model, lattice):
    model = make_model(num_layers=1)
    atoms, cells = lattice
    coulomb = PointChargeCoulomb(len(atoms), True, tolerance=1e-6, precision="double")
    exact = evaluate(model, atoms, atoms.cell.array, solver="dense")
    for cell in cells[:4]:
        found = evaluate(model, atoms, cell, coulomb, False, solver="dense")
        assert abs(found.energy - exact.energy) < 1e-5 * abs(exact.parts["coulomb"])
        np.testing.assert_allclose(found.forces, exact.forces, rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", TIGHT)
def test_the_graph_of_torchscript(make_model, lattice, solver):
    model = make_model(num_layers=1)
    atoms, cells = lattice
    exact = evaluate(model, atoms, atoms.cell.array, solver="dense")
    graph = script_model(
        model,
        atoms.numbers,
        True,
        1.0,
        options=SolverOptions(solver, **TIGHT[solver]),
    )
    for cell in cells[:5]:
        energy, forces, *_ = graph.evaluate(torch.tensor(atoms.positions), torch.tensor(cell))
        assert abs(float(energy) - exact.energy) < 1e-6 * abs(exact.parts["coulomb"])
        np.testing.assert_allclose(forces.numpy(), exact.forces, rtol=0, atol=2e-6)
