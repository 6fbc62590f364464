"""Geometry and parameters that are read from OpenMM States, in Å and e."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from ase.build import molecule
from openmm import app, unit

from openmm_nequiplr import ChargeReporter, create_system
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import from_atoms, get_computation
from openmm_nequiplr.simulation.states import StateReader, state_geometry


def context_of(atoms, model, **options):
    """A Context of the structure, and a reader of its States."""
    start = from_atoms(atoms)
    system = create_system(start.topology, model, **options)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(start.positions * unit.nanometer)
    return context, StateReader(get_computation(system).settings)


def test_positions_and_box_are_in_angstrom(tiny_model, tiny_salt):
    context, reader = context_of(tiny_salt, tiny_model)
    state = context.getState(positions=True)
    positions, cell = reader.geometry(state)
    start = from_atoms(tiny_salt)  # turned as OpenMM wants it
    np.testing.assert_allclose(positions, 10.0 * start.positions, atol=1e-9)
    np.testing.assert_allclose(cell, 10.0 * start.box, atol=1e-9)
    assert state_geometry(state, False)[1] is None
    assert reader.num_atoms == len(tiny_salt)


def test_conditions_are_those_of_the_parameters(tiny_model, cluster):
    options = {"total_charge": 1.0, "parameters": ["total_charge", "model_scale"]}
    context, reader = context_of(cluster, tiny_model, **options)
    context.setParameter("total_charge", 2.0)
    state = context.getState(positions=True, parameters=True)
    assert reader.parameters(state) == {"total_charge": 2.0, "model_scale": 1.0}
    assert reader.conditions(state).total_charge == 2.0
    with pytest.raises(InputError, match=r"getState\(parameters=True\): total_charge, model_scale"):
        reader.conditions(context.getState(positions=True))


def test_reports_of_states_without_parameters_are_refused(tiny_model, cluster, tmp_path):
    start = from_atoms(cluster)
    system = create_system(start.topology, tiny_model, total_charge=0, electric_field=(0, 0, 1))
    integrator, platform = openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    reporter = ChargeReporter(tmp_path / "charges.npy", 1)
    with pytest.raises(InputError, match="state: expected one with parameters"):
        reporter.report(simulation, simulation.context.getState(positions=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["total_charge", "coulomb_scale", "model_scale"])
def test_parameters_that_are_not_finite_are_named(tiny_model, cluster, name, value):
    context, _ = context_of(cluster, tiny_model, total_charge=0, parameters=[name])
    context.setParameter(name, value)
    with pytest.raises(openmm.OpenMMException, match=f"parameter {name}: expected a finite number"):
        context.getState(energy=True)


@pytest.mark.parametrize("shift", [0, 1])
def test_isolated_molecules_are_whole(make_model, shift):
    """Some atoms of a molecule are in the next image of a box that the model does not see."""
    water = molecule("H2O", vacuum=4.0)
    water.pbc = True
    whole = water.positions.copy()
    water.positions[1:2] += shift * water.cell.array[0]
    context, reader = context_of(water, make_model(type_names=("H", "O"), isolated=True))
    found, cell = reader.geometry(context.getState(positions=True))
    assert cell is None
    np.testing.assert_allclose(found - found[0], whole - whole[0], atol=1e-9)
    wrong = np.full((3, 3), np.nan)  # left for the error of the evaluation
    np.testing.assert_array_equal(reader.joined(wrong, context.getState(positions=True)), wrong)
