"""Uniform fields in OpenMM and ASE."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import openmm
import pytest
import torch
from ase.io import read
from openmm import app, unit

from openmm_nequiplr import (
    ChargeReporter,
    CommitteeReporter,
    NequIPLRCalculator,
    StabilityReporter,
    create_system,
)
from openmm_nequiplr.analysis import recompute
from openmm_nequiplr.cli import main
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import (
    current_evaluation,
    from_atoms,
    get_computation,
    load_charges,
    load_system,
    read_structure,
    save_system,
)

from .twins import context_of, copy_of, energy_and_forces, energy_of

FIELD = (2.0, -1.0, 3.0)  # V/nm
NAMES = ("electric_field_x", "electric_field_y", "electric_field_z")
pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def reference(model, atoms, field):
    """Energy (eV), forces (eV/Å) and charges by the calculator, with a field in V/nm."""
    atoms = atoms.copy()
    atoms.info.update(total_charge=0.0, electric_field=0.1 * np.array(field))
    atoms.calc = NequIPLRCalculator(model)
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_charges()


def system_of(model, atoms, field=FIELD):
    topology = from_atoms(atoms).topology
    return create_system(topology, model, total_charge=0, electric_field=field)


def set_field(context, field):
    for name, value in zip(NAMES, field, strict=True):
        context.setParameter(name, value)


def test_parameters_of_a_context(tiny_model, cluster):
    context = context_of(system_of(tiny_model, cluster), 0.1 * cluster.positions)
    for field in (FIELD, (0.0, 0.0, 0.0), (-1.0, 0.5, 0.0), FIELD):
        set_field(context, field)
        energy, forces, charges = reference(tiny_model, cluster, field)
        assert energy_of(context) == pytest.approx(energy, abs=1e-6)
        found = energy_and_forces(context)[1] / (10.0 * 96.48533212331002)
        np.testing.assert_allclose(found, forces, atol=1e-6)
        np.testing.assert_allclose(current_evaluation(context).charges, charges, atol=1e-7)


@pytest.mark.parametrize(
    "given",
    [
        np.array(FIELD) * unit.volt / unit.nanometer,
        [0.1 * f * unit.volt / unit.angstrom for f in FIELD],
        np.array(FIELD),
    ],
)
def test_units(tiny_model, cluster, given):
    context = context_of(system_of(tiny_model, cluster, given), 0.1 * cluster.positions)
    expected = reference(tiny_model, cluster, FIELD)[0]
    assert energy_of(context) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("given", ["up", 3.0, (1.0, 2.0), (1.0, 2.0, np.inf), 3 * unit.volt])
def test_what_is_no_field(tiny_model, cluster, given):
    with pytest.raises(InputError, match="electric_field"):
        system_of(tiny_model, cluster, given)


def test_two_contexts_with_different_fields(tiny_model, cluster):
    """They share one computation, which must not mix them up."""
    system = system_of(tiny_model, cluster)
    contexts = [context_of(system, 0.1 * cluster.positions) for _ in range(2)]
    set_field(contexts[1], (0.0, 0.0, 0.0))
    for context, field in zip(contexts, (FIELD, (0.0, 0.0, 0.0)), strict=True):
        expected = reference(tiny_model, cluster, field)
        assert energy_of(context) == pytest.approx(expected[0], abs=1e-6)
        np.testing.assert_allclose(current_evaluation(context).charges, expected[2], atol=1e-7)


def test_reported_charges_are_those_in_the_field(tiny_model, cluster, tmp_path):
    system = system_of(tiny_model, cluster, (0.0, 0.0, 0.0))
    integrator = openmm.VerletIntegrator(0.001)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(from_atoms(cluster).topology, system, integrator, platform)
    simulation.context.setPositions(0.1 * cluster.positions)
    set_field(simulation.context, FIELD)
    simulation.reporters.append(ChargeReporter(tmp_path / "charges.npy", 1))
    simulation.step(1)
    moved = cluster.copy()
    state = simulation.context.getState(positions=True)
    moved.positions = 10.0 * state.getPositions(asNumpy=True)._value
    expected = reference(tiny_model, moved, FIELD)[2]
    found = load_charges(tmp_path / "charges.npy").charges[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - reference(tiny_model, moved, (0, 0, 0))[2]).max() > 1e-3


def test_energy_is_conserved_in_a_static_field(tiny_model, cluster):
    context = context_of(system_of(tiny_model, cluster), 0.1 * cluster.positions)
    integrator = context.getIntegrator()
    integrator.setStepSize(0.0002)
    totals = []
    for _ in range(40):
        integrator.step(5)
        state = context.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    kinetic = context.getState(energy=True).getKineticEnergy()._value
    assert kinetic > 1.0
    assert np.ptp(totals) < 0.01 * kinetic


def test_stored_systems_keep_field_and_parameters(tiny_model, cluster, tmp_path):
    system = system_of(tiny_model, cluster)
    save_system(system, tmp_path / "system.xml")
    expected = reference(tiny_model, cluster, FIELD)[0]
    for again in (copy_of(system), load_system(tmp_path / "system.xml")):
        context = context_of(again, 0.1 * cluster.positions)
        assert energy_of(context) == pytest.approx(expected, abs=1e-6)
        set_field(context, (0.0, 0.0, 0.0))
        assert abs(energy_of(context) - expected) > 1e-3


def test_a_system_without_field_has_no_parameters(tiny_model, cluster):
    context = context_of(system_of(tiny_model, cluster, None), 0.1 * cluster.positions)
    assert not dict(context.getParameters())


def test_calculator_notices_another_field(tiny_model, cluster):
    atoms = cluster.copy()
    atoms.info["total_charge"] = 0.0
    atoms.calc = NequIPLRCalculator(tiny_model, electric_field=[0.0, 0.0, 0.2])
    first = atoms.get_potential_energy()
    atoms.info["electric_field"] = np.array([0.0, 0.0, 0.4])
    second = atoms.get_potential_energy()
    assert first == pytest.approx(reference(tiny_model, cluster, (0, 0, 2))[0], abs=1e-9)
    assert second == pytest.approx(reference(tiny_model, cluster, (0, 0, 4))[0], abs=1e-9)
    assert first != second


def test_md_command_and_its_restart(tmp_path, capsys):
    """The field acts, is said, and is kept by a restart."""
    energies = {}
    for field in ("0", "2"):
        output = tmp_path / field
        options = ["--steps", "4", "--report-interval", "2", "--seed", "1", "--threads", "1"]
        arguments = ["md", "carbon-chain", *options, "--output", str(output)]
        assert main([*arguments, "--electric-field", field, "0", "0"]) == 0
        energies[field] = float((output / "log.csv").read_text().splitlines()[1].split(",")[2])
    assert abs(energies["0"] - energies["2"]) > 1e-3
    assert "field (2, 0, 0) V/nm" in capsys.readouterr().out
    last = read(tmp_path / "2" / "final.extxyz")
    np.testing.assert_allclose(last.info["electric_field"], [0.2, 0.0, 0.0])
    assert main(["analyze", "carbon-chain", str(tmp_path / "2")]) == 0
    said = capsys.readouterr().out
    assert "field (2, 0, 0) V/nm" in said
    assert float(said.split("recorded in the run: ")[1].split(" e")[0]) < 1e-4
    found = recompute("carbon-chain", [last])
    charges = load_charges(tmp_path / "2" / "charges.npy").charges[-1]
    np.testing.assert_allclose(found.charges[0], charges, atol=1e-6)
    again = ["md", "carbon-chain", "--steps", "4", "--restart", "--output", str(output)]
    assert main(again) == 0
    assert "field (2, 0, 0) V/nm" in capsys.readouterr().out
    assert main([*again, "--electric-field", "0", "1", "0"]) == 2
    said = capsys.readouterr().err
    assert "electric_field: expected [2.0, 0.0, 0.0], as in the run that is continued" in said
    assert "final.extxyz" in said


def simulation_in(system, atoms, field):
    integrator = openmm.VerletIntegrator(0.001)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(from_atoms(atoms).topology, system, integrator, platform)
    simulation.context.setPositions(0.1 * atoms.positions)
    set_field(simulation.context, field)
    return simulation


def test_guard_and_committee_see_the_field_of_the_context(tiny_model, cluster, tmp_path):
    """Nothing is evaluated in the field that the System began with; frames tell theirs."""
    simulation = simulation_in(system_of(tiny_model, cluster, (0, 0, 0)), cluster, FIELD)
    computation = get_computation(simulation.system)
    guard = StabilityReporter(1, action="warn", say=lambda text: None)
    guard.check(simulation)
    guard._reference = 1e6  # as if the energy had fallen
    guard.sound_step = -1
    guard.check(simulation)
    for place, _ in computation._recent:
        np.testing.assert_allclose(place.conditions.field, 0.1 * np.array(FIELD))
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.1)
    reporter = CommitteeReporter(tmp_path / "spread.npy", 1, [other], threshold=1e-12)
    simulation.reporters.append(reporter)
    simulation.step(1)
    saved = read(tmp_path / "spread.extxyz")
    np.testing.assert_allclose(saved.info["electric_field"], 0.1 * np.array(FIELD))
    state = simulation.context.getState(positions=True)
    saved.positions = 10.0 * state.getPositions(asNumpy=True)._value
    expected = reference(tiny_model, saved, FIELD)[2]
    np.testing.assert_allclose(saved.get_initial_charges(), expected, atol=1e-6)


def test_a_field_of_a_structure_file_is_said(cluster, tmp_path):
    cluster = cluster.copy()
    cluster.info["electric_field"] = np.zeros(3)
    cluster.write(tmp_path / "none.xyz", format="extxyz")
    cluster.info["electric_field"] = np.array([0.0, 0.1, 0.0])
    cluster.write(tmp_path / "field.xyz", format="extxyz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_structure(tmp_path / "none.xyz")
        with pytest.raises(
            NequIPLRWarning, match=r"field.xyz tells of electric_field is not taken"
        ):
            read_structure(tmp_path / "field.xyz")
