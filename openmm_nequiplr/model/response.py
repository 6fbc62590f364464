"""Response of the charges: Born effective charges and polarisability.

For an observable O(Q, R) of the charges, with A = K + diag(J), U = Q + Z and the projector P onto
charges that sum to zero, solve A w = P ∂O/∂Q. Then, Q and w held fixed,

    dO/dR = ∂/∂R [ O(Q, R) − w·(χ + J Q + K U + φ) ],

one solve and one pass backwards for each observable. Those here are the components of the dipole
Σ q r; in a cell, where these depend on the images that are counted, their place is taken by
Im Σ q exp(i k·r) at the reciprocal lattice vectors k, with the phase of each atom taken off again.
Along the normal of a slab the dipole has a meaning, and is what counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..boundaries import SLAB, Pbc
from .inference import Atoms, Geometry, Inference, seen_charges


@dataclass(frozen=True)
class Response:
    """How charges respond, for N atoms, as float64 NumPy arrays.

    Parameters
    ----------
    born_charges : numpy.ndarray, shape (N, 3, 3), e
        ``[i, a, b]`` is the derivative of component a of the dipole by coordinate b of atom i. In a
        cell they are those at its smallest wave vectors, which the macroscopic field of a bulk
        screens (Callen charges).
    polarizability : numpy.ndarray or None, shape (3, 3), e Å²/V
        Of the charges at fixed positions; times 14.4 V Å/e it is a volume in Å³. ``None`` in a
        cell.
    charges : numpy.ndarray, shape (N,), e
    dipole : numpy.ndarray, shape (3,), e Å
        Σ q r with the positions as given.
    """

    born_charges: np.ndarray
    polarizability: np.ndarray | None
    charges: np.ndarray
    dipole: np.ndarray


def charge_response(
    inference: Inference, atoms: Atoms, geometry: Geometry, positions: torch.Tensor, pbc: Pbc
) -> Response:
    """Response of one structure.

    Parameters
    ----------
    inference : Inference
        With a solver whose operator is at the geometry.
    atoms : Atoms
    geometry : Geometry
    positions : torch.Tensor, float64, shape (N, 3), Å
        What the geometry is a function of, with gradient.
    pbc : Pbc
    """
    chi, _ = inference.electronegativities(atoms, geometry)
    charges = inference.equilibrate(atoms, geometry, chi).charges
    potential = _Potential(inference, atoms, geometry, chi, charges)
    if pbc:
        born = _in_a_cell(potential, positions, geometry.cell, pbc == SLAB)
        polarizability = None
    else:
        born, polarizability = _isolated(potential, positions)
    return Response(
        born_charges=born.cpu().numpy(),
        polarizability=None if polarizability is None else polarizability.cpu().numpy(),
        charges=charges.cpu().numpy(),
        dipole=(charges @ positions.detach()).cpu().numpy(),
    )


class _Potential:
    """χ + J Q + K U + φ of one structure, solved for and differentiated along charges w."""

    def __init__(
        self,
        inference: Inference,
        atoms: Atoms,
        geometry: Geometry,
        chi: torch.Tensor,
        charges: torch.Tensor,
    ) -> None:
        self.inference, self.atoms, self.geometry = inference, atoms, geometry
        self.chi, self.charges = chi, charges

    def solve(self, slope: torch.Tensor) -> torch.Tensor:
        """w for ∂O/∂Q, both of shape (N,)."""
        return self.inference.solver.solve(-slope, torch.zeros_like(slope[0])).charges

    def gradient(self, w: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """∂/∂R [w·(χ + K U + φ)] at fixed charges, shape (N, 3)."""
        seen = seen_charges(self.charges, self.atoms.offsets)
        operator = self.inference.solver.operator
        # e(U + w) − e(U − w) = 2 w·K U
        total = 0.5 * operator.energy_difference(seen + w, seen - w)
        if self.chi.requires_grad:
            total = total + (w * self.chi).sum()
        if self.geometry.outside is not None:
            total = total + (w * self.geometry.outside).sum()
        (found,) = torch.autograd.grad([total], [positions], retain_graph=True)
        return found


def _isolated(potential: _Potential, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = [_along(potential, positions, axis) for axis in torch.eye(3).to(positions)]
    rows, weights = ([each[k] for each in found] for k in (0, 1))
    polarizability = torch.stack(weights) @ positions.detach()
    return torch.stack(rows, dim=1), 0.5 * (polarizability + polarizability.t())


def _along(
    potential: _Potential, positions: torch.Tensor, axis: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivative of the dipole along an axis, shape (N, 3), and its solution w, shape (N,)."""
    w = potential.solve(positions.detach() @ axis)
    return potential.charges[:, None] * axis - potential.gradient(w, positions), w


def _in_a_cell(
    potential: _Potential, positions: torch.Tensor, cell: torch.Tensor, slab: bool
) -> torch.Tensor:
    points = positions.detach()
    kvectors = 2.0 * math.pi * torch.linalg.inv(cell.detach()).t()
    rows: list[torch.Tensor] = []
    for k in kvectors:
        if slab and len(rows) == 2:
            rows.append(_along(potential, positions, k)[0])
            break
        phase = points @ k
        # (1/i) Σ q exp(i k·r): real part Σ q sin, imaginary part −Σ q cos; the phase is taken off
        real, imaginary = torch.sin(phase), -torch.cos(phase)
        slopes = [potential.gradient(potential.solve(o), positions) for o in (real, imaginary)]
        response = torch.cos(phase)[:, None] * slopes[0] + torch.sin(phase)[:, None] * slopes[1]
        rows.append(potential.charges[:, None] * k - response)
    return torch.einsum("ak,kib->iab", torch.linalg.inv(kvectors), torch.stack(rows))
