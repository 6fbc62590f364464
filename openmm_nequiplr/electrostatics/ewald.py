"""Gaussian charges in a periodic cell: the Ewald sum.

K is the point-charge Ewald sum with tin-foil boundary and a uniform neutralising background, less
Σ_images k_e erfc(r/(√2 γ))/r, plus the Gaussian self-energies. Point-charge sum and Gaussian
correction share one real-space list: their sum is k_e [erf(r/√2γ) − erf(r/√2η)]/r with the Ewald
width η. Choosing η no smaller than the widest pair γ keeps that list as short as the correction
needs anyway and the reciprocal list as short as it can be.
"""

# TorchScript compiles the operator and reads its annotations: no postponed ones here
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

from ..neighbors import PairSearch, neighbor_list
from ..ops.pair_formulas import pair_width, screening
from .gaussian import GaussianScreening, pair_energy, pair_potential_of, self_coefficient
from .linearized import LinearizedCoulomb
from .operator import CoulombOperator
from .reciprocal import half_index, reciprocal

#: Finds each pair once.
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

    def to(self, device: torch.device | str) -> "EwaldGeometry":
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
    widest = math.sqrt(2.0) * max_width
    if eta is None:
        eta = max(widest, _balanced(cell, len(positions)))
    decay = math.sqrt(-2.0 * math.log(accuracy))
    cutoff = decay * max(eta, widest) if reach is None else reach
    index, shift = search(positions, cell, True, cutoff)
    return EwaldGeometry(float(eta), index, shift, half_index(torch.from_numpy(cell), decay / eta))


def balanced_width(volume: torch.Tensor, count: int) -> torch.Tensor:
    """Ewald width (V²/N)^(1/6)/√(2π) in Å that balances the two sums, for a volume in Å³."""
    return (volume * volume / count) ** (1.0 / 6.0) / math.sqrt(2.0 * math.pi)


def _balanced(cell: np.ndarray, count: int) -> float:
    volume = torch.tensor(abs(np.linalg.det(cell)), dtype=torch.float64)
    return float(balanced_width(volume, count))


def published_geometry(positions: np.ndarray, cell: np.ndarray) -> EwaldGeometry:
    """The sums of the authors' code: balanced splitting, both cut at an accuracy of 1e-8.

    The Gaussian correction is cut with the real-space sum although it reaches farther for wide
    atoms, an error of up to 1e-5 e; models converted from that code carry it. Arguments as in
    :func:`ewald_geometry`.
    """
    accuracy = 1e-8
    eta = _balanced(cell, len(positions))
    return ewald_geometry(
        positions, cell, 0.0, accuracy, eta, reach=math.sqrt(-2.0 * math.log(accuracy)) * eta
    )


class EwaldCoulomb(CoulombOperator):
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
        super().__init__()
        self.constant = coulomb_constant
        lists = geometry.pair_index, geometry.pair_shift, geometry.k_index
        self.setup(positions, cell, widths, *lists, geometry.eta)

    def setup(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        pair_index: torch.Tensor,
        pair_shift: torch.Tensor,
        k_index: torch.Tensor,
        eta: float,
    ) -> None:
        """Take another structure; arguments as for the class and :class:`EwaldGeometry`."""
        self.smoothing_width = eta
        self.widths, self.pairs = widths, pair_index
        first, second = pair_index[0], pair_index[1]
        vectors = positions.index_select(0, second) - positions.index_select(0, first)
        self.vectors = vectors + pair_shift @ cell
        self.distance = torch.linalg.vector_norm(self.vectors, dim=-1)
        self.gamma = pair_width(widths.index_select(0, first), widths.index_select(0, second))
        self.coefficient = self.constant * (
            screening(self.distance, torch.full_like(self.gamma, eta))
            - screening(self.distance, self.gamma)
        )
        volume = torch.linalg.det(cell).abs()
        self.kvectors = k_index @ reciprocal(cell)
        k_squared = (self.kvectors * self.kvectors).sum(dim=-1)
        # twice 4π k_e/V: every k stands for ±k
        influence = torch.exp(-0.5 * eta * eta * k_squared) / k_squared
        self.influence = 8.0 * math.pi * self.constant / volume * influence
        phase = positions @ self.kvectors.t()
        self.cos, self.sin = torch.cos(phase), torch.sin(phase)
        self.background = -2.0 * math.pi * eta * eta * self.constant / volume

    def _gaussian_self(self) -> torch.Tensor:
        return self.constant * self_coefficient(self.widths)

    def _self(self) -> torch.Tensor:
        point = self.constant * math.sqrt(2.0 / math.pi) / self.smoothing_width
        return self._gaussian_self() - point

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        count = self.widths.shape[0]
        zeros = torch.zeros([count * count], dtype=self.widths.dtype, device=self.widths.device)
        upper = zeros.index_add(0, self.pairs[0] * count + self.pairs[1], self.coefficient)
        upper = upper.reshape(count, count)
        wave = torch.cat((self.cos, self.sin), dim=1)
        filtered = torch.cat((self.cos * self.influence, self.sin * self.influence), dim=1)
        smooth = wave @ filtered.t() + self.background
        return upper + upper.t() + smooth + torch.diag(self._self())

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        own = self.pairs[0] == self.pairs[1]
        images = torch.where(own, 2.0 * self.coefficient, torch.zeros_like(self.coefficient))
        result = self._self() + self.influence.sum() + self.background
        return result.index_add(0, self.pairs[0], images)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, in O(pairs + N K)."""
        result = self._self() * charges + self.background * charges.sum()
        result = result + pair_potential_of(self.pairs, self.coefficient, charges)
        result = result + self.cos @ (self.influence * (charges @ self.cos))
        return result + self.sin @ (self.influence * (charges @ self.sin))

    def _waves(self, charges: torch.Tensor) -> torch.Tensor:
        """½ Σ_k A(k) |S(k)|² with the structure factor S, and the background; a scalar, eV."""
        squares = (charges @ self.cos) ** 2 + (charges @ self.sin) ** 2
        return 0.5 * ((self.influence * squares).sum() + self.background * charges.sum() ** 2)

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        pairs = pair_energy(self.pairs, self.coefficient, self._self(), charges, subtracted)
        return pairs + self._waves(charges) - self._waves(subtracted)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge Ewald sums of q and p, eV."""
        own = self._gaussian_self()
        return pair_energy(self.pairs, self.coefficient, own, charges, subtracted)

    @torch.jit.unused
    def screening(self) -> GaussianScreening:
        """The part that a point-charge Ewald sum over the same cell lacks."""
        return GaussianScreening(self.pairs, self.distance, self.widths, self.constant)

    @torch.jit.unused
    def gradient(self) -> torch.Tensor:
        """dK_ij/dR_i, shape (N, N, 3), eV/e²/Å; without a gradient."""
        first, second = self.pairs
        count = len(self.widths)
        with torch.enable_grad():
            distance = self.distance.detach().requires_grad_()
            bare = torch.full_like(self.gamma, self.smoothing_width)
            pair = screening(distance, bare) - screening(distance, self.gamma.detach())
            (slope,) = torch.autograd.grad(self.constant * pair.sum(), distance)
        with torch.no_grad():
            along = (-slope / distance).unsqueeze(-1) * self.vectors
            result = along.new_zeros(count * count, 3)
            result = result.index_add(0, first * count + second, along)
            result = result.index_add(0, second * count + first, -along)
            result = result.view(count, count, 3)
            for axis in range(3):
                rising = self.influence * self.kvectors[:, axis]
                result[:, :, axis] -= (self.sin * rising) @ self.cos.T
                result[:, :, axis] += (self.cos * rising) @ self.sin.T
            result[torch.arange(count), torch.arange(count)] = 0.0
        return result

    @torch.jit.unused
    def linearized(self, positions: torch.Tensor) -> LinearizedCoulomb:
        """K and its gradient at the positions, shape (N, 3), that this operator was made for."""
        with torch.no_grad():
            return LinearizedCoulomb(self.matrix(), self.gradient(), positions.detach().clone())
