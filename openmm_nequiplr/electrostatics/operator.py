"""What every Coulomb operator can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


class CoulombOperator(Protocol):
    """The matrix K of the Coulomb energy e(q) = ½ qᵀKq of N Gaussian charges, at fixed positions.

    K holds pairs, images and the self-energy k_e/(√π σ) of every Gaussian; the hardness J is not
    part of it. All tensors are float64; energies are eV, charges e.
    """

    def matrix(self) -> torch.Tensor:
        """K itself, shape (N, N), eV/e²: the slow, obvious form."""
        ...

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        ...

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, without forming K where that is cheaper."""
        ...

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        ...

    def screening(self) -> EnergyFunction:
        """The energy of K less that of a point-charge sum over the same atoms."""
        ...


@runtime_checkable
class SplitCoulomb(Protocol):
    """A periodic operator whose smooth part other code can sum."""

    @property
    def smoothing_width(self) -> float:
        """Ewald width η in Å: the smooth part of the sum is that of Gaussian charges so wide."""
        ...

    def pair_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge sums of q and p, eV."""
        ...


class EnergyFunction(Protocol):
    """Something that has an energy for charges of shape (N,)."""

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """The energy, a scalar, eV."""
        ...
