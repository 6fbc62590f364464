"""The iterative solver through the evaluator: against the dense one, and what it remembers."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from ase.build import bulk

from openmm_nequiplr.errors import ConvergenceError, InputError
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.model.building import build_graph
from openmm_nequiplr.model.solving import SolverOptions

SHEAR = np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.0]])
VARIANTS = {
    "qeq": {},
    "coulomb": {"electrostatic_energy": "coulomb"},
    "effective charges": {"effective_charges": True},
    "effective charges, coulomb": {"effective_charges": True, "electrostatic_energy": "coulomb"},
    "no charge stage": {"num_layers_charge": 0},
    "shared features": {"shared_features": True},
}


def salt(cells=4, shear=False, seed=3):
    """Shaken rock salt of 8 n³ atoms; triclinic when sheared."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True).repeat(cells)
    if shear:
        atoms.set_cell(atoms.cell.array @ SHEAR, scale_atoms=True)
    atoms.rattle(0.08, seed=seed)
    return atoms


def graph_of(model, atoms, total_charge=0.0):
    """Without a lattice sum, as a mesh needs none."""
    arguments = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, total_charge)
    return build_graph(model.config, *arguments, lattice_sum=False)


def evaluator(model, solver="iterative", charge_tolerance=1e-7, **options):
    return Evaluator(
        copy.deepcopy(model), solver=solver, charge_tolerance=charge_tolerance, **options
    )


def relative(found, expected):
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def assert_close(found, expected, forces=1e-4, charges=1e-5):
    electric = sum(abs(v) for k, v in expected.parts.items() if k != "short_range")
    assert abs(found.energy - expected.energy) < 1e-6 * electric
    assert relative(found.forces, expected.forces) < forces
    np.testing.assert_allclose(found.charges, expected.charges, rtol=0, atol=charges)
    np.testing.assert_allclose(found.adjoint, expected.adjoint, rtol=0, atol=charges)


# ---------------------------------------------------------------------------- against the dense one


@pytest.mark.parametrize(
    ("name", "shear", "total_charge"),
    [("qeq", False, 0.0), *((name, True, -2.0) for name in VARIANTS)],
)
def test_equals_the_dense_solver(make_model, name, shear, total_charge):
    model = make_model(r_max=3.2, **VARIANTS[name])
    graph = graph_of(model, salt(3, shear), total_charge)
    expected = evaluator(model, "dense")(graph, compute_stress=True)
    result = evaluator(model)(graph, compute_stress=True)
    assert_close(result, expected)
    assert relative(result.stress, expected.stress) < 1e-4
    assert min(result.iterations[:1]) > 0
    assert expected.iterations == (0, 0)
    assert (result.iterations[1] > 0) == bool(expected.adjoint.any())
    assert result.charges.sum() == pytest.approx(total_charge, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cells", "shear", "total_charge"), [(5, False, 3.0), ((6, 6, 5), True, 0.0)]
)
def test_a_thousand_atoms_and_more(make_model, cells, shear, total_charge):
    """1,000 in a cube, 1,440 in an oblique box; errors fall with the tolerance."""
    model = make_model(r_max=3.2)
    graph = graph_of(model, salt(cells, shear), total_charge)
    expected = evaluator(model, "dense")(graph)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        result = evaluator(model, charge_tolerance=tolerance)(graph)
        errors.append(float(np.abs(result.charges - expected.charges).max()))
    assert_close(result, expected)
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.2 * errors[1]


def test_512_atoms_at_the_default_tolerance(make_model):
    model = make_model(r_max=3.2)
    graph = graph_of(model, salt(4))
    result, expected = (Evaluator(model, solver=s)(graph) for s in ("iterative", "dense"))
    assert_close(result, expected, charges=1e-4)


def test_in_free_space(make_model, molecule):
    model = make_model()
    graph = graph_of(model, molecule, 1.0)
    assert_close(evaluator(model)(graph), evaluator(model, "dense")(graph), 1e-6)


def test_charges_alone(make_model):
    model = make_model(r_max=3.2, effective_charges=True)
    graph = graph_of(model, salt(2))
    ours, expected = (evaluator(model, s).charges(graph) for s in ("iterative", "dense"))
    np.testing.assert_allclose(ours[0], expected[0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours[1], expected[1])


def test_forces_and_stress_against_finite_differences(make_model, rng):
    model = make_model(r_max=3.2, effective_charges=True, electrostatic_energy="coulomb")
    atoms, iterative = salt(2, shear=True), evaluator(model, charge_tolerance=1e-10)
    result = iterative(graph_of(model, atoms, 1.0), compute_stress=True)
    direction, step = rng.normal(size=atoms.positions.shape), 1e-4
    strain = rng.normal(size=(3, 3))
    strain = 0.02 * (strain + strain.T)

    def energy(shift, scale):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + scale * strain), scale_atoms=True)
        moved.positions += shift * direction
        return iterative(graph_of(model, moved, 1.0), compute_forces=False).energy

    slope = (energy(step, 0.0) - energy(-step, 0.0)) / (2 * step)
    assert slope == pytest.approx(-float((result.forces * direction).sum()), rel=1e-5)
    slope = (energy(0.0, step) - energy(0.0, -step)) / (2 * step)
    expected = atoms.get_volume() * float((result.stress * strain).sum())
    assert slope == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------- what it remembers


def steps_of(atoms, rng, count=6, size=0.004):
    """Structures along a smooth path."""
    velocity = rng.normal(scale=size, size=atoms.positions.shape)
    bend = rng.normal(scale=size / 20, size=atoms.positions.shape)
    for step in range(count):
        moved = atoms.copy()
        moved.positions += step * velocity + step**2 * bend
        yield moved


def test_warm_starts_save_iterations_and_change_nothing(make_model, rng):
    model = make_model(r_max=3.2)
    warm, counts = evaluator(model, charge_tolerance=1e-6), []
    for atoms in steps_of(salt(3), rng):
        graph = graph_of(model, atoms)
        result = warm(graph)
        cold = evaluator(model, charge_tolerance=1e-6)(graph)
        assert_close(result, cold)
        counts.append((result.iterations, cold.iterations))
    last, cold = np.array(counts[-1])
    assert (last < cold).all()
    assert warm.memory.geometries == 1


def test_wrapped_atoms_change_nothing(make_model, rng):
    model = make_model(r_max=3.2)
    straight, wrapped = evaluator(model), evaluator(model)
    for atoms in steps_of(salt(2, shear=True), rng, 4):
        expected = straight(graph_of(model, atoms, 1.0), compute_stress=True)
        atoms.positions += rng.integers(-1, 2, size=atoms.positions.shape) @ atoms.cell.array
        result = wrapped(graph_of(model, atoms, 1.0), compute_stress=True)
        assert_close(result, expected, 1e-7, 1e-7)
        np.testing.assert_allclose(result.stress, expected.stress, atol=1e-7)
        assert result.iterations == expected.iterations
    assert wrapped.memory.geometries == 1


def counting(evaluator, guesses):
    """Note with every structure from how many earlier ones its guess comes."""
    inner = evaluator.memory.guesses

    def outer(graph):
        track = inner(graph)
        guesses.append(track.charges.solutions)
        return track

    evaluator.memory.guesses = outer


def test_jumps_and_other_atoms_start_cold(make_model, rng):
    model = make_model(r_max=3.2)
    iterative, guesses = evaluator(model, charge_tolerance=1e-6), []
    counting(iterative, guesses)
    path = list(steps_of(salt(2), rng, 3))
    other = salt(2, seed=8)
    other.positions += 1.0
    swapped = path[2][np.random.default_rng(0).permutation(64)]
    for atoms in (*path, other, swapped):
        graph = graph_of(model, atoms)
        assert_close(iterative(graph), evaluator(model, charge_tolerance=1e-6)(graph))
    assert guesses == [0, 1, 2, 0, 0]
    iterative(graph_of(model, path[2], 1.0))
    iterative(graph_of(model, path[1], 1.0))
    iterative(graph_of(model, salt(1), 1.0))
    assert guesses[5:] == [0, 1, 0]


def test_trial_boxes_do_not_enter(make_model, rng):
    model = make_model(r_max=3.2)
    iterative, guesses = evaluator(model, charge_tolerance=1e-6), []
    counting(iterative, guesses)
    first, second, third, fourth = steps_of(salt(2), rng, 4)
    trial = second.copy()
    trial.set_cell(1.004 * second.cell.array, scale_atoms=True)
    for atoms in (first, second, trial, third):  # rejected
        iterative(graph_of(model, atoms))
    assert guesses == [0, 1, 1, 2]
    trial = third.copy()
    trial.set_cell(1.004 * third.cell.array, scale_atoms=True)
    after = fourth.copy()
    after.set_cell(trial.cell.array, scale_atoms=True)
    for atoms in (trial, after):  # accepted
        result = iterative(graph_of(model, atoms))
    assert guesses[4:] == [1, 1]
    assert_close(result, evaluator(model, "dense")(graph_of(model, after)))


def test_the_same_structure_twice_is_one_step(make_model, rng):
    model = make_model(r_max=3.2)
    iterative, guesses = evaluator(model, charge_tolerance=1e-6), []
    counting(iterative, guesses)
    first, second = steps_of(salt(2), rng, 2)
    for atoms in (first, first, second):
        iterative(graph_of(model, atoms))
    iterative.charges(graph_of(model, second))
    assert guesses == [0, 1, 1, 2]


def test_large_strains_choose_the_mesh_anew(make_model):
    model, atoms = make_model(r_max=3.2), salt(2)
    iterative, shapes = evaluator(model), []
    for scale in (1.0, 1.02, 1.12):
        moved = atoms.copy()
        moved.set_cell(scale * atoms.cell.array, scale_atoms=True)
        iterative(graph_of(model, moved), compute_forces=False)
        shapes.append(iterative.memory.geometry.parameters)
    assert shapes[0] == shapes[1] != shapes[2]


# --------------------------------------------------------------------------------------- the choice


def test_auto_goes_by_size(make_model, monkeypatch, tmp_path):
    monkeypatch.setenv("NEQUIPLR_CACHE", str(tmp_path))
    model = make_model(r_max=3.2)
    choice = Evaluator(model)
    assert not choice.iterative(149, True)
    assert choice.iterative(150, True)
    assert not choice.iterative(1728, False)
    assert not Evaluator(model, solver="dense").iterative(10**6, True)
    legacy = dataclasses.replace(model.config, legacy_ewald_cutoff=True)
    assert not SolverOptions().iterative(legacy, 10**6, True)
    with pytest.raises(InputError, match="solver: expected 'dense' or 'auto'"):
        SolverOptions("iterative").iterative(legacy, 8, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "fast"}, "solver: expected one of 'auto', 'dense', 'iterative', got 'fast'"),
        ({"charge_tolerance": 0.0}, "charge_tolerance: expected"),
        ({"max_iterations": 0}, "max_iterations: expected"),
        ({"max_iterations": 2.5}, "max_iterations: expected"),
    ],
)
def test_options_are_checked(make_model, options, message):
    with pytest.raises(InputError, match=message):
        Evaluator(make_model(), **options)


def test_failure_says_what_to_change_and_leaves_no_trace(make_model):
    model = make_model(r_max=3.2)
    graph = graph_of(model, salt(2))
    failing = evaluator(model, max_iterations=1)
    for _ in range(2):
        with pytest.raises(ConvergenceError, match=r"raise max_iterations \(now 1\).*charge_tol"):
            failing(graph)


def test_the_next_structure_after_a_failure_is_as_with_a_new_evaluator(make_model):
    model = make_model(r_max=3.2)
    used = evaluator(model, charge_tolerance=1e-4)
    patient, hasty = used.options, dataclasses.replace(used.options, max_iterations=1)
    first, mixed = salt(2), salt(2)
    mixed.numbers = mixed.numbers[np.random.default_rng(0).permutation(64)]
    for failing in (first, mixed):  # the same number of atoms, and of other kinds
        used(graph_of(model, first))
        used.options = hasty
        with pytest.raises(ConvergenceError):
            used(graph_of(model, failing, 1.0))
        used.options = patient
        for atoms in (mixed, first):
            found = used(graph_of(model, atoms))
            expected = evaluator(model, charge_tolerance=1e-4)(graph_of(model, atoms))
            if atoms is mixed:
                np.testing.assert_array_equal(found.forces, expected.forces)
            assert found.energy == pytest.approx(expected.energy, abs=1e-4)


def test_the_model_itself_needs_a_lattice_sum(make_model):
    model = make_model(r_max=3.2)
    with pytest.raises(InputError, match="graph: expected one with a lattice sum"):
        model(graph_of(model, salt(1)))
