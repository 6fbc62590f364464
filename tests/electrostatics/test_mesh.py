"""The mesh sum against its slow twin, the Ewald sum."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools

import numpy as np
import pytest
import torch
from scipy.fft import next_fast_len

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    MeshCoulomb,
    MeshParameters,
    choose_parameters,
    ewald_geometry,
    mesh_geometry,
)
from openmm_nequiplr.electrostatics.splitting import fast_length
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.ops import references
from openmm_nequiplr.units import COULOMB_CONSTANT

mesh_geometry_module = importlib.import_module("openmm_nequiplr.electrostatics.mesh_geometry")

CELLS = {
    "cubic": np.diag([7.0, 7.0, 7.0]),
    "slab": np.diag([5.0, 6.0, 19.0]),
    "triclinic": np.array([[9.0, 0.0, 0.0], [2.5, 8.5, 0.0], [-1.5, 2.0, 10.0]]),
    "left-handed, oblique": np.array([[5.6, 0.1, 5.6], [-0.8, 6.4, 6.0], [6.0, 6.0, 0.3]]),
}


@pytest.fixture(params=["kernels", "reference"])
def compiled(request):
    """With the compiled kernels, and without."""
    with references() if request.param == "reference" else contextlib.nullcontext():
        yield


@dataclasses.dataclass
class Problem:
    positions: np.ndarray
    cell: np.ndarray
    widths: torch.Tensor
    charges: torch.Tensor

    def inputs(self):
        positions = torch.tensor(self.positions, requires_grad=True)
        return positions, torch.tensor(self.cell, requires_grad=True)

    def ewald(self):
        geometry = ewald_geometry(self.positions, self.cell, float(self.widths.max()), 1e-12)
        positions, cell = self.inputs()
        operator = EwaldCoulomb(positions, cell, self.widths, geometry, COULOMB_CONSTANT)
        return operator, positions, cell

    def mesh(self, accuracy=1e-5, **options):
        widths = self.widths.numpy()
        geometry = mesh_geometry(self.positions, self.cell, widths, accuracy, **options)
        positions, cell = self.inputs()
        operator = MeshCoulomb(positions, cell, self.widths, geometry, COULOMB_CONSTANT)
        return operator, positions, cell


def random_problem(rng, cell, count=12, neutral=False) -> Problem:
    positions = rng.random((count, 3)) @ cell
    widths = torch.tensor(rng.choice([0.5, 1.0, 1.6], count))
    charges = torch.tensor(rng.normal(size=count))
    return Problem(positions, cell, widths, charges - charges.mean() if neutral else charges)


def gradients(operator, positions, cell, charges):
    energy = operator.energy(charges)
    return energy.detach(), *torch.autograd.grad(energy, (positions, cell))


def relative(got, expected) -> float:
    norm = torch.linalg.vector_norm
    return (norm(got - expected) / norm(expected)).item()


@pytest.mark.parametrize("name", CELLS)
def test_equals_the_ewald_sum(rng, name, compiled):
    problem = random_problem(rng, CELLS[name])  # charged: background and all
    expected = gradients(*problem.ewald(), problem.charges)
    result = gradients(*problem.mesh(1e-7), problem.charges)
    assert float(abs(result[0] - expected[0])) < 1e-6 * float(abs(expected[0]))
    assert relative(result[1], expected[1]) < 1e-6
    assert relative(result[2], expected[2]) < 1e-6
    exact, operator = problem.ewald()[0], problem.mesh(1e-7)[0]
    assert relative(operator.potential(problem.charges), exact.potential(problem.charges)) < 1e-6
    assert relative(operator.diagonal(), exact.diagonal()) < 1e-6


@pytest.mark.parametrize("name", ["slab", "triclinic"])
def test_error_falls_with_the_requested_accuracy(rng, name):
    problem = random_problem(rng, 2.0 * CELLS[name], 80, neutral=True)
    _, force, slope = gradients(*problem.ewald(), problem.charges)
    errors = []
    for accuracy in (1e-3, 1e-4, 1e-5, 1e-6):
        _, ours, tilt = gradients(*problem.mesh(accuracy), problem.charges)
        errors.append(relative(ours, force))
        assert errors[-1] < accuracy
        assert relative(tilt, slope) < 10.0 * accuracy
    assert all(after < 0.5 * before for before, after in itertools.pairwise(errors))


def test_matrix_is_symmetric_and_agrees_with_the_other_forms(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"])
    operator = problem.mesh()[0]
    matrix, charges = operator.matrix(), problem.charges
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.potential(charges), matrix @ charges)
    torch.testing.assert_close(operator.energy(charges).detach(), 0.5 * charges @ matrix @ charges)
    assert relative(matrix, problem.ewald()[0].matrix().detach()) < 1e-5


def test_forces_and_virial_are_the_derivatives_of_the_energy(rng, compiled):
    """Not merely close to those of the exact sum: also at a loose accuracy."""
    problem = random_problem(rng, CELLS["triclinic"], 5)
    # beyond the cutoff the coefficient drops to zero: keep away from that with a tight cutoff
    parameters = choose_parameters(torch.tensor(problem.cell), 1.6, 5, 1e-2)
    parameters = parameters._replace(cutoff=7.0 * parameters.eta)
    geometry = mesh_geometry(
        problem.positions, problem.cell, problem.widths.numpy(), parameters=parameters
    )

    def energy(positions, cell, charges):
        operator = MeshCoulomb(positions, cell, problem.widths, geometry, COULOMB_CONSTANT)
        return operator.energy(charges)

    inputs = (*problem.inputs(), problem.charges.clone().requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs, eps=1e-5, atol=1e-6, rtol=1e-6)


def test_difference_of_two_energies(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"])
    operator, positions, cell = problem.mesh()
    other = torch.tensor(rng.normal(size=12))
    once = operator.energy_difference(problem.charges, other)
    twice = operator.energy(problem.charges) - operator.energy(other)
    torch.testing.assert_close(once, twice)
    results = [torch.autograd.grad(e, (positions, cell)) for e in (once, twice)]
    torch.testing.assert_close(*results)


def test_energies_out_of_fields_of_earlier_products(rng, compiled):
    """Also for combinations of charges whose products were taken."""
    problem = random_problem(rng, CELLS["triclinic"])
    geometry = mesh_geometry(problem.positions, problem.cell, problem.widths.numpy())
    positions, cell = problem.inputs()[0], torch.tensor(problem.cell)
    operator = MeshCoulomb(positions, cell, problem.widths, geometry, COULOMB_CONSTANT)
    other, fields = torch.tensor(rng.normal(size=12)), []
    for charges in (problem.charges, other):
        operator.potential(charges)
        fields.append(operator.field)
    pair = problem.charges - 2.0 * other, other
    known = operator.energy_difference(*pair, [fields[0] - 2.0 * fields[1], fields[1]])
    anew = operator.energy_difference(*pair)
    torch.testing.assert_close(known, anew, rtol=1e-13, atol=0.0)
    slopes = [torch.autograd.grad(energy, positions)[0] for energy in (known, anew)]
    assert (slopes[0] - slopes[1]).abs().max() < 1e-12 * slopes[1].abs().max()


@pytest.mark.parametrize("eta", [1.6, 2.0])
def test_charges_as_wide_as_the_mesh_takes_them_for_need_no_pairs(rng, compiled, eta):
    problem = random_problem(rng, CELLS["triclinic"])
    problem.widths = torch.full_like(problem.widths, 1.6)
    eta = np.sqrt(2.0) * eta
    parameters = MeshParameters(eta, cutoff=6.5 * eta, shape=[24, 24, 24], order=8)
    operator, positions, cell = problem.mesh(parameters=parameters)
    geometry = mesh_geometry(
        problem.positions, problem.cell, problem.widths.numpy(), parameters=parameters
    )
    pairs = bool(len(geometry.first))
    assert pairs == (eta > 2.3)
    assert geometry.serves(problem.positions + 3.0, problem.cell) is not pairs
    assert operator.smoothing_width == eta
    result = gradients(operator, positions, cell, problem.charges)
    expected = gradients(*problem.ewald(), problem.charges)
    for got, wanted in zip(result, expected, strict=True):
        assert relative(got, wanted) < 1e-6
    assert relative(operator.diagonal(), problem.ewald()[0].diagonal().detach()) < 1e-6


def test_single_precision_serves_moderate_accuracies(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"], 40)
    geometry = mesh_geometry(problem.positions, problem.cell, problem.widths.numpy(), 1e-5)
    operators = [
        MeshCoulomb(*problem.inputs(), problem.widths, geometry, 1.0, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    ]
    single, double = (operator.potential(problem.charges) for operator in operators)
    assert single.dtype == torch.float64
    assert 0.0 < relative(single, double) < 2e-6


def test_threads_change_nothing_but_rounding(rng):
    problem = random_problem(rng, CELLS["triclinic"] * 5, 2500)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        operator, positions, cell = problem.mesh(1e-3)
        values = gradients(operator, positions, cell, problem.charges)
        results.append((*values, operator.potential(problem.charges)))
    torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_the_mesh_resolves_the_widest_charges():
    cell = 40.0 * torch.eye(3, dtype=torch.float64)
    wide, narrow = (choose_parameters(cell, width, 3020, 1e-5) for width in (2.5, 0.3))
    assert wide.eta == pytest.approx(2.5 * np.sqrt(2.0))
    assert narrow.eta < wide.eta
    assert max(wide.shape) < min(narrow.shape)
    too_narrow = wide._replace(eta=2.0)
    with pytest.raises(InputError, match="parameters: expected an eta of at least"):
        mesh_geometry(np.zeros((1, 3)), cell.numpy(), np.array([2.5]), parameters=too_narrow)


@pytest.mark.parametrize("least", range(8, 300, 7))
def test_mesh_sizes_are_even_and_fast(least):
    size = fast_length(least)
    assert size >= least
    assert size == 2 * next_fast_len((least + 1) // 2)


def test_screening_is_that_of_the_ewald_sum(rng):
    problem = random_problem(rng, CELLS["triclinic"])
    charges = problem.charges
    ours = problem.mesh(1e-9)[0].screening().energy(charges)
    torch.testing.assert_close(ours, problem.ewald()[0].screening().energy(charges))


def test_a_list_serves_until_an_atom_has_moved_half_the_skin(rng):
    problem = random_problem(rng, CELLS["slab"], 20)
    widths = problem.widths.numpy()
    geometry = mesh_geometry(problem.positions, problem.cell, widths, skin=1.0)
    step = rng.normal(size=(20, 3))
    step *= 0.49 / np.linalg.norm(step, axis=1, keepdims=True)
    moved = problem.positions + step
    assert geometry.serves(moved, problem.cell)
    assert not geometry.serves(moved + step, problem.cell)
    assert not geometry.serves(moved[:-1], problem.cell)
    assert not geometry.serves(problem.positions, 1.2 * problem.cell)
    # what comes out does not depend on the age of the list
    fresh = mesh_geometry(moved, problem.cell, widths, parameters=geometry.parameters)
    results = []
    for lists in (geometry, fresh):
        operator = MeshCoulomb(
            torch.tensor(moved), torch.tensor(problem.cell), problem.widths, lists, 1.0
        )
        results.append(operator.energy(problem.charges))
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("most", [0.0, 1e7])
def test_lists_made_on_a_device(rng, monkeypatch, most):
    problem = random_problem(rng, CELLS["triclinic"], 20)
    operators = [problem.mesh(skin=1.0)[0]]
    with monkeypatch.context() as changed:
        changed.setattr(mesh_geometry_module, "_collect_pairs", _collected_as_on_a_device)
        changed.setattr(mesh_geometry_module, "_MOST_IMAGES", most)
        operators.append(problem.mesh(skin=1.0)[0])
    assert len(operators[0].kind) == len(operators[1].kind) > 0
    torch.testing.assert_close(*(operator.matrix() for operator in operators), rtol=0, atol=1e-12)


def _collected_as_on_a_device(*arguments):
    found = mesh_geometry_module._collect_pairs_on(torch.device("cpu"), *arguments)
    return tuple(each.numpy() for each in found)


def test_a_strained_cell_is_served_while_the_list_reaches(rng):
    problem = random_problem(rng, CELLS["triclinic"], 20)
    geometry = mesh_geometry(problem.positions, problem.cell, problem.widths.numpy(), skin=0.8)
    for strain, expected in ((1.002, True), (0.998, True), (0.9, False)):
        assert geometry.serves(problem.positions * strain, problem.cell * strain) is expected, (
            strain
        )


SKEWS = (
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
    [[1, 0, 0], [2, 1, 0], [-1, 1, 1]],
    [[0, -1, 0], [1, 3, 1], [1, 1, 0]],
)


@pytest.mark.parametrize("accuracy", [1e-4, 1e-7])
def test_skewed_cells_are_resolved_as_well_as_others(rng, accuracy, compiled):
    """Also without reduction, which saves points and decides no result."""
    problem = random_problem(rng, np.diag([9.0, 10.0, 11.0]), 40, neutral=True)
    expected, force, _ = gradients(*problem.ewald(), problem.charges)
    for skew in SKEWS:
        problem.cell = np.array(skew) @ np.diag([9.0, 10.0, 11.0])
        found, ours, _ = gradients(*problem.mesh(accuracy), problem.charges)
        assert relative(ours, force) < accuracy
        assert relative(found, expected) < accuracy


def test_a_cell_too_large_for_a_mesh_is_refused(rng):
    problem = random_problem(rng, np.diag([9.0, 9.0, 9.0]), 4)
    problem.cell = np.diag([1e12, 3.0, 3.0])
    with pytest.raises(BoxError, match=r"cell: expected a cell that a mesh .* got 'one of 1e\+12"):
        problem.mesh()


@pytest.mark.parametrize("edges", [(3e3, 3e3, 3e3), (2e4, 6.0, 7.0), (900.0, 2e3, 8.0)])
def test_few_atoms_in_much_space(rng, edges):
    problem = random_problem(rng, np.diag([6.0, 6.0, 6.0]), 4)
    problem.cell = np.diag(edges)
    expected = problem.ewald()[0].potential(problem.charges)
    assert relative(problem.mesh()[0].potential(problem.charges), expected) < 1e-5


def test_atoms_in_far_cells_are_those_in_this_one(rng):
    problem = random_problem(rng, CELLS["triclinic"], 20)
    expected = problem.mesh()[0].potential(problem.charges)
    problem.positions = problem.positions + rng.integers(-100_000, 100_000, (20, 3)) @ problem.cell
    assert relative(problem.mesh()[0].potential(problem.charges), expected) < 1e-9


def test_many_widths_go_without_tables(rng):
    problem = random_problem(rng, CELLS["cubic"], 30)
    problem.widths = torch.tensor(rng.uniform(0.4, 1.6, 30))
    operator = problem.mesh(1e-6)[0]
    expected = problem.ewald()[0].potential(problem.charges)
    assert relative(operator.potential(problem.charges), expected) < 1e-6


def test_bad_arguments(rng):
    problem = random_problem(rng, CELLS["cubic"])
    with pytest.raises(InputError, match="accuracy: expected"):
        problem.mesh(0.5)
    problem.cell = np.zeros((3, 3))
    with pytest.raises(BoxError, match="cell"):
        problem.mesh()


def test_screening_has_the_pairs_that_the_mesh_leaves_out(rng):
    problem = random_problem(rng, CELLS["cubic"])
    problem.widths = torch.full_like(problem.widths, 3.0)  # γ is the Ewald width: no pairs at all
    operator = problem.mesh(1e-9)[0]
    assert operator.smoothing_width == pytest.approx(3.0 * np.sqrt(2.0))
    expected = problem.ewald()[0].screening().energy(problem.charges)
    torch.testing.assert_close(operator.screening().energy(problem.charges), expected)


def test_a_second_derivative_is_refused(rng):
    problem = random_problem(rng, CELLS["cubic"])
    operator, positions, _ = problem.mesh()
    (slope,) = torch.autograd.grad(operator.energy(problem.charges), positions, create_graph=True)
    for value in (slope[0, 0], slope.square().sum()):
        with pytest.raises(RuntimeError, match=r"mesh sum has one derivative.* any further"):
            torch.autograd.grad(value, positions, retain_graph=True)
