"""Uniform fields: energies, forces and charges of every kind of model and solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.committee import Committee
from openmm_nequiplr.model.scripted import script_model

FIELD = np.array([0.3, -0.2, 0.15])  # V/Å
KINDS = {
    "full functional": {"electrostatic_energy": "qeq"},
    "Coulomb energy": {"electrostatic_energy": "coulomb"},
    "offsets": {"electrostatic_energy": "coulomb", "effective_charges": True},
    "offsets, full functional": {"electrostatic_energy": "qeq", "effective_charges": True},
    "shared features": {"electrostatic_energy": "coulomb", "shared_features": True},
}


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


def graph_of(model, atoms, positions=None, charge=1.0, field=FIELD):
    points = atoms.positions if positions is None else positions
    return model.build_graph(atoms.numbers, points, total_charge=charge, electric_field=field)


def central(function, at, index, step=1e-4):
    """Derivative of a function of an array by one of its numbers."""
    up, down = at.copy(), at.copy()
    up[index] += step
    down[index] -= step
    return (function(up) - function(down)) / (2 * step)


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_two_charge_sets_equal_the_differentiated_solve(model, molecule, solver):
    graph = graph_of(model, molecule)
    found = Evaluator(model, solver=solver, charge_tolerance=1e-12)(graph)
    expected = model(graph)
    assert found.energy == pytest.approx(float(expected.energy), abs=1e-9)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-8)
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-9)
    assert sum(found.parts.values()) == pytest.approx(found.energy, abs=1e-10)


def test_compiled_graph(model, molecule):
    graph = script_model(model, molecule.numbers, False, 1.0, electric_field=FIELD)
    found = graph.evaluate(torch.from_numpy(molecule.positions), None)
    expected = Evaluator(model)(graph_of(model, molecule))
    assert float(found[0]) == pytest.approx(expected.energy, abs=1e-10)
    np.testing.assert_allclose(found[1], expected.forces, atol=1e-10)
    np.testing.assert_allclose(found[2], expected.charges, atol=1e-10)


def test_slope_of_the_energy_along_the_field(model, molecule):
    """−Σ (Q + Z − w) r, the dipole with its response; of the charges alone it would differ."""
    result = Evaluator(model)(graph_of(model, molecule))
    graph = graph_of(model, molecule)
    seen = result.charges + model.offsets(graph).detach().numpy()
    for axis in range(3):
        slope = central(
            lambda field: Evaluator(model)(graph_of(model, molecule, field=field), False).energy,
            FIELD,
            (axis,),
        )
        response = (seen - result.adjoint) @ molecule.positions[:, axis]
        assert slope == pytest.approx(-response, abs=1e-6)


def test_charges_move_along_the_field(make_model, molecule):
    model = make_model(electrostatic_energy="coulomb")
    dipoles = [
        Evaluator(model)(graph_of(model, molecule, charge=0.0, field=field)).dipole
        for field in (FIELD, -FIELD)
    ]
    assert (dipoles[0] - dipoles[1]) @ FIELD > 0.01


def test_translation(model, molecule):
    """Neutral molecules keep their energy, charged ones fall along the field."""
    shift = np.array([3.0, -5.0, 2.0])
    for charge in (0.0, 1.0):
        here, there = (
            Evaluator(model)(graph_of(model, molecule, molecule.positions + move, charge))
            for move in (0.0 * shift, shift)
        )
        assert there.energy - here.energy == pytest.approx(-charge * FIELD @ shift, abs=1e-9)
        np.testing.assert_allclose(there.charges, here.charges, atol=1e-10)


def test_no_field_is_a_field_of_zero(model, molecule):
    without, zero = (
        Evaluator(model)(graph_of(model, molecule, field=field)) for field in (None, np.zeros(3))
    )
    assert zero.energy == without.energy
    np.testing.assert_array_equal(zero.forces, without.forces)


def test_structures_of_a_batch_have_their_own(make_model, molecule):
    model = make_model(electrostatic_energy="coulomb")
    graphs = [graph_of(model, molecule, field=field) for field in (None, FIELD, 2 * FIELD)]
    together = model(AtomicGraph.collate(graphs))
    for index, graph in enumerate(graphs):
        alone = model(graph)
        assert float(together.energy[index]) == pytest.approx(float(alone.energy), abs=1e-10)
        found = together.forces[7 * index : 7 * index + 7]
        np.testing.assert_allclose(found, alone.forces, atol=1e-10)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ([0.0, 0.0], "three finite numbers"),
        ([0.0, 0.0, np.nan], "three finite numbers"),
        ([0.0, 0.0, 1e3], "at most 50"),
        ("up", "numbers"),
    ],
)
def test_what_is_no_field(make_model, molecule, field, expected):
    with pytest.raises(InputError, match=rf"electric_field: .*{expected}"):
        graph_of(make_model(), molecule, field=field)


def test_where_a_field_has_no_meaning(make_model, molecule, crystal):
    with pytest.raises(InputError, match="electric_field: .*without charges"):
        graph_of(make_model(equilibration=False), molecule)
    model = make_model()
    arguments = crystal.numbers, crystal.positions, crystal.cell.array, True
    with pytest.raises(InputError, match="electric_field: .*faces of its cell"):
        model.build_graph(*arguments, electric_field=FIELD)
    with pytest.raises(InputError, match="electric_field: .*faces of its cell"):
        script_model(model, crystal.numbers, True, electric_field=FIELD)


def test_a_committee_is_in_the_field(make_model, molecule):
    models = [make_model(), make_model(electrostatic_energy="coulomb")]
    found = Committee(models)(
        molecule.numbers, molecule.positions, total_charge=1.0, electric_field=FIELD
    )
    energies = [Evaluator(model)(graph_of(model, molecule)).energy for model in models]
    assert [member.energy for member in found.members] == pytest.approx(energies, abs=1e-12)
