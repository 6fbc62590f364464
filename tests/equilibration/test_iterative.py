"""Conjugate gradients against the dense solver; convergence; failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    FreeSpaceCoulomb,
    MeshCoulomb,
    SlabCoulomb,
    ewald_geometry,
    mesh_geometry,
)
from openmm_nequiplr.equilibration import (
    DenseSolver,
    IterativeSolver,
    JacobiPreconditioner,
    WoodburyPreconditioner,
    lagrangian_weights,
    positive_diagonal,
)
from openmm_nequiplr.equilibration.preconditioning import lowest_kvectors
from openmm_nequiplr.errors import ConvergenceError, InputError
from openmm_nequiplr.units import COULOMB_CONSTANT


def woodbury(positions, cell, diagonal, kvectors=None):
    made = WoodburyPreconditioner(COULOMB_CONSTANT, kvectors)
    made.make(diagonal, positions, cell)
    return made


SHEAR = np.array([[1.0, 0.0, 0.0], [0.25, 1.0, 0.0], [-0.15, 0.2, 1.0]])


class RockSalt:
    """Rattled rock salt of 8 n³ atoms with electronegativities that vary from atom to atom."""

    def __init__(self, rng, cells, shear=False):
        faces = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
        sites = np.concatenate((faces, (faces + np.array([1, 0, 0])) % 2)) / 2.0
        shifts = np.stack(np.meshgrid(*[np.arange(n) for n in cells], indexing="ij"), axis=-1)
        grid = (shifts.reshape(-1, 1, 3) + sites).reshape(-1, 3)
        lattice = 5.64 * (SHEAR if shear else np.eye(3))
        self.cell = np.diag(cells) @ lattice
        self.count = len(grid)
        self.positions = grid @ lattice + rng.normal(scale=0.1, size=(self.count, 3))
        sodium = torch.arange(self.count) % 8 < 4
        self.widths = torch.where(sodium, 1.66, 1.02).double()
        self.hardness = torch.where(sodium, 6.0, 12.0).double()
        noise = torch.tensor(rng.normal(scale=0.5, size=self.count))
        self.chi = torch.where(sodium, -3.0, 3.0).double() + noise
        self.gradient = torch.tensor(rng.normal(size=self.count))

    def tensors(self):
        positions = torch.tensor(self.positions, requires_grad=True)
        return positions, torch.tensor(self.cell), self.widths

    def ewald(self):
        geometry = ewald_geometry(self.positions, self.cell, float(self.widths.max()), 1e-10)
        positions, cell, widths = self.tensors()
        return EwaldCoulomb(positions, cell, widths, geometry, COULOMB_CONSTANT), positions

    def mesh(self, accuracy=1e-5):
        geometry = mesh_geometry(self.positions, self.cell, self.widths.numpy(), accuracy)
        positions, cell, widths = self.tensors()
        return MeshCoulomb(positions, cell, widths, geometry, COULOMB_CONSTANT), positions

    def woodbury(self, operator):
        diagonal = operator.diagonal() + self.hardness
        positions, cell, _ = self.tensors()
        return woodbury(positions, cell, diagonal)

    def solver(self, operator, **options):
        options.setdefault("preconditioner", self.woodbury(operator))
        return IterativeSolver(operator, self.hardness, **options)

    def evaluate(self, solver, operator, positions, total):
        """Charges, energy and Coulomb forces as in the Lagrangian with an adjoint."""
        charges = solver.solve(self.chi, torch.tensor(total, dtype=torch.float64)).charges
        adjoint = solver.solve(-self.gradient, torch.zeros(()).double()).charges
        weights = lagrangian_weights(charges, adjoint, True)
        energy = operator.energy(weights) - operator.energy(adjoint)
        (slope,) = torch.autograd.grad(energy, positions)
        functional = self.chi @ charges + 0.5 * (self.hardness * charges) @ charges
        return charges, (functional + operator.energy(charges)).item(), -slope


@pytest.mark.parametrize(
    ("cells", "shear", "total"),
    [((4, 4, 4), False, 0.0), ((3, 4, 6), True, 0.0), ((3, 5, 4), True, 3.0)],
    ids=["cubic", "triclinic", "charged"],
)
def test_equals_the_dense_solution_of_the_exact_sum(rng, cells, shear, total):
    """Mesh and iterations together against Ewald and LU, 480 to 576 atoms."""
    crystal = RockSalt(rng, cells, shear)
    exact, positions = crystal.ewald()
    dense = DenseSolver(exact.matrix() + torch.diag(crystal.hardness))
    charges, energy, forces = crystal.evaluate(dense, exact, positions, total)
    mesh, positions = crystal.mesh()
    solver = crystal.solver(mesh, tolerance=1e-8)
    ours, our_energy, our_forces = crystal.evaluate(solver, mesh, positions, total)
    assert our_energy == pytest.approx(energy, rel=1e-6)
    assert (our_forces - forces).norm() < 1e-4 * forces.norm()
    assert (ours - charges).abs().max() < 1e-5
    assert ours.sum().item() == pytest.approx(total, abs=1e-10)


def test_residual_and_multiplier_are_those_of_the_dense_solver(rng):
    crystal = RockSalt(rng, (2, 2, 3))
    operator = crystal.ewald()[0]
    total = torch.tensor(0.5, dtype=torch.float64)
    dense = DenseSolver(operator.matrix() + torch.diag(crystal.hardness)).solve(crystal.chi, total)
    result = crystal.solver(operator, tolerance=1e-10).solve(crystal.chi, total)
    torch.testing.assert_close(result.charges, dense.charges, rtol=0, atol=1e-9)
    torch.testing.assert_close(result.multiplier, dense.multiplier, rtol=0, atol=1e-8)
    slope = operator.potential(result.charges) + crystal.hardness * result.charges
    gap = slope + crystal.chi + result.multiplier
    assert result.residual == pytest.approx(gap.abs().max().item(), abs=1e-12)
    assert 0 < result.residual < 1e-8


@pytest.mark.parametrize("unwatched", [1, 4, 30])
def test_iterations_that_are_not_watched_do_no_harm(rng, unwatched):
    """As on a GPU: the same number is needed, also where the residual vanishes on the way."""
    crystal = RockSalt(rng, (2, 2, 3))
    operator, total = crystal.mesh()[0], torch.tensor(0.0, dtype=torch.float64)
    solver = crystal.solver(operator, tolerance=1e-6)
    watched = solver.solve(crystal.chi, total)
    solver.unwatched = unwatched
    result = solver.solve(crystal.chi, total)
    assert result.iterations == watched.iterations
    torch.testing.assert_close(result.charges, watched.charges, rtol=0, atol=1e-5)
    product = operator.potential(result.charges) + crystal.hardness * result.charges
    torch.testing.assert_close(result.gradient, product + crystal.chi, rtol=0, atol=1e-9)
    nothing = solver.solve(0.0 * crystal.chi, total)
    assert nothing.iterations == 0
    assert not nothing.charges.any()


@pytest.mark.parametrize("total", [0.0, 2.0])
def test_gradient_and_field_are_those_of_the_charges(rng, total):
    """They are combined out of those of the iterations; also without any."""
    crystal = RockSalt(rng, (3, 3, 3))
    operator = crystal.mesh()[0]
    solver = crystal.solver(operator, tolerance=1e-4)
    total = torch.tensor(total, dtype=torch.float64)
    guess = torch.tensor(rng.normal(scale=1e-3, size=crystal.count))
    for chi, start in ((crystal.chi, None), (crystal.chi, guess), (0.0 * crystal.chi, None)):
        result = solver.solve(chi, total, start)
        product = operator.potential(result.charges) + crystal.hardness * result.charges
        torch.testing.assert_close(result.gradient, product + chi, rtol=0, atol=1e-10)
        torch.testing.assert_close(result.field, operator.field, rtol=0, atol=1e-10)
    dense = DenseSolver(operator.matrix() + torch.diag(crystal.hardness)).solve(crystal.chi, total)
    expected = operator.potential(dense.charges) + crystal.hardness * dense.charges + crystal.chi
    torch.testing.assert_close(dense.gradient, expected, rtol=0, atol=1e-10)


def test_tolerance_is_kept(rng):
    crystal = RockSalt(rng, (3, 3, 3))
    operator = crystal.mesh()[0]
    total = torch.zeros((), dtype=torch.float64)
    for tolerance in (1e-3, 1e-5, 1e-7):
        result = crystal.solver(operator, tolerance=tolerance).solve(crystal.chi, total)
        slope = crystal.chi + operator.potential(result.charges)
        slope = slope + crystal.hardness * result.charges
        reference = (crystal.chi - crystal.chi.mean()).norm()
        assert (slope - slope.mean()).norm() < 1.01 * tolerance * reference


def test_long_waves_need_the_woodbury_preconditioner(rng):
    """In a long cell: iterations of both preconditioners at a relative residual of 1e-5."""
    crystal = RockSalt(rng, (3, 3, 24))
    operator = crystal.mesh()[0]
    jacobi = JacobiPreconditioner(operator.diagonal() + crystal.hardness)
    zero = torch.zeros((), dtype=torch.float64)
    plain, woodbury = (
        crystal.solver(operator, tolerance=1e-5, preconditioner=p).solve(crystal.chi, zero)
        for p in (jacobi, crystal.woodbury(operator))
    )
    assert woodbury.iterations <= 15
    assert woodbury.iterations < 0.6 * plain.iterations
    torch.testing.assert_close(woodbury.charges, plain.charges, rtol=0, atol=1e-4)


def test_the_dipole_of_a_slab_needs_a_column(rng):
    """Iterations with and without it, in a slab of hardly any vacuum."""
    crystal = RockSalt(rng, (3, 3, 6))
    mesh, points = crystal.mesh()
    place = points.detach(), torch.tensor(crystal.cell)
    operator, zero = SlabCoulomb(mesh, *place, COULOMB_CONSTANT), torch.zeros(()).double()
    diagonal = positive_diagonal(operator.diagonal().detach(), crystal.hardness)
    without, found = woodbury(*place, diagonal), woodbury(*place, diagonal)
    found.make(diagonal, *place, None, operator.low_rank())
    before, after = (
        crystal.solver(operator, tolerance=1e-5, preconditioner=p).solve(crystal.chi, zero)
        for p in (without, found)
    )
    assert after.iterations < before.iterations
    torch.testing.assert_close(after.charges, before.charges, rtol=0, atol=1e-4)


def test_preconditioner_stays_symmetric(rng):
    crystal = RockSalt(rng, (2, 2, 2), shear=True)
    positions, cell, _ = crystal.tensors()
    made = woodbury(positions, cell, crystal.hardness + 4.0, 9)
    unit = torch.eye(len(crystal.hardness), dtype=torch.float64)
    matrix = torch.stack([made(row) for row in unit])
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-6)
    lowest = torch.linalg.eigvalsh(matrix)[:2]  # that of ones is zero
    assert lowest[0].abs() < 1e-6 < lowest[1]
    assert not bool(made(torch.zeros_like(crystal.chi)).any())


def test_preconditioner_is_reused_until_iterations_grow_or_the_cell_changes(rng):
    crystal = RockSalt(rng, (2, 2, 2))
    positions, cell, _ = crystal.tensors()
    made = WoodburyPreconditioner(COULOMB_CONSTANT)
    assert not made.fits(crystal.count, cell)
    for _ in range(2):
        made.make(crystal.hardness, positions, cell)
        made.report(6)
        made.report(9)
        assert made.fits(crystal.count, cell)
        assert made.fits(crystal.count, 1.01 * cell)
        assert not made.fits(crystal.count, 1.1 * cell)
        assert not made.fits(crystal.count - 1, cell)
        made.report(11)
        assert not made.fits(crystal.count, cell)


def test_a_cell_small_against_the_charges(rng):
    """Where K has a negative diagonal, and A a negative eigenvalue along (1, …, 1)."""
    positions = torch.tensor(rng.uniform(0.0, 3.0, size=(4, 3)))
    cell, widths = 3.0 * torch.eye(3).double(), torch.full((4,), 1.6).double()
    geometry = mesh_geometry(positions.numpy(), cell.numpy(), widths.numpy(), 1e-7)
    operator = MeshCoulomb(positions, cell, widths, geometry, COULOMB_CONSTANT)
    hardness = torch.full((4,), 2.0).double()
    matrix = operator.matrix() + torch.diag(hardness)
    assert torch.linalg.eigvalsh(matrix)[0] < 0.0
    chi, total = torch.tensor(rng.normal(size=4)), torch.tensor(1.0).double()
    expected = DenseSolver(matrix).solve(chi, total)
    result = IterativeSolver(operator, hardness, tolerance=1e-10).solve(chi, total)
    torch.testing.assert_close(result.charges, expected.charges, rtol=0, atol=1e-8)


@pytest.mark.parametrize("count", [1, 13, 40])
def test_lowest_kvectors_of_a_skewed_cell(count):
    cell = torch.tensor([[5.0, 0.0, 0.0], [4.0, 6.0, 0.0], [-3.0, 7.0, 21.0]]).double()
    reciprocal = 2 * np.pi * torch.linalg.inv(cell).T
    axis = torch.arange(-12.0, 13.0, dtype=torch.float64)
    lengths = (torch.cartesian_prod(axis, axis, axis) @ reciprocal).norm(dim=-1).sort().values
    found = lowest_kvectors(cell, count).norm(dim=-1)
    torch.testing.assert_close(found, lengths[1 : 2 * count + 1 : 2])


def test_free_space_with_the_diagonal(rng):
    positions = torch.tensor(rng.uniform(0, 20, size=(150, 3)))
    widths = torch.tensor(rng.uniform(0.5, 1.5, 150))
    hardness = torch.tensor(rng.uniform(5.0, 12.0, 150))
    chi = torch.tensor(rng.normal(size=150))
    operator = FreeSpaceCoulomb(positions, widths, COULOMB_CONSTANT)
    total = torch.tensor(-1.0, dtype=torch.float64)
    expected = DenseSolver(operator.matrix() + torch.diag(hardness)).solve(chi, total)
    result = IterativeSolver(operator, hardness, tolerance=1e-9).solve(chi, total)
    torch.testing.assert_close(result.charges, expected.charges, rtol=0, atol=1e-7)


def test_a_good_guess_saves_iterations_and_its_total_charge_is_mended(rng):
    crystal = RockSalt(rng, (3, 3, 3))
    solver = crystal.solver(crystal.mesh()[0])
    total = torch.tensor(1.0, dtype=torch.float64)
    cold = solver.solve(crystal.chi, total)
    assert solver.solve(crystal.chi, total, cold.charges).iterations <= 1
    noise = torch.tensor(rng.normal(scale=1e-3, size=crystal.count))
    warm = solver.solve(crystal.chi, total, cold.charges + noise + 0.2)
    assert 0 < warm.iterations < cold.iterations
    assert warm.charges.sum().item() == pytest.approx(1.0, abs=1e-10)
    torch.testing.assert_close(warm.charges, cold.charges, rtol=0, atol=1e-5)


def test_nothing_to_solve():
    """Equal electronegativities, one atom, and the adjoint of an energy without charges."""
    operator = FreeSpaceCoulomb(torch.zeros(1, 3).double(), torch.ones(1).double(), 1.0)
    solver = IterativeSolver(operator, torch.ones(1).double())
    result = solver.solve(torch.ones(1).double(), torch.tensor(2.0).double())
    assert result.charges.tolist() == [2.0]
    adjoint = solver.solve(torch.zeros(1).double(), torch.zeros(()).double())
    assert (adjoint.charges.tolist(), adjoint.iterations) == ([0.0], 0)


def test_failures_say_what_to_change(rng):
    crystal = RockSalt(rng, (2, 2, 2))
    operator, zero = crystal.mesh()[0], torch.zeros((), dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="after 3 iterations.*raise max_iterations"):
        crystal.solver(operator, max_iterations=3).solve(crystal.chi, zero)
    with pytest.raises(ConvergenceError, match="not finite"):
        crystal.solver(operator).solve(crystal.chi * torch.nan, zero)
    jacobi = JacobiPreconditioner(torch.ones_like(crystal.chi))
    with pytest.raises(ConvergenceError, match="not positive definite"):
        IterativeSolver(operator, crystal.hardness - 60.0, preconditioner=jacobi).solve(
            crystal.chi, zero
        )
    with pytest.raises(InputError, match="guess: expected shape"):
        crystal.solver(operator).solve(crystal.chi, zero, torch.zeros(3).double())
    with pytest.raises(InputError, match="tolerance: expected"):
        crystal.solver(operator, tolerance=0.0)
    with pytest.raises(InputError, match="max_iterations: expected"):
        crystal.solver(operator, max_iterations=0)
    with pytest.raises(InputError, match="diagonal: expected positive"):
        JacobiPreconditioner(-crystal.hardness)
