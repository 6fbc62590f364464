"""What OpenMM does with the force: integrators and barostats."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_nequiplr import create_system
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import from_atoms, get_computation
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

REFERENCE = openmm.Platform.getPlatform("Reference")


def context_with(atoms, model, integrator, barostat=None, **options):
    structure = from_atoms(atoms)
    system = create_system(structure.topology, model, **options)
    if barostat is not None:
        system.addForce(barostat)
    context = openmm.Context(system, integrator, REFERENCE)
    context.setPositions(structure.positions)
    return context


def total_energy(context):
    """In eV."""
    state = context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value / EV_TO_KJ_PER_MOL


def volume(context):
    return context.getState().getPeriodicBoxVolume()._value


@pytest.mark.parametrize(
    "integrator",
    [
        openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001),
        openmm.NoseHooverIntegrator(300.0, 1.0, 0.001),
        openmm.VariableVerletIntegrator(1e-4),
        openmm.BrownianIntegrator(300.0, 100.0, 0.001),
    ],
    ids=lambda integrator: type(integrator).__name__,
)
def test_any_integrator(ionic_model, rock_salt, integrator):
    context = context_with(rock_salt, ionic_model, copy.deepcopy(integrator))
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(4)
    assert np.isfinite(total_energy(context))


PRESSURE = 20000.0  # bar; enough for the box to move within a few trials
BAROSTATS = {
    "anisotropic": lambda: openmm.MonteCarloAnisotropicBarostat(
        openmm.Vec3(1, 1, 1) * PRESSURE * unit.bar, 300.0 * unit.kelvin, True, True, True, 1
    ),
    "flexible": lambda: openmm.MonteCarloFlexibleBarostat(PRESSURE, 300.0, 1),
}


@pytest.mark.parametrize(
    ("barostat", "long_range"), [("anisotropic", "openmm"), ("flexible", "graph")]
)
def test_barostats_change_the_box(ionic_model, rock_salt, barostat, long_range):
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(2)
    force = BAROSTATS[barostat]()
    force.setRandomNumberSeed(2)
    context = context_with(rock_salt, ionic_model, integrator, force, long_range=long_range)
    before = volume(context)
    integrator.step(12)
    assert abs(volume(context) / before - 1.0) > 1e-4
    assert np.isfinite(total_energy(context))
    # the energy is that of the box it is in
    state = context.getState(positions=True, energy=True)
    computation = get_computation(context.getSystem())
    fresh = type(computation)(computation.settings)
    expected = fresh.evaluate(
        10.0 * state.getPositions(asNumpy=True)._value,
        10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value,
    )
    energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
    assert energy == pytest.approx(expected.energy, rel=1e-7)


def test_a_box_may_shrink_below_twice_the_cutoff(ionic_model, rock_salt):
    context = context_with(rock_salt, ionic_model, openmm.VerletIntegrator(0.001))
    atoms = rock_salt.copy()
    for scale in (0.97, 0.9, 1.05):
        scaled = atoms.copy()
        scaled.set_cell(scale * atoms.cell.array, scale_atoms=True)
        structure = from_atoms(scaled)
        context.setPeriodicBoxVectors(*structure.box)
        context.setPositions(structure.positions)
        energy = context.getState(energy=True).getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        graph = ionic_model.build_graph(scaled.numbers, scaled.positions, scaled.cell.array, True)
        assert energy == pytest.approx(
            Evaluator(copy.deepcopy(ionic_model))(graph).energy, abs=1e-4
        )


@pytest.mark.parametrize(
    ("name", "long_range"), [("rock_salt", "graph"), ("skewed_salt", "openmm")]
)
def test_energy_against_strain_is_the_stress(request, ionic_model, name, long_range):
    atoms = request.getfixturevalue(name)
    structure = from_atoms(atoms)
    context = context_with(
        atoms, ionic_model, openmm.VerletIntegrator(0.001), long_range=long_range
    )

    def energy(strain):
        matrix = np.eye(3) + strain
        box = structure.box @ matrix
        # OpenMM's frame: only strains that keep the box lower triangular
        context.setPeriodicBoxVectors(*box)
        context.setPositions(structure.positions @ matrix)
        return context.getState(energy=True).getPotentialEnergy()._value / EV_TO_KJ_PER_MOL

    size = 1e-4
    slopes = []
    strains = [np.diag(row) for row in np.eye(3)] + [np.eye(3)]
    for strain in strains:
        slopes.append((energy(size * strain) - energy(-size * strain)) / (2.0 * size))
    graph = ionic_model.build_graph(atoms.numbers, atoms.positions, atoms.cell.array, True)
    result = Evaluator(copy.deepcopy(ionic_model))(graph, compute_stress=True)
    stress = structure.rotation @ result.stress @ structure.rotation.T * atoms.get_volume()
    expected = np.array([np.trace(stress @ strain) for strain in strains])
    np.testing.assert_allclose(slopes, expected, atol=0.01 * np.abs(expected).max())
    assert slopes[3] == pytest.approx(expected[3], rel=0.01)  # 3 V dE/dV
