"""Pair coefficients of Gaussian charges beside a smooth sum, in plain torch."""

# TorchScript compiles these and reads their annotations: no postponed ones here
import math

import torch


def pair_width(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """γ = √(σ_i² + σ_j²) in Å; the shapes broadcast."""
    return torch.sqrt(first * first + second * second)


def screening(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """erfc(r/(√2 γ))/r in 1/Å: point-charge minus Gaussian pair potential."""
    return torch.erfc(distance / (math.sqrt(2.0) * width)) / distance


def _density(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Derivative of erf(r/(√2 w)), 1/Å."""
    return math.sqrt(2.0 / math.pi) / width * torch.exp(-0.5 * (distance / width) ** 2)


def pair_vectors(
    rows: list[torch.Tensor], positions: torch.Tensor, images: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    """From the first to the second atoms, shape (P, 3), Å; arguments as for :func:`pair_terms`."""
    vector = positions.index_select(0, rows[1]) - positions.index_select(0, rows[0])
    return vector + images.index_select(0, image)


def pair_coefficients(
    vector: torch.Tensor, gamma: torch.Tensor, eta: float, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """c(r)/k_e, 1/Å, and its derivative by r over r, 1/Å³; zero beyond the cutoff.

    Parameters
    ----------
    vector : torch.Tensor, float64, shape (P, 3), Å
    gamma : torch.Tensor, float64, shape (P,), Å
    eta, cutoff : float, Å
    """
    distance = torch.linalg.vector_norm(vector, dim=-1)
    bare = torch.full_like(gamma, eta)
    value = screening(distance, bare) - screening(distance, gamma)
    slope = (_density(distance, gamma) - _density(distance, bare) - value) / distance
    outside = distance >= cutoff
    return value.masked_fill(outside, 0.0), (slope / distance).masked_fill(outside, 0.0)
