"""Exact forces without differentiating the solve.

With g = ∂E_sr/∂Q (plus what the electrostatic energy itself leaves over), the adjoint charges w
solve A w = P g with Σw = 0. Then, Q and w held fixed,

    L(R) = E_sr(R, Q) + (s Q − w)·χ(R) + e(Q−w) − e(w) − (1−s) ½ J Q²,    e(v) = ½ vᵀA(R)v,

has the forces −∂L/∂R and equals the energy with an error of second order in the residuals. s = 1
when the electrostatic energy is the full functional χ·Q + ½JQ² + Coulomb, s = 0 when it is the
Coulomb part alone, in which case g holds K Q too.

Where the Coulomb sums see Q + Z with constants Z, the same holds with e(v) = ½ vᵀKv + ½ J v² taken
apart: the Coulomb part of Q + Z − w and w, the hardness part of Q − w and w, and g with K (Q + Z).
"""

# TorchScript compiles these and reads their annotations: no postponed ones here
import torch

from .dense import DenseSolver, Equilibration
from .iterative import IterativeSolver


def adjoint_charges(
    solver: DenseSolver | IterativeSolver,
    gradient: torch.Tensor,
    guess: torch.Tensor | None = None,
) -> Equilibration:
    """Solve A w = P g, Σw = 0.

    Parameters
    ----------
    solver : DenseSolver or IterativeSolver
        Holds A.
    gradient : torch.Tensor, float64, shape (N,), eV/e
        g, the derivative of the energy by the charges that the equilibration does not cancel.
    guess : torch.Tensor, optional, shape (N,), e
        Where an iterative solver starts; a dense one does without.

    Returns
    -------
    Equilibration
        ``charges`` holds w, shape (N,), e.
    """
    return solver.solve(-gradient, torch.zeros_like(gradient[0]), guess)


def lagrangian_weights(
    charges: torch.Tensor, adjoint: torch.Tensor, full_functional: bool
) -> torch.Tensor:
    """The weights s Q − w of χ in the Lagrangian, shape (N,), e."""
    return charges - adjoint if full_functional else -adjoint
