"""Charges and dipoles as collective variables in OpenMM."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr import (
    charge_variable,
    create_force,
    create_system,
    dipole_variable,
    load_system,
    save_system,
)
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import current_evaluation, from_atoms, get_computation

from .twins import context_of, copy_of, energy_and_forces

pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
STEP = 1e-5  # nm


def umbrella(*variables):
    """Harmonic restraints of variables, whose energy mixes them."""
    force = openmm.CustomCVForce("50*(a-0.2)^2" + ("+300*(b+0.1)^2+20*a*b" * (len(variables) - 1)))
    for name, variable in zip("ab", variables, strict=False):
        force.addCollectiveVariable(name, variable)
    return force


def system_of(model, atoms, **options):
    return create_system(from_atoms(atoms).topology, model, total_charge=0, **options)


def check_forces(context, positions, atol=1e-3):
    """Against central differences at a few coordinates."""
    forces = energy_and_forces(context)[1]
    for i, axis in ((0, 0), (3, 1), (6, 2)):
        ends = []
        for sign in (1, -1):
            moved = np.array(positions)
            moved[i, axis] += sign * STEP
            context.setPositions(moved)
            ends.append(energy_and_forces(context)[0])
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert forces[i, axis] == pytest.approx(-slope, abs=atol, rel=1e-6)
    context.setPositions(positions)


def test_forces_and_values(tiny_model, cluster):
    """Forces of biases on the model's own energy, in a field that changes."""
    positions = 0.1 * cluster.positions
    system = system_of(tiny_model, cluster, electric_field=(1.0, 0.0, 2.0))
    bias = umbrella(charge_variable(system, [0, 2], [1]), dipole_variable(system, (0, 0, 1)))
    system.addForce(bias)
    context = context_of(system, positions)
    check_forces(context, positions)
    for field in (2.0, -3.0):
        context.setParameter("electric_field_z", field)
        check_forces(context, positions)
        evaluation = current_evaluation(context)
        charge, dipole = bias.getCollectiveVariableValues(context)
        q = evaluation.charges
        assert charge == pytest.approx(q[0] + q[2] - q[1], abs=1e-9)
        assert dipole == pytest.approx(0.1 * evaluation.dipole[2], abs=1e-9)


def test_in_a_box(tiny_model, tiny_salt):
    start = from_atoms(tiny_salt)
    system = create_system(start.topology, tiny_model, total_charge=0)
    group = [0, 1]
    bias = umbrella(charge_variable(system, group), dipole_variable(system, (1, 1, 0), group))
    system.addForce(bias)
    context = context_of(system, start.positions)
    check_forces(context, np.array(start.positions), atol=2e-2)


def test_evaluations_are_shared(tiny_model, cluster):
    """A step with two variables evaluates the model once, whatever the order of forces."""
    for first in (True, False):
        system = system_of(tiny_model, cluster)
        force = umbrella(charge_variable(system, [0]), dipole_variable(system, (1, 0, 0)))
        if first:
            biased = openmm.System()
            for index in range(system.getNumParticles()):
                biased.addParticle(system.getParticleMass(index))
            biased.addForce(force)
            biased.addForce(copy_of_force(system.getForce(0)))
            system = biased
        else:
            system.addForce(force)
        context = context_of(system, 0.1 * cluster.positions)
        computation = get_computation(system)
        context.getIntegrator().setStepSize(0.0005)
        context.getIntegrator().step(3)
        before, halves = computation.evaluations, count_halves(computation)
        context.getIntegrator().step(10)
        assert computation.evaluations - before == 10
        assert halves() == 0


def copy_of_force(force):
    return openmm.XmlSerializer.clone(force)


def count_halves(computation):
    """Counts evaluations of observables alone from now on."""
    evaluator, seen = computation._ready(), []
    observe = evaluator.observe
    evaluator.observe = lambda *arguments: (seen.append(1), observe(*arguments))[1]
    return lambda: len(seen)


def test_without_the_force_of_the_model(tiny_model, cluster):
    """A variable of charges that biases another potential."""
    topology = from_atoms(cluster).topology
    system = openmm.System()
    for _ in range(len(cluster)):
        system.addParticle(20.0)
    model = create_force(topology, tiny_model, total_charge=0)
    system.addForce(umbrella(charge_variable(model, [1, 4])))
    positions = 0.1 * cluster.positions
    context = context_of(system, positions)
    check_forces(context, positions, atol=1e-5)


def test_some_atoms(tiny_model, cluster):
    """Indices are those of the System, and forces act on the model's atoms alone."""
    topology = from_atoms(cluster).topology
    force = create_force(topology, tiny_model, atoms=[7, 1, 3, 5], total_charge=0)
    system = openmm.System()
    for _ in range(len(cluster)):
        system.addParticle(20.0)
    system.addForce(force)
    variable = charge_variable(system, [3, 7])
    bias = umbrella(variable)
    system.addForce(bias)
    positions = 0.1 * cluster.positions
    context = context_of(system, positions)
    charges = current_evaluation(context).charges
    assert bias.getCollectiveVariableValues(context)[0] == pytest.approx(charges[2] + charges[0])
    check_forces(context, positions)
    assert not energy_and_forces(context)[1][[0, 2, 4, 6]].any()
    with pytest.raises(InputError, match="atoms: .*model acts on"):
        charge_variable(system, [0])


def test_stored_systems_keep_variables(tiny_model, cluster, tmp_path):
    system = system_of(tiny_model, cluster)
    system.addForce(umbrella(charge_variable(system, [0], [1]), dipole_variable(system, (0, 1, 0))))
    plain = charge_variable(system, [2])
    plain.setForceGroup(3)
    system.addForce(plain)
    save_system(system, tmp_path / "system.xml")
    positions = 0.1 * cluster.positions
    expected = energy_and_forces(context_of(system, positions))
    for again in (copy_of(system), load_system(tmp_path / "system.xml")):
        context = context_of(again, positions)
        found = energy_and_forces(context)
        assert found[0] == pytest.approx(expected[0], abs=1e-7)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
        charges = current_evaluation(context).charges
        state = context.getState(energy=True, groups={3})
        assert state.getPotentialEnergy()._value == pytest.approx(charges[2], abs=1e-9)
    text = (tmp_path / "system.xml").read_text()
    (tmp_path / "system.xml").write_text(text.replace('"kind": "charge"', '"kind": "mass"'))
    with pytest.raises(InputError, match="observable"):
        load_system(tmp_path / "system.xml")


def test_metadynamics(tiny_model, cluster):
    """OpenMM's own, with limits as Quantities."""
    system = system_of(tiny_model, cluster)
    dipole = dipole_variable(system, (1, 0, 0))
    debye = unit.elementary_charge * unit.angstrom
    variable = app.BiasVariable(dipole, -5 * debye, 5 * debye, 0.3 * debye, False)
    meta = app.Metadynamics(
        system, [variable], 300 * unit.kelvin, 5.0, 1.0 * unit.kilojoule_per_mole, 2
    )
    integrator = openmm.LangevinMiddleIntegrator(300, 10, 0.0005)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(from_atoms(cluster).topology, system, integrator, platform)
    simulation.context.setPositions(0.1 * cluster.positions)
    meta.step(simulation, 6)
    value = meta.getCollectiveVariables(simulation)[0]
    dipole = current_evaluation(simulation.context).dipole[0]
    assert value == pytest.approx(0.1 * dipole, abs=1e-8)
    assert meta.getFreeEnergy()._value.min() < 0.0


def test_refusals(tiny_model, tiny_salt, make_model, cluster):
    system = system_of(tiny_model, tiny_salt)
    with pytest.raises(InputError, match="depends on the images"):
        dipole_variable(system, (0, 0, 1))
    with pytest.raises(InputError, match="source"):
        charge_variable(openmm.CustomBondForce("r"), [0])
    with pytest.raises(InputError, match="atoms: expected indices of atoms"):
        charge_variable(system, np.array([True, False]))
    with pytest.raises(InputError, match="indices"):
        charge_variable(system, "01")
    bare = make_model(equilibration=False)
    with pytest.raises(InputError, match="without charges"):
        charge_variable(system_of(bare, cluster), [0])


def test_on_every_platform(tiny_model, cluster, platform):
    """Also where the variable is evaluated on another thread than the model."""
    system = system_of(tiny_model, cluster)
    bias = umbrella(charge_variable(system, [0, 2]))
    system.addForce(bias)
    integrator = openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, *platform)
    context.setPositions(0.1 * cluster.positions)
    integrator.step(2)
    charges = current_evaluation(context).charges
    found = bias.getCollectiveVariableValues(context)[0]
    assert found == pytest.approx(charges[0] + charges[2], abs=1e-5)


def test_beside_charges_of_a_force_field(tiny_model, cluster):
    """Charges outside, which the variable feels, get their share of its forces."""
    positions = 0.1 * cluster.positions
    topology = from_atoms(cluster).topology
    model = create_force(
        topology, tiny_model, atoms=range(6), total_charge=0, outside_charges={6: 0.4, 7: -0.3}
    )
    system = openmm.System()
    for _ in range(len(cluster)):
        system.addParticle(20.0)
    system.addForce(model)
    bias = umbrella(charge_variable(system, [0, 2], [1]), dipole_variable(system, (0, 1, 1)))
    system.addForce(bias)
    context = context_of(system, positions)
    check_forces(context, positions)
    charges = current_evaluation(context).charges
    found = bias.getCollectiveVariableValues(context)[0]
    assert found == pytest.approx(charges[0] + charges[2] - charges[1], abs=1e-9)
    with_bias = energy_and_forces(context)[1]
    system.removeForce(1)
    without = energy_and_forces(context_of(system, positions))[1]
    assert np.abs(with_bias - without)[6:].max() > 1e-2
