"""Reciprocal lattice of cells whose rows are lattice vectors; TorchScript compiles this module."""

import math

import torch


def half_index(cell: torch.Tensor, k_max: float) -> torch.Tensor:
    """Integer components of the k-vectors with 0 < |k| ≤ k_max, one of each ±k.

    Parameters
    ----------
    cell : torch.Tensor, float64, shape (3, 3), Å
    k_max : float, 1/Å

    Returns
    -------
    torch.Tensor, float64, shape (K, 3)
    """
    lengths: list[float] = torch.linalg.vector_norm(cell, dim=-1).tolist()
    axes: list[torch.Tensor] = []
    for length in lengths:
        most = float(math.floor(k_max * length / (2.0 * math.pi)))
        axes.append(torch.arange(-most, most + 1.0, dtype=cell.dtype, device=cell.device))
    grid = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).reshape(-1, 3)
    grid = grid[grid.shape[0] // 2 + 1 :]  # the second half of a symmetric list: one of each ±k
    inside = torch.linalg.vector_norm(grid @ reciprocal(cell), dim=-1) <= k_max
    return grid.index_select(0, torch.nonzero(inside).squeeze(-1))


def half_kvectors(cell: torch.Tensor, k_max: float) -> torch.Tensor:
    """The k-vectors of :func:`half_index`, shape (K, 3), 1/Å."""
    return half_index(cell, k_max) @ reciprocal(cell)


def reciprocal(cell: torch.Tensor) -> torch.Tensor:
    """Reciprocal lattice vectors as rows, including the factor 2π, shape (3, 3), 1/Å."""
    return 2.0 * math.pi * torch.linalg.inv(cell).t()
