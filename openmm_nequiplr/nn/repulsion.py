"""Priors for short distances: nuclear repulsion, and a lower bound on the network's distances."""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here.
from collections.abc import Sequence

import torch

from ..buffers import ExactBuffers
from ..units import BOHR, COULOMB_CONSTANT
from .radial import polynomial_envelope

#: Amplitudes and decay rates of the four exponentials of the screening function φ.
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))

#: Largest amount by which a floored distance lies below the shortest one, Å.
FLOOR_WIDTH = 0.1


class _PairTable(ExactBuffers):
    """Table of a distance for every pair of types, and search for pairs of atoms below it.

    Parameters
    ----------
    distances : sequence of sequence of float, shape (T, T), Å
        Symmetric.
    """

    distances: torch.Tensor

    def __init__(self, distances: Sequence[Sequence[float]]) -> None:
        super().__init__()
        table = torch.tensor(distances, dtype=torch.float64)
        self.longest = float(table.max())
        self.register_buffer("distances", table, persistent=False)

    def nearer(
        self,
        types: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        length: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the pairs closer than the distance of their types, and this distance, Å.

        On a GPU selecting pairs would synchronise the device, so all pairs are returned.
        """
        if length.is_cuda:
            kinds = types.index_select(0, first), types.index_select(0, second)
            every = torch.arange(length.shape[0], device=length.device)
            return every, self.distances[kinds[0], kinds[1]]
        index = torch.nonzero(length < self.longest).squeeze(-1)
        a = types.index_select(0, first.index_select(0, index))
        b = types.index_select(0, second.index_select(0, index))
        distance = self.distances[a, b]
        inside = torch.nonzero(length.index_select(0, index) < distance).squeeze(-1)
        return index.index_select(0, inside), distance.index_select(0, inside)


class ZBLRepulsion(_PairTable):
    """ZBL pair repulsion k_e Z_i Z_j/r φ(r/a), a = 0.8854 a_0/(Z_i^0.23 + Z_j^0.23), truncated.

    The screened nuclear repulsion of Ziegler, Biersack and Littmark (1985) is a prior for distances
    that occur in no training structure. Without it a network may predict low energies for
    overlapping atoms. A smooth envelope truncates it.

    Parameters
    ----------
    numbers : sequence of float, length T
        Atomic number of each type.
    cutoffs : sequence of sequence of float, shape (T, T), Å
        Distance at which the repulsion of a pair of types vanishes with two derivatives.
    """

    numbers: torch.Tensor
    amplitudes: torch.Tensor
    rates: torch.Tensor

    def __init__(self, numbers: Sequence[float], cutoffs: Sequence[Sequence[float]]) -> None:
        super().__init__(cutoffs)
        amplitudes, rates = zip(*SCREENING, strict=True)
        self.radius, self.constant = 0.8854 * BOHR, COULOMB_CONSTANT
        for name, values in (("numbers", numbers), ("amplitudes", amplitudes), ("rates", rates)):
            table = torch.tensor(list(values), dtype=torch.float64)
            self.register_buffer(name, table, persistent=False)

    def forward(
        self,
        types: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        length: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices, shape (P,), of the pairs within their cutoff, and the energy of each, eV.

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        first, second : torch.Tensor, int64, shape (E,)
            Atoms of each pair.
        length : torch.Tensor, float64, shape (E,), Å
        """
        index, cutoff = self.nearer(types, first, second, length)
        distance = length.index_select(0, index)
        numbers = self.numbers.index_select(0, types)
        a = numbers.index_select(0, first.index_select(0, index))
        b = numbers.index_select(0, second.index_select(0, index))
        reduced = distance * (a**0.23 + b**0.23) / self.radius
        screening = torch.exp(-reduced.unsqueeze(-1) * self.rates) @ self.amplitudes
        # 1 beyond the cutoff, which may be 0; on a GPU all pairs are here
        inside = torch.minimum(distance, cutoff) / cutoff.clamp(min=1e-6)
        envelope = polynomial_envelope(torch.where(distance < cutoff, inside, 1.0), 6.0)
        return index, self.constant * a * b / distance * screening * envelope


class DistanceFloor(_PairTable):
    """Lower bound on the distances passed to the network, near the shortest of the training data.

    At shorter distances the network extrapolates, and spurious minima of the energy there ruin
    simulations. Below the shortest distance d of a pair of types, r is replaced with
    d − w tanh((d − r)/w), w = 0.1 Å, which has two continuous derivatives. Above d it is unchanged.
    The energy below d is then determined by :class:`ZBLRepulsion`.

    Parameters
    ----------
    distances : sequence of sequence of float, shape (T, T), Å
    """

    def __init__(self, distances: Sequence[Sequence[float]]) -> None:
        super().__init__(distances)
        self.width = FLOOR_WIDTH

    def forward(
        self,
        types: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        length: torch.Tensor,
    ) -> torch.Tensor:
        """Lengths to pass to the network, shape (E,), Å; arguments as for the repulsion."""
        index, shortest = self.nearer(types, first, second, length)
        if index.numel() == 0:
            return length
        missing = (shortest.to(length.dtype) - length.index_select(0, index)).clamp(min=0.0)
        return length.index_add(0, index, missing - self.width * torch.tanh(missing / self.width))
