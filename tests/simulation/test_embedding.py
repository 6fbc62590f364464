"""Mechanical embedding: every interaction once, against sums over pairs and over images."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import unit

pytest.importorskip("openmmml", reason="openmm-ml is not installed")
from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding

from openmm_nequiplr.simulation import current_evaluation, get_computation
from openmm_nequiplr.simulation.embedding import with_box

from .mixture import COULOMB, EDGE, Mixture, context_of, energy_of, model_energy, potential_of

PERIODIC = [True, False]


def names(periodic):
    return "box" if periodic else "free"


# ------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("ml_charge", [0.0, 1.0])
@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_every_interaction_counts_once(make_model, mixture, periodic, ml_charge):
    model, mixed = make_model(), mixture(periodic, ml_charge)
    force_field = mixed.system()
    before = openmm.XmlSerializer.serialize(force_field)
    system = potential_of(model).createMixedSystem(
        mixed.topology(), force_field, mixed.ml, totalCharge=ml_charge, ewald_tolerance=1e-7
    )
    assert openmm.XmlSerializer.serialize(force_field) == before
    # the reference agrees with OpenMM about the force field alone
    assert energy_of(force_field, mixed.positions) == pytest.approx(
        mixed.force_field_energy(), abs=2e-4
    )
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(mixed, model, total_charge=ml_charge, long_range="graph")
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=2e-4)


def test_a_force_field_with_a_plain_ewald_sum(make_model, mixture):
    model, mixed = make_model(), mixture()
    mixed.tolerance = 1e-7
    system = potential_of(model).createMixedSystem(
        mixed.topology(), mixed.system(openmm.NonbondedForce.Ewald), mixed.ml
    )
    expected = mixed.force_field_energy(without=mixed.ml) + model_energy(mixed, model)
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=5e-3)


def test_exceptions_alone_would_keep_the_images(make_model, mixture):
    """What is left if only nearest images are removed: the reason for all this."""
    model, mixed = make_model(), mixture()
    potential = potential_of(model)
    right = potential.createMixedSystem(mixed.topology(), mixed.system(), mixed.ml)
    potential._impl.sums_images = False
    wrong = MechanicalEmbedding().createMixedSystem(
        potential._impl, mixed.topology(), mixed.system(), list(mixed.ml), 0, False
    )
    difference = energy_of(wrong, mixed.positions) - energy_of(right, mixed.positions)
    ml, charges = list(mixed.ml), mixed.charges[list(mixed.ml)]
    nearest = COULOMB * (1.0 / mixed.nearest() - np.eye(17))[np.ix_(ml, ml)]
    images = mixed.coulomb_matrix()[np.ix_(ml, ml)] - nearest
    expected = 0.5 * charges @ images @ charges
    assert abs(expected) > 1.0  # kJ/mol
    assert difference == pytest.approx(expected, abs=2e-3)


def test_two_cells_have_twice_the_energy(make_model, mixture):
    """Images of ML atoms are ML atoms to one another: written out they must do the same."""
    model, mixed = make_model(), mixture()
    twice = copy.deepcopy(mixed)
    count = len(mixed.symbols)
    twice.box = mixed.box * np.array([[2.0], [1.0], [1.0]])
    twice.positions = np.concatenate((mixed.positions, mixed.positions + mixed.box[0]))
    for name in ("charges", "sigma", "epsilon"):
        setattr(twice, name, np.tile(getattr(mixed, name), 2))
    twice.symbols = 2 * mixed.symbols
    twice.bonds = [(i + n, j + n) for n in (0, count) for i, j in mixed.bonds]
    twice.exceptions = {
        (i + n, j + n): p for n in (0, count) for (i, j), p in mixed.exceptions.items()
    }
    twice.ml = (*mixed.ml, *(i + count for i in mixed.ml))
    energies = []
    for cell in (mixed, twice):
        system = potential_of(model).createMixedSystem(
            cell.topology(), cell.system(), cell.ml, long_range="graph"
        )
        energies.append(energy_of(system, cell.positions))
    assert energies[1] == pytest.approx(2.0 * energies[0], abs=5e-3)


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_forces_are_slopes(make_model, mixture, periodic, rng):
    mixed = mixture(periodic)
    system = potential_of(make_model()).createMixedSystem(
        mixed.topology(), mixed.system(), mixed.ml, long_range="graph"
    )
    context = context_of(system, mixed.positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=0.2)  # the mesh moves them a little
    step = 1e-5
    for direction in rng.normal(size=(3, 17, 3)):
        energies = []
        for sign in (-1, 1):
            context.setPositions(mixed.positions + sign * step * direction)
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert slope == pytest.approx(float((forces * direction).sum()), rel=2e-4, abs=0.05)


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_interpolation(make_model, mixture, periodic):
    mixed = mixture(periodic)
    arguments = (mixed.topology(), mixed.system(), mixed.ml)
    potential = potential_of(make_model())
    ends = [
        energy_of(system, mixed.positions)
        for system in (mixed.system(), potential.createMixedSystem(*arguments))
    ]
    system = potential.createMixedSystem(*arguments, interpolate=True)
    context = context_of(system, mixed.positions)
    for value in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", value)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        assert energy == pytest.approx((1.0 - value) * ends[0] + value * ends[1], abs=2e-3)
    assert current_evaluation(context).charges.shape == (7,)


def chain_of(symbols, spacing, box):
    """A bonded zigzag chain along x in a box, as a mixture whose first atoms are ML ones."""
    count = len(symbols)
    positions = 0.5 + np.outer(np.arange(count), [spacing, 0.0, 0.0])
    positions[:, 1] += 0.03 * (np.arange(count) % 2)
    charges = 0.3 * (-1.0) ** np.arange(count)
    bonds = [(i, i + 1) for i in range(count - 1)]
    return Mixture(
        positions,
        symbols,
        charges,
        np.full(count, 0.3),
        np.full(count, 0.2),
        box,
        bonds,
        dict.fromkeys(bonds, 0.0),
    )


@pytest.mark.parametrize("interpolate", [False, True])
def test_link_atoms_with_a_lattice_sum(make_model, interpolate):
    model = make_model(type_names=("H", "C"))
    mixed = chain_of(["C", "C", "C", "C", "C", "C"], 0.14, EDGE * np.eye(3))
    mixed.ml = (0, 1, 2)
    topology = mixed.topology()
    atoms = list(topology.atoms())
    for i, j in mixed.bonds:
        topology.addBond(atoms[i], atoms[j])
    info = potential_of(model).createMixedSystem(
        topology,
        mixed.system(),
        mixed.ml,
        totalCharge=0,
        linkAtomDistances=[(2, 3, 0.11 * unit.nanometer)],
        interpolate=interpolate,
        returnInfo=True,
        long_range="graph",
    )
    assert info["topology"].getNumAtoms() == 7
    assert topology.getNumAtoms() == 6
    bond = mixed.positions[3] - mixed.positions[2]
    cap = mixed.positions[2] + 0.11 * bond / np.linalg.norm(bond)
    capped = copy.deepcopy(mixed)
    capped.symbols, capped.ml = [*mixed.symbols, "H"], (0, 1, 2, 6)
    capped.positions = np.concatenate((mixed.positions, cap[None]))
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(capped, model, long_range="graph")
    found = energy_of(info["system"], np.concatenate((mixed.positions, np.zeros((1, 3)))))
    assert found == pytest.approx(expected, abs=2e-3)


def test_a_force_field_without_charges_may_have_a_cutoff(make_model, mixture):
    model, mixed = make_model(), mixture()
    mixed.charges[:] = 0.0
    mixed.exceptions = {}
    system = potential_of(model).createMixedSystem(
        mixed.topology(), mixed.system(openmm.NonbondedForce.CutoffPeriodic), mixed.ml, charge=1
    )
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(mixed, model, total_charge=1)
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=1e-4)
    assert not any(isinstance(force, openmm.CustomCVForce) for force in system.getForces())


@pytest.mark.parametrize("interpolate", [False, True])
def test_the_box_may_be_that_of_the_system(make_model, mixture, interpolate):
    mixed = mixture()
    topology = mixed.topology()
    expected, found = (
        energy_of(
            potential_of(make_model()).createMixedSystem(
                topology, mixed.system(), mixed.ml, interpolate=interpolate
            ),
            mixed.positions,
        )
        for _ in (0, topology.setPeriodicBoxVectors(None))
    )
    assert found == pytest.approx(expected, rel=1e-9)
    assert topology.getPeriodicBoxVectors() is None  # not ours to change
    assert with_box(topology, mixed.system()).getPeriodicBoxVectors() is not None


# ----------------------------------------------------------------------------------- simulations


def total_energy(context):
    state = context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


@pytest.fixture
def simulated(make_model, mixture):
    """Factory of Contexts of the mixture in a box, minimised."""

    def make(integrator, *forces):
        mixed = mixture()
        mixed.tolerance = 1e-4
        mixed.epsilon[:] = 5.0  # hard enough to keep opposite charges apart
        mixed.bonds, mixed.exceptions = [], {}
        system = potential_of(make_model()).createMixedSystem(
            mixed.topology(), mixed.system(), mixed.ml
        )
        for force in forces:
            system.addForce(force)
        context = context_of(system, mixed.positions, integrator=integrator)
        before = context.getState(energy=True).getPotentialEnergy()._value
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 30)
        assert context.getState(energy=True).getPotentialEnergy()._value < before - 100.0
        return context

    return make


def test_energy_is_conserved(simulated):
    integrator = openmm.VerletIntegrator(0.0005)
    context = simulated(integrator)
    context.setVelocitiesToTemperature(150.0, 3)
    energies, kinetic = [], []
    for _ in range(15):
        integrator.step(4)
        energies.append(total_energy(context))
        kinetic.append(context.getState(energy=True).getKineticEnergy()._value)
    assert np.ptp(kinetic) > 2.0
    assert np.ptp(energies) < 0.02 * np.ptp(kinetic)


def test_a_barostat_changes_the_box(simulated):
    barostat = openmm.MonteCarloBarostat(20000.0, 300.0, 1)
    barostat.setRandomNumberSeed(2)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    context = simulated(integrator, barostat)
    integrator.step(10)
    state = context.getState(energy=True, positions=True)
    assert abs(state.getPeriodicBoxVolume()._value / EDGE**3 - 1.0) > 1e-4
    fresh = context_of(context.getSystem(), state.getPositions(asNumpy=True))
    fresh.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    energy = fresh.getState(energy=True).getPotentialEnergy()._value
    assert state.getPotentialEnergy()._value == pytest.approx(energy, abs=1e-4)


@pytest.mark.parametrize(
    "groups",
    ["molecules", [[0, 1, 2], [3, 4, 5]], [0, 0, 0, 1, 1, 1]],
    ids=["bonds", "lists", "labels"],
)
def test_link_atoms_are_in_the_charge_groups_of_what_they_cap(make_model, groups):
    mixed = chain_of(["C"] * 7, 0.14, EDGE * np.eye(3))
    topology = mixed.topology()
    atoms = list(topology.atoms())
    for i, j in mixed.bonds:
        if (i, j) != (2, 3):  # two molecules
            topology.addBond(atoms[i], atoms[j])
    model = make_model(type_names=("H", "C"))
    system = potential_of(model).createMixedSystem(
        topology,
        mixed.system(),
        [0, 1, 2, 3, 4, 5],
        charge_groups=groups,
        group_charges=[1, -1],
        linkAtomDistances=[(5, 6, 0.11 * unit.nanometer)],
        long_range="graph",
    )
    settings = get_computation(system).settings
    assert settings.atoms == (0, 1, 2, 3, 4, 5, 7)
    assert settings.charge_groups == (0, 0, 0, 1, 1, 1, 1)
    assert (settings.group_charges, settings.total_charge) == ((1.0, -1.0), 0.0)
