"""Born charges and polarisabilities against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import Evaluator

STEP = 1e-4
KINDS = {
    "full functional": {"electrostatic_energy": "qeq"},
    "Coulomb energy": {"electrostatic_energy": "coulomb"},
    "offsets": {"electrostatic_energy": "coulomb", "effective_charges": True},
    "no layers before the charges": {"num_layers": 0},
}
FIELDS = {"no field": None, "field": np.array([0.2, -0.1, 0.3])}


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


#: Charges of groups that are held.
HELD = {"charge_groups": [0, 0, 1, 1, 2, 2, 1], "group_charges": [1.0, -0.5, 0.5]}


def dipole(model, atoms, positions, field, **held):
    graph = model.build_graph(
        atoms.numbers, positions, total_charge=1.0, electric_field=field, **held
    )
    return Evaluator(model)(graph, False).dipole


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("held", [{}, HELD], ids=["", "groups"])
def test_isolated(model, molecule, field, held):
    graph = model.build_graph(
        molecule.numbers, molecule.positions, total_charge=1.0, electric_field=field, **held
    )
    found, other = (
        Evaluator(model, solver=solver, charge_tolerance=1e-12).response(graph)
        for solver in ("dense", "iterative")
    )
    for i, b in np.ndindex(len(molecule), 3):
        moved = STEP * np.eye(3 * len(molecule))[3 * i + b].reshape(-1, 3)
        ends = [
            dipole(model, molecule, molecule.positions + sign * moved, field, **held)
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        for each in (found, other):
            np.testing.assert_allclose(each.born_charges[i, :, b], slope, atol=1e-6)
    first = np.zeros(3) if field is None else field
    for b, direction in enumerate(STEP * np.eye(3)):
        ends = [
            dipole(model, molecule, molecule.positions, first + sign * direction, **held)
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        for each in (found, other):
            np.testing.assert_allclose(each.polarizability[:, b], slope, atol=1e-6)
    expected = dipole(model, molecule, molecule.positions, field, **held)
    for each in (found, other):
        np.testing.assert_allclose(each.born_charges.sum(axis=0), np.eye(3), atol=1e-8)
        assert np.linalg.eigvalsh(each.polarizability).min() > 0.0
        np.testing.assert_allclose(each.dipole, expected, atol=1e-9)


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_large_cells_approach_the_isolated_molecule(make_model, molecule, solver):
    """As 1/L², whichever image of an atom is given."""
    model = make_model(electrostatic_energy="coulomb")
    alone = Evaluator(model).response(model.build_graph(molecule.numbers, molecule.positions))
    options = {"solver": solver, "charge_tolerance": 1e-9}
    errors = []
    for length in (16.0, 32.0):
        images = np.random.default_rng(1).integers(-1, 2, size=(len(molecule), 3))
        graph = model.build_graph(
            molecule.numbers, molecule.positions + length * images, length * np.eye(3), True
        )
        found = Evaluator(model, **options).response(graph)
        assert found.polarizability is None
        errors.append(np.abs(found.born_charges - alone.born_charges).max())
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.1


def test_images_and_bases_do_not_matter(make_model, crystal):
    model = make_model(electrostatic_energy="coulomb", effective_charges=True)
    basis = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    cell = crystal.cell.array
    moved = crystal.positions + np.array([2, -1, 3]) @ cell
    moved[0] += cell[1]
    one, other = (
        Evaluator(model, solver="dense").response(model.build_graph(crystal.numbers, x, c, True))
        for x, c in ((crystal.positions, cell), (moved, basis @ cell))
    )
    np.testing.assert_allclose(other.born_charges, one.born_charges, atol=1e-6)


def test_periodic_against_differences(make_model, crystal):
    """The slope of (1/i) Σ q exp(i k·r), with the phase of the atom taken off."""
    model = make_model(electrostatic_energy="coulomb")
    cell = crystal.cell.array
    graph = model.build_graph(crystal.numbers, crystal.positions, cell, True)
    kvectors = 2.0 * np.pi * np.linalg.inv(graph.cell[0].numpy()).T

    def polarization(positions):
        made = model.build_graph(crystal.numbers, positions, cell, True)
        charges = Evaluator(model, solver="dense")(made, False).charges
        return np.exp(1j * made.positions.numpy() @ kvectors.T).T @ charges / 1j

    found = Evaluator(model, solver="dense").response(graph).born_charges
    for i, b in ((0, 0), (2, 1), (5, 2)):
        moved = STEP * np.eye(18)[3 * i + b].reshape(-1, 3)
        slope = polarization(crystal.positions + moved) - polarization(crystal.positions - moved)
        slope = slope / (2 * STEP) * np.exp(-1j * kvectors @ graph.positions.numpy()[i])
        np.testing.assert_allclose(kvectors @ found[i, :, b], slope.real, atol=1e-6)


def test_calculator(make_model, molecule):
    model = make_model(electrostatic_energy="coulomb")
    molecule.info["total_charge"] = 1.0
    molecule.calc = NequIPLRCalculator(model)
    energy = molecule.get_potential_energy()
    assert "born_effective_charges" not in molecule.calc.results
    found = molecule.calc.get_property("born_effective_charges", molecule)
    graph = model.build_graph(molecule.numbers, molecule.positions, total_charge=1.0)
    expected = Evaluator(model).response(graph)
    np.testing.assert_allclose(found, expected.born_charges, atol=1e-12)
    np.testing.assert_allclose(
        molecule.calc.results["polarizability"], expected.polarizability, atol=1e-12
    )
    assert molecule.get_potential_energy() == energy


@pytest.mark.parametrize("options", [{"equilibration": False}, {"legacy_periodic": True}])
def test_refused(make_model, crystal, options):
    model = make_model(**options)
    graph = model.build_graph(crystal.numbers, crystal.positions, crystal.cell.array, True)
    with pytest.raises(InputError, match="model: .*response"):
        Evaluator(model).response(graph)
