"""Charges of groups of atoms that are held, in the model: forces, limits, every evaluation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.scripted import script_model

from .test_field import FIELD, KINDS
from .test_solving import assert_close, relative, salt

GROUPS = [0, 0, 1, 1, 2, 2, 1]  # of the molecule
CHARGES = [1.0, -0.5, 0.5]


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


def graph_of(model, atoms, positions=None, field=None, groups=GROUPS, charges=CHARGES, **more):
    cell = atoms.cell.array if atoms.pbc.any() else None
    return model.build_graph(
        atoms.numbers,
        atoms.positions if positions is None else positions,
        cell,
        atoms.pbc.any(),
        float(np.sum(charges)),
        electric_field=field,
        charge_groups=groups,
        group_charges=None if groups is None else charges,
        **more,
    )


@pytest.mark.parametrize("field", [None, FIELD], ids=["", "field"])
def test_forces_are_the_slope_of_the_energy(model, molecule, field):
    evaluator = Evaluator(model)
    forces = evaluator(graph_of(model, molecule, field=field)).forces
    slopes, step = np.empty_like(forces), 1e-4
    for index in np.ndindex(forces.shape):
        energies = []
        for sign in (1.0, -1.0):
            points = molecule.positions.copy()
            points[index] += sign * step
            energies.append(evaluator(graph_of(model, molecule, points, field), False).energy)
        slopes[index] = (energies[0] - energies[1]) / (2.0 * step)
    assert relative(-slopes, forces) < 1e-6


@pytest.mark.parametrize("solver", ["dense", "iterative"])
@pytest.mark.parametrize("field", [None, FIELD], ids=["", "field"])
def test_twin_and_two_charge_sets_agree(model, molecule, solver, field):
    graph = graph_of(model, molecule, field=field)
    expected = model(graph)
    exact = {"solver": solver, "charge_tolerance": 1e-12}
    found = Evaluator(copy.deepcopy(model), **exact)(graph)
    assert found.energy == pytest.approx(float(expected.energy), abs=1e-10)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-10)
    np.testing.assert_allclose(np.bincount(GROUPS, found.charges), CHARGES, atol=1e-12)
    np.testing.assert_allclose(np.bincount(GROUPS, found.adjoint), 0.0, atol=1e-12)
    free = Evaluator(model)(graph_of(model, molecule, field=field, groups=None)).charges
    assert np.abs(np.bincount(GROUPS, free) - CHARGES).max() > 0.05


def test_compiled_graph(model, molecule):
    held = {"electric_field": FIELD, "charge_groups": GROUPS, "group_charges": CHARGES}
    graph = script_model(model, molecule.numbers, False, 1.0, **held)
    found = graph.evaluate(torch.from_numpy(molecule.positions), None)
    expected = Evaluator(model)(graph_of(model, molecule, field=FIELD))
    assert float(found[0]) == pytest.approx(expected.energy, abs=1e-10)
    np.testing.assert_allclose(found[1], expected.forces, atol=1e-10)
    np.testing.assert_allclose(found[2], expected.charges, atol=1e-10)


def test_far_fragments_are_separate_molecules(model, molecule):
    """Also in a field, where with one total charge they exchange charge like two metal spheres."""
    other = Atoms("ONaCl", [[0.0, 0.0, 0.0], [2.1, 0.3, 0.0], [-0.4, 2.3, 0.2]])
    both, far = molecule + other, np.array([4e4, -3e4, 5e4])
    both.positions[7:] += far
    graph = graph_of(model, both, None, FIELD, [list(range(7)), [7, 8, 9]], [1.0, 0.0])
    found = Evaluator(model)(graph)
    parts = [
        Evaluator(model)(graph_of(model, atoms, None, FIELD, None, charge))
        for atoms, charge in ((molecule, 1.0), (other, 0.0))
    ]
    assert found.energy == pytest.approx(sum(p.energy for p in parts), abs=1e-6)
    np.testing.assert_allclose(found.forces, np.concatenate([p.forces for p in parts]), atol=1e-7)
    np.testing.assert_allclose(found.charges, np.concatenate([p.charges for p in parts]), atol=1e-8)
    response, alone = (
        Evaluator(model).response(graph_of(model, atoms, None, None, groups, charges))
        for atoms, groups, charges in (
            (both, [0] * 7 + [1] * 3, [1.0, 0.0]),
            (other, None, [0.0]),
        )
    )
    np.testing.assert_allclose(response.born_charges[7:], alone.born_charges, atol=1e-5)


def test_batches_are_their_structures(model, molecule, crystal):
    """With and without groups and electrodes side by side."""
    graphs = [
        graph_of(model, molecule),
        graph_of(model, crystal, groups=None, charges=0.0),
        graph_of(model, crystal, groups=[[5, 1], [0, 3]], charges=[0.5, -1.0, 0.5]),
        graph_of(model, molecule, field=FIELD, electrodes=([1], [6, 3]), electrode_voltage=2.0),
    ]
    batch = AtomicGraph.collate(graphs)
    assert batch.held_charges.tolist() == [*CHARGES, 0.0, 0.5, -1.0, 0.5, 0.5, 0.5]
    together = model(batch)
    for index, graph in enumerate(graphs):
        alone = model(graph)
        assert float(together.energy[index]) == pytest.approx(float(alone.energy), abs=1e-10)
        mine = batch.batch == index
        torch.testing.assert_close(together.forces[mine], alone.forces, rtol=0, atol=1e-10)
        torch.testing.assert_close(together.charges[mine], alone.charges, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_mesh_and_iterations_equal_ewald_and_a_factorisation(make_model, name):
    """Energy, forces, stress; the compiled graph of the mesh as well; a second step starts warm."""
    model, atoms = make_model(r_max=3.2, **KINDS[name]), salt(3, shear=True)
    groups = np.arange(len(atoms)) // 2
    charges = np.where(np.arange(len(atoms) // 2) % 5 == 0, 1.0, 0.0)
    graph = graph_of(model, atoms, groups=groups, charges=charges)
    exact = {"solver": "iterative", "charge_tolerance": 1e-7}
    iterative, dense = Evaluator(copy.deepcopy(model), **exact), Evaluator(model, solver="dense")
    expected = dense(graph, compute_stress=True)
    found = iterative(graph, compute_stress=True)
    assert_close(found, expected)
    assert relative(found.stress, expected.stress) < 1e-4
    np.testing.assert_allclose(np.bincount(groups, found.charges), charges, atol=1e-9)
    cold = found.iterations
    points = atoms.positions + np.random.default_rng(1).normal(0, 1e-3, atoms.positions.shape)
    again = graph_of(model, atoms, points, groups=groups, charges=charges)
    warm = iterative(again)
    assert_close(warm, dense(again))
    assert warm.iterations[0] < cold[0]
    other = graph_of(model, atoms, points, groups=groups[::-1].copy(), charges=charges[::-1])
    assert_close(iterative(other), dense(other))  # nothing is taken over from other groups


def test_models_that_cannot_and_groups_that_are_none(make_model, molecule):
    model = make_model()
    with pytest.raises(InputError, match="charge_groups: .*without charges"):
        graph_of(make_model(equilibration=False), molecule)
    bad = {
        "a label for each of 7 atoms": [([0, 1], [0.0, 0.0]), ("chains", None), ([0.5] * 7, None)],
        "indices from 0 to 6": [([[0, 7]], None), ([[], [1]], None)],
        "each atom in one group": [([[0, 1], [1, 2]], None)],
        "one for each of 3 groups": [(GROUPS, [1.0]), ([[0], [1]], [0.0])],
        "sum to the total charge": [(GROUPS, None), (GROUPS, [0.0, 0.0, 0.5])],
        "finite numbers": [(GROUPS, [np.nan, 0.0, 0.0]), (GROUPS, "some")],
        "None without charge_groups": [(None, [1.0])],
    }
    for expected, cases in bad.items():
        for groups, charges in cases:
            with pytest.raises(InputError, match=expected):
                model.build_graph(
                    molecule.numbers,
                    molecule.positions,
                    total_charge=1.0,
                    charge_groups=groups,
                    group_charges=charges,
                )


def test_atoms_in_no_list_are_one_more_group(make_model, molecule):
    model = make_model()
    graph = graph_of(model, molecule, groups=[[2, 3, 6]], charges=[-0.5, 1.5])
    assert graph.charge_groups.tolist() == [1, 1, 0, 0, 1, 1, 0]
    given = {"total_charge": 1.0, "charge_groups": [[2, 3, 6]], "group_charges": [-0.5]}
    same = model.build_graph(molecule.numbers, molecule.positions, **given)
    assert same.group_charges.tolist() == [-0.5, 1.5]
    whole = model.build_graph(molecule.numbers, molecule.positions, charge_groups=[range(7)])
    assert whole.charge_groups is None


POINTS = np.array([[0, 0, 0], [2.3, 0, 0], [6.5, 0.2, 0], [8.3, 0, 0.3], [8.3, 2.0, 0]])


def in_a_box(edge=12.0):
    """NaCl and NaOCl in a triclinic cell, atoms of both at other images."""
    cell = edge * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
    atoms = Atoms("NaClNaOCl", POINTS, cell=cell, pbc=True)
    atoms.positions[[1, 3]] += [cell[0] - cell[2], -cell[1]]
    return atoms


PAIR = {"groups": [0, 0, 1, 1, 1], "charges": [0.0, 0.0]}


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_field_on_whole_groups_in_a_cell(model, solver):
    """Forces and stress; images do not matter to neutral groups."""
    atoms, exact = in_a_box(), {"solver": solver, "charge_tolerance": 1e-10}
    evaluator = Evaluator(copy.deepcopy(model), **exact)
    found = evaluator(graph_of(model, atoms, None, FIELD, **PAIR), compute_stress=True)
    other = atoms.copy()
    other.positions[[0, 4]] += atoms.cell.array[[1, 2]]
    again = Evaluator(copy.deepcopy(model), **exact)(graph_of(model, other, None, FIELD, **PAIR))
    assert again.energy == pytest.approx(found.energy, abs=1e-9)
    np.testing.assert_allclose(again.forces, found.forces, atol=1e-7)
    rng, step = np.random.default_rng(1), 1e-4
    for _ in range(3):
        direction, strain = rng.normal(size=atoms.positions.shape), rng.normal(size=(3, 3))
        strain = 0.5 * (strain + strain.T)
        moved, strained = [], []
        for sign in (1.0, -1.0):
            points = atoms.positions + sign * step * direction
            moved.append(evaluator(graph_of(model, atoms, points, FIELD, **PAIR), False).energy)
            cell = atoms.copy()
            cell.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * strain), scale_atoms=True)
            strained.append(evaluator(graph_of(model, cell, None, FIELD, **PAIR), False).energy)
        slope = np.vdot(found.forces, direction)
        assert (moved[1] - moved[0]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)
        slope = np.vdot(found.stress, strain) * atoms.get_volume()
        assert (strained[0] - strained[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_field_in_a_large_cell_is_that_of_free_space(make_model):
    """But for the field of the images, which falls off with the volume."""
    model = make_model()
    free = in_a_box()
    free.positions, free.pbc = POINTS, False
    expected = Evaluator(model)(graph_of(model, free, None, FIELD, **PAIR)).charges
    errors = []
    for edge in (60.0, 120.0):
        graph = graph_of(model, in_a_box(edge), None, FIELD, **PAIR)
        errors.append(np.abs(Evaluator(model)(graph).charges - expected).max())
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(8.0, rel=0.05)
    without = Evaluator(model)(graph_of(model, free, **PAIR)).charges
    assert np.abs(expected - without).max() > 0.02


def test_field_on_groups_that_reach_their_images(make_model, crystal):
    model = make_model()
    with pytest.raises(InputError, match="charge_groups: .*group 0 of 5 atoms, which reaches its"):
        graph_of(model, crystal, None, FIELD, [0, 0, 0, 0, 0, 1], [0.0, 0.0])
    with pytest.raises(InputError, match="electric_field: .*unless the charges of groups"):
        graph_of(model, crystal, None, FIELD, None, 0.0)
