"""What a Context changes during a run: total charge, and scales of the model's energy."""

from __future__ import annotations

import warnings

import numpy as np
import openmm
import pytest

from openmm_nequiplr import create_force, create_system, load_system, save_system, to_atoms
from openmm_nequiplr.errors import BackendError, InputError, NequIPLRWarning
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.io import deserialize_model, serialize_model
from openmm_nequiplr.simulation import charge_variable, current_evaluation, from_atoms
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import context_of, copy_of, energy_and_forces

NAMES = ("total_charge", "coulomb_scale", "model_scale")
pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def system_of(model, atoms, **options):
    return create_system(from_atoms(atoms).topology, model, total_charge=0, **options)


def expected_at(model, atoms, values):
    """Energy (kJ/mol) and forces (kJ/mol/nm) by the Evaluator."""
    cell = atoms.cell.array if atoms.pbc.all() else None
    graph = model.build_graph(
        atoms.numbers, atoms.positions, cell, atoms.pbc.all(), values.get("total_charge", 0.0)
    )
    found = Evaluator(model)(graph, coulomb_scale=values.get("coulomb_scale", 1.0))
    scale = EV_TO_KJ_PER_MOL * values.get("model_scale", 1.0)
    return scale * found.energy, 10.0 * scale * found.forces


@pytest.mark.parametrize("long_range", ["openmm", "graph"])
@pytest.mark.parametrize("kind", ["cluster", "salt"])
def test_values_during_a_run(tiny_model, cluster, tiny_salt, kind, long_range):
    given = tiny_salt if kind == "salt" else cluster
    options = {"long_range": long_range, "ewald_tolerance": 1e-8}
    system = system_of(tiny_model, given, parameters=NAMES, **options)
    start = from_atoms(given)
    atoms = to_atoms(start.topology, start.positions, start.box)
    context = context_of(system, start.positions)
    plain = context_of(system_of(tiny_model, given, **options), start.positions)
    assert dict(context.getParameters()) == {
        "total_charge": 0.0,
        "coulomb_scale": 1.0,
        "model_scale": 1.0,
    }
    one, other = energy_and_forces(context), energy_and_forces(plain)
    assert one[0] == other[0]  # bit by bit
    np.testing.assert_array_equal(one[1], other[1])
    for values in (
        {"total_charge": 1.0, "coulomb_scale": 0.4},
        {"total_charge": -0.5, "model_scale": 0.25},
        {"coulomb_scale": 0.0, "model_scale": 2.0},
        {"model_scale": 0.0},
    ):
        for name in NAMES:
            context.setParameter(name, values.get(name, 0.0 if name == "total_charge" else 1.0))
        energy, forces = energy_and_forces(context)
        reference = expected_at(tiny_model, atoms, values)
        assert energy == pytest.approx(reference[0], rel=1e-6, abs=1e-6)
        np.testing.assert_allclose(forces, reference[1], atol=0.05 if kind == "salt" else 1e-6)
        total = current_evaluation(context).charges.sum()
        assert total == pytest.approx(values.get("total_charge", 0.0), abs=1e-9)


def test_derivatives(tiny_model, cluster):
    """That by the Coulomb scale is in the evaluation, that by the model's in a CustomCVForce."""
    positions = 0.1 * cluster.positions
    context = context_of(
        system_of(tiny_model, cluster, parameters=["coulomb_scale", "model_scale"]), positions
    )
    for scale in (0.0, 0.6):
        context.setParameter("coulomb_scale", scale)
        slope = current_evaluation(context).electrostatic * EV_TO_KJ_PER_MOL
        ends = []
        for moved in (scale + 0.01, scale - 0.01):
            context.setParameter("coulomb_scale", moved)
            ends.append(energy_and_forces(context)[0])
        assert slope == pytest.approx((ends[0] - ends[1]) / 0.02, rel=1e-6)

    topology = from_atoms(cluster).topology
    scaled = openmm.CustomCVForce("lambda*model")
    scaled.addGlobalParameter("lambda", 0.3)
    scaled.addEnergyParameterDerivative("lambda")
    scaled.addCollectiveVariable("model", create_force(topology, tiny_model, total_charge=0))
    system = openmm.System()
    for _ in range(len(cluster)):
        system.addParticle(20.0)
    system.addForce(scaled)
    context = context_of(system, positions)
    state = context.getState(energy=True, parameterDerivatives=True)
    slope = dict(state.getEnergyParameterDerivatives())["lambda"]
    assert slope == pytest.approx(expected_at(tiny_model, cluster, {})[0], rel=1e-9)
    assert state.getPotentialEnergy()._value == pytest.approx(0.3 * slope, rel=1e-9)


def test_collective_variables_see_them(tiny_model, cluster):
    system = system_of(tiny_model, cluster, parameters=NAMES)
    bias = openmm.CustomCVForce("10*q")
    bias.addCollectiveVariable("q", charge_variable(system, range(len(cluster))))
    system.addForce(bias)
    context = context_of(system, 0.1 * cluster.positions)
    for name, value in (("total_charge", 1.0), ("coulomb_scale", 0.5), ("model_scale", 0.5)):
        context.setParameter(name, value)
    assert bias.getCollectiveVariableValues(context)[0] == pytest.approx(1.0, abs=1e-9)


def test_a_charge_that_was_not_trained_on_is_said_once(tiny_model, cluster):
    model = deserialize_model(serialize_model(tiny_model))
    model.metadata["total_charges"] = "[0.0]"
    context = context_of(
        system_of(model, cluster, parameters=["total_charge"]), 0.1 * cluster.positions
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for charge in (0.0, 1.0, 0.5, 1.0):
            context.setParameter("total_charge", charge)
            energy_and_forces(context)
    said = [str(w.message) for w in caught if isinstance(w.message, NequIPLRWarning)]
    assert len(said) == 1
    assert "+1 e, but the model was trained on structures of 0 e" in said[0]


def test_impossible_charges_are_refused(tiny_model, cluster):
    context = context_of(system_of(tiny_model, cluster, parameters=NAMES), 0.1 * cluster.positions)
    context.setParameter("total_charge", 1e6)
    with pytest.raises(
        openmm.OpenMMException, match="total_charge: expected at most .* for 8 atoms"
    ):
        context.getState(energy=True)


def test_stored_systems_keep_parameters(tiny_model, cluster, tmp_path):
    system = system_of(tiny_model, cluster, parameters=("model_scale", "total_charge"))
    save_system(system, tmp_path / "system.xml")
    for again in (copy_of(system), load_system(tmp_path / "system.xml")):
        context = context_of(again, 0.1 * cluster.positions)
        assert set(dict(context.getParameters())) == {"total_charge", "model_scale"}
        context.setParameter("model_scale", 0.5)
        assert energy_and_forces(context)[0] == pytest.approx(
            expected_at(tiny_model, cluster, {"model_scale": 0.5})[0], rel=1e-9
        )


def test_what_is_refused(tiny_model, make_model, cluster):
    for names in ("model_scale", ["lambda"], [1], 3):
        with pytest.raises(InputError, match="^parameters: "):
            system_of(tiny_model, cluster, parameters=names)
    with pytest.raises(InputError, match="without Coulomb sum"):
        system_of(make_model(equilibration=False), cluster, parameters=["coulomb_scale"])
    system = system_of(make_model(equilibration=False), cluster, parameters=["model_scale"])
    assert "model_scale" in dict(context_of(system, 0.1 * cluster.positions).getParameters())
    with pytest.raises((BackendError, InputError)):
        system_of(tiny_model, cluster, parameters=["model_scale"], backend="torch")
