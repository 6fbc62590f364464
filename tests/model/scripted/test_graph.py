"""The compiled graph against its eager twin, the evaluator."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase.io import read

from openmm_nequiplr import load_model, shipped_structure
from openmm_nequiplr.errors import BackendError, InputError, UnknownElementError
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.scripted import script_model
from openmm_nequiplr.model.solving import SolverOptions
from openmm_nequiplr.ops import references


def relative(found, expected):
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


@pytest.fixture(autouse=True)
def _references():
    with references():
        yield


def evaluate(graph, atoms):
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.all() else None
    return [x.numpy() for x in graph.evaluate(torch.tensor(atoms.positions), cell)]


def compare(graph, model, atoms, total_charge, *, energy, forces, charges, options=None):
    """The first evaluation, and one that profits from it, after wrapping."""
    options = options or SolverOptions()
    evaluator = Evaluator(copy.deepcopy(model), solver=options.solver, charge_tolerance=1e-10)
    rng, atoms = np.random.default_rng(2), atoms.copy()
    for step in range(2):
        if step == 1 and atoms.pbc.all():
            atoms.positions += rng.integers(-1, 2, size=(len(atoms), 3)) @ atoms.cell.array
        found = evaluate(graph, atoms)
        given = model.build_graph(
            atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, total_charge
        )
        expected = evaluator(given)
        size = sum(abs(part) for part in expected.parts.values())
        assert abs(found[0] - expected.energy) < energy * size
        assert relative(found[1], expected.forces) < forces
        np.testing.assert_allclose(found[2], expected.charges, atol=charges)
        np.testing.assert_allclose(found[3], expected.adjoint, atol=10 * charges)
        np.testing.assert_allclose(found[4], expected.electronegativity, atol=10 * charges)
        atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)


KINDS = {
    "plain": {},
    "coulomb with offsets": {"electrostatic_energy": "coulomb", "effective_charges": True},
    "two cutoffs, ZBL, l = 2": {"r_max_charge": 3.1, "zbl": True, "l_max": 2},
    "priors": {
        "zbl": True,
        "shortest_distances": ((1.2, 2.4, 3.0), (2.4, 3.0, 2.7), (3.0, 2.7, 3.2)),
        "electronegativity_bound": 0.5,
    },
    "no directions": {"l_max": 0},
    "no layers": {"num_layers": 0, "num_layers_charge": 0},
    "no charges in the energy": {"num_layers_charge": 0, "zbl": True, "use_sc": False},
    "shared features": {"shared_features": True, "r_max_charge": 3.1},
    "shared features, no layers": {"shared_features": True, "num_layers": 0},
    "no pseudotensors": {"pseudotensors": False, "l_max": 2, "shared_features": True},
    "even, resnet": {"parity": False, "resnet": True, "num_layers": 3, "bessel_trainable": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_models(make_model, crystal, kind):
    """A triclinic cell narrower than the cutoffs, charged."""
    model = make_model(**KINDS[kind])
    graph = script_model(model, crystal.numbers, True, 1.0)
    compare(graph, model, crystal, 1.0, energy=1e-10, forces=1e-9, charges=1e-9)


@pytest.mark.parametrize("kind", ["plain", "coulomb with offsets"])
def test_without_a_cell(make_model, molecule, kind):
    model = make_model(**KINDS[kind])
    graph = script_model(model, molecule.numbers, False, -1.0)
    compare(graph, model, molecule, -1.0, energy=1e-10, forces=1e-9, charges=1e-9)


@pytest.mark.parametrize("name", ["crystal", "molecule"])
def test_iterative(request, make_model, name):
    atoms = request.getfixturevalue(name)
    model = make_model(electrostatic_energy="coulomb", effective_charges=True)
    options = SolverOptions("iterative", charge_tolerance=1e-10)
    graph = script_model(model, atoms.numbers, atoms.pbc.all(), 1.0, options=options)
    limits = {"energy": 1e-7, "forces": 1e-7, "charges": 1e-7}
    compare(graph, model, atoms, 1.0, options=options, **limits)
    # and the dense solver's exact sums, to the accuracy of the mesh
    compare(graph, model, atoms, 1.0, options=SolverOptions("dense"), **limits)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("name", ["au2-mgo", "carbon-chain"])
def test_shipped_models(name, precision):
    atoms = read(shipped_structure(name))
    dtype, limits = {
        "single": (torch.float32, {"energy": 1e-5, "forces": 1e-4, "charges": 1e-5}),
        "double": (torch.float64, {"energy": 1e-6, "forces": 1e-5, "charges": 1e-6}),
    }[precision]
    model = load_model(name, dtype=dtype)
    graph = script_model(model, atoms.numbers, bool(atoms.pbc.all()))
    if precision == "single":
        limits = {**limits, "energy": 1e-5}
    compare(graph, model, atoms, 0.0, **limits)


def test_units_of_forward(make_model, crystal):
    graph = script_model(make_model(), crystal.numbers, True)
    energy, forces, *_ = evaluate(graph, crystal)
    positions = torch.tensor(crystal.positions / 10.0, requires_grad=True)
    found = graph(positions, torch.tensor(crystal.cell.array / 10.0))
    assert float(found[0]) == pytest.approx(energy * 96.48533212331002, rel=1e-12)
    np.testing.assert_allclose(found[1].numpy(), forces * 964.8533212331002, rtol=1e-9)
    single = graph(positions.float(), torch.tensor(crystal.cell.array / 10.0).float())[1]
    assert single.dtype == torch.float32


@pytest.mark.optimized
def test_freezing_changes_nothing(make_model, crystal):
    """OpenMM freezes a graph, which folds constants and drops ``detach``."""
    graph = script_model(make_model(), crystal.numbers, True)
    positions, box = torch.tensor(crystal.positions), torch.tensor(crystal.cell.array)
    frozen = torch.jit.freeze(graph.eval())
    for _ in range(3):
        expected, found = graph(0.1 * positions, 0.1 * box), frozen(0.1 * positions, 0.1 * box)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-8)
        assert not found[0].requires_grad
        assert not found[1].requires_grad
        positions = positions + 0.05 * torch.randn_like(positions)


def test_energy_is_a_function_of_the_geometry(make_model, crystal):
    """What a graph keeps from other geometries and boxes does not show."""
    model = make_model()
    kept, fresh = (script_model(model, crystal.numbers, True) for _ in range(2))
    other = crystal.copy()
    other.set_cell(1.07 * crystal.cell.array, scale_atoms=True)
    for atoms in (other, crystal, other):
        evaluate(kept, atoms)
    for found, expected in zip(evaluate(kept, crystal), evaluate(fresh, crystal), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_no_device_is_built_in(make_model, crystal):
    """A graph runs where its buffers are: no constant says "cpu"."""
    for solver in ("dense", "iterative"):
        options = SolverOptions(solver)
        graph = script_model(make_model(), crystal.numbers, True, options=options).inlined_graph
        constants = graph.findAllNodes("prim::Constant")
        kinds = {node.output().type().kind() for node in constants}
        assert "IntType" in kinds
        assert "DeviceObjType" not in kinds


def test_convergence_failure_says_what_to_change(make_model, molecule):
    options = SolverOptions("iterative", charge_tolerance=1e-12, max_iterations=2)
    graph = script_model(make_model(), molecule.numbers, False, options=options)
    expected = r"after 2 iterations, .* raise max_iterations \(now 2\) .*charge_tolerance"
    with pytest.raises(Exception, match=expected):
        evaluate(graph, molecule)


def test_non_finite_positions_are_refused(make_model, molecule):
    graph = script_model(make_model(), molecule.numbers, False)
    molecule.positions[2, 1] = np.nan
    with pytest.raises(Exception, match="NaN or infinity for 1 of 7 atoms"):
        evaluate(graph, molecule)


def test_atoms_on_top_of_one_another_are_refused(make_model, molecule):
    graph = script_model(make_model(), molecule.numbers, False)
    molecule.positions[2] = molecule.positions[3]
    with pytest.raises(Exception, match="atoms on top of one another"):
        evaluate(graph, molecule)


def test_nothing_of_a_failed_evaluation_is_left(make_model, crystal):
    atoms = crystal * (2, 2, 2)
    options = SolverOptions("iterative")
    used, fresh = (
        script_model(make_model(num_layers=1), atoms.numbers, True, options=options)
        for _ in range(2)
    )
    bad = atoms.copy()
    bad.positions[0] = bad.positions[1]
    with pytest.raises(Exception, match="on top of one another"):
        evaluate(used, bad)
    for found, expected in zip(evaluate(used, atoms), evaluate(fresh, atoms), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_another_number_of_atoms_is_refused(make_model, molecule):
    graph = script_model(make_model(), molecule.numbers, False)
    with pytest.raises(Exception, match="expected 7 atoms, got 6"):
        evaluate(graph, molecule[:-1])


def test_one_atom_alone(make_model, molecule):
    model = make_model()
    graph = script_model(model, molecule.numbers[:1], False, 1.0)
    energy, forces, charges, *_ = evaluate(graph, molecule[:1])
    single = molecule[:1]
    given = model.build_graph(single.numbers, single.positions, None, False, 1.0)
    assert energy == pytest.approx(Evaluator(copy.deepcopy(model))(given).energy, rel=1e-12)
    np.testing.assert_allclose(charges, [1.0])
    np.testing.assert_allclose(forces, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "periodic"),
    [({"legacy_periodic": True}, True), ({"legacy_nonperiodic": True}, False)],
)
def test_published_sums_are_refused(make_model, options, periodic):
    with pytest.raises(BackendError, match="expected 'python'"):
        script_model(make_model(**options), ["Na", "Cl"], periodic)
    script_model(make_model(**options), ["Na", "Cl"], not periodic)


def test_wrong_arguments(make_model):
    with pytest.raises(UnknownElementError, match="Xe"):
        script_model(make_model(), ["Na", "Xe"], False)
    with pytest.raises(InputError, match="solver"):
        script_model(make_model(), ["Na"], False, options=SolverOptions("magic"))
