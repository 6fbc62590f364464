"""Gaussian charges in a periodic cell in O(N log N): pairs as a sparse matrix, the rest on a mesh.

K is that of :class:`.ewald.EwaldCoulomb`, its slow twin: the real-space pairs are
k_e [erf(r/√2γ) − erf(r/√2η)]/r, and the smooth rest is summed on a mesh with B-splines (Essmann et
al. 1995, doi:10.1063/1.470117) and the influence function of Hockney and Eastwood. All that depends
on the geometry alone is computed once, so that a product K q costs a sparse product, a spread, two
real FFTs and a gather. On the CPU spread, gather and pair loops are compiled (numba); elsewhere
they are torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..neighbors import neighbor_list
from .gaussian import GaussianScreening, self_coefficient
from .mesh_geometry import MeshGeometry
from .mesh_sums import CompiledSums, TorchSums, pair_distances, pair_matrix


class MeshCoulomb:
    """Coulomb operator of N Gaussian charges in a periodic cell, for many charges or many atoms.

    ``energy`` is differentiable once, in charges, positions and cell; the other methods give no
    gradient.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    geometry : MeshGeometry
        One that serves these positions and this cell.
    coulomb_constant : float, eV Å/e²
    compiled : bool, optional
        Whether to use the compiled loops; by default on the CPU.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        geometry: MeshGeometry,
        coulomb_constant: float,
        compiled: bool | None = None,
    ) -> None:
        self._positions, self._cell, self._widths = positions, cell, widths
        self._geometry, self._constant = geometry, coulomb_constant
        if compiled is None:
            compiled = positions.device.type == "cpu" and geometry.table is not None
        with torch.no_grad():
            self._own = coulomb_constant * (
                self_coefficient(widths) - math.sqrt(2.0 / math.pi) / geometry.parameters.eta
            )
            first, second, third = geometry.factors
            self._spline = first[:, None, None] * second[:, None] * third
            smooth = self._smooth(cell.detach())
            self._wave_diagonal = 2.0 * smooth.sum() - smooth[..., 0].sum()
            self._filter = smooth * self._spline
            made: Any = CompiledSums if compiled else TorchSums
            self._sums: Any = made(positions.detach(), cell.detach(), geometry, coulomb_constant)
            self._pairs = pair_matrix(geometry, self._sums.coefficients())

    def _smooth(self, cell: torch.Tensor) -> torch.Tensor:
        """4π k_e/V exp(−η²k²/2)/k² over the half mesh, with the background at k = 0, eV/e²."""
        eta = self._geometry.parameters.eta
        volume = torch.linalg.det(cell).abs()
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
        shape = self._geometry.parameters.shape
        options: dict[str, Any] = {"dtype": cell.dtype, "device": cell.device}
        axes = [torch.fft.fftfreq(n, 1.0 / n, **options) for n in shape[:2]]
        axes.append(torch.fft.rfftfreq(shape[2], 1.0 / shape[2], **options))
        x, y, z = (a.unsqueeze(-1) * row for a, row in zip(axes, reciprocal, strict=True))
        k = (x[:, None] + y).unsqueeze(2) + z
        k_squared = (k * k).sum(dim=-1)
        origin = torch.zeros_like(k_squared, dtype=torch.bool)
        origin[0, 0, 0] = True
        safe = torch.where(origin, torch.ones_like(k_squared), k_squared)
        smooth = torch.exp(-0.5 * eta * eta * safe) / safe
        smooth = torch.where(origin, torch.full_like(safe, -0.5 * eta * eta), smooth)
        return 4.0 * math.pi * self._constant / volume * smooth

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        charges = charges.detach()
        shape = self._geometry.parameters.shape
        waves = torch.fft.rfftn(self._sums.spread(charges))
        waves *= self._filter
        field = torch.fft.irfftn(waves, s=shape, norm="forward")
        return self._sums.gather(field) + self._pairs @ charges + self._own * charges

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e², to the accuracy of the mesh."""
        geometry = self._geometry
        first, second = geometry.pairs.T.long()
        own = (first == second).nonzero().squeeze(-1)
        images = 2.0 * self._pairs.values()[geometry.slots[own, 0].long()]
        return (self._own + self._wave_diagonal).index_add(0, first[own], images)

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e², column by column."""
        unit = torch.eye(
            self._widths.shape[0], dtype=self._widths.dtype, device=self._widths.device
        )
        return torch.stack([self.potential(row) for row in unit], dim=1)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        return self.energy_difference(charges, None)

    def energy_difference(
        self, charges: torch.Tensor, subtracted: torch.Tensor | None
    ) -> torch.Tensor:
        """e(q) − e(p) of two charge vectors, a scalar, eV, with one pass over the pairs.

        Parameters
        ----------
        charges : torch.Tensor, float64, shape (N,), e
        subtracted : torch.Tensor or None, float64, shape (N,), e
            p; none is as good as zeros.
        """
        none = subtracted is None or not bool(subtracted.detach().any())
        other = torch.zeros_like(charges) if subtracted is None else subtracted
        shape = torch.tensor(self._geometry.parameters.shape, device=self._cell.device)
        place = self._positions @ torch.linalg.inv(self._cell) * shape
        spectrum = self._filter
        if self._cell.requires_grad:
            spectrum = self._smooth(self._cell) * self._spline
        result = self._sums.mesh_energy(place, charges, spectrum)
        if not none:
            result = result - self._sums.mesh_energy(place, other, spectrum)
        return result + self._pairs_and_own(charges, other, self._own)

    def _pairs_and_own(
        self, charges: torch.Tensor, other: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        both = torch.stack((charges, other), dim=-1)
        single = 0.5 * (own * (charges * charges - other * other)).sum()
        return single + self._sums.pair_energy(self._positions, self._cell, both)

    @property
    def smoothing_width(self) -> float:
        """Ewald width η in Å: the smooth part of the sum is that of Gaussian charges so wide."""
        return self._geometry.parameters.eta

    def pair_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge Ewald sums of q and p, eV.

        The smooth part is such a sum without its pairs k_e q_i q_j erfc(r/√2η)/r; what it holds
        of the charges themselves and of the background is not in here. Arguments as above.
        """
        own = self._constant * self_coefficient(self._widths)
        return self._pairs_and_own(charges, subtracted, own)

    def screening(self) -> GaussianScreening:
        """The part that a point-charge Ewald sum over the same cell lacks: slow.

        The pairs are searched for it, as the geometry's leave out those of γ = η.
        """
        points, cell = (x.detach().cpu().numpy() for x in (self._positions, self._cell))
        reach = math.sqrt(2.0) * float(self._widths.max()) / self._geometry.parameters.eta
        cutoff = reach * self._geometry.parameters.cutoff
        found = neighbor_list(points, cell, True, cutoff, full=False)
        pairs, shifts = (x.to(self._cell.device) for x in found)
        distance = pair_distances(self._positions, pairs, shifts @ self._cell)
        return GaussianScreening(pairs, distance, self._widths, self._constant)
