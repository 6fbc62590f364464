"""Response of the charges: Born effective charges and polarisability.

Let O(Q, R) be an observable of the charges, A = K + diag(J), U = Q + Z, and P the projector onto
charge vectors that sum to zero. The adjoint charges w solve A w = P ∂O/∂Q. At fixed Q and w,

    dO/dR = ∂/∂R [ O(Q, R) − w·(χ + J Q + K U + φ) ].

Each observable requires one solve and one backward pass. The bracket equals the value with an error
of second order in the residuals of the solves, and this is exactly its gradient. The observables
that give Born charges are in :mod:`.dipole_response`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..boundaries import SLAB, Pbc
from ..equilibration import Equilibration
from ..graph import AtomicGraph
from .dipole_response import dipole_response
from .inference import Atoms, Geometry, Inference, seen_charges
from .observables import Observable, Observation, check_observable


@dataclass(frozen=True)
class Response:
    """Response of the charges of N atoms, as float64 NumPy arrays.

    Parameters
    ----------
    born_charges : numpy.ndarray, shape (N, 3, 3), e
        ``[i, a, b]`` is the derivative of component a of the dipole by coordinate b of atom i. In a
        cell they are evaluated at its smallest wave vectors, where the macroscopic field screens
        them (Callen charges).
    polarizability : numpy.ndarray or None, shape (3, 3), e Å²/V
        Polarisability of the charges at fixed positions. Multiplied by 14.4 V Å/e it is the
        polarisability volume in Å³. ``None`` in a cell.
    charges : numpy.ndarray, shape (N,), e
    dipole : numpy.ndarray, shape (3,), e Å
        Σ q r with the given positions.
    """

    born_charges: np.ndarray
    polarizability: np.ndarray | None
    charges: np.ndarray
    dipole: np.ndarray


class Charged(NamedTuple):
    """A structure with equilibrated charges, and its solver set up at the geometry.

    Parameters
    ----------
    inference : Inference
    atoms : Atoms
    geometry : Geometry
    chi, features : torch.Tensor
        Results of :meth:`.inference.Inference.electronegativities`, differentiable.
    first : Equilibration
    positions : torch.Tensor, float64, shape (N, 3), Å
        Positions on which the geometry depends; they require gradients.
    pbc : Pbc
    sites : torch.Tensor or None, float64, shape (M, 3), Å
        Positions of outside charges; they require gradients.
    """

    inference: Inference
    atoms: Atoms
    geometry: Geometry
    chi: torch.Tensor
    features: torch.Tensor
    first: Equilibration
    positions: torch.Tensor
    pbc: Pbc
    sites: torch.Tensor | None = None

    def solve(self, slope: torch.Tensor) -> torch.Tensor:
        """Adjoint charges w for ∂O/∂Q, both of shape (N,)."""
        return self.inference.solver.solve(-slope, torch.zeros_like(slope[0])).charges

    def gradient(self, w: torch.Tensor) -> torch.Tensor:
        """∂/∂R [w·(χ + K U + φ)] at fixed charges, shape (N, 3), or (N + M, 3) with sites."""
        seen = seen_charges(self.first.charges, self.atoms.offsets)
        operator = self.inference.solver.operator
        # e(U + w) − e(U − w) = 2 w·K U
        total = 0.5 * operator.energy_difference(seen + w, seen - w)
        if self.chi.requires_grad:
            total = total + (w * self.chi).sum()
        if self.geometry.outside is not None:
            total = total + (w * self.geometry.outside).sum()
        roots = [self.positions] if self.sites is None else [self.positions, self.sites]
        return torch.cat(torch.autograd.grad([total], roots, retain_graph=True))


def charge_response(charged: Charged, graph: AtomicGraph) -> Response:
    """Born effective charges and polarisability of one structure, given its graph."""
    charges, points = charged.first.charges, charged.positions.detach()

    def respond(slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w = charged.solve(slope)
        return -charged.gradient(w), (w @ points)[None]

    born, polarizability = dipole_response(graph, charges, respond)
    return Response(
        born_charges=born.cpu().numpy(),
        polarizability=None if charged.pbc else polarizability[0].cpu().numpy(),
        charges=charges.cpu().numpy(),
        dipole=(charges @ points).cpu().numpy(),
    )


def observations(charged: Charged, observables: Sequence[Observable]) -> tuple[Observation, ...]:
    """Observables of one structure; each requires one solve and one backward pass.

    Raises
    ------
    InputError
        If an observable contains atoms that do not exist, or is undefined for the structure.
    """
    found = []
    cell = charged.geometry.cell.detach() if charged.pbc else None
    for observable in observables:
        check_observable(observable, len(charged.positions))
        charges = charged.first.charges.detach().clone().requires_grad_()
        points = charged.positions.detach().clone().requires_grad_()
        value = observable(charges, points, cell, charged.pbc == SLAB)
        slope, direct = torch.autograd.grad([value], [charges, points], allow_unused=True)
        w = charged.solve(slope)
        gradient = -charged.gradient(w)
        if direct is not None:
            gradient[: len(direct)] += direct
        settled = value.detach() - w @ charged.first.gradient
        found.append(Observation(float(settled), gradient.cpu().numpy()))
    return tuple(found)
