"""Models among charges that keep their values: forces on both, and fragments moved outside."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import labelled_graph
from openmm_nequiplr.electrostatics import OutsideCharges
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator, Surroundings

from .test_field import KINDS

CELL = np.diag([9.0, 8.0, 10.0])


def evaluated(evaluator, atoms, sites, charges, cell=None, width=0.3, charge=1.0, **options):
    """Evaluate atoms among charges outside."""
    periodic = cell is not None
    graph = evaluator.model.build_graph(
        atoms.numbers, atoms.positions, cell, periodic, total_charge=charge
    )
    outside = OutsideCharges(torch.from_numpy(charges), width, accuracy=1e-6)
    return evaluator(graph, surroundings=Surroundings(outside, torch.from_numpy(sites)), **options)


@pytest.fixture
def around(rng, molecule):
    """Positions and charges of 12 sites around the molecule."""
    directions = rng.normal(size=(12, 3))
    directions *= 5.5 / np.linalg.norm(directions, axis=1, keepdims=True)
    return molecule.positions.mean(axis=0) + directions, rng.uniform(-1.0, 1.0, 12)


def slopes(energy, atoms, sites, step=1e-4):
    """Central differences by positions of atoms and sites, of every second one; else NaN."""
    result = []
    for array in (atoms.positions, sites):
        found = np.full_like(array, np.nan)
        for index in [(k, axis) for k in range(0, len(array), 2) for axis in range(3)]:
            start, values = array[index], []
            for sign in (1.0, -1.0):
                array[index] = start + sign * step
                values.append(energy())
            array[index] = start
            found[index] = (values[0] - values[1]) / (2.0 * step)
        result.append(found)
    return result


@pytest.mark.parametrize("cell", [None, CELL], ids=["free", "cell"])
@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_the_slopes_of_the_energy(make_model, molecule, around, kind, cell):
    (sites, charges), evaluator = around, Evaluator(make_model(**KINDS[kind]))

    def energy():
        found = evaluated(evaluator, molecule, sites, charges, cell, compute_forces=False)
        return found.energy

    found = evaluated(evaluator, molecule, sites, charges, cell)
    expected = slopes(energy, molecule, sites)
    for forces, slope in zip((found.forces, found.outside_forces), expected, strict=True):
        assert np.sqrt(np.nanmean((forces + slope) ** 2) / np.mean(forces**2)) < 1e-6
    assert sum(found.parts.values()) == pytest.approx(found.energy, abs=1e-10)
    alone = evaluated(evaluator, molecule, sites, 0.0 * charges, cell)
    assert np.abs(found.charges - alone.charges).max() > 1e-3


def test_iterative_charges(make_model, molecule, around):
    model, (sites, charges) = make_model(electrostatic_energy="coulomb"), around
    dense, other = (
        evaluated(Evaluator(model, **options), molecule, sites, charges, CELL)
        for options in ({"solver": "dense"}, {"solver": "iterative", "charge_tolerance": 1e-8})
    )
    assert other.energy == pytest.approx(dense.energy, abs=1e-5)
    np.testing.assert_allclose(other.outside_forces, dense.outside_forces, atol=1e-5)
    np.testing.assert_allclose(other.charges, dense.charges, atol=1e-6)


def test_far_charges_make_a_uniform_field(make_model, molecule):
    """Two sheets' worth of charge far away on either side."""
    model, far = make_model(electrostatic_energy="coulomb"), 2e5
    field = 0.05  # V/Å
    sites = np.array([[0.0, 0.0, -far], [0.0, 0.0, far]])
    charges = 0.5 * field * far**2 / 14.399645478425668 * np.array([1.0, -1.0])
    found = evaluated(Evaluator(model), molecule, sites, charges, charge=0.0)
    graph = model.build_graph(
        molecule.numbers, molecule.positions, electric_field=[0.0, 0.0, field]
    )
    expected = Evaluator(model)(graph)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-6)
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-6)


def test_a_fragment_moved_outside_with_its_charges(make_model, molecule):
    """Charges, energy and forces are those of the whole, where no short-range energy responds."""
    model = copy.deepcopy(make_model(electrostatic_energy="qeq"))
    model.energy_scales.fill_(0.0)
    other = Atoms("Cl3", molecule.positions[:3] * 1.1 + [11.0, 2.0, 0.0])
    both = molecule + other
    whole = Evaluator(model)(model.build_graph(both.numbers, both.positions, total_charge=1.0))
    own, frozen = whole.charges[:7], whole.charges[7:]
    width = float(model.widths[model.config.type_names.index("Cl")])
    found = evaluated(
        Evaluator(model), molecule, other.positions, frozen, width=width, charge=own.sum()
    )
    np.testing.assert_allclose(found.charges, own, atol=1e-6)
    np.testing.assert_allclose(found.forces, whole.forces[:7], atol=1e-6)
    pull = whole.forces[7:].sum(axis=0)
    np.testing.assert_allclose(found.outside_forces.sum(axis=0), pull, atol=1e-6)
    assert np.abs(pull).max() > 1e-3
    # the fragment's own energy at these charges
    graph = model.build_graph(other.numbers, other.positions)
    rest = Evaluator(model)(graph)
    charges = torch.from_numpy(frozen)
    operator = model.coulomb_operator(graph, 0, graph.positions, graph.cell)
    hardness = model.separate_hardness(graph)
    electric = frozen @ rest.electronegativity + float(
        operator.energy(charges) + 0.5 * (hardness * charges**2).sum()
    )
    expected = found.energy + rest.parts["short_range"] + electric
    assert whole.energy == pytest.approx(expected, abs=1e-6)


def test_what_is_refused(make_model, molecule, around):
    with pytest.raises(InputError, match="model: .*outside charges"):
        evaluated(Evaluator(make_model(equilibration=False)), molecule, *around)
    with pytest.raises(InputError, match="compute_stress"):
        evaluated(Evaluator(make_model()), molecule, *around, CELL, compute_stress=True)


@pytest.mark.parametrize("cell", [None, CELL], ids=["free", "cell"])
@pytest.mark.parametrize("kind", ["full functional", "offsets"])
def test_training_sees_their_potential(make_model, molecule, around, kind, cell):
    """What charges make at the atoms, in columns of a structure, against the charges."""
    (sites, charges), model = around, make_model(**KINDS[kind])
    points = torch.tensor(molecule.positions, requires_grad=True)
    types = [model.config.type_names.index(symbol) for symbol in molecule.symbols]
    outside = OutsideCharges(torch.from_numpy(charges), 0.3, accuracy=1e-6)
    box = None if cell is None else torch.from_numpy(cell)
    potential = outside(points, model.widths[types], torch.from_numpy(sites), box)
    (slope,) = torch.autograd.grad(potential.sum(), points)
    columns = {"outside_potential": potential.detach().numpy(), "outside_field": -slope.numpy()}
    given = tuple(molecule.symbols), molecule.positions, cell, cell is not None, 1.0
    batch = [labelled_graph(Structure(*given, **more), model, "").graph for more in (columns, {})]
    found = model(AtomicGraph.collate(batch))
    count = len(molecule)
    expected = [
        evaluated(Evaluator(model), molecule, sites, q, cell) for q in (charges, 0.0 * charges)
    ]
    for own, each in zip((slice(count), slice(count, None)), expected, strict=True):
        np.testing.assert_allclose(found.charges[own], each.charges, atol=1e-9)
        np.testing.assert_allclose(found.forces[own], each.forces, atol=1e-8)
    np.testing.assert_allclose(found.energy, [each.energy for each in expected], atol=1e-8)
    with pytest.raises(InputError, match="outside_field: expected both"):
        Structure(*given, outside_potential=columns["outside_potential"])
