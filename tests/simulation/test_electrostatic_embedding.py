"""Electrostatic embedding: every interaction once, forces on both sets, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
import torch
from ase.io import read
from openmm import app, unit

pytest.importorskip("openmmml", reason="openmm-ml is not installed")

from openmm_nequiplr import (
    ChargeReporter,
    CommitteeReporter,
    NequIPLRCalculator,
    create_system,
    export_torch_force,
    load_system,
    save_system,
)
from openmm_nequiplr.data import structure_from_atoms
from openmm_nequiplr.data.dataset import labelled_graph
from openmm_nequiplr.electrostatics import OutsideCharges
from openmm_nequiplr.errors import BackendError, InputError
from openmm_nequiplr.model import Evaluator, GroupCharge, Surroundings
from openmm_nequiplr.simulation import create_force, current_evaluation, load_charges
from openmm_nequiplr.simulation.force_field import charges_outside
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .mixture import EDGE, SITES, context_of, energy_of, potential_of
from .test_embedding import PERIODIC, chain_of, names

# The mesh of the model is as fine as that of its charges in the tests of mechanical embedding.
OPTIONS = {"embedding": "electrostatic", "totalCharge": 0, "ewald_tolerance": 1e-7}


def embedded(mixed, model, topology=None, system=None, **options):
    topology, system = topology or mixed.topology(), system or mixed.system()
    return potential_of(model).createMixedSystem(
        topology, system, mixed.ml, **{**OPTIONS, "long_range": "graph", **options}
    )


def expected_energy(mixed, model, total=0.0, width=0.0):
    """The force field without charges of ML atoms, and the model among those of the others."""
    bare = copy.deepcopy(mixed)
    bare.charges[list(mixed.ml)] = 0.0
    bare.exceptions = {
        pair: 0.0 if set(pair) & set(mixed.ml) else product
        for pair, product in mixed.exceptions.items()
    }
    numbers = [app.Element.getBySymbol(mixed.symbols[k]).atomic_number for k in mixed.ml]
    box = None if mixed.box is None else 10.0 * mixed.box
    points = 10.0 * mixed.positions
    graph = model.build_graph(numbers, points[list(mixed.ml)], box, box is not None, total)
    charges = torch.from_numpy(mixed.charges[mixed.mm])
    around = Surroundings(
        OutsideCharges(charges, width, accuracy=1e-8), torch.from_numpy(points[mixed.mm])
    )
    inside = Evaluator(model)(graph, surroundings=around)
    assert abs(inside.parts["outside"]) > 0.01
    return bare.force_field_energy(without=mixed.ml) + inside.energy * EV_TO_KJ_PER_MOL


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_every_interaction_counts_once(make_model, mixture, periodic):
    model, mixed = make_model(), mixture(periodic)
    system = embedded(mixed, model, outside_width=0.03 * unit.nanometer)
    expected = expected_energy(mixed, model, width=0.3)
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=5e-4)


def slopes(context, positions, moved, group, step=1e-5):
    """−dE/dx of a group of forces, kJ/mol/nm, shape (moved, 3)."""
    found = np.empty((len(moved), 3))
    for row, index in enumerate(moved):
        for axis in range(3):
            energies = []
            for sign in (-1, 1):
                trial = positions.copy()
                trial[index, axis] += sign * step
                context.setPositions(trial)
                context.computeVirtualSites()
                state = context.getState(energy=True, groups=group)
                energies.append(state.getPotentialEnergy()._value)
            found[row, axis] = (energies[0] - energies[1]) / (2 * step)
    return found


def check_forces(system, positions, moved, error, group=-1):
    context = context_of(system, positions)
    context.computeVirtualSites()
    state = context.getState(forces=True, groups=group)
    forces = state.getForces(asNumpy=True)._value[moved]
    difference = forces - slopes(context, positions, moved, group)
    assert np.sqrt(np.mean(difference**2) / np.mean(forces**2)) < error


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_forces_on_both_are_slopes(make_model, mixture, periodic):
    mixed = mixture(periodic)
    system = embedded(mixed, make_model(electrostatic_energy="coulomb"), forceGroup=1)
    moved = [*mixed.ml[:2], *mixed.mm[:3]]
    check_forces(system, mixed.positions, moved, 1e-6, group={1})


def test_forces_in_a_field_with_charges_of_groups(make_model, mixture):
    mixed = mixture(False)
    groups = [mixed.ml[:3], mixed.ml[3:]]
    options = {"charge_groups": groups, "group_charges": [0.5, -0.5], "electric_field": (1, 0, 2)}
    system = embedded(mixed, make_model(), forceGroup=1, **options)
    check_forces(system, mixed.positions, [*mixed.ml[:2], mixed.mm[0]], 1e-6, group={1})
    charges = current_evaluation(context_of(system, mixed.positions)).charges
    assert charges[:3].sum() == pytest.approx(0.5, abs=1e-9)


def test_every_platform(make_model, mixture, platform):
    mixed = mixture()
    system = embedded(mixed, make_model())
    results = []
    for name, properties in (("Reference", {}), (platform[0].getName(), platform[1])):
        context = context_of(system, mixed.positions, (name, properties))
        state = context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True)._value
        results.append((state.getPotentialEnergy()._value, forces))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5, abs=0.02)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-4, atol=0.5)


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_interpolation(make_model, mixture, periodic):
    model, mixed = make_model(), mixture(periodic)
    ends = [energy_of(s, mixed.positions) for s in (mixed.system(), embedded(mixed, model))]
    context = context_of(embedded(mixed, model, interpolate=True), mixed.positions)
    for value in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", value)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        assert energy == pytest.approx((1.0 - value) * ends[0] + value * ends[1], abs=2e-3)
    assert current_evaluation(context).charges.shape == (7,)


def test_virtual_sites_pass_their_forces_on(make_model, salt_and_water):
    topology, force_field = salt_and_water
    system = potential_of(make_model()).createMixedSystem(topology, force_field, [0, 1], **OPTIONS)
    check_forces(system, SITES, [0, 2, 3], 1e-6)


@pytest.mark.parametrize("interpolate", [False, True])
def test_cut_bonds(make_model, interpolate):
    """The charge of the atom beyond a link goes to its neighbours; links feel the rest."""
    model = make_model(type_names=("H", "C"))
    mixed = chain_of(["C"] * 7, 0.14, None)
    mixed.ml, mixed.charges[4] = (0, 1, 2), 0.5
    topology = mixed.topology()
    atoms = list(topology.atoms())
    for i, j in mixed.bonds:
        topology.addBond(atoms[i], atoms[j])
    outside = charges_outside(topology, mixed.system(), mixed.ml)
    q = mixed.charges
    assert outside == pytest.approx({4: q[4] + q[3], 5: q[5], 6: q[6]})
    system = embedded(mixed, model, topology, interpolate=interpolate)
    positions = np.concatenate((mixed.positions, np.zeros((1, 3))))
    check_forces(system, positions, [2, 3, 5], 1e-6)


def test_box_changes_reporters_and_files(make_model, mixture, tmp_path):
    """A barostat's box, charges and spread of a run, and a System read again."""
    mixed, model = mixture(), make_model()
    mixed.epsilon[:] = 5.0
    system = embedded(mixed, model)
    system.addForce(openmm.MonteCarloBarostat(20000.0, 300.0, 1))
    simulation = app.Simulation(
        mixed.topology(),
        system,
        openmm.LangevinMiddleIntegrator(10.0, 1.0, 0.0001),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(mixed.positions)
    simulation.reporters.append(ChargeReporter(tmp_path / "charges.npy", 1))
    spread = CommitteeReporter(tmp_path / "spread.npy", 1, [model], threshold=1e-12)
    other = make_model(num_layers=1)
    uncertain = CommitteeReporter(tmp_path / "other.npy", 5, [other], threshold=1e-12)
    simulation.reporters += [spread, uncertain]
    simulation.step(5)
    state = simulation.context.getState(energy=True, positions=True)
    assert state.getPeriodicBoxVolume()._value != EDGE**3
    charges = current_evaluation(simulation.context).charges
    np.testing.assert_allclose(load_charges(tmp_path / "charges.npy").charges[-1], charges)
    assert np.load(tmp_path / "spread.npy")["energy"].max() < 1e-9
    frame = read(tmp_path / "other.extxyz")
    points = 10.0 * state.getPositions(asNumpy=True)._value
    np.testing.assert_allclose(frame.info["outside_positions"], points[mixed.mm], atol=1e-6)
    np.testing.assert_allclose(frame.info["outside_charges"], mixed.charges[mixed.mm])
    trained = model(labelled_graph(structure_from_atoms(frame), model, "").graph)
    np.testing.assert_allclose(trained.charges, charges, atol=1e-5)
    save_system(system, tmp_path / "system.xml")
    xml = openmm.XmlSerializer.serialize(system)
    for again in (load_system(tmp_path / "system.xml"), openmm.XmlSerializer.deserialize(xml)):
        fresh = context_of(again, state.getPositions(asNumpy=True))
        fresh.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        energy = fresh.getState(energy=True).getPotentialEnergy()._value
        assert state.getPotentialEnergy()._value == pytest.approx(energy, abs=1e-4)


def test_isolated_molecules_feel_the_images_of_charges(make_model, mixture):
    """Atoms at other images are the same ones; the model has no images itself."""
    model, mixed = make_model(isolated=True), mixture()
    system = embedded(mixed, model)
    energy = energy_of(system, mixed.positions)
    moved = mixed.positions.copy()
    moved[mixed.ml[2], 0] += EDGE
    moved[mixed.mm[1], 1] -= EDGE
    assert energy_of(system, moved) == pytest.approx(energy, abs=1e-4)
    check_forces(embedded(mixed, model, forceGroup=1), moved, [mixed.ml[2], mixed.mm[1]], 1e-6, {1})


def test_what_is_refused(make_model, mixture):
    def cut(system):
        system.getForce(0).setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)

    def offset(system):
        system.getForce(0).addGlobalParameter("x", 0.0)
        system.getForce(0).addParticleParameterOffset("x", 1, 1.0, 0.0, 0.0)

    def implicit(system):
        system.addForce(openmm.CustomGBForce())

    def custom(system):
        force = openmm.CustomNonbondedForce("q1*q2/r")
        force.addPerParticleParameter("q")
        system.addForce(force)

    mixed, model = mixture(), make_model()
    for change, match in (
        (cut, "charges with a cutoff"),
        (offset, "charges with parameter offsets"),
        (implicit, "CustomGBForce"),
        (custom, "CustomNonbondedForce"),
    ):
        system = mixed.system()
        change(system)
        with pytest.raises(InputError, match=match):
            embedded(mixed, model, system=system)
    with pytest.raises(InputError, match="model: .*outside charges"):
        embedded(mixed, make_model(equilibration=False))
    with pytest.raises(InputError, match="outside_width"):
        embedded(mixed, model, outside_width=-1.0)
    with pytest.raises(InputError, match="outside_width: .*without charges outside"):
        embedded(mixed, model, embedding="mechanical", outside_width=0.5)


@pytest.mark.parametrize(
    ("charges", "match"),
    [
        ({0: 1.0}, "particles that the model does not act on"),
        ({-1: 1.0}, "indices of particles"),
        ({1: "much"}, r"outside_charges\[1\]"),
        ([1.0], "a dictionary"),
    ],
)
def test_what_are_no_charges_outside(make_model, mixture, charges, match):
    arguments = {"atoms": [0, 3], "total_charge": 0, "outside_charges": charges}
    with pytest.raises(InputError, match=match):
        create_force(mixture().topology(), make_model(), **arguments)


def test_a_slab_has_no_charges_outside(make_model, mixture):
    model, mixed = make_model(), mixture()
    arguments = {"atoms": [0, 3], "total_charge": 0, "outside_charges": {1: 1.0}, "slab": True}
    box, site = 10.0 * np.eye(3), torch.zeros(1, 3, dtype=torch.float64)
    graph = model.build_graph([8, 11], [[1.0, 1, 1], [1, 1, 3]], box, (True, True, False))
    around = Surroundings(OutsideCharges(torch.ones(1, dtype=torch.float64)), site)
    evaluator = Evaluator(model)
    with pytest.raises(InputError, match="slab: .*OpenMM sums the force field over bulk images"):
        embedded(mixed, model, slab=True)
    for attempt in (
        lambda: create_force(mixed.topology(), model, **arguments),
        lambda: evaluator(graph, surroundings=around),
        lambda: evaluator.charges(graph, around),
        lambda: evaluator.observe(graph, [GroupCharge((0,))], around),
    ):
        with pytest.raises(InputError, match="outside_charges: expected None for a slab"):
            attempt()


def test_other_doors_say_where_charges_outside_are_taken(make_model, mixture, tmp_path):
    topology, given = mixture().topology(), {"outside_charges": {1: 1.0}}
    for attempt, reason in (
        (lambda: create_system(topology, make_model(), **given), "create_force takes them"),
        (lambda: NequIPLRCalculator(make_model(), **given), "forces on the atoms of the model"),
        (
            lambda: export_torch_force(make_model(), topology, tmp_path / "model.pt", **given),
            "a graph does not know charges outside",
        ),
    ):
        with pytest.raises(InputError, match=f"^outside_charges: .*{reason}"):
            attempt()


def test_graphs_do_not_know_charges_outside(make_model, mixture, monkeypatch):
    from openmm_nequiplr.simulation import system

    monkeypatch.setattr(system, "resolve_backend", lambda *_: "torch")
    arguments = {"atoms": [0, 3], "total_charge": 0, "outside_charges": {1: 1.0}}
    with pytest.raises(BackendError, match="'python' for charges outside"):
        create_force(mixture().topology(), make_model(), **arguments)
