"""Gaussian charges in a periodic cell in O(N log N): pairs as a sparse matrix, the rest on a mesh.

K is that of :class:`.ewald.EwaldCoulomb`, its slow twin. A mesh sums the charges as Gaussians of
widths σ' that it resolves: their own where those are wide enough, else one common width. It works
with B-splines (Essmann et al. 1995, doi:10.1063/1.470117) and the influence function of Hockney and
Eastwood, and each width has a layer of its own. Pairs of which one is narrower add
k_e [erf(r/√2γ) − erf(r/√2γ')]/r, with γ of their own widths and γ' of those on the mesh. All that
depends on the geometry alone is computed once, so that a product K q costs a sparse product, a
spread, two real FFTs a layer and a gather. On the CPU spread, gather and pair loops are compiled
(numba); elsewhere they are torch.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

from ..errors import InputError, describe
from ..neighbors import neighbor_list
from .combination import coefficients
from .gaussian import GaussianScreening, self_coefficient
from .mesh_compiled import CompiledSums
from .mesh_geometry import MeshGeometry
from .mesh_sums import TorchSums, difference, pair_distances

# Fields of so many products are kept, for charges that are combinations of theirs.
_MOST_FIELDS = 12


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
    dtype : torch.dtype
        Of the mesh and the pair coefficients; float32 is right down to accuracies of about 1e-6.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        geometry: MeshGeometry,
        coulomb_constant: float,
        compiled: bool | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._positions, self._cell, self._widths = positions, cell, widths
        self._geometry, self._constant = geometry, coulomb_constant
        if compiled is None:
            compiled = positions.device.type == "cpu" and geometry.table is not None
        with torch.no_grad():
            box = cell.detach()
            self._layer = geometry.layer.long()
            smoothed = geometry.mesh_widths[self._layer]
            self._square = smoothed**2
            self._own = coulomb_constant * (self_coefficient(widths) - self_coefficient(smoothed))
            self._fixed = geometry.spectrum.fixed(box, coulomb_constant, dtype)
            self._background = self._background_constant(self._fixed.volume)
            made: Any = CompiledSums if compiled else TorchSums
            points = positions.detach()
            place = points @ self._fixed.scale
            self._sums: Any = made(points, place, box, geometry, coulomb_constant, dtype)
        self._most_fields = _MOST_FIELDS if compiled else 0  # torch goes to the mesh anyway
        self._fields: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _background_constant(self, volume: torch.Tensor) -> torch.Tensor:
        """2π k_e/V, eV/(e Å)²: what the neutralising background takes of Q Σ σ_i² q_i."""
        return 2.0 * math.pi * self._constant / volume

    def potential(self, charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        return self.potentials(charges.unsqueeze(0))[0]

    @torch.no_grad()
    def potentials(self, charges: torch.Tensor) -> torch.Tensor:
        """K q of several charge vectors, shape (C, N), eV/e: cheaper together than one by one."""
        rows = charges.detach()
        result, fields = self._sums.potential(rows, self._fixed.filters)
        room = self._most_fields - len(self._fields)
        self._fields.extend(itertools.islice(zip(rows, fields, strict=True), max(room, 0)))
        total, moment = rows.sum(dim=-1, keepdim=True), (rows @ self._square).unsqueeze(-1)
        even = self._background * (self._square * total + moment)
        return result.addcmul_(self._own, rows).sub_(even)

    def _known_fields(self, both: torch.Tensor) -> torch.Tensor | None:
        """What charges, (C, N), make on the mesh, (C, S, M1, M2, M3), out of fields of products.

        Charges that a solver found are combinations of those that it took products with. None if
        some are not.
        """
        if not self._fields:
            return None
        vectors, fields = zip(*self._fields, strict=True)
        parts = coefficients(torch.stack(vectors).numpy(), both.contiguous().numpy())
        if parts is None:
            return None
        meshes = torch.stack(fields)
        weights = torch.from_numpy(parts).to(meshes.dtype)
        return (weights @ meshes.flatten(1)).unflatten(1, meshes.shape[1:])

    def diagonal(self) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e², to the accuracy of the mesh."""
        atoms, images = self._sums.own_images()
        diagonal = self._own + self._fixed.smooth_diagonal[self._layer]
        return diagonal.index_add(0, atoms, 2.0 * images)

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
        filters, scale, background = self._fixed.filters, self._fixed.scale, self._background
        if self._cell.requires_grad:
            filters = self._geometry.spectrum.filters(self._cell, self._constant)
            scale = self._geometry.spectrum.scale(self._cell)
            background = self._background_constant(torch.linalg.det(self._cell).abs())
        both = _signed_pair(charges, subtracted)
        fields = None if filters.requires_grad else self._known_fields(both.detach())
        smooth = self._sums.mesh_energy(self._positions @ scale, both, filters, fields)
        even = difference(both.sum(dim=1) * (both @ self._square))
        return smooth - background * even + self._pairs_and_own(both, self._own)

    def _pairs_and_own(self, both: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        single = 0.5 * difference((both * both) @ own)
        return single + self._sums.pair_energy(self._positions, self._cell, both)

    @property
    def smoothing_width(self) -> float:
        """Ewald width η in Å: the smooth part of the sum is that of Gaussian charges so wide.

        Raises
        ------
        InputError
            If the charges are not all equally wide on the mesh.
        """
        widths = self._geometry.mesh_widths
        if len(widths) != 1:
            expected = "one made with uniform=True, for a point-charge sum of the smooth part"
            raise InputError(describe("geometry", f"{len(widths)} widths on the mesh", expected))
        return math.sqrt(2.0) * float(widths[0])

    def pair_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """e(q) − e(p) less the smooth part of the point-charge Ewald sums of q and p, eV.

        The smooth part is such a sum without its pairs k_e q_i q_j erfc(r/√2η)/r; what it holds
        of the charges themselves and of the background is not in here. Arguments as above.
        """
        own = self._constant * self_coefficient(self._widths)
        return self._pairs_and_own(_signed_pair(charges, subtracted), own)

    def screening(self) -> GaussianScreening:
        """The part that a point-charge Ewald sum over the same cell lacks: slow.

        The pairs are searched for it, as the geometry's are those of the mesh alone.
        """
        points, cell = (x.detach().cpu().numpy() for x in (self._positions, self._cell))
        cutoff = self._geometry.parameters.reach * math.sqrt(2.0) * float(self._widths.max())
        found = neighbor_list(points, cell, True, cutoff, full=False)
        pairs, shifts = (x.to(self._cell.device) for x in found)
        distance = pair_distances(self._positions, pairs, shifts @ self._cell)
        return GaussianScreening(pairs, distance, self._widths, self._constant)


def _signed_pair(charges: torch.Tensor, subtracted: torch.Tensor | None) -> torch.Tensor:
    """q and p, shape (2, N); q alone, shape (1, N), where p is none or nothing but zeros."""
    if subtracted is None or not bool(subtracted.detach().any()):
        return charges.unsqueeze(0)
    return torch.stack((charges, subtracted))
