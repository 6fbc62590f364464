"""Replicas: each copy is what it is alone, whatever the others do."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr import create_system, load_system, save_system
from openmm_nequiplr.errors import BackendError, InputError, InstabilityError
from openmm_nequiplr.simulation import (
    StabilityReporter,
    charge_variable,
    create_force,
    current_evaluation,
    from_atoms,
    get_computation,
)

from .twins import FORCE_UNIT, context_of, energy_of

COPIES = 3
CHARGES = [0.0, 1.0, -0.5]
EXACT = {"atol": 1e-10, "rtol": 0.0}


def copies_of(atoms):
    """Topology and positions (nm) of copies on top of one another, each shaken in its own way."""
    start, rng = from_atoms(atoms), np.random.default_rng(3)
    copies = app.Modeller(start.topology, start.positions * unit.nanometer)
    for _ in range(COPIES - 1):
        copies.add(start.topology, start.positions * unit.nanometer)
    shaken = start.positions + rng.normal(0.0, 0.008, (COPIES, *start.positions.shape))
    return copies.topology, shaken.reshape(-1, 3)


def forces_of(context):
    forces = context.getState(forces=True).getForces(asNumpy=True)._value / FORCE_UNIT
    return forces.reshape(COPIES, -1, 3)


@pytest.mark.parametrize(
    ("kind", "changes", "options"),
    [
        ("cluster", None, {"electric_field": (0.5, 0.0, -1.0)}),
        ("cluster", {"equilibration": False}, {}),
        ("tiny_salt", None, {}),
        ("tiny_salt", {"effective_charges": True}, {}),
    ],
)
def test_each_is_what_it_is_alone(kind, changes, options, request, make_model, tiny_model):
    atoms = request.getfixturevalue(kind)
    model = tiny_model if changes is None else make_model(r_max=3.2, num_layers=1, **changes)
    charges = CHARGES if model.config.equilibration else [0.0] * COPIES
    topology, positions = copies_of(atoms)
    system = create_system(topology, model, total_charge=charges, replicas=COPIES, **options)
    context = context_of(system, positions)
    found, forces, energies = current_evaluation(context), forces_of(context), []
    for k, (points, charge) in enumerate(zip(positions.reshape(COPIES, -1, 3), charges)):  # noqa: B905
        one = from_atoms(atoms).topology
        alone = create_system(one, model, total_charge=charge, long_range="graph", **options)
        expected = current_evaluation(context_of(alone, points))
        energies.append(expected.energy)
        own = found.charges.reshape(COPIES, -1)[k]
        np.testing.assert_allclose(found.replica_energies[k], expected.energy, **EXACT)
        np.testing.assert_allclose(forces[k], expected.forces, **EXACT)
        np.testing.assert_allclose(own, expected.charges, **EXACT)
        np.testing.assert_allclose(own.sum(), charge, **EXACT)
    assert energy_of(context) == pytest.approx(sum(energies), abs=1e-9)
    assert np.ptp(energies) > 1e-3


def test_one_that_moves_is_nothing_to_the_others(tiny_model, cluster):
    """It moves farther than the skin, so that its neighbours are others; a variable is its own."""
    topology, positions = copies_of(cluster)
    system = create_system(topology, tiny_model, total_charge=CHARGES, replicas=COPIES)
    system.addForce(charge_variable(system, [len(cluster)]))
    context = context_of(system, positions)
    before, charges = forces_of(context), current_evaluation(context).charges
    positions[len(cluster), 0] -= 0.15
    context.setPositions(positions)
    after, moved = forces_of(context), current_evaluation(context).charges
    assert get_computation(system)._graphs.neighbors.searches == 2
    assert np.abs(after - before)[1].max() > 1e-2
    np.testing.assert_allclose(after[::2], before[::2], **EXACT)
    changed = np.abs(moved - charges).reshape(COPIES, -1).max(axis=1)
    assert changed[1] > 1e-3 > 1e-10 > max(changed[0], changed[2])


def test_a_stored_system_is_the_same(tiny_model, make_model, cluster, tmp_path):
    """It has an inner potential, which acts within the copies as well."""
    topology, positions = copies_of(cluster)
    inner = make_model(equilibration=False, num_layers=0, l_max=0)
    options = {"total_charge": 0, "replicas": COPIES}
    system = create_system(topology, tiny_model, inner=inner, **options)
    assert not any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    save_system(system, tmp_path / "system.xml")
    context = context_of(load_system(tmp_path / "system.xml"), positions)
    plain = context_of(create_system(topology, tiny_model, **options), positions)
    np.testing.assert_allclose(forces_of(context), forces_of(plain), atol=1e-6)
    assert energy_of(context) == pytest.approx(energy_of(plain), abs=1e-8)


def test_instability_is_looked_for_in_each(tiny_model, cluster):
    topology, positions = copies_of(cluster)
    system = create_system(topology, tiny_model, total_charge=0, replicas=COPIES)
    simulation = app.Simulation(
        topology, system, openmm.VerletIntegrator(1e-6), openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(positions)
    reporter = StabilityReporter(1)
    reporter.check(simulation)  # atoms of different copies are nearer than half a bond
    reporter._reference[1] += 1000.0
    simulation.step(1)
    with pytest.raises(InstabilityError, match=r"energy of replica 1 has fallen by .* replica "):
        reporter.check(simulation)
    first = len(cluster)
    positions[first] = positions[first + 1] + 0.05
    simulation.context.setPositions(positions)
    simulation.currentStep += 1
    with pytest.raises(InstabilityError, match=rf"atoms {first} \(\w+\) and {first + 1} "):
        reporter.check(simulation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicas": 0}, "replicas: expected a whole number of at least 1, got 0"),
        ({"replicas": True}, "replicas: expected a whole number"),
        ({"replicas": 5}, "replicas: .* whose 24 atoms can be shared"),
        ({"replicas": 8}, r"as atom \d of replica 1 \(atom \d\)"),
        ({"total_charge": [0.0, 1.0]}, "one for each of 3 replicas .*, got '2 charges'"),
        ({"total_charge": [0.0, 0.0, "a"]}, r"total_charge\[2\]: expected a number"),
        ({"total_charge": {0.0, 1.0, 2.0}}, "total_charge: expected a number"),
        ({"total_charge": np.array(1.0)}, "total_charge: expected a number"),
        ({"long_range": "openmm"}, "long_range: expected 'graph' with replicas: .* couple"),
        ({"solver": "iterative"}, "solver: expected 'dense' with replicas"),
        ({"backend": "python_torch"}, "backend: "),
        ({"charge_groups": "molecules"}, "charge_groups: expected None with replicas"),
        ({"electrodes": [[0], [1]]}, "electrodes: expected None with replicas"),
        ({"parameters": ["total_charge"]}, "parameters: expected none of that name with replicas"),
        ({"atoms": range(24)}, "atoms: expected None with replicas"),
        ({"box": 3.0, "slab": True}, "slab: expected False with replicas"),
        ({"box": 3.0, "electric_field": (0, 0, 1)}, "electric_field: expected None for a periodic"),
        ({"model": {"legacy_nonperiodic": True}}, "model: expected one with the corrected"),
        ({"box": 3.0, "model": {"isolated": True}}, "topology: expected none with replicas"),
    ],
)
def test_what_does_not_go_with_replicas(options, message, tiny_model, make_model, cluster):
    topology, _ = copies_of(cluster)
    options = {"replicas": COPIES, "total_charge": 0, **options}
    if "box" in options:
        topology.setPeriodicBoxVectors(np.eye(3) * options.pop("box") * unit.nanometer)
    model = make_model(**options.pop("model")) if "model" in options else tiny_model
    make = create_force if "atoms" in options else create_system
    with pytest.raises((InputError, BackendError), match=message):
        make(topology, model, **options)
