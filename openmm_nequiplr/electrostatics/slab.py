"""Slab correction of a three-dimensional Coulomb sum, for layers between vacuum.

The correction of Yeh and Berkowitz (1999, doi:10.1063/1.479595) removes the interaction of a slab
with its images along the normal z. The remaining error decays as exp(−2π gap/λ) with the height of
the vacuum and the longest lateral period λ. Ballenegger, Arnold and Cerdà (2009,
doi:10.1063/1.3216473) add the terms of a net charge:

    K_ij += −(2π k_e/V) [(z_i − z_j)² + L_z²/6]

On charge vectors that sum to zero the term is positive: it is the square of the dipole along z. The
coordinates z are those of the unwrapped slab (:func:`openmm_nequiplr.boundaries.whole_slab`).
"""

# TorchScript compiles the operator and reads its annotations: no postponed ones here
import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ..boundaries import SLAB, Pbc
from .linearized import LinearizedCoulomb, six
from .operator import CoulombOperator, EnergyFunction


class SlabCoulomb(CoulombOperator):
    """Coulomb operator of N Gaussian charges in a slab: a periodic operator plus the slab term.

    It is as differentiable as the periodic operator.

    Parameters
    ----------
    periodic : CoulombOperator
        Operator of these charges, periodic in three directions.
    positions : torch.Tensor, float64, shape (N, 3), Å
        Positions of the unwrapped slab.
    cell : torch.Tensor, float64, shape (3, 3), Å
        The first two vectors span the slab.
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        periodic: Any,
        positions: torch.Tensor,
        cell: torch.Tensor,
        coulomb_constant: float,
    ) -> None:
        super().__init__()
        self.periodic, self.constant = periodic, coulomb_constant
        self.place(positions, cell)

    def place(self, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """Set the geometry, after that of the periodic operator; arguments as for the class."""
        across = torch.linalg.cross(cell[0], cell[1])
        self.normal = across / torch.linalg.vector_norm(across)
        height = positions @ self.normal
        self.height = height - height.mean()  # only differences enter
        self.factor = -2.0 * math.pi * self.constant / (across @ cell[2]).abs()  # a GPU records it
        self.shift = (cell[2] @ self.normal) ** 2 / 6.0
        self.smoothing_width, self.field = self.periodic.smoothing_width, self.periodic.field

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        apart = self.height.unsqueeze(1) - self.height
        return self.periodic.matrix() + self.factor * (apart * apart + self.shift)

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        return self.periodic.diagonal() + self.factor * self.shift

    def prepare(self) -> None:
        """Prepare the periodic operator for many products at one geometry."""
        self.periodic.prepare()

    def low_rank(self) -> torch.Tensor:
        """Column of the dipole along the normal, shape (N, 1)."""
        return ((-2.0 * self.factor).sqrt() * self.height).unsqueeze(-1)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        result = self.periodic.potential(charges)
        self.field = self.periodic.field
        z, total, first = self.height, charges.sum(), self.height @ charges
        second = (z * z) @ charges
        return result + self.factor * (z * (z * total - 2.0 * first) + second + self.shift * total)

    def _slab_energy(self, charges: torch.Tensor) -> torch.Tensor:
        """Energy of the slab term, a scalar, eV."""
        total, first = charges.sum(), self.height @ charges
        second = (self.height * self.height) @ charges
        return self.factor * (total * second - first * first + 0.5 * self.shift * total * total)

    def slab_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """Energy of the slab term of charges q minus that of p, shape (N,) each, eV."""
        return self._slab_energy(charges) - self._slab_energy(subtracted)

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        periodic = self.periodic.energy_difference(charges, subtracted, fields)
        return periodic + self.slab_difference(charges, subtracted)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) without the smooth part of the point-charge Ewald sums of q and p, eV.

        These sums are periodic in three dimensions, so the result includes the slab term.
        """
        periodic = self.periodic.rest_difference(charges, subtracted)
        return periodic + self.slab_difference(charges, subtracted)

    @torch.jit.unused
    def screening(self) -> EnergyFunction:
        """Correction from the point-charge Ewald sum of the same cell to this operator."""
        return _Screening(self.periodic.screening(), self)

    @torch.jit.unused
    def linearized(self, periodic: LinearizedCoulomb) -> LinearizedCoulomb:
        """First-order expansion of K, given that of the periodic operator at this geometry.

        Heights and L_z scale with the strain along the normal, the factor with 1/V.
        """
        with torch.no_grad():
            apart = self.height.unsqueeze(1) - self.height
            term = self.factor * (apart * apart + self.shift)
            slope = (2.0 * self.factor * apart).unsqueeze(-1) * self.normal
            strain = periodic.strain
            if strain is not None:
                along = 2.0 * torch.outer(self.normal, self.normal) - torch.eye(3).to(self.normal)
                strain = strain + six(along).view(6, 1, 1) * term
            return replace(
                periodic,
                constant=periodic.constant + term,
                gradient=periodic.gradient + slope,
                strain=strain,
            )


class _Screening(NamedTuple):
    periodic: EnergyFunction
    slab: SlabCoulomb

    def energy_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """Energy of the correction for charges q minus that for p, shape (N,) each, eV."""
        periodic = self.periodic.energy_difference(charges, subtracted)
        return periodic + self.slab.slab_difference(charges, subtracted)


def bounded(
    pbc: Pbc,
    periodic: CoulombOperator,
    positions: torch.Tensor,
    cell: torch.Tensor,
    constant: float,
) -> CoulombOperator:
    """Add the slab term to a periodic operator if the structure is a slab.

    Parameters
    ----------
    pbc : Pbc
    periodic, positions, cell, constant
        Arguments of :class:`SlabCoulomb`.
    """
    return SlabCoulomb(periodic, positions, cell, constant) if pbc == SLAB else periodic
