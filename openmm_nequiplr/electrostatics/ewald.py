"""Gaussian charges in a periodic cell: the Ewald sum.

K is the point-charge Ewald sum with tin-foil boundary and a uniform neutralising background, less
Σ_images k_e erfc(r/(√2 γ))/r, plus the Gaussian self-energies. Point-charge sum and Gaussian
correction share one real-space list: their sum is k_e [erf(r/√2γ) − erf(r/√2η)]/r with the Ewald
width η. Choosing η no smaller than the widest pair γ keeps that list as short as the correction
needs anyway and the reciprocal list as short as it can be.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..neighbors import neighbor_list
from .gaussian import GaussianScreening, pair_width, screening, self_coefficient
from .tangent import CoulombTangent

#: Finds ``(pair_index, pair_shift)``, each pair once, for ``(positions, cell, periodic, cutoff)``.
PairSearch = Callable[[np.ndarray, np.ndarray, bool, float], tuple[torch.Tensor, torch.Tensor]]
half_list: PairSearch = functools.partial(neighbor_list, full=False)

#: Relative size of the first neglected term of the real and the reciprocal sum.
DEFAULT_ACCURACY = 1e-9


@dataclass(frozen=True)
class EwaldGeometry:
    """Which pairs and reciprocal vectors a lattice sum runs over.

    Parameters
    ----------
    eta : float, Å
        Width of the Ewald screening charge (α = 1/(√2 η)).
    pair_index : torch.Tensor, int64, shape (2, P)
        Every pair of atoms and of images within the cutoff, once.
    pair_shift : torch.Tensor, float64, shape (P, 3)
        Integer images of the second atom.
    k_index : torch.Tensor, float64, shape (K, 3)
        Integer reciprocal vectors, one of each ±k.
    """

    eta: float
    pair_index: torch.Tensor
    pair_shift: torch.Tensor
    k_index: torch.Tensor

    def to(self, device: torch.device | str) -> EwaldGeometry:
        """Return the same lists on ``device``."""
        return EwaldGeometry(
            self.eta,
            self.pair_index.to(device),
            self.pair_shift.to(device),
            self.k_index.to(device),
        )


def ewald_geometry(
    positions: np.ndarray,
    cell: np.ndarray,
    max_width: float,
    accuracy: float = DEFAULT_ACCURACY,
    eta: float | None = None,
    reach: float | None = None,
    search: PairSearch = half_list,
) -> EwaldGeometry:
    """Choose the splitting and collect pairs and reciprocal vectors for one structure.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors; any shape, also smaller than the cutoff.
    max_width : float, Å
        Largest σ of the atoms.
    accuracy : float
        Size of the first neglected terms relative to the leading ones.
    eta : float, optional, Å
        Overrides the choice of the splitting.
    reach : float, optional, Å
        Overrides the cutoff of the real-space pairs.
    search : callable
        Finds every pair once; :class:`openmm_nequiplr.verlet.VerletList` keeps its findings.
    """
    volume = abs(float(np.linalg.det(cell)))
    widest = math.sqrt(2.0) * max_width
    if eta is None:
        eta = max(widest, float(balanced_width(volume, len(positions))))
    decay = math.sqrt(-2.0 * math.log(accuracy))
    cutoff = decay * max(eta, widest) if reach is None else reach
    index, shift = search(positions, cell, True, cutoff)
    return EwaldGeometry(float(eta), index, shift, _reciprocal_index(cell, decay / eta))


def balanced_width(volume, count: int):
    """Ewald width (V²/N)^(1/6)/√(2π) in Å that balances the two sums; float or tensor volume."""
    return (volume * volume / count) ** (1.0 / 6.0) / math.sqrt(2.0 * math.pi)


def published_geometry(positions: np.ndarray, cell: np.ndarray) -> EwaldGeometry:
    """The sums of the authors' code: balanced splitting, both cut at an accuracy of 1e-8.

    The Gaussian correction is cut with the real-space sum although it reaches farther for wide
    atoms, an error of up to 1e-5 e; models converted from that code carry it. Arguments as in
    :func:`ewald_geometry`.
    """
    accuracy = 1e-8
    eta = float(balanced_width(abs(float(np.linalg.det(cell))), len(positions)))
    return ewald_geometry(
        positions, cell, 0.0, accuracy, eta, reach=math.sqrt(-2.0 * math.log(accuracy)) * eta
    )


def _reciprocal_index(cell: np.ndarray, k_max: float) -> torch.Tensor:
    """Integer reciprocal vectors with 0 < |k| ≤ k_max, one of each ±k; shape (K, 3)."""
    reciprocal = 2.0 * math.pi * np.linalg.inv(cell).T
    limit = np.floor(k_max * np.linalg.norm(cell, axis=1) / (2.0 * math.pi)).astype(int)
    axes = [np.arange(-n, n + 1) for n in limit]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[len(grid) // 2 + 1 :]  # after the origin of a symmetric list: one of each ±k
    length = np.linalg.norm(grid @ reciprocal, axis=1)
    return torch.from_numpy(grid[length <= k_max].astype(np.float64))


class EwaldCoulomb:
    """Coulomb operator of N Gaussian charges in a periodic cell; differentiable in both inputs.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    geometry : EwaldGeometry
        Made for these positions and this cell.
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        geometry: EwaldGeometry,
        coulomb_constant: float,
    ) -> None:
        self._count = int(positions.shape[0])
        self._widths = widths
        self._constant = coulomb_constant
        self._geometry = geometry
        eta = geometry.eta
        first, second = geometry.pair_index
        vectors = positions.index_select(0, second) - positions.index_select(0, first)
        vectors = vectors + geometry.pair_shift @ cell
        self._distance = torch.linalg.vector_norm(vectors, dim=-1)
        width = pair_width(widths[first], widths[second])
        bare = torch.full_like(width, eta)
        self._pair = coulomb_constant * (
            screening(self._distance, bare) - screening(self._distance, width)
        )
        volume = torch.linalg.det(cell).abs()
        k_vectors = 2.0 * math.pi * geometry.k_index @ torch.linalg.inv(cell).T
        k_squared = (k_vectors * k_vectors).sum(dim=-1)
        # twice 4π k_e/V: every k stands for ±k
        filter_k = torch.exp(-0.5 * eta * eta * k_squared) / k_squared
        self._filter = 8.0 * math.pi * coulomb_constant / volume * filter_k
        phase = positions @ k_vectors.T
        self._cos, self._sin = torch.cos(phase), torch.sin(phase)
        self._vectors, self._pair_width, self._k_vectors = vectors, width, k_vectors
        self._background = -2.0 * math.pi * eta * eta * coulomb_constant / volume

    def _self(self) -> torch.Tensor:
        ewald = math.sqrt(2.0 / math.pi) / self._geometry.eta
        return self._constant * (self_coefficient(self._widths) - ewald)

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        first, second = self._geometry.pair_index
        zeros = self._widths.new_zeros(self._count * self._count)
        upper = zeros.index_add(0, first * self._count + second, self._pair)
        upper = upper.view(self._count, self._count)
        wave = torch.cat((self._cos, self._sin), dim=1)
        filtered = torch.cat((self._cos * self._filter, self._sin * self._filter), dim=1)
        return upper + upper.T + wave @ filtered.T + self._background + torch.diag(self._self())

    def slope(self) -> torch.Tensor:
        """dK_ij/dR_i, shape (N, N, 3), eV/e²/Å; without a gradient."""
        first, second = self._geometry.pair_index
        with torch.enable_grad():
            distance = self._distance.detach().requires_grad_()
            bare = torch.full_like(self._pair_width, self._geometry.eta)
            pair = screening(distance, bare) - screening(distance, self._pair_width.detach())
            (slope,) = torch.autograd.grad(self._constant * pair.sum(), distance)
        with torch.no_grad():
            along = (-slope / distance).unsqueeze(-1) * self._vectors
            result = along.new_zeros(self._count * self._count, 3)
            result = result.index_add(0, first * self._count + second, along)
            result = result.index_add(0, second * self._count + first, -along)
            result = result.view(self._count, self._count, 3)
            for axis in range(3):
                rising = self._filter * self._k_vectors[:, axis]
                result[:, :, axis] -= (self._sin * rising) @ self._cos.T
                result[:, :, axis] += (self._cos * rising) @ self._sin.T
            result[torch.arange(self._count), torch.arange(self._count)] = 0.0
        return result

    def tangent(self, positions: torch.Tensor) -> CoulombTangent:
        """K and its slope at the positions, shape (N, 3), that this operator was made for."""
        with torch.no_grad():
            return CoulombTangent(self.matrix(), self.slope(), positions.detach().clone())

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        first, second = self._geometry.pair_index
        images = torch.where(first == second, 2.0 * self._pair, torch.zeros_like(self._pair))
        result = self._self() + self._filter.sum() + self._background
        return result.index_add(0, first, images)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, in O(pairs + N K)."""
        first, second = self._geometry.pair_index
        result = self._self() * charges + self._background * charges.sum()
        result = result.index_add(0, first, self._pair * charges[second])
        result = result.index_add(0, second, self._pair * charges[first])
        wave = self._cos @ (self._filter * (charges @ self._cos))
        return result + wave + self._sin @ (self._filter * (charges @ self._sin))

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        first, second = self._geometry.pair_index
        pairs = (self._pair * charges[first] * charges[second]).sum()
        structure = (charges @ self._cos) ** 2 + (charges @ self._sin) ** 2
        single = self._self() * charges * charges
        total = charges.sum()
        return pairs + 0.5 * (
            single.sum() + (self._filter * structure).sum() + self._background * total * total
        )

    @property
    def smoothing_width(self) -> float:
        """Ewald width η in Å: the smooth part of the sum is that of Gaussian charges so wide."""
        return self._geometry.eta

    def pair_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge Ewald sums of q and p, eV.

        The smooth part is such a sum without its pairs k_e q_i q_j erfc(r/√2η)/r; what it holds
        of the charges themselves and of the background is not in here. q and p of shape (N,), e.
        """
        first, second = self._geometry.pair_index
        products = charges[first] * charges[second] - subtracted[first] * subtracted[second]
        own = self._constant * self_coefficient(self._widths)
        squares = charges * charges - subtracted * subtracted
        return (self._pair * products).sum() + 0.5 * (own * squares).sum()

    def screening(self) -> GaussianScreening:
        """The part that a point-charge Ewald sum over the same cell lacks."""
        return GaussianScreening(
            self._geometry.pair_index, self._distance, self._widths, self._constant
        )
