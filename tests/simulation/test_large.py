"""The iterative solver in OpenMM and ASE: meshes, barostats, jumps, wrapped atoms, failures."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_nequiplr import create_system
from openmm_nequiplr.calculator import NequIPLRCalculator
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import current_evaluation, from_atoms, get_computation
from openmm_nequiplr.simulation.pme import PointChargeCoulomb
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import relative

REFERENCE = openmm.Platform.getPlatform("Reference")
ITERATIVE = {"solver": "iterative", "charge_tolerance": 1e-6}


def dense(model, atoms, total_charge=0.0):
    arguments = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, total_charge)
    return Evaluator(copy.deepcopy(model), solver="dense")(model.build_graph(*arguments))


def simulation_of(atoms, model, *forces, platform=(REFERENCE, {}), **options):
    structure = from_atoms(atoms)
    system = create_system(structure.topology, model, **(ITERATIVE | options))
    for force in forces:
        system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(2)
    simulation = app.Simulation(structure.topology, system, integrator, *platform)
    simulation.context.setPositions(structure.positions)
    return simulation, structure


def assert_consistent(context):
    """Energy and forces of a Context are those of a fresh, dense computation."""
    state = context.getState(positions=True, energy=True, forces=True)
    computation = get_computation(context.getSystem())
    settings = copy.copy(computation.settings)
    object.__setattr__(settings, "solver", "dense")
    object.__setattr__(settings, "long_range", "graph")
    positions, box = (
        10.0 * state.getPositions(asNumpy=True)._value,
        10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value,
    )
    expected = type(computation)(settings).evaluate(positions, box)
    energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
    electric = sum(abs(v) for k, v in expected.parts.items() if k != "short_range")
    assert abs(energy - expected.energy) < 1e-5 * electric
    forces = state.getForces(asNumpy=True)._value / (10.0 * EV_TO_KJ_PER_MOL)
    assert relative(forces, expected.forces) < 1e-4


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
@pytest.mark.parametrize("name", ["rock_salt", "skewed_salt"])
def test_energy_and_forces_along_a_run(request, ionic_model, name, long_range):
    atoms = request.getfixturevalue(name)
    simulation, structure = simulation_of(
        atoms, ionic_model, long_range=long_range, total_charge=-1
    )
    expected = dense(ionic_model, atoms, -1.0)
    found = current_evaluation(simulation.context)
    assert relative(found.forces @ structure.rotation, expected.forces) < 1e-4
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-5)
    assert found.iterations > (0, 0)
    simulation.step(4)
    assert_consistent(simulation.context)
    computation = get_computation(simulation.system)
    assert len(computation.solves) == computation.evaluations
    first, last = computation.solves[0], computation.solves[-1]
    assert last[0] < first[0]
    assert last[2] < 1e-4
    # the whole Coulomb matrix is not made on the way
    place = computation._place(10.0 * structure.positions, 10.0 * structure.box, None)
    assert computation._graph(place).ewald == (None,)


def test_atoms_that_are_wrapped(ionic_model, rock_salt):
    simulation, _ = simulation_of(rock_salt, ionic_model)
    simulation.step(3)
    moved = simulation.context.getState(positions=True, enforcePeriodicBox=True)
    simulation.context.setPositions(moved.getPositions())  # one by one
    simulation.step(2)
    assert_consistent(simulation.context)
    assert get_computation(simulation.system)._evaluator.memory.geometries == 1


def test_positions_that_jump(ionic_model, rock_salt, tmp_path):
    simulation, structure = simulation_of(rock_salt, ionic_model)
    simulation.step(3)
    simulation.saveCheckpoint(str(tmp_path / "state.chk"))
    simulation.context.setPositions(structure.positions[::-1].copy() + 0.3)
    current_evaluation(simulation.context)
    simulation.context.setPositions(structure.positions)
    simulation.step(1)
    assert_consistent(simulation.context)
    simulation.loadCheckpoint(str(tmp_path / "state.chk"))
    simulation.step(2)
    assert_consistent(simulation.context)


def test_a_solver_made_to_fail_stops_the_simulation(ionic_model, rock_salt):
    simulation, _ = simulation_of(rock_salt, ionic_model, max_iterations=1)
    message = r"charge equilibration failed.*raise max_iterations \(now 1\).*charge_tolerance"
    with pytest.raises(openmm.OpenMMException, match=message):
        simulation.step(1)


def test_the_smooth_part_of_a_point_charge_sum(rock_salt, rng):
    from scipy.special import erfc

    from openmm_nequiplr.neighbors import neighbor_list
    from openmm_nequiplr.units import COULOMB_CONSTANT

    positions, cell = rock_salt.positions, rock_salt.cell.array
    charges = rng.normal(size=64)
    coulomb = PointChargeCoulomb(64, True, precision="double", tolerance=1e-7)
    eta = 1.2
    index, shift = neighbor_list(positions, cell, True, 6.5 * eta, full=False)
    first, second = index.numpy()
    r = np.linalg.norm(positions[second] - positions[first] + shift.numpy() @ cell, axis=1)
    pairs = charges[first] * charges[second] * erfc(r / (np.sqrt(2.0) * eta)) / r
    found, _ = coulomb.smooth(positions, cell, charges, eta)
    expected, _ = coulomb(positions, cell, charges)
    assert found + COULOMB_CONSTANT * pairs.sum() == pytest.approx(expected, rel=1e-5)
    for scale in (1.0001, 1.0002):  # a barostat's boxes share a Context
        coulomb.smooth(scale * positions, scale * cell, charges, eta)
    assert len(coulomb._contexts) == 2


def test_ase(ionic_model, rock_salt):
    atoms = rock_salt.copy()
    atoms.calc = NequIPLRCalculator(ionic_model, **ITERATIVE)
    expected = dense(ionic_model, atoms)
    assert relative(atoms.get_forces(), expected.forces) < 1e-4
    first = atoms.calc.results["iterations"]
    assert min(first) > 0
    for _ in range(3):
        atoms.positions += 0.002
        atoms.positions[0] += 0.002
        atoms.wrap()
        forces, stress = atoms.get_forces(), atoms.get_stress()
    expected = dense(ionic_model, atoms)
    assert relative(forces, expected.forces) < 1e-4
    assert np.isfinite(stress).all()
    assert atoms.calc.results["iterations"] < first
