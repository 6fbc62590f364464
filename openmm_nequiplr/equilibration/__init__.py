"""Charge equilibration: minimise χᵀQ + ½QᵀAQ at fixed total charge."""

from .adjoint import adjoint_charges, lagrangian_weights
from .dense import DenseSolver, Equilibration, pad_structures, solve_batch
from .iterative import (
    IterativeSolver,
    JacobiPreconditioner,
    Preconditioner,
    WoodburyPreconditioner,
    default_waves,
)
from .prediction import ChargePredictor

__all__ = [
    "ChargePredictor",
    "DenseSolver",
    "Equilibration",
    "IterativeSolver",
    "JacobiPreconditioner",
    "Preconditioner",
    "WoodburyPreconditioner",
    "adjoint_charges",
    "default_waves",
    "lagrangian_weights",
    "pad_structures",
    "solve_batch",
]
