"""Dense equilibration: the minimum itself, batches, derivatives, failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.equilibration import DenseSolver, solve_batch
from openmm_nequiplr.errors import ConvergenceError


def random_problem(rng, count):
    factor = rng.normal(size=(count, count))
    matrix = torch.tensor(factor @ factor.T / count + np.eye(count))
    return matrix, torch.tensor(rng.normal(size=count))


@pytest.mark.parametrize("total", [0.0, -1.5])
def test_charges_are_the_constrained_minimum(rng, total):
    matrix, chi = random_problem(rng, 9)
    result = DenseSolver(matrix).solve(chi, torch.tensor(total, dtype=torch.float64))
    assert result.charges.sum().item() == pytest.approx(total, abs=1e-12)
    assert result.residual < 1e-12

    def energy(q):
        return (chi @ q + 0.5 * q @ matrix @ q).item()

    lowest = energy(result.charges)
    for _ in range(20):
        step = torch.tensor(rng.normal(size=9)) * 1e-2
        assert energy(result.charges + step - step.mean()) > lowest


def test_solves_on_the_subspace_where_the_matrix_is_not_positive(rng):
    """Along (1, …, 1) a Coulomb matrix may be negative; at fixed total charge that is harmless."""
    matrix, chi = random_problem(rng, 7)
    solver, shifted = DenseSolver(matrix), DenseSolver(matrix - 50.0)
    assert torch.linalg.eigvalsh(matrix - 50.0)[0] < 0
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(solver.solve(chi, zero).charges, shifted.solve(chi, zero).charges)


def test_batch_of_different_sizes_equals_single_solves(rng):
    counts = [5, 9, 1, 7]
    problems = [random_problem(rng, count) for count in counts]
    totals = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=torch.float64)
    chi = torch.cat([x for _, x in problems])
    batch = solve_batch([a for a, _ in problems], chi, totals, counts)
    single = [DenseSolver(a).solve(x, t) for (a, x), t in zip(problems, totals, strict=True)]
    torch.testing.assert_close(batch.charges, torch.cat([s.charges for s in single]))
    torch.testing.assert_close(batch.multiplier, torch.cat([s.multiplier for s in single]))


def test_blocks_of_replicas_equal_single_solves(rng):
    matrices, chi = map(torch.stack, zip(*(random_problem(rng, 6) for _ in range(3)), strict=True))
    totals, gradient = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64), -chi.flatten()
    blocks = DenseSolver(matrices)
    adjoint = blocks.solve(-gradient, gradient.new_zeros(()))
    for found, each in ((blocks.solve(chi.flatten(), totals), totals),
                        (adjoint, torch.zeros_like(totals))):  # fmt: skip
        single = [DenseSolver(a).solve(x, t) for a, x, t in zip(matrices, chi, each, strict=True)]
        for name in ("charges", "multiplier", "gradient"):
            expected = torch.cat([getattr(one, name) for one in single])
            torch.testing.assert_close(getattr(found, name), expected)
    matrices[1] = 0.0
    with pytest.raises(ConvergenceError, match="the matrix of replica 1 is singular"):
        blocks.factorize(matrices)
    with pytest.raises(ConvergenceError, match="matrix of replica 0 is not finite"):
        blocks.factorize(matrices / 0.0)


def test_batch_is_twice_differentiable(rng):
    counts = [3, 2]
    problems = [random_problem(rng, count) for count in counts]
    total = torch.tensor([0.3, 0.0], dtype=torch.float64)

    def charges(first, second, chi):
        symmetric = [0.5 * (a + a.T) for a in (first, second)]
        return solve_batch(symmetric, chi, total, counts).charges

    inputs = [a.clone().requires_grad_() for a, _ in problems]
    inputs.append(torch.cat([x for _, x in problems]).requires_grad_())
    assert torch.autograd.gradcheck(charges, inputs)
    assert torch.autograd.gradgradcheck(charges, inputs)


def test_adjoint_gives_the_derivative_of_any_function_of_the_charges(rng):
    """d f(Q(χ))/dχ = −w with A w = P ∂f/∂Q, against autograd through the solve."""
    matrix, chi = random_problem(rng, 8)
    chi.requires_grad_()
    direction = torch.tensor(rng.normal(size=8))
    total = torch.tensor([0.7], dtype=torch.float64)
    q = solve_batch([matrix], chi, total, [8]).charges
    (expected,) = torch.autograd.grad((direction * q * q).sum(), chi)
    gradient = (2 * direction * q).detach()
    adjoint = DenseSolver(matrix).solve(-gradient, torch.zeros(()).double()).charges
    torch.testing.assert_close(-adjoint, expected)
    assert adjoint.sum().item() == pytest.approx(0.0, abs=1e-12)


def test_failures_are_typed(rng):
    matrix, chi = random_problem(rng, 4)
    singular = torch.zeros(4, 4, dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="charge equilibration failed"):
        DenseSolver(singular).solve(chi, torch.zeros((), dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="not finite"):
        DenseSolver(matrix * float("nan"))
    with pytest.raises(ConvergenceError, match="charge equilibration failed"):
        solve_batch([singular], chi, torch.zeros(1, dtype=torch.float64), [4])
