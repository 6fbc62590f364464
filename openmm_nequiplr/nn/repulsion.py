"""The screened nuclear repulsion of Ziegler, Biersack and Littmark (1985)."""

from __future__ import annotations

import torch

from ..units import BOHR, COULOMB_CONSTANT
from .radial import PolynomialCutoff

#: Amplitudes and rates of the four exponentials of φ.
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


class ZBLRepulsion(torch.nn.Module):
    """Pair repulsion k_e Z_i Z_j/r φ(r/a), a = 0.8854 a_0/(Z_i^0.23 + Z_j^0.23), cut smoothly.

    A prior for distances that no training structure holds: without it nothing keeps a network from
    predicting that two atoms may sit on top of one another.

    Parameters
    ----------
    r_max : float, Å
    """

    def __init__(self, r_max: float) -> None:
        super().__init__()
        self.cutoff = PolynomialCutoff(r_max)

    def forward(
        self, numbers: torch.Tensor, edge_index: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        """Half the repulsion of each directed edge, float64, shape (E,), eV.

        Parameters
        ----------
        numbers : torch.Tensor, float64, shape (N,)
            Atomic numbers.
        edge_index : torch.Tensor, int64, shape (2, E)
        length : torch.Tensor, float64, shape (E,), Å
        """
        first = numbers.index_select(0, edge_index[0])
        second = numbers.index_select(0, edge_index[1])
        reduced = length * (first**0.23 + second**0.23) / (0.8854 * BOHR)
        screening = torch.stack([c * torch.exp(-d * reduced) for c, d in SCREENING]).sum(dim=0)
        return 0.5 * COULOMB_CONSTANT * first * second / length * screening * self.cutoff(length)
