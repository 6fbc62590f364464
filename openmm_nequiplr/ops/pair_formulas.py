"""Real-space pair coefficients of Gaussian charges, in plain torch."""

# TorchScript compiles these and reads their annotations: no postponed ones here
import math

import torch


def pair_width(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Pair width γ = √(σ_i² + σ_j²), Å; the shapes broadcast."""
    return torch.sqrt(first * first + second * second)


def symmetric_rows(first: torch.Tensor, second: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Symmetric sparse matrix (CSR) of the pairs, which contains each pair twice.

    Parameters
    ----------
    first, second : torch.Tensor, int64, shape (P,)
    count : int
        Number N of atoms.

    Returns
    -------
    first, second
        As given.
    pointer, column, slots : torch.Tensor, int64, shapes (N + 1,), (2P,) and (2P,)
        Start of each row; column of each entry; pair of each entry, plus P if it is reversed.
    """
    rows, slots = torch.sort(torch.cat((first, second)), stable=True)
    pointer = torch.searchsorted(
        rows, torch.arange(count + 1, dtype=rows.dtype, device=rows.device)
    )
    return [first, second, pointer, torch.cat((second, first)).index_select(0, slots), slots]


def pair_products(
    rows: list[torch.Tensor], charges: torch.Tensor, subtracted: torch.Tensor
) -> torch.Tensor:
    """q_i q_j − p_i p_j of the pairs, shape (P,), e²; arguments as for :func:`pair_gradient`."""
    first, second = rows[0], rows[1]
    products = charges.index_select(0, first) * charges.index_select(0, second)
    return products - subtracted.index_select(0, first) * subtracted.index_select(0, second)


def screening(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Point-charge minus Gaussian pair potential, erfc(r/(√2 γ))/r, 1/Å."""
    return torch.erfc(distance / (math.sqrt(2.0) * width)) / distance


def _density(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Derivative of erf(r/(√2 w)), 1/Å."""
    return math.sqrt(2.0 / math.pi) / width * torch.exp(-0.5 * (distance / width) ** 2)


def pair_vectors(
    rows: list[torch.Tensor], positions: torch.Tensor, images: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    """Vectors from first to second atoms, shape (P, 3), Å; arguments as for :func:`pair_terms`."""
    vector = positions.index_select(0, rows[1]) - positions.index_select(0, rows[0])
    return vector + images.index_select(0, image)


def pair_coefficients(
    vector: torch.Tensor, gamma: torch.Tensor, eta: float, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """c(r)/k_e, 1/Å, and its derivative by r divided by r, 1/Å³; zero beyond the cutoff.

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
