"""Dense Coulomb sums inside the graph: all pairs in free space, and the Ewald sum.

The same sums as :class:`openmm_nequiplr.electrostatics.FreeSpaceCoulomb` and
:class:`openmm_nequiplr.electrostatics.EwaldCoulomb`, with forces written out. Every operator keeps
what it computed for a geometry in a list of tensors that its methods take.
"""

import math

import torch

from ...electrostatics.ewald import DEFAULT_ACCURACY
from ...electrostatics.gaussian import pair_potential, pair_width, screening, self_coefficient


def _density(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Derivative of erf(r/(√2 w)), 1/Å."""
    return math.sqrt(2.0 / math.pi) / width * torch.exp(-0.5 * (distance / width) ** 2)


def screened_pairs(
    distance: torch.Tensor, width: torch.Tensor, eta: float, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """[erf(r/√2w) − erf(r/√2η)]/r, 1/Å, and its derivative, 1/Å²; zero beyond the cutoff.

    Parameters
    ----------
    distance, width : torch.Tensor, float64, shape (P,), Å
    eta, cutoff : float, Å
    """
    bare = torch.full_like(width, eta)
    value = screening(distance, bare) - screening(distance, width)
    slope = (_density(distance, width) - _density(distance, bare) - value) / distance
    outside = distance >= cutoff
    return value.masked_fill(outside, 0.0), slope.masked_fill(outside, 0.0)


def pair_forces(
    first: torch.Tensor, second: torch.Tensor, along: torch.Tensor, count: int
) -> torch.Tensor:
    """Forces, shape (N, 3), of pairs whose energy rises by ``along``, (P, 3), per step apart."""
    forces = along.new_zeros([count, 3])
    return forces.index_add(0, first, along).index_add(0, second, -along)


class FreeMatrix(torch.nn.Module):
    """Gaussian charges without images. Kept: K, and its slope over the distance.

    Parameters
    ----------
    constant : float, eV Å/e²
    """

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """No list of pairs is needed: all are summed."""
        return 0.0

    def setup(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        vector: torch.Tensor,
        renewed: bool,
    ) -> list[torch.Tensor]:
        """What the other methods take as ``kept``."""
        difference = positions.unsqueeze(0) - positions.unsqueeze(1)
        own = torch.eye(positions.shape[0], dtype=torch.bool, device=positions.device)
        squared = (difference * difference).sum(dim=-1)
        distance = torch.sqrt(squared.masked_fill(own, 1.0))
        width = pair_width(widths.unsqueeze(0), widths.unsqueeze(1))
        value = pair_potential(distance, width)
        slope = (_density(distance, width) - value) / (distance * distance)
        matrix = self.constant * value.masked_fill(own, 0.0)
        matrix = matrix + torch.diag(self.constant * self_coefficient(widths))
        return [matrix, self.constant * slope.masked_fill(own, 0.0), positions]

    def matrix(self, kept: list[torch.Tensor]) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        return kept[0]

    def diagonal(self, kept: list[torch.Tensor]) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        return kept[0].diagonal()

    def potential(self, kept: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return kept[0] @ charges

    def difference(
        self, kept: list[torch.Tensor], charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """e(q) − e(p), eV, and its forces, shape (N, 3), eV/Å."""
        energy = 0.5 * (charges @ (kept[0] @ charges) - subtracted @ (kept[0] @ subtracted))
        products = charges.unsqueeze(1) * charges - subtracted.unsqueeze(1) * subtracted
        # −Σ_j c_ij (x_i − x_j)
        weights, positions = kept[1] * products, kept[2]
        return energy, weights @ positions - weights.sum(dim=1, keepdim=True) * positions

    def pair_difference(
        self, kept: list[torch.Tensor], charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The same less the point-charge sums of q and p; no smooth part (width 0)."""
        energy, forces = self.difference(kept, charges, subtracted)
        return energy, forces, 0.0


class PeriodicMatrix(torch.nn.Module):
    """What the sums over pairs and a smooth part share.

    Kept, to begin with: coefficient of each pair, eV/e², and its derivative along the pair vector;
    first and second atoms. Elements 9 and 10: self-energy coefficients (N,), eV/e², and η, Å.
    """

    constant: float  # k_e, eV Å/e²; set by the classes that follow

    def _own(self, kept: list[torch.Tensor]) -> torch.Tensor:
        return kept[9] - self.constant * math.sqrt(2.0 / math.pi) / float(kept[10])

    def pair_difference(
        self, kept: list[torch.Tensor], charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """e(q) − e(p) less the smooth part of the point-charge sums, its forces, and η in Å."""
        first, second = kept[2], kept[3]
        products = charges.index_select(0, first) * charges.index_select(0, second)
        products = products - subtracted.index_select(0, first) * subtracted.index_select(0, second)
        squares = charges * charges - subtracted * subtracted
        energy = (kept[0] * products).sum() + 0.5 * (kept[9] * squares).sum()
        forces = pair_forces(first, second, kept[1] * products.unsqueeze(-1), charges.shape[0])
        return energy, forces, float(kept[10])

    def _smooth(
        self, kept: list[torch.Tensor], charges: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The smooth part of one charge vector, eV, and its forces, eV/Å."""
        raise NotImplementedError

    def difference(
        self, kept: list[torch.Tensor], charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """e(q) − e(p), eV, and its forces, shape (N, 3), eV/Å."""
        energy, forces, _ = self.pair_difference(kept, charges, subtracted)
        more, pull = self._smooth(kept, charges)
        less, push = self._smooth(kept, subtracted)
        return energy + more - less, forces + pull - push


class EwaldMatrix(PeriodicMatrix):
    """Gaussian charges in a periodic cell, all reciprocal vectors in matrices.

    Parameters
    ----------
    constant : float, eV Å/e²
    widest : float, Å
        Largest √2 σ.
    count : int
        Number N of atoms.
    """

    def __init__(self, constant: float, widest: float, count: int) -> None:
        super().__init__()
        self.constant, self.widest, self.count = constant, widest, count
        self.decay = math.sqrt(-2.0 * math.log(DEFAULT_ACCURACY))

    def eta(self, cell: torch.Tensor) -> float:
        """Ewald width, Å; see :func:`openmm_nequiplr.electrostatics.ewald.balanced_width`."""
        volume = float(torch.linalg.det(cell).abs())
        balanced = math.pow(volume * volume / self.count, 1.0 / 6.0) / math.sqrt(2.0 * math.pi)
        return max(self.widest, balanced)

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Cutoff of the pairs, Å."""
        return self.decay * self.eta(cell)

    def _waves(self, cell: torch.Tensor, k_max: float) -> torch.Tensor:
        """Reciprocal vectors with 0 < |k| ≤ k_max, one of each ±k; shape (K, 3), 1/Å."""
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).t()
        lengths: list[float] = torch.linalg.vector_norm(cell, dim=-1).tolist()
        axes: list[torch.Tensor] = []
        for length in lengths:
            most = math.floor(k_max * length / (2.0 * math.pi))
            axes.append(torch.arange(-most, most + 1, dtype=cell.dtype, device=cell.device))
        grid = torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).reshape(-1, 3)
        vectors = grid[grid.shape[0] // 2 + 1 :] @ reciprocal
        inside = torch.linalg.vector_norm(vectors, dim=-1) <= k_max
        return vectors.index_select(0, torch.nonzero(inside).squeeze(-1))

    def setup(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        vector: torch.Tensor,
        renewed: bool,
    ) -> list[torch.Tensor]:
        """What the other methods take as ``kept``."""
        eta = self.eta(cell)
        distance = torch.linalg.vector_norm(vector, dim=-1)
        width = pair_width(widths.index_select(0, first), widths.index_select(0, second))
        value, slope = screened_pairs(distance, width, eta, self.decay * eta)
        along = (self.constant * slope / distance).unsqueeze(-1) * vector
        waves = self._waves(cell, self.decay / eta)
        squared = (waves * waves).sum(dim=-1)
        volume = torch.linalg.det(cell).abs()
        spectrum = 8.0 * math.pi * self.constant / volume
        spectrum = spectrum * torch.exp(-0.5 * eta * eta * squared) / squared
        phase = positions @ waves.t()
        background = -2.0 * math.pi * eta * eta * self.constant / volume
        return [
            self.constant * value,
            along,
            first,
            second,
            torch.cos(phase),
            torch.sin(phase),
            spectrum,
            waves,
            background,
            self.constant * self_coefficient(widths),
            torch.full([1], eta, dtype=torch.float64),  # torch.tensor would round it to single
        ]

    def matrix(self, kept: list[torch.Tensor]) -> torch.Tensor:
        """K, shape (N, N), eV/e²."""
        count = kept[9].shape[0]
        upper = kept[9].new_zeros([count * count])
        upper = upper.index_add(0, kept[2] * count + kept[3], kept[0]).reshape(count, count)
        wave = torch.cat((kept[4], kept[5]), dim=1)
        filtered = torch.cat((kept[4] * kept[6], kept[5] * kept[6]), dim=1)
        smooth = wave @ filtered.t() + kept[8]
        return upper + upper.t() + smooth + torch.diag(self._own(kept))

    def _smooth(
        self, kept: list[torch.Tensor], charges: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The smooth part of one charge vector, eV, and its forces, eV/Å."""
        real, imaginary = charges @ kept[4], charges @ kept[5]
        total = charges.sum()
        squares = math.sqrt(2.0 / math.pi) * self.constant / float(kept[10]) * (charges @ charges)
        energy = (kept[6] * (real * real + imaginary * imaginary)).sum()
        energy = 0.5 * (energy + kept[8] * total * total - squares)
        rising = (kept[5] * real - kept[4] * imaginary) @ (kept[6].unsqueeze(-1) * kept[7])
        return energy, charges.unsqueeze(-1) * rising

    def diagonal(self, kept: list[torch.Tensor]) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e²."""
        return self.matrix(kept).diagonal()

    def potential(self, kept: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e, in O(pairs + N K)."""
        first, second = kept[2], kept[3]
        result = self._own(kept) * charges + kept[8] * charges.sum()
        result = result.index_add(0, first, kept[0] * charges.index_select(0, second))
        result = result.index_add(0, second, kept[0] * charges.index_select(0, first))
        wave = kept[4] @ (kept[6] * (charges @ kept[4]))
        return result + wave + kept[5] @ (kept[6] * (charges @ kept[5]))
