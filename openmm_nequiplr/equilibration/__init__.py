"""Charge equilibration: minimise χᵀQ + ½QᵀAQ at fixed total charge."""

from .adjoint import adjoint_charges, lagrangian_weights
from .dense import DenseSolver, Equilibration, pad_structures, solve_batch
from .iterative import IterativeSolver
from .preconditioning import (
    JacobiPreconditioner,
    Preconditioner,
    ReusedPreconditioner,
    WoodburyPreconditioner,
    default_waves,
    positive_diagonal,
)
from .prediction import ChargePredictor

__all__ = [
    "ChargePredictor",
    "DenseSolver",
    "Equilibration",
    "IterativeSolver",
    "JacobiPreconditioner",
    "Preconditioner",
    "ReusedPreconditioner",
    "WoodburyPreconditioner",
    "adjoint_charges",
    "default_waves",
    "lagrangian_weights",
    "pad_structures",
    "positive_diagonal",
    "solve_batch",
]
