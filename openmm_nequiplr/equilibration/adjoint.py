"""Adjoint charges (Z-vector): exact forces without differentiating the charge solver.

Let g be ∂E_sr/∂Q plus the derivative of the electrostatic energy by Q, which vanishes for the full
functional. The adjoint charges w solve A w = P g with Σw = 0. At fixed Q and w the Lagrangian

    L(R) = E_sr(R, Q) + (s Q − w)·χ(R) + e(Q−w) − e(w) − (1−s) ½ J Q²,    e(v) = ½ vᵀA(R)v,

has the forces −∂L/∂R and equals the energy with an error of second order in the residuals. s = 1 if
the electrostatic energy is the full functional χ·Q + ½JQ² + Coulomb. s = 0 if it is the Coulomb
part alone; g then includes K Q.

If the Coulomb sum adds constant offsets Z to the charges, e(v) = ½ vᵀKv + ½ J v² is split: the
Coulomb part acts on Q + Z − w and w, the hardness part on Q − w and w, and g includes K (Q + Z).
"""

# TorchScript compiles these and reads their annotations: no postponed ones here
import torch


def lagrangian_weights(
    charges: torch.Tensor, adjoint: torch.Tensor, full_functional: bool
) -> torch.Tensor:
    """Weights s Q − w of χ in the Lagrangian, shape (N,), e."""
    return charges - adjoint if full_functional else -adjoint
