"""Charges of groups of atoms that are held: every solver against the bordered matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.equilibration import (
    DenseSolver,
    IterativeSolver,
    JacobiPreconditioner,
    WoodburyPreconditioner,
    solve_batch,
)
from openmm_nequiplr.equilibration.preconditioning import lowest_kvectors
from openmm_nequiplr.units import COULOMB_CONSTANT

from .test_equilibration import random_problem
from .test_iterative import RockSalt

ZERO = torch.zeros((), dtype=torch.float64)


def bordered(matrix, chi, groups, held):
    """Charges and multipliers of AQ + χ + Cλ = 0, CᵀQ = c, by NumPy."""
    columns = np.eye(len(held))[groups]
    corner = np.zeros((len(held), len(held)))
    full = np.block([[matrix.numpy(), columns], [columns.T, corner]])
    found = np.linalg.solve(full, np.concatenate([-chi.numpy(), held]))
    return found[: len(chi)], found[len(chi) :]


class Matrix(torch.nn.Module):
    """K as an operator."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.field = matrix, matrix[:0, 0]

    def potential(self, charges):
        return self.matrix @ charges

    def diagonal(self):
        return self.matrix.diagonal()


GROUPS = {
    "interleaved": (np.array([0, 1, 2, 0, 1, 2, 0, 0, 1]), np.array([1.0, -0.5, 0.0])),
    "single atoms among them": (np.array([2, 1, 1, 0, 1, 1, 3, 1, 1]), np.array([1.0, 0, -1, 2])),
    "single atoms alone": (np.arange(9), np.linspace(-1.0, 1.0, 9)),
    "one": (np.zeros(9, dtype=int), np.array([0.7])),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("solver", ["dense", "iterative", "batch"])
def test_charges_and_multipliers_are_those_of_the_bordered_matrix(rng, name, solver):
    groups, held = GROUPS[name]
    matrix, chi = random_problem(rng, 9)
    expected, multiplier = bordered(matrix, chi, groups, held)
    index, total = torch.from_numpy(groups), torch.from_numpy(held)
    if solver == "dense":
        found = DenseSolver(matrix, index).solve(chi, total)
    elif solver == "iterative":
        operator, hardness = Matrix(matrix - torch.eye(9)), torch.ones(9, dtype=torch.float64)
        found = IterativeSolver(operator, hardness, tolerance=1e-13, groups=index).solve(chi, total)
    else:
        found = solve_batch([matrix], chi, total, [9], index)
    np.testing.assert_allclose(found.charges, expected, atol=1e-12)
    np.testing.assert_allclose(found.multiplier, multiplier, atol=1e-11)
    assert found.residual < 1e-11
    sums = np.bincount(groups, found.charges.numpy())
    np.testing.assert_allclose(sums, held, atol=1e-12)


def test_one_group_is_the_total_charge(rng):
    matrix, chi = random_problem(rng, 9)
    total = torch.tensor([0.7], dtype=torch.float64)
    group = torch.zeros(9, dtype=torch.int64)
    torch.testing.assert_close(
        DenseSolver(matrix, group).solve(chi, total).charges,
        DenseSolver(matrix).solve(chi, total[0]).charges,
        rtol=0,
        atol=1e-13,
    )


def test_a_batch_is_its_structures_and_differentiable_twice(rng):
    counts, problems = [4, 3, 2], [random_problem(rng, n) for n in (4, 3, 2)]
    groups = torch.tensor([0, 1, 0, 1, 2, 2, 2, 3, 4])
    held = torch.tensor([1.0, -1.0, 0.5, 2.0, -2.0], dtype=torch.float64)
    chi = torch.cat([x for _, x in problems])
    found = solve_batch([a for a, _ in problems], chi, held, counts, groups)
    expected = [
        bordered(a, x, own, held[list(which)].numpy())
        for (a, x), own, which in zip(
            problems,
            (np.array([0, 1, 0, 1]), np.array([0, 0, 0]), np.array([0, 1])),
            ((0, 1), (2,), (3, 4)),
            strict=True,
        )
    ]
    np.testing.assert_allclose(found.charges, np.concatenate([q for q, _ in expected]), atol=1e-12)
    np.testing.assert_allclose(
        found.multiplier, np.concatenate([m for _, m in expected]), atol=1e-11
    )

    def charges(first, second, third, chi):
        matrices = [0.5 * (a + a.T) for a in (first, second, third)]
        return solve_batch(matrices, chi, held, counts, groups).charges

    inputs = [a.clone().requires_grad_() for a, _ in problems] + [chi.clone().requires_grad_()]
    assert torch.autograd.gradcheck(charges, inputs)
    assert torch.autograd.gradgradcheck(charges, inputs)


@pytest.mark.parametrize("held", ["the total", "groups"])
@pytest.mark.parametrize("kind", ["jacobi", "woodbury"])
def test_preconditioner_is_the_inverse_on_what_is_allowed(rng, kind, held):
    """Z(ZᵀMZ)⁻¹Zᵀ, with a basis Z of the charges that sum to zero where they are held."""
    crystal = RockSalt(rng, (2, 2, 2), shear=True)
    positions, cell, _ = crystal.tensors()
    diagonal, positions = crystal.hardness + 4.0, positions.detach()
    groups = torch.from_numpy(rng.integers(0, 9, crystal.count)) if held == "groups" else None
    matrix = torch.diag(diagonal)
    if kind == "jacobi":
        preconditioner = JacobiPreconditioner(diagonal, groups)
    else:
        preconditioner = WoodburyPreconditioner(COULOMB_CONSTANT, 9)
        preconditioner.make(diagonal, positions, cell, groups)
        kvectors = lowest_kvectors(cell, 9)
        phase = positions @ kvectors.T
        strength = 8 * np.pi * COULOMB_CONSTANT / cell.det().abs() / (kvectors**2).sum(-1)
        for waves in (phase.cos(), phase.sin()):
            matrix = matrix + (waves * strength) @ waves.T
    found = np.stack([preconditioner(row).numpy() for row in torch.eye(crystal.count).double()])
    columns = np.ones((crystal.count, 1)) if groups is None else np.eye(9)[groups]
    basis = np.linalg.svd(columns)[0][:, columns.shape[1] :]
    expected = basis @ np.linalg.solve(basis.T @ matrix.numpy() @ basis, basis.T)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found @ columns, 0.0, atol=1e-6)


def test_mesh_and_iterations_equal_ewald_and_the_bordered_matrix(rng):
    """Warm starts and the adjoint's zero charges too; gradient and field are kept up."""
    crystal = RockSalt(rng, (3, 4, 4), shear=True)
    groups = torch.arange(crystal.count) // 2
    held = torch.from_numpy(rng.integers(-1, 2, crystal.count // 2).astype(float))
    exact = crystal.ewald()[0]
    matrix = (exact.matrix() + torch.diag(crystal.hardness)).detach()
    mesh = crystal.mesh()[0]
    positions, cell, _ = crystal.tensors()
    preconditioner = WoodburyPreconditioner(COULOMB_CONSTANT)
    preconditioner.make(mesh.diagonal() + crystal.hardness, positions.detach(), cell, groups)
    options = {"tolerance": 1e-9, "groups": groups, "preconditioner": preconditioner}
    solver = IterativeSolver(mesh, crystal.hardness, **options)
    for total in (held, ZERO):
        constraint = total + torch.zeros_like(held)
        expected, multiplier = bordered(matrix, crystal.chi, groups.numpy(), constraint.numpy())
        cold = solver.solve(crystal.chi, total)
        np.testing.assert_allclose(cold.charges, expected, atol=1e-5)
        np.testing.assert_allclose(cold.multiplier, multiplier, atol=1e-4)
        product = mesh.potential(cold.charges) + crystal.hardness * cold.charges + crystal.chi
        torch.testing.assert_close(cold.gradient, product.detach(), rtol=0, atol=1e-9)
        torch.testing.assert_close(cold.field, mesh.field, rtol=0, atol=1e-9)
        guess = cold.charges + 1e-4 * crystal.gradient
        warm = solver.solve(crystal.chi, total, guess)
        torch.testing.assert_close(warm.charges, cold.charges, rtol=0, atol=1e-7)
        assert warm.iterations < cold.iterations
