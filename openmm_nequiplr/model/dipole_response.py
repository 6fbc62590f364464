"""Response of the dipole to positions and fields, from the response of weighted sums of charges.

Born charges are gradients of the components of the dipole Σ q r. In a cell the dipole depends on
the choice of images. It is therefore replaced with Im Σ q exp(i k·r) at the reciprocal lattice
vectors k, and the phase of each atom is removed from the gradient. Along the normal of a slab the
dipole is well defined and is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..graph import AtomicGraph

#: Returns, for constants s, shape (N,), the derivatives of Σ s q by positions, shape (N, 3), and by
#: uniform fields, shape (B, 3).
Respond = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def dipole_response(
    graph: AtomicGraph, charges: torch.Tensor, respond: Respond
) -> tuple[torch.Tensor, torch.Tensor]:
    """Born charges and polarisabilities of a batch of B structures with N atoms.

    Parameters
    ----------
    graph : AtomicGraph
    charges : torch.Tensor, float64, shape (N,), e
    respond : callable
        See :data:`Respond`; called three times, and six times if there are cells.

    Returns
    -------
    born_charges : torch.Tensor, float64, shape (N, 3, 3), e
        ``[i, a, b]`` is the derivative of component a of the dipole by coordinate b of atom i.
    polarizability : torch.Tensor, float64, shape (B, 3, 3), e Å²/V
        NaN for periodic structures.
    """
    axes = torch.eye(3).to(charges).repeat(graph.num_graphs, 1, 1)
    waves = torch.tensor(graph.pbc, device=charges.device)
    periodic = waves.any(dim=1)
    axes[periodic] = 2.0 * math.pi * torch.linalg.inv(graph.cell[periodic]).mT
    rows, columns = [], []
    for axis in range(3):
        k, wave = axes[graph.batch, axis], waves[graph.batch, axis]
        phase = (graph.positions * k).sum(dim=-1)
        # (1/i) Σ q exp(i k·r): real part Σ q sin, imaginary part −Σ q cos; the phase is removed
        slope, by_field = respond(torch.where(wave, torch.sin(phase), phase))
        if bool(wave.any()):
            other, _ = respond(torch.where(wave, -torch.cos(phase), 0.0))
            turned = torch.cos(phase)[:, None] * slope + torch.sin(phase)[:, None] * other
            slope = torch.where(wave[:, None], turned, slope)
        rows.append(charges[:, None] * k + slope)
        columns.append(by_field)
    born = torch.linalg.inv(axes)[graph.batch] @ torch.stack(rows, dim=1)
    polarizability = torch.stack(columns, dim=1)
    polarizability = 0.5 * (polarizability + polarizability.mT)
    return born, polarizability.masked_fill(periodic[:, None, None], torch.nan)


def differentiable_field(graph: AtomicGraph) -> torch.Tensor:
    """Fields on the structures, or zeros, shape (B, 3), V/Å, as a leaf that requires gradients."""
    field = graph.electric_field
    field = graph.positions.new_zeros(graph.num_graphs, 3) if field is None else field
    return field.detach().clone().requires_grad_()
