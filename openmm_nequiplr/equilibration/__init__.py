"""Charge equilibration: minimisation of χᵀQ + ½QᵀAQ at constrained total charge."""

from .adjoint import lagrangian_weights
from .constraints import group_means, group_sizes
from .dense import DenseSolver, Equilibration, pad_structures, solve_batch
from .effective import effective_chi
from .iterative import IterativeSolver
from .preconditioning import (
    JacobiPreconditioner,
    WoodburyPreconditioner,
    positive_diagonal,
)
from .prediction import ChargePredictor

__all__ = [
    "ChargePredictor",
    "DenseSolver",
    "Equilibration",
    "IterativeSolver",
    "JacobiPreconditioner",
    "WoodburyPreconditioner",
    "effective_chi",
    "group_means",
    "group_sizes",
    "lagrangian_weights",
    "pad_structures",
    "positive_diagonal",
    "solve_batch",
]
