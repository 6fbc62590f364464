"""Coulomb operators of the authors' published code, including its defects.

Only models trained with that code should be evaluated with them.

Periodic: the loop over images visits one distant image instead of all images within the cutoff, so
K is nearly always diagonal and atoms do not interact.

Non-periodic: the diagonal is built from a column vector, so the value of the first atom is added to
*every* element of A and no atom has its own diagonal element. On charge vectors that sum to zero, A
acts as the pair matrix without a diagonal; a net charge adds a constant to the energy. Distances
are those of ``torch.pairwise_distance``, which adds 1e-6 Å to each component.
"""

from __future__ import annotations

import math

import torch

from ..errors import InputError
from ..ops.pair_formulas import pair_width, screening
from .ewald import balanced_width
from .gaussian import (
    GaussianScreening,
    pair_energy,
    pair_potential_of,
    self_coefficient,
)
from .nonperiodic import FreeSpaceCoulomb
from .operator import MatrixCoulomb

_ACCURACY = 1e-8
#: Constant that torch.pairwise_distance adds to each component of a difference, Å.
_PAIR_OFFSET = 1e-6


class LegacyPeriodicCoulomb(MatrixCoulomb):
    """Coulomb operator of the published code (commit 281f6ef); K need not be symmetric.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        coulomb_constant: float,
    ) -> None:
        count = positions.shape[0]
        reach = math.sqrt(-2.0 * math.log(_ACCURACY))
        volume = torch.linalg.det(cell).abs()
        eta = balanced_width(volume, int(count))
        difference = positions.unsqueeze(0) - positions.unsqueeze(1)
        image = _far_image(cell, reach * eta) @ cell
        distance = torch.linalg.vector_norm(difference + image, dim=-1)
        gamma = pair_width(widths.unsqueeze(0), widths.unsqueeze(1))
        root = math.sqrt(2.0)
        real = torch.erfc(distance / (root * eta)) - torch.erfc(distance / (root * gamma))
        inside = (distance > 1e-8) & (distance < reach * eta)
        matrix = torch.where(inside, real / distance, torch.zeros_like(distance))
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
        k_vector = _far_image(reciprocal, reach / eta) @ reciprocal
        k_length = torch.linalg.vector_norm(k_vector)
        if 1e-8 < k_length.item() < (reach / eta).item():
            wave = torch.cos(difference @ k_vector) * torch.exp(-0.5 * (eta * k_length) ** 2)
            matrix = matrix + 4.0 * math.pi / volume * wave / k_length**2
        single = self_coefficient(widths) - math.sqrt(2.0 / math.pi) / eta
        super().__init__(coulomb_constant * (matrix + torch.diag(single)))

    def screening(self) -> GaussianScreening:
        """Not defined, as this operator contains no point-charge sum."""
        raise InputError(
            "long_range: expected 'graph', as a legacy_periodic model contains no point-charge sum "
            "that PME could evaluate"
        )


class LegacyFreeCoulomb(FreeSpaceCoulomb):
    """Non-periodic operator of the published code: the whole matrix A, hardness included.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    first_hardness : torch.Tensor, float64, scalar, eV/e²
        Hardness of the first atom.
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        positions: torch.Tensor,
        widths: torch.Tensor,
        first_hardness: torch.Tensor,
        coulomb_constant: float,
    ) -> None:
        super().__init__(positions, widths, coulomb_constant, offset=_PAIR_OFFSET)
        self.added = first_hardness + coulomb_constant * self_coefficient(widths[0])

    def matrix(self) -> torch.Tensor:
        """A, shape (N, N), eV/e²."""
        matrix = super().matrix()
        return matrix - torch.diag(matrix.diagonal()) + self.added

    def diagonal(self) -> torch.Tensor:
        """The diagonal of A, shape (N,), eV/e²."""
        return self.added.expand_as(self.widths)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """A q, shape (N,), eV/e."""
        pairs = pair_potential_of(self.pairs, self.coefficient, charges)
        return pairs + self.added * charges.sum()

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        none = torch.zeros_like(self.widths)
        pairs = pair_energy(self.pairs, self.coefficient, none, charges, subtracted)
        return pairs + self._net(charges, subtracted)

    def _net(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.added * (charges.sum() ** 2 - subtracted.sum() ** 2)

    def screening(self) -> LegacyFreeScreening:
        """Correction from the point-charge sum of the same atoms to this operator."""
        return LegacyFreeScreening(self)


class LegacyFreeScreening:
    """Correction of :class:`LegacyFreeCoulomb`: Gaussian screening and the constant added to A."""

    def __init__(self, operator: LegacyFreeCoulomb) -> None:
        self._operator = operator

    def energy_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """Energy of the correction for charges q minus that for p, shape (N,) each, eV."""
        own = self._operator
        width = pair_width(own.widths[own.pairs[0]], own.widths[own.pairs[1]])
        coefficient = -own.constant * screening(own.distance, width)
        none = torch.zeros_like(own.widths)
        pairs = pair_energy(own.pairs, coefficient, none, charges, subtracted)
        return pairs + own._net(charges, subtracted)


def _far_image(cell: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    """The only image that the published loop visits, the outermost corner, shape (3,)."""
    normals = torch.linalg.cross(cell[[1, 2, 0]], cell[[2, 0, 1]], dim=-1)
    heights = torch.linalg.det(cell).abs() / torch.linalg.vector_norm(normals, dim=-1)
    return torch.ceil(cutoff / heights).detach()
