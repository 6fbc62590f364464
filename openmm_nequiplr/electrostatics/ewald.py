"""Gaussian charges in a periodic cell: the Ewald sum.

K is the point-charge Ewald sum with tin-foil boundary conditions and a uniform neutralising
background, minus Σ_images k_e erfc(r/(√2 γ))/r, plus the Gaussian self-energies. The point-charge
sum and the Gaussian correction share one list of pairs: the sum of both real-space terms is
k_e [erf(r/√2γ) − erf(r/√2η)]/r with the Ewald width η. η is at least the largest γ of a pair. The
list of pairs is then no longer than the correction requires, and there are as few k-vectors as
possible.
"""

# TorchScript compiles the operator and reads its annotations: no postponed ones here
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..neighbors import PairSearch, neighbor_list
from ..ops.pair_formulas import pair_width, screening
from .gaussian import GaussianScreening, pair_energy, pair_potential_of, self_coefficient
from .operator import CoulombOperator, block_product
from .reciprocal import half_index, reciprocal

#: Neighbour search that returns each pair once.
half_list: PairSearch = functools.partial(neighbor_list, full=False)

#: Relative size of the first neglected term of the real and the reciprocal sum.
DEFAULT_ACCURACY = 1e-9


class EwaldSplitting(NamedTuple):
    """Ewald width and cutoffs of a lattice sum.

    Parameters
    ----------
    eta : float, Å
        Width of the Ewald screening charge (α = 1/(√2 η)).
    cutoff : float, Å
        Cutoff of the real-space pairs.
    k_cutoff : float, 1/Å
        Cutoff of the k-vectors.
    """

    eta: float
    cutoff: float
    k_cutoff: float


@dataclass(frozen=True)
class EwaldGeometry:
    """Pairs and k-vectors of a lattice sum.

    Parameters
    ----------
    eta : float, Å
        Width of the Ewald screening charge (α = 1/(√2 η)).
    pair_index : torch.Tensor, int64, shape (2, P)
        Every pair of atoms or images within the cutoff, once.
    pair_shift : torch.Tensor, float64, shape (P, 3)
        Image of the second atom, integers in units of the lattice vectors.
    k_index : torch.Tensor, float64, shape (K, 3)
        Integer components of the k-vectors, one of each ±k.
    """

    eta: float
    pair_index: torch.Tensor
    pair_shift: torch.Tensor
    k_index: torch.Tensor

    def to(self, device: torch.device | str) -> "EwaldGeometry":
        """Copy of the lists on ``device``."""
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
    """Choose the splitting and collect the pairs and k-vectors of one structure.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors. The cell may be triclinic and smaller than the cutoff.
    max_width : float, Å
        Largest σ of the atoms.
    accuracy : float
        Size of the first neglected terms relative to the leading ones.
    eta : float, optional, Å
        Ewald width to use instead of the chosen one.
    reach : float, optional, Å
        Real-space cutoff to use instead of the chosen one.
    search : callable
        Neighbour search that returns each pair once, such as a
        :class:`openmm_nequiplr.verlet.VerletList`.
    """
    splitting = ewald_splitting(cell, len(positions), max_width, accuracy, eta, reach)
    return geometry_of(splitting, positions, cell, search)


def ewald_splitting(
    cell: np.ndarray,
    count: int,
    max_width: float,
    accuracy: float = DEFAULT_ACCURACY,
    eta: float | None = None,
    reach: float | None = None,
) -> EwaldSplitting:
    """Splitting that :func:`ewald_geometry` chooses for ``count`` atoms; arguments as there."""
    widest = math.sqrt(2.0) * max_width
    if eta is None:
        eta = max(widest, _balanced(cell, count))
    decay = math.sqrt(-2.0 * math.log(accuracy))
    cutoff = decay * max(eta, widest) if reach is None else reach
    return EwaldSplitting(float(eta), cutoff, decay / eta)


def geometry_of(
    splitting: EwaldSplitting,
    positions: np.ndarray,
    cell: np.ndarray,
    search: PairSearch = half_list,
) -> EwaldGeometry:
    """Pairs and k-vectors of a splitting; arguments as for :func:`ewald_geometry`."""
    index, shift = search(positions, cell, True, splitting.cutoff)
    kvectors = half_index(torch.from_numpy(cell), splitting.k_cutoff)
    return EwaldGeometry(splitting.eta, index, shift, kvectors)


def balanced_width(volume: torch.Tensor, count: int) -> torch.Tensor:
    """Ewald width (V²/N)^(1/6)/√(2π) in Å that balances the cost of both sums; volume in Å³."""
    return (volume * volume / count) ** (1.0 / 6.0) / math.sqrt(2.0 * math.pi)


def _balanced(cell: np.ndarray, count: int) -> float:
    volume = torch.tensor(abs(np.linalg.det(cell)), dtype=torch.float64)
    return float(balanced_width(volume, count))


def published_splitting(cell: np.ndarray, count: int) -> EwaldSplitting:
    """Splitting of the authors' published code: balanced, with an accuracy of 1e-8 of both sums.

    The Gaussian correction is truncated at the cutoff of the real-space sum although its range is
    longer for wide atoms. The charges are therefore in error by up to 1e-5 e, and models converted
    from that code reproduce this error.
    """
    accuracy = 1e-8
    return ewald_splitting(cell, count, 0.0, accuracy, _balanced(cell, count))


class EwaldCoulomb(CoulombOperator):
    """Coulomb operator of N Gaussian charges in a periodic cell, differentiable in both inputs.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    geometry : EwaldGeometry
        Pairs and k-vectors of these positions and this cell.
    coulomb_constant : float, eV Å/e²
    replicas : int
        R copies of a system in the same cell, which do not interact.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        geometry: EwaldGeometry,
        coulomb_constant: float,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self.constant, self.replicas = coulomb_constant, replicas
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
        """Set the structure; arguments as for the class and :class:`EwaldGeometry`."""
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
        # twice 4π k_e/V, as each k represents ±k
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
        """K, shape (N, N), or its blocks, (R, N/R, N/R), eV/e²."""
        count, columns = self.widths.shape[0] // self.replicas, self.pairs[1]
        shape = [count]
        if self.replicas > 1:
            columns, shape = columns % count, [self.replicas, count]
        zeros = torch.zeros(
            [self.widths.shape[0] * count], dtype=self.widths.dtype, device=self.widths.device
        )
        upper = zeros.index_add(0, self.pairs[0] * count + columns, self.coefficient)
        upper = upper.reshape(shape + [count])  # noqa: RUF005  (TorchScript)
        wave = torch.cat((self.cos, self.sin), dim=1)
        filtered = torch.cat((self.cos * self.influence, self.sin * self.influence), dim=1)
        waves = shape + [wave.shape[1]]  # noqa: RUF005
        smooth = wave.reshape(waves) @ filtered.reshape(waves).transpose(-1, -2) + self.background
        own = torch.diag_embed(self._self().reshape(shape))
        return upper + upper.transpose(-1, -2) + smooth + own

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        own = self.pairs[0] == self.pairs[1]
        images = torch.where(own, 2.0 * self.coefficient, torch.zeros_like(self.coefficient))
        result = self._self() + self.influence.sum() + self.background
        return result.index_add(0, self.pairs[0], images)

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, in O(pairs + N K)."""
        if self.replicas > 1:
            return block_product(self.matrix(), charges)
        result = self._self() * charges + self.background * charges.sum()
        result = result + pair_potential_of(self.pairs, self.coefficient, charges)
        result = result + self.cos @ (self.influence * (charges @ self.cos))
        return result + self.sin @ (self.influence * (charges @ self.sin))

    def _reciprocal_energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ Σ_k A(k) |S(k)|² with the structure factor S, and the background; a scalar, eV."""
        total, cos, sin = charges.sum(), self.cos, self.sin
        if self.replicas > 1:  # factors of each replica, shape (R, 1, K)
            charges = charges.reshape(self.replicas, 1, -1)
            total = charges.sum(dim=-1)
            cos = cos.reshape(self.replicas, -1, cos.shape[1])
            sin = sin.reshape(self.replicas, -1, sin.shape[1])
        squares = (charges @ cos) ** 2 + (charges @ sin) ** 2
        return 0.5 * ((self.influence * squares).sum() + self.background * (total**2).sum())

    def energy_difference(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, shape (N,) each, a scalar, eV."""
        pairs = pair_energy(self.pairs, self.coefficient, self._self(), charges, subtracted)
        return pairs + self._reciprocal_energy(charges) - self._reciprocal_energy(subtracted)

    def rest_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) without the smooth part of the point-charge Ewald sums of q and p, eV."""
        own = self._gaussian_self()
        return pair_energy(self.pairs, self.coefficient, own, charges, subtracted)

    @torch.jit.unused
    def screening(self) -> GaussianScreening:
        """Correction from the point-charge Ewald sum of the same cell to this operator."""
        return GaussianScreening(self.pairs, self.distance, self.widths, self.constant)
