"""Gaussian charges in a periodic cell in O(N log N): short pairs as a sparse matrix, the rest on a
smooth particle mesh.

K is that of :class:`.ewald.EwaldCoulomb`, its slow twin: the real-space pairs are
k_e [erf(r/√2γ) − erf(r/√2η)]/r, and the smooth rest is summed on a mesh with B-splines (Essmann et
al. 1995, doi:10.1063/1.470117) and the influence function of Hockney and Eastwood. All that depends
on the geometry alone is computed once, so that a product K q costs a sparse product, a spread, two
real FFTs and a gather. On the CPU spread, gather and pair loops are compiled (numba); elsewhere they
are torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from . import mesh_kernels as kernels
from .gaussian import GaussianScreening, screening, self_coefficient
from .mesh_geometry import MeshGeometry, pair_table

#: Above this many distinct pair widths tables no longer pay.
_MOST_TABLES = 300


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
            few = geometry.pair_widths.numel() <= _MOST_TABLES
            compiled = positions.device.type == "cpu" and few
        with torch.no_grad():
            self._own = coulomb_constant * (
                self_coefficient(widths) - math.sqrt(2.0 / math.pi) / geometry.parameters.eta
            )
            self._filter = self._make_filter(cell.detach())
            made: Any = _Compiled if compiled else _Torch
            self._sums: Any = made(positions.detach(), cell.detach(), geometry, coulomb_constant)
            count = positions.shape[0]
            self._pairs = torch.sparse_csr_tensor(
                geometry.pointer, geometry.column, self._sums.coefficients(), (count, count)
            )

    def _make_filter(self, cell: torch.Tensor) -> torch.Tensor:
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
        first, second, third = self._geometry.factors
        spline = first[:, None, None] * second[:, None] * third
        return 4.0 * math.pi * self._constant / volume * smooth * spline

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
        inside = 2.0 * self._filter.sum() - self._filter[..., 0].sum()
        first, second = geometry.pairs.T.long()
        own = (first == second).nonzero().squeeze(-1)
        images = 2.0 * self._pairs.values()[geometry.slots[own, 0].long()]
        return (self._own + inside).index_add(0, first[own], images)

    def matrix(self) -> torch.Tensor:
        """K, shape (N, N), eV/e², column by column."""
        unit = torch.eye(
            self._widths.shape[0], dtype=self._widths.dtype, device=self._widths.device
        )
        return torch.stack([self.potential(row) for row in unit], dim=1)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """½ qᵀKq, a scalar, eV."""
        shape = torch.tensor(self._geometry.parameters.shape, device=self._cell.device)
        place = self._positions @ torch.linalg.inv(self._cell) * shape
        spectrum = self._make_filter(self._cell) if self._cell.requires_grad else self._filter
        single = 0.5 * (self._own * charges * charges).sum()
        wave = self._sums.mesh_energy(place, charges, spectrum)
        return single + wave + self._sums.pair_energy(self._positions, self._cell, charges)

    def screening(self) -> GaussianScreening:
        """The part that a point-charge Ewald sum over the same cell lacks."""
        geometry = self._geometry
        pairs = geometry.pairs.T.long()
        shifts = geometry.images @ self._cell
        distance = _distances(self._positions, pairs, shifts[geometry.image.long()])
        return GaussianScreening(pairs, distance, self._widths, self._constant)


def _distances(positions: torch.Tensor, pairs: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0]) + shifts
    return torch.linalg.vector_norm(vectors, dim=-1)


def _spectrum_weights(waves: torch.Tensor, points: int) -> torch.Tensor:
    """How often each wave of the half mesh counts along the last axis, shape (M3//2 + 1,)."""
    weights = torch.full((waves.shape[-1],), 2.0, dtype=torch.float64, device=waves.device)
    weights[0] = 1.0
    if points % 2 == 0:
        weights[-1] = 1.0
    return weights


class _Torch:
    """Pair and mesh sums in torch, for any device; the obvious twin of :class:`_Compiled`."""

    def __init__(
        self, positions: torch.Tensor, cell: torch.Tensor, geometry: MeshGeometry, constant: float
    ) -> None:
        self._geometry, self._constant = geometry, constant
        self._pairs = geometry.pairs.T.long()
        self._reference = positions, cell
        shape = torch.tensor(geometry.parameters.shape, device=cell.device)
        index, weights = self._stencil(positions @ torch.linalg.inv(cell) * shape)
        self._index, self._weights = index, weights

    def _stencil(self, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mesh points and spline weights of each atom, shapes (N, p³)."""
        parameters = self._geometry.parameters
        floor = torch.floor(place.detach())
        fraction = place - floor
        weights = [1.0 - fraction, fraction]
        for n in range(3, parameters.order + 1):
            zero = [torch.zeros_like(fraction)]
            shifted = zip(zero + weights, weights + zero, strict=True)
            weights = [
                ((fraction + n - 1 - j) * low + (1 - fraction + j) * high) / (n - 1)
                for j, (low, high) in enumerate(shifted)
            ]
        weight = torch.stack(weights, dim=-1)
        steps = torch.arange(parameters.order, device=place.device)
        shape = torch.tensor(parameters.shape, device=place.device)
        index = (floor.long().unsqueeze(-1) + steps) % shape[:, None]
        _, width, depth = parameters.shape
        flat = index[:, 0, :, None, None] * width + index[:, 1, None, :, None]
        flat = flat * depth + index[:, 2, None, None, :]
        product = weight[:, 0, :, None, None] * weight[:, 1, None, :, None]
        product = product * weight[:, 2, None, None, :]
        return flat.flatten(1), product.flatten(1)

    def _pair_coefficients(self, positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        geometry = self._geometry
        shifts = (geometry.images @ cell)[geometry.image.long()]
        distance = _distances(positions, self._pairs, shifts)
        width = geometry.pair_widths[geometry.kind.long()]
        eta = torch.full_like(width, geometry.parameters.eta)
        value = self._constant * (screening(distance, eta) - screening(distance, width))
        return torch.where(distance < geometry.parameters.cutoff, value, torch.zeros_like(value))

    def coefficients(self) -> torch.Tensor:
        """Values of the sparse pair matrix, shape (2P,), eV/e²."""
        value = self._pair_coefficients(*self._reference)
        slots = self._geometry.slots.long()
        result = value.new_empty(2 * value.shape[0])
        result[slots[:, 0]] = value
        result[slots[:, 1]] = value
        return result

    def spread(self, charges: torch.Tensor) -> torch.Tensor:
        return self._spread(self._index, self._weights, charges)

    def _spread(
        self, index: torch.Tensor, weights: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        shape = self._geometry.parameters.shape
        values = (weights * charges.unsqueeze(-1)).flatten()
        mesh = charges.new_zeros(math.prod(shape)).index_add(0, index.flatten(), values)
        return mesh.view(shape)

    def gather(self, field: torch.Tensor) -> torch.Tensor:
        return (field.flatten()[self._index] * self._weights).sum(dim=-1)

    def mesh_energy(
        self, place: torch.Tensor, charges: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        index, weights = self._stencil(place)
        waves = torch.fft.rfftn(self._spread(index, weights, charges))
        power = waves.real**2 + waves.imag**2
        factor = _spectrum_weights(waves, self._geometry.parameters.shape[2])
        return 0.5 * (spectrum * power * factor).sum()

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        first, second = self._pairs
        value = self._pair_coefficients(positions, cell)
        return (value * charges[first] * charges[second]).sum()


class _Compiled:
    """Pair and mesh sums by the compiled loops, on the CPU."""

    def __init__(
        self, positions: torch.Tensor, cell: torch.Tensor, geometry: MeshGeometry, constant: float
    ) -> None:
        self._geometry = geometry
        self._positions, self._cell = positions, cell
        shape = np.array(geometry.parameters.shape)
        place = (positions @ torch.linalg.inv(cell)).numpy() * shape
        self.stencil = kernels.spline_weights(place, shape, geometry.parameters.order)
        table, inverse_step = pair_table(geometry, constant)
        cutoff = geometry.parameters.cutoff
        self.pair_list = (
            geometry.pairs.numpy(),
            geometry.image.numpy(),
            geometry.kind.numpy(),
            table,
            inverse_step,
            cutoff,
        )

    def coefficients(self) -> torch.Tensor:
        """Values of the sparse pair matrix, shape (2P,), eV/e²."""
        data = torch.empty(self._geometry.column.shape[0], dtype=torch.float64)
        shifts = (self._geometry.images @ self._cell).numpy()
        slots = self._geometry.slots.numpy()
        points = np.ascontiguousarray(self._positions.numpy())
        kernels.pair_values(points, shifts, *self.pair_list, slots, data.numpy())
        return data

    def spread(self, charges: torch.Tensor) -> torch.Tensor:
        mesh = torch.zeros(self._geometry.parameters.shape, dtype=torch.float64)
        index, weight, _ = self.stencil
        kernels.spread(index, weight, charges.numpy(), mesh.numpy())
        return mesh

    def gather(self, field: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(self._positions.shape[0], dtype=torch.float64)
        index, weight, _ = self.stencil
        kernels.gather(index, weight, field.numpy(), result.numpy())
        return result

    def mesh_energy(
        self, place: torch.Tensor, charges: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        return _MeshEnergy.apply(place, charges, spectrum, self)

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        return _PairEnergy.apply(positions, cell, charges, self, self._geometry)


class _MeshEnergy(torch.autograd.Function):
    """½ Σ_k F(k)|ρ(k)|², with its derivatives worked out beside it."""

    @staticmethod
    def forward(ctx: Any, place: Any, charges: Any, spectrum: Any, sums: _Compiled) -> Any:
        density = sums.spread(charges)
        waves = torch.fft.rfftn(density)
        field = torch.fft.irfftn(waves * spectrum, s=density.shape, norm="forward")
        index, weight, slope = sums.stencil
        force = torch.from_numpy(kernels.gather_gradient(index, weight, slope, field.numpy()))
        potential = sums.gather(field)
        by_filter = None
        if spectrum.requires_grad:
            factor = _spectrum_weights(waves, density.shape[2])
            by_filter = 0.5 * factor * (waves.real**2 + waves.imag**2)
        ctx.save_for_backward(force * charges.unsqueeze(-1), potential, by_filter)
        return 0.5 * charges @ potential

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        place, charges, spectrum = ctx.saved_tensors
        return grad * place, grad * charges, None if spectrum is None else grad * spectrum, None


class _PairEnergy(torch.autograd.Function):
    """Σ_pairs c(r) q_i q_j, with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, positions: Any, cell: Any, charges: Any, sums: _Compiled, geometry: MeshGeometry
    ) -> Any:
        shifts = geometry.images @ cell
        gradient, of_shift = torch.zeros_like(positions), torch.zeros_like(shifts)
        points = np.ascontiguousarray(positions.numpy())
        energy = kernels.pair_gradient(
            points,
            shifts.numpy(),
            *sums.pair_list,
            charges.numpy(),
            gradient.numpy(),
            of_shift.numpy(),
        )
        potential = None
        if charges.requires_grad:
            size = (positions.shape[0],) * 2
            matrix = torch.sparse_csr_tensor(
                geometry.pointer, geometry.column, sums.coefficients(), size
            )
            potential = matrix @ charges
        ctx.save_for_backward(gradient, geometry.images.T @ of_shift, potential)
        return positions.new_tensor(energy)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        positions, cell, charges = ctx.saved_tensors
        return (
            grad * positions,
            grad * cell,
            None if charges is None else grad * charges,
            None,
            None,
        )
