"""The pair and mesh sums of :class:`.mesh.MeshCoulomb`, compiled for the CPU and in plain torch."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch

from . import mesh_kernels
from .gaussian import screening
from .mesh_geometry import MeshGeometry

_KERNELS: Any = mesh_kernels  # numba's types know nothing of starred arguments


def pair_matrix(geometry: MeshGeometry, coefficients: torch.Tensor) -> torch.Tensor:
    """Sparse symmetric matrix of the pairs, shape (N, N), eV/e².

    Parameters
    ----------
    coefficients : torch.Tensor, float64, shape (2P,), eV/e²
        Pairs of an atom with several images of another are separate elements.
    """
    size = (len(geometry.positions),) * 2
    with warnings.catch_warnings():  # torch calls its sparse rows a beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            geometry.pointer, geometry.column, coefficients, size, check_invariants=False
        )


def pair_distances(
    positions: torch.Tensor, pairs: torch.Tensor, shifts: torch.Tensor
) -> torch.Tensor:
    """Distances of atoms ``pairs``, shape (2, P), the second one translated; shape (P,), Å."""
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0]) + shifts
    return torch.linalg.vector_norm(vectors, dim=-1)


def _spectrum_weights(waves: torch.Tensor, points: int) -> torch.Tensor:
    """How often each wave of the half mesh counts along the last axis, shape (M3//2 + 1,)."""
    weights = torch.full((waves.shape[-1],), 2.0, dtype=torch.float64, device=waves.device)
    weights[0] = 1.0
    if points % 2 == 0:
        weights[-1] = 1.0
    return weights


class TorchSums:
    """Pair and mesh sums in torch, for any device; the obvious twin of :class:`CompiledSums`."""

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
        distance = pair_distances(positions, self._pairs, shifts)
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
        value = self._pair_coefficients(positions, cell)
        products = charges[self._pairs[0]] * charges[self._pairs[1]]
        return (value * (products[:, 0] - products[:, 1])).sum()


class CompiledSums:
    """Pair and mesh sums by the compiled loops, on the CPU."""

    def __init__(
        self, positions: torch.Tensor, cell: torch.Tensor, geometry: MeshGeometry, constant: float
    ) -> None:
        self._geometry = geometry
        self._positions, self._cell = positions, cell
        shape = np.array(geometry.parameters.shape)
        place = (positions @ torch.linalg.inv(cell)).numpy() * shape
        self.stencil = _KERNELS.spline_weights(place, shape, geometry.parameters.order)
        scales = (geometry.inverse_step, geometry.parameters.cutoff, constant)
        lists = (part.numpy() for part in (geometry.pairs, geometry.image, geometry.kind))
        self.pair_list: Any = (*lists, geometry.table, scales)

    def coefficients(self) -> torch.Tensor:
        """Values of the sparse pair matrix, shape (2P,), eV/e²."""
        data = torch.empty(self._geometry.column.shape[0], dtype=torch.float64)
        shifts = (self._geometry.images @ self._cell).numpy()
        slots = self._geometry.slots.numpy()
        points = np.ascontiguousarray(self._positions.numpy())
        _KERNELS.pair_values(points, shifts, *self.pair_list, slots, data.numpy())
        return data

    def spread(self, charges: torch.Tensor) -> torch.Tensor:
        mesh = torch.zeros(self._geometry.parameters.shape, dtype=torch.float64)
        index, weight, _ = self.stencil
        _KERNELS.spread(index, weight, charges.numpy(), mesh.numpy())
        return mesh

    def gather(self, field: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(self._positions.shape[0], dtype=torch.float64)
        index, weight, _ = self.stencil
        _KERNELS.gather(index, weight, field.numpy(), result.numpy())
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
    def forward(ctx: Any, place: Any, charges: Any, spectrum: Any, sums: CompiledSums) -> Any:
        density = sums.spread(charges)
        waves = torch.fft.rfftn(density)
        field = torch.fft.irfftn(waves * spectrum, s=density.shape, norm="forward")
        index, weight, slope = sums.stencil
        force = torch.from_numpy(_KERNELS.gather_gradient(index, weight, slope, field.numpy()))
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
    """Σ_pairs c(r) (q_i q_j − p_i p_j), with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any,
        positions: Any,
        cell: Any,
        charges: Any,
        sums: CompiledSums,
        geometry: MeshGeometry,
    ) -> Any:
        shifts = geometry.images @ cell
        gradient, of_shift = torch.zeros_like(positions), torch.zeros_like(shifts)
        points = np.ascontiguousarray(positions.numpy())
        energy = _KERNELS.pair_gradient(
            points,
            shifts.numpy(),
            *sums.pair_list,
            charges.numpy(),
            gradient.numpy(),
            of_shift.numpy(),
        )
        potential = None
        if charges.requires_grad:
            matrix = pair_matrix(geometry, sums.coefficients())
            potential = matrix @ charges * charges.new_tensor((1.0, -1.0))
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
