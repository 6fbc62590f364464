"""Coulomb operators of a graph, which are set up for each geometry.

Each operator specifies the cutoff of the pair list and uses its pairs.
"""

import math

import torch

from ...electrostatics import (
    EwaldCoulomb,
    EwaldGeometry,
    FreeSpaceCoulomb,
    MeshCoulomb,
    SlabCoulomb,
)
from ...electrostatics.ewald import DEFAULT_ACCURACY, balanced_width
from ...electrostatics.mesh_geometry import MeshGeometry
from ...electrostatics.reciprocal import half_index
from ...electrostatics.splitting import choose_parameters


class FreeOperator(FreeSpaceCoulomb):
    """Gaussian charges without images.

    Parameters
    ----------
    widths : torch.Tensor, float64, shape (N,), Å
    constant : float, eV Å/e²
    """

    def __init__(self, widths: torch.Tensor, constant: float) -> None:
        super().__init__(torch.zeros_like(widths).unsqueeze(-1).expand(-1, 3), widths, constant)

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Return 0, as all pairs are summed without a list."""
        return 0.0

    def update(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        shift: torch.Tensor,
        renewed: bool,
    ) -> None:
        """Set the geometry.

        Parameters
        ----------
        positions, cell : torch.Tensor, float64, shapes (N, 3) and (3, 3), Å
        first, second : torch.Tensor, int64, shape (P,)
            All pairs within :meth:`far_cutoff`, and some beyond.
        shift : torch.Tensor, float64, shape (P, 3)
            Integer images of the second atoms.
        renewed : bool
            Whether the list has changed since the last geometry.
        """
        self.setup(positions, self.widths)


class EwaldOperator(EwaldCoulomb):
    """Ewald sum of Gaussian charges; parameters as for :class:`FreeOperator`."""

    def __init__(self, widths: torch.Tensor, constant: float) -> None:
        nothing = torch.zeros(2, 0, dtype=torch.int64), *torch.zeros(2, 0, 3, dtype=torch.float64)
        points = torch.zeros(widths.shape[0], 3, dtype=torch.float64, device=widths.device)
        cell = torch.eye(3, dtype=torch.float64, device=widths.device)
        geometry = EwaldGeometry(1.0, *nothing).to(widths.device)
        super().__init__(points, cell, widths, geometry, constant)
        self.widest = math.sqrt(2.0) * float(widths.max())
        self.decay = math.sqrt(-2.0 * math.log(DEFAULT_ACCURACY))

    def eta(self, cell: torch.Tensor) -> float:
        """Ewald width, Å."""
        volume = torch.linalg.det(cell).abs()
        return max(self.widest, float(balanced_width(volume, self.widths.shape[0])))

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Cutoff of the pairs, Å."""
        return self.decay * self.eta(cell)

    def update(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        shift: torch.Tensor,
        renewed: bool,
    ) -> None:
        """Take a geometry; arguments as for :class:`FreeOperator`."""
        eta = self.eta(cell)
        with torch.no_grad():
            vectors = positions.index_select(0, second) - positions.index_select(0, first)
            distance = torch.linalg.vector_norm(vectors + shift @ cell, dim=-1)
            inside = torch.nonzero(distance < self.decay * eta).squeeze(-1)
            pairs = torch.stack((first, second)).index_select(1, inside)
            k_index = half_index(cell, self.decay / eta)
        shift = shift.index_select(0, inside)
        self.setup(positions, cell, self.widths, pairs, shift, k_index, eta)


class MeshOperator(MeshCoulomb):
    """Smooth particle mesh Ewald sum of Gaussian charges.

    Parameters
    ----------
    widths : torch.Tensor, float64, shape (N,), Å
    constant : float, eV Å/e²
    accuracy : float
        Requested relative error of forces and potentials.
    """

    def __init__(self, widths: torch.Tensor, constant: float, accuracy: float) -> None:
        points = torch.zeros(widths.shape[0], 3, dtype=torch.float64, device=widths.device)
        cell = torch.eye(3, dtype=torch.float64, device=widths.device)
        none = torch.zeros(0, dtype=torch.int64, device=widths.device)
        widest = float(widths.max())
        nothing = MeshGeometry(
            parameters=choose_parameters(cell, widest, len(widths), accuracy),
            positions=points.cpu().numpy(),
            cell=cell.cpu().numpy(),
            skin=0.0,
            first=none,
            second=none,
            image=none,
            images=points[:0],
            kind=none,
            gammas=torch.ones_like(widths[:1]),
        )
        super().__init__(points, cell, widths, nothing, constant)
        self.accuracy, self.widest = accuracy, widest
        sigmas, self.species = torch.unique(widths, return_inverse=True)
        self.all_gammas = torch.hypot(sigmas.unsqueeze(1), sigmas).flatten()

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Cutoff of the pairs, Å."""
        return choose_parameters(cell, self.widest, self.widths.shape[0], self.accuracy).cutoff

    def update(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        shift: torch.Tensor,
        renewed: bool,
    ) -> None:
        """Take a geometry; arguments as for :class:`FreeOperator`."""
        if not torch.equal(cell, self.made_for):
            count = self.widths.shape[0]
            self.take_parameters(choose_parameters(cell, self.widest, count, self.accuracy))
        if renewed or self.rows[0].device != first.device:
            image = torch.arange(shift.shape[0], device=shift.device)
            species = self.species.index_select(0, first) * self.kinds()
            kind = species + self.species.index_select(0, second)
            self.take_pairs(first, second, shift, image, kind, self.all_gammas)
        self.setup(positions, cell)

    def kinds(self) -> int:
        """Number of distinct widths."""
        return int(math.sqrt(float(self.all_gammas.shape[0])) + 0.5)


class SlabOperator(SlabCoulomb):
    """Gaussian charges in a slab."""

    def __init__(self, periodic: EwaldOperator | MeshOperator) -> None:
        cell = torch.eye(3, dtype=torch.float64, device=periodic.widths.device)
        points = torch.zeros_like(periodic.widths).unsqueeze(-1).expand(-1, 3)
        super().__init__(periodic, points, cell, periodic.constant)

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Cutoff of the pairs, Å."""
        return self.periodic.far_cutoff(cell)

    def update(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        shift: torch.Tensor,
        renewed: bool,
    ) -> None:
        """Take a geometry; arguments as for :class:`FreeOperator`."""
        self.periodic.update(positions, cell, first, second, shift, renewed)
        self.place(positions, cell)
