"""The mesh sum against its slow twin, the Ewald sum."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    MeshCoulomb,
    MeshParameters,
    choose_parameters,
    ewald_geometry,
    mesh_compiled,
    mesh_geometry,
    mesh_kernels,
)
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.model.scripted.mesh import spline_weights
from openmm_nequiplr.units import COULOMB_CONSTANT

CELLS = {
    "cubic": np.diag([7.0, 7.0, 7.0]),
    "slab": np.diag([5.0, 6.0, 19.0]),
    "triclinic": np.array([[9.0, 0.0, 0.0], [2.5, 8.5, 0.0], [-1.5, 2.0, 10.0]]),
    "left-handed, oblique": np.array([[5.6, 0.1, 5.6], [-0.8, 6.4, 6.0], [6.0, 6.0, 0.3]]),
}


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

    def mesh(self, accuracy=1e-5, compiled=None, **options):
        widths = self.widths.numpy()
        geometry = mesh_geometry(self.positions, self.cell, widths, accuracy, **options)
        positions, cell = self.inputs()
        operator = MeshCoulomb(
            positions, cell, self.widths, geometry, COULOMB_CONSTANT, compiled=compiled
        )
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


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_equals_the_ewald_sum(rng, name, compiled):
    problem = random_problem(rng, CELLS[name])  # charged: background and all
    expected = gradients(*problem.ewald(), problem.charges)
    result = gradients(*problem.mesh(1e-7, compiled), problem.charges)
    assert float(abs(result[0] - expected[0])) < 1e-6 * float(abs(expected[0]))
    assert relative(result[1], expected[1]) < 1e-6
    assert relative(result[2], expected[2]) < 1e-6
    exact, operator = problem.ewald()[0], problem.mesh(1e-7, compiled)[0]
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


@pytest.mark.parametrize("compiled", [True, False])
def test_matrix_is_symmetric_and_agrees_with_the_other_forms(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"])
    operator = problem.mesh(compiled=compiled)[0]
    matrix, charges = operator.matrix(), problem.charges
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.potential(charges), matrix @ charges)
    torch.testing.assert_close(operator.energy(charges).detach(), 0.5 * charges @ matrix @ charges)
    assert relative(matrix, problem.ewald()[0].matrix().detach()) < 1e-5


@pytest.mark.parametrize("compiled", [True, False])
def test_forces_and_virial_are_the_derivatives_of_the_energy(rng, compiled):
    """Not merely close to those of the exact sum: also at a loose accuracy."""
    problem = random_problem(rng, CELLS["triclinic"], 5)
    # beyond the cutoff the coefficient drops to zero: keep away from that with a tight cutoff
    parameters = choose_parameters(problem.cell, problem.widths.numpy(), 1e-2)
    parameters = dataclasses.replace(parameters, reach=7.0)
    geometry = mesh_geometry(
        problem.positions, problem.cell, problem.widths.numpy(), parameters=parameters
    )

    def energy(positions, cell, charges):
        return MeshCoulomb(
            positions, cell, problem.widths, geometry, COULOMB_CONSTANT, compiled=compiled
        ).energy(charges)

    inputs = (*problem.inputs(), problem.charges.clone().requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs, eps=1e-5, atol=1e-6, rtol=1e-6)


def test_fields_of_products_serve_for_their_combinations(rng, monkeypatch):
    """Energy and forces of charges that a solver found, without going to the mesh again."""
    problem = random_problem(rng, CELLS["triclinic"])

    def fresh():
        operator, positions, cell = problem.mesh()
        operator._cell = cell.detach()
        return operator, positions

    def forces(operator, positions, charges):
        energy = operator.energy(charges)
        return energy.detach(), *torch.autograd.grad(energy, positions)

    basis = torch.tensor(rng.normal(size=(3, 12)))
    inside, outside = 0.3 * basis[0] - 2.0 * basis[2], torch.tensor(rng.normal(size=12))
    known, positions = fresh()
    for vector in basis:
        known.potential(vector)
    for charges in (inside, outside):
        with monkeypatch.context() as patch:
            if charges is inside:
                patch.setattr(known._sums, "distribute", None)
            found = forces(known, positions, charges)
        for got, expected in zip(found, forces(*fresh(), charges), strict=True):
            assert relative(got, expected) < 1e-12
    near_nothing = inside + 1e-6 * outside
    for got, expected in zip(
        forces(known, positions, near_nothing), forces(*fresh(), near_nothing), strict=True
    ):
        assert relative(got, expected) < 1e-12


@pytest.mark.parametrize("compiled", [True, False])
def test_several_charge_vectors_at_once(rng, monkeypatch, compiled):
    monkeypatch.setattr(mesh_compiled, "_ATOMS_PER_THREAD", 3)
    monkeypatch.setattr(mesh_compiled, "_POINTS_PER_THREAD", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        operator = random_problem(rng, CELLS["triclinic"]).mesh(compiled=compiled)[0]
        charges = torch.tensor(rng.normal(size=(3, 12)))
        together = operator.potentials(charges)
        one_by_one = torch.stack([operator.potential(row) for row in charges])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("compiled", [True, False])
def test_difference_of_two_energies(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"])
    operator, positions, cell = problem.mesh(compiled=compiled)
    other = torch.tensor(rng.normal(size=12))
    once = operator.energy_difference(problem.charges, other)
    twice = operator.energy(problem.charges) - operator.energy(other)
    torch.testing.assert_close(once, twice)
    results = [torch.autograd.grad(e, (positions, cell)) for e in (once, twice)]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("narrowest", "layers", "pairs"), [(1.6, 1, True), (0.9, 3, True), (0.45, 3, False)]
)
def test_charges_as_wide_as_they_are_on_the_mesh(rng, compiled, narrowest, layers, pairs):
    """One layer of the mesh for all, layers and pairs, layers without pairs: the same sum."""
    problem = random_problem(rng, CELLS["triclinic"])
    shape = tuple(int(36 / narrowest) for _ in range(3))
    parameters = MeshParameters(narrowest, reach=6.5, shape=shape, order=8)
    operator, positions, cell = problem.mesh(compiled=compiled, parameters=parameters)
    geometry = operator._geometry
    assert len(geometry.mesh_widths) == layers
    assert bool(geometry.pairs.shape[1]) is pairs
    assert geometry.serves(problem.positions + 3.0, problem.cell) is not pairs
    result = gradients(operator, positions, cell, problem.charges)
    expected = gradients(*problem.ewald(), problem.charges)
    for got, wanted in zip(result, expected, strict=True):
        assert relative(got, wanted) < 1e-6
    assert relative(operator.diagonal(), problem.ewald()[0].diagonal().detach()) < 1e-6
    if layers > 1:
        with pytest.raises(InputError, match="uniform=True"):
            _ = operator.smoothing_width


@pytest.mark.parametrize("compiled", [True, False])
def test_single_precision_serves_moderate_accuracies(rng, compiled):
    problem = random_problem(rng, CELLS["triclinic"], 40)
    geometry = mesh_geometry(problem.positions, problem.cell, problem.widths.numpy(), 1e-5)
    operators = [
        MeshCoulomb(
            *problem.inputs(), problem.widths, geometry, 1.0, compiled=compiled, dtype=dtype
        )
        for dtype in (torch.float32, torch.float64)
    ]
    single, double = (operator.potential(problem.charges) for operator in operators)
    assert single.dtype == torch.float64
    assert 0.0 < relative(single, double) < 2e-6


@pytest.mark.parametrize("order", [4, 6, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stencils_are_those_of_the_recursion(rng, order, dtype):
    shape, count = np.array([9, 12, 30]), 50
    place = rng.uniform(-40.0, 40.0, (count, 3))
    place[0] = 7.0
    index = np.empty((count, 3, order), np.int32)
    weight, slope = np.empty(index.shape, dtype), np.empty(index.shape, dtype)
    splines, *_ = mesh_kernels.stencil_kernels(order, dtype)
    splines(place, shape, index, weight, slope, 0, count)
    floor = np.floor(place)
    expected = spline_weights(torch.tensor(place - floor), order)
    tolerance = 20 * np.finfo(dtype).eps
    for found, wanted in zip((weight, slope), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=tolerance)
    points = (floor[:, :, None] + np.arange(order)) % shape[:, None]
    np.testing.assert_array_equal(index, points)


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


@pytest.mark.parametrize("uniform", [True, False])
def test_the_choice_resolves_narrow_charges_by_pairs_and_wide_ones_on_the_mesh(uniform):
    cell, widths = 40.0 * np.eye(3), np.array([0.3] * 2000 + [0.7] * 1000 + [2.5] * 20)
    chosen = choose_parameters(cell, widths, 1e-5, uniform=uniform)
    on_mesh = set(chosen.on_mesh(widths))
    assert len(on_mesh) == (1 if uniform else 2)
    assert (2.5 in on_mesh) or uniform
    assert 0.3 not in on_mesh


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


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("accuracy", [1e-4, 1e-7])
def test_skewed_cells_are_resolved_as_well_as_others(rng, accuracy, compiled):
    """Also without reduction, which saves points and decides no result."""
    problem = random_problem(rng, np.diag([9.0, 10.0, 11.0]), 40, neutral=True)
    expected, force, _ = gradients(*problem.ewald(), problem.charges)
    for skew in SKEWS:
        problem.cell = np.array(skew) @ np.diag([9.0, 10.0, 11.0])
        found, ours, _ = gradients(*problem.mesh(accuracy, compiled), problem.charges)
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
    operator = problem.mesh(1e-9, uniform=True)[0]
    assert operator.smoothing_width == pytest.approx(3.0 * np.sqrt(2.0))
    expected = problem.ewald()[0].screening().energy(problem.charges)
    torch.testing.assert_close(operator.screening().energy(problem.charges), expected)


def test_a_second_derivative_is_refused(rng):
    problem = random_problem(rng, CELLS["cubic"])
    operator, positions, _ = problem.mesh(compiled=True)
    (slope,) = torch.autograd.grad(operator.energy(problem.charges), positions, create_graph=True)
    for value in (slope[0, 0], slope.square().sum()):
        with pytest.raises(RuntimeError, match=r"mesh sum has one derivative.* any further"):
            torch.autograd.grad(value, positions, retain_graph=True)
