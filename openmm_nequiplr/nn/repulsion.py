"""Priors for short distances: nuclear repulsion, and the shortest distance that a network sees."""

# TorchScript compiles these modules and reads annotations at run time: no postponed ones here.
from collections.abc import Sequence

import torch

from ..buffers import ExactBuffers
from ..units import BOHR, COULOMB_CONSTANT
from .radial import polynomial_envelope

#: Amplitudes and rates of the four exponentials of the screening function φ.
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))

#: Distances below the shortest one approach it less this much, Å.
FLOOR_WIDTH = 0.1


class _PairTable(ExactBuffers):
    """A distance for every pair of types, and the pairs of atoms that are nearer than it.

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
        """Indices of the pairs that are nearer than their distance, and this distance, Å."""
        index = torch.nonzero(length < self.longest).squeeze(-1)
        a = types.index_select(0, first.index_select(0, index))
        b = types.index_select(0, second.index_select(0, index))
        distance = self.distances[a, b]
        inside = torch.nonzero(length.index_select(0, index) < distance).squeeze(-1)
        return index.index_select(0, inside), distance.index_select(0, inside)


class ZBLRepulsion(_PairTable):
    """Pair repulsion k_e Z_i Z_j/r φ(r/a), a = 0.8854 a_0/(Z_i^0.23 + Z_j^0.23), cut smoothly.

    The screened nuclear repulsion of Ziegler, Biersack and Littmark (1985): a prior for distances
    that no training structure holds. Without it nothing keeps a network from predicting that two
    atoms may sit on top of one another.

    Parameters
    ----------
    numbers : sequence of float, length T
        Atomic number of each type.
    cutoffs : sequence of sequence of float, shape (T, T), Å
        Where the repulsion of a pair of types ends, with two continuous derivatives.
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
        envelope = polynomial_envelope(distance / cutoff, 6.0)
        return index, self.constant * a * b / distance * screening * envelope


class DistanceFloor(_PairTable):
    """Distances as the network sees them: none is much below the shortest of the training data.

    A network knows nothing of shorter ones, and what it extrapolates there are the holes into
    which simulations fall. Below the shortest distance d of a pair of types, r is replaced with
    d − w tanh((d − r)/w), w = 0.1 Å, which has two continuous derivatives; above it is left as it
    is. What happens below is up to :class:`ZBLRepulsion`.

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
        """Lengths as the network sees them, shape (E,), Å; arguments as for the repulsion."""
        index, shortest = self.nearer(types, first, second, length)
        if index.numel() == 0:
            return length
        missing = shortest.to(length.dtype) - length.index_select(0, index)
        return length.index_add(0, index, missing - self.width * torch.tanh(missing / self.width))
