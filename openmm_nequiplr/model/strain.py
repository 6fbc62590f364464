"""Homogeneous strain, and the stress as the derivative of the energy by the strain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def strained(
    positions: torch.Tensor, cell: torch.Tensor, strain: torch.Tensor, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the symmetric part of a strain, shape (B, 3, 3), to positions and cells."""
    symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    moved = positions + torch.einsum("ni,nij->nj", positions, symmetric[batch])
    return moved, cell + cell @ symmetric


def stress_from_strain(
    gradient: torch.Tensor, cell: torch.Tensor, periodic: Sequence[bool]
) -> torch.Tensor:
    """Stress, eV/Å³, from dE/dε, shape (B, 3, 3), eV; zero for structures without a cell."""
    volume = torch.linalg.det(cell).abs()
    inside = torch.tensor(list(periodic), device=cell.device)
    volume = torch.where(inside, volume, torch.full_like(volume, math.inf))
    return gradient / volume.view(-1, 1, 1)
