"""Charge equilibration: minimise χᵀQ + ½QᵀAQ at fixed total charge."""

from .adjoint import adjoint_charges, lagrangian_weights
from .dense import DenseSolver, Equilibration, pad_structures, solve_batch

__all__ = [
    "DenseSolver",
    "Equilibration",
    "adjoint_charges",
    "lagrangian_weights",
    "pad_structures",
    "solve_batch",
]
