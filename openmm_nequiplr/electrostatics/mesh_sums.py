"""The pair and mesh sums of :class:`.mesh.MeshCoulomb`, compiled for the CPU and in plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..derivatives import last_derivative
from ..threads import each_block, even_bounds
from . import mesh_kernels
from .gaussian import screening
from .mesh_geometry import MeshGeometry
from .mesh_spectrum import wave_weights

_KERNELS: Any = mesh_kernels  # numba's types know nothing of starred arguments
#: With fewer for each a second thread costs more than it brings.
ATOMS_PER_THREAD = 500


def pair_distances(
    positions: torch.Tensor, pairs: torch.Tensor, shifts: torch.Tensor
) -> torch.Tensor:
    """Distances of atoms ``pairs``, shape (2, P), the second one translated; shape (P,), Å."""
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0]) + shifts
    return torch.linalg.vector_norm(vectors, dim=-1)


def to_waves(density: torch.Tensor) -> torch.Tensor:
    """Transforms of densities, shape (S, M1, M2, M3): shape (S, M1, M2, M3//2 + 1)."""
    return torch.fft.rfftn(density, dim=(1, 2, 3))


def to_field(waves: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Fields on meshes of a shape (M1, M2, M3) out of their waves: Σ_k V(k) exp(ikx)."""
    return torch.fft.irfftn(waves, s=tuple(shape), dim=(1, 2, 3), norm="forward")


class TorchSums:
    """Pair and mesh sums in torch, for any device; the obvious twin of :class:`CompiledSums`.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    place : torch.Tensor, float64, shape (N, 3)
        The positions in mesh spacings.
    cell : torch.Tensor, float64, shape (3, 3), Å
    geometry : MeshGeometry
    constant : float, eV Å/e²
    dtype : torch.dtype
        Of the mesh and of the pair coefficients.
    """

    def __init__(
        self,
        positions: torch.Tensor,
        place: torch.Tensor,
        cell: torch.Tensor,
        geometry: MeshGeometry,
        constant: float,
        dtype: torch.dtype,
    ) -> None:
        self._geometry, self._constant, self._dtype = geometry, constant, dtype
        self._pairs = geometry.pairs.long()
        self._index, weights = self._stencil(place)
        self._weights = weights.to(dtype)
        self._values = self._pair_coefficients(positions, cell)

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
        height, width, depth = parameters.shape
        layer = self._geometry.layer.long()[:, None, None, None] * height
        flat = (layer + index[:, 0, :, None, None]) * width + index[:, 1, None, :, None]
        flat = flat * depth + index[:, 2, None, None, :]
        product = weight[:, 0, :, None, None] * weight[:, 1, None, :, None]
        product = product * weight[:, 2, None, None, :]
        return flat.flatten(1), product.flatten(1)

    def _pair_coefficients(self, positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        geometry = self._geometry
        shifts = (geometry.images @ cell)[geometry.image.long()]
        distance = pair_distances(positions, self._pairs, shifts)
        kind = geometry.kind.long()
        own, mesh = geometry.pair_widths[:, kind]
        value = self._constant * (screening(distance, mesh) - screening(distance, own))
        return torch.where(distance < geometry.cutoffs[kind], value, torch.zeros_like(value))

    def own_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Atoms that pair with images of themselves, and those coefficients, eV/e²."""
        own = (self._pairs[0] == self._pairs[1]).nonzero().squeeze(-1)
        return self._pairs[0, own], self._values[own]

    def pair_potential(self, charges: torch.Tensor) -> torch.Tensor:
        """Potential of the pairs, shape (N,), eV/e."""
        first, second = self._pairs
        result = torch.zeros_like(charges)
        result.index_add_(0, first, self._values * charges[second])
        return result.index_add_(0, second, self._values * charges[first])

    def spread(self, charges: torch.Tensor) -> torch.Tensor:
        """Charges on the mesh, shape (S, M1, M2, M3)."""
        return self._spread(self._index, self._weights, charges.to(self._dtype))

    def _spread(
        self, index: torch.Tensor, weights: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        shape = (len(self._geometry.mesh_widths), *self._geometry.parameters.shape)
        values = (weights * charges.unsqueeze(-1)).flatten()
        mesh = values.new_zeros(math.prod(shape)).index_add(0, index.flatten(), values)
        return mesh.view(shape)

    def filter_waves(self, waves: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        """A_s Σ_t A_t ρ_t for waves and filters of shape (S, M1, M2, M3//2 + 1)."""
        return filters * (filters * waves).sum(dim=0)

    def gather(self, field: torch.Tensor) -> torch.Tensor:
        """The field of each atom's layer at the atom, float64, shape (N,)."""
        return (field.flatten()[self._index] * self._weights).sum(dim=-1).to(torch.float64)

    def mesh_energy(
        self,
        place: torch.Tensor,
        charges: torch.Tensor,
        filters: torch.Tensor,
        field: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """½ Σ_k |Σ_s A_s ρ_s|², eV, of atoms at ``place``, shape (N, 3), in mesh spacings.

        ``field``, what the charges make on the mesh, saves the compiled loops the way there.
        """
        index, weights = self._stencil(place)
        waves = to_waves(self._spread(index, weights, charges))
        total = (filters * waves).sum(dim=0)
        factor = wave_weights(self._geometry.parameters.shape[2], total)
        return 0.5 * ((total.real**2 + total.imag**2) * factor).sum()

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        """Σ_pairs c(r) (q_i q_j − p_i p_j) in eV; ``charges``, shape (N, 2), holds q and p."""
        value = self._pair_coefficients(positions, cell)
        products = charges[self._pairs[0]] * charges[self._pairs[1]]
        return (value * (products[:, 0] - products[:, 1])).sum()


class CompiledSums:
    """Pair and mesh sums by the compiled loops, on the CPU; arguments as for :class:`TorchSums`."""

    def __init__(
        self,
        positions: torch.Tensor,
        place: torch.Tensor,
        cell: torch.Tensor,
        geometry: MeshGeometry,
        constant: float,
        dtype: torch.dtype,
    ) -> None:
        self._geometry, self._dtype = geometry, dtype
        self._count = positions.shape[0]
        self._kind: Any = np.float32 if dtype == torch.float32 else np.float64
        shape = np.array(geometry.parameters.shape)
        self._atoms = even_bounds(self._count, ATOMS_PER_THREAD)
        threads = len(self._atoms) - 1
        order = geometry.parameters.order
        self._beyond = order - 1
        splines, *self._loops = mesh_kernels.stencil_kernels(order, self._kind)
        stencil = self._count, 3, order
        self._index = np.empty(stencil, np.int32)
        self._weights = np.empty(stencil, self._kind), np.empty(stencil, self._kind)
        written = self._index, *self._weights
        each_block(self._atoms, lambda *atoms: splines(place.numpy(), shape, *written, *atoms))
        self._layer = geometry.layer.numpy()
        self._points = np.ascontiguousarray(positions.numpy())
        self._shifts = (geometry.images @ cell).numpy()
        pointer = geometry.pointer.numpy()
        self._pairs = pointer, geometry.pairs[1].numpy(), geometry.image.numpy()
        # the same number of pairs for every thread
        parts = np.linspace(0, pointer[-1], threads + 1)
        self._rows = [*np.searchsorted(pointer[:-1], parts[:-1]).tolist(), self._count]
        self._pair_coefficients(constant)

    def _pair_coefficients(self, constant: float) -> None:
        geometry = self._geometry
        self._values = np.empty(geometry.pairs.shape[1], self._kind)
        self._slopes = np.empty_like(self._values)
        kinds = geometry.kind.numpy(), geometry.cutoffs.numpy() ** 2
        table = geometry.scaled_table(constant, self._kind)
        arguments = self._points, self._shifts, self._pairs, kinds, table, geometry.inverse_step
        if self._values.size:
            each_block(
                self._rows,
                lambda *rows: _KERNELS.pair_values(*arguments, self._values, self._slopes, *rows),
            )

    def own_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self._geometry.pairs
        own = (first == second).nonzero().squeeze(-1)
        values = torch.from_numpy(self._values)[own]
        return first[own].long(), values.to(torch.float64)

    def pair_potential(self, charges: torch.Tensor) -> torch.Tensor:
        if not self._values.size:
            return torch.zeros_like(charges)
        source = charges.to(self._dtype).numpy()

        def product(*rows: int) -> np.ndarray:
            result = np.zeros(self._count, self._kind)
            _KERNELS.pair_product(self._pairs, self._values, source, result, *rows)
            return result

        return torch.from_numpy(sum(each_block(self._rows, product))).to(torch.float64)

    def spread(self, charges: torch.Tensor) -> torch.Tensor:
        source = charges.to(self._dtype).numpy()
        shape = (len(self._geometry.mesh_widths), *self._geometry.parameters.shape)

        def fill(*atoms: int) -> torch.Tensor:
            mesh = torch.zeros((*shape[:3], shape[3] + self._beyond), dtype=self._dtype)
            self._loops[0](self._index, self._weights[0], self._layer, source, mesh.numpy(), *atoms)
            return mesh

        first, *others = each_block(self._atoms, fill)
        for mesh in others:
            first += mesh
        first[..., : self._beyond] += first[..., shape[3] :]
        return first[..., : shape[3]]

    def filter_waves(self, waves: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        _KERNELS.filter_waves(waves.flatten(1).numpy(), filters.flatten(1).numpy())
        return waves

    def gather(self, field: torch.Tensor) -> torch.Tensor:
        result = np.empty(self._count, self._kind)
        arguments = self._index, self._weights[0], self._layer, self._continued(field), result
        each_block(self._atoms, lambda *atoms: self._loops[1](*arguments, *atoms))
        return torch.from_numpy(result).to(torch.float64)

    def _continued(self, field: torch.Tensor) -> np.ndarray:
        """The field with the beginning of each line again at its end."""
        return torch.cat((field, field[..., : self._beyond]), dim=-1).numpy()

    def gather_gradient(self, field: torch.Tensor) -> torch.Tensor:
        """The field of each atom's layer and its slope per mesh spacing, float64, shape (N, 4)."""
        result = np.empty((self._count, 4), self._kind)
        arguments = self._index, *self._weights, self._layer, self._continued(field), result
        each_block(self._atoms, lambda *atoms: self._loops[2](*arguments, *atoms))
        return torch.from_numpy(result).to(torch.float64)

    def pair_gradient(
        self, charges: torch.Tensor, virial: bool
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Pair energy of q less that of p, and its derivatives by positions and images."""
        shape = (len(self._shifts) if virial else 0, 3)
        source = np.ascontiguousarray(charges.detach().numpy())

        def add(*rows: int) -> tuple[float, np.ndarray, np.ndarray]:
            gradient, of_shift = np.zeros((self._count, 3)), np.zeros(shape)
            energy = _KERNELS.pair_gradient(
                self._points,
                self._shifts,
                self._pairs,
                self._values,
                self._slopes,
                source,
                gradient,
                of_shift,
                *rows,
            )
            return energy, gradient, of_shift

        energies, gradients, of_shifts = zip(*each_block(self._rows, add), strict=True)
        gradient, of_shift = (torch.from_numpy(sum(x)) for x in (gradients, of_shifts))
        return sum(energies), gradient, of_shift

    def mesh_energy(
        self,
        place: torch.Tensor,
        charges: torch.Tensor,
        filters: torch.Tensor,
        field: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return _MeshEnergy.apply(place, charges, filters, self, field)

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        if not self._values.size:
            return charges.new_zeros(())
        return _PairEnergy.apply(positions, cell, charges, self, self._geometry.images)


class _MeshEnergy(torch.autograd.Function):
    """½ Σ_k |Σ_s A_s ρ_s|², with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, place: Any, charges: Any, filters: Any, sums: CompiledSums, field: Any
    ) -> Any:
        by_filter = None
        if field is None:
            density = sums.spread(charges)
            waves = to_waves(density)
            if filters.requires_grad:
                total = (filters * waves).sum(dim=0).conj()
                by_filter = wave_weights(density.shape[3], total) * (total * waves).real
            waves = sums.filter_waves(waves, filters.to(density.dtype))
            field = to_field(waves, density.shape[1:])
        seen = sums.gather_gradient(field)
        potential = seen[:, 0].contiguous()
        slopes = seen[:, 1:] * charges.unsqueeze(-1), potential, by_filter
        ctx.save_for_backward(*slopes, place, charges, filters)
        return 0.5 * charges @ potential

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return *_scaled(ctx.saved_tensors, grad), None, None


class _PairEnergy(torch.autograd.Function):
    """Σ_pairs c(r) (q_i q_j − p_i p_j), with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, positions: Any, cell: Any, charges: Any, sums: CompiledSums, images: Any
    ) -> Any:
        virial = cell.requires_grad
        energy, gradient, of_shift = sums.pair_gradient(charges, virial)
        potential = None
        if charges.requires_grad:
            columns = [sums.pair_potential(column) for column in charges.T]
            potential = torch.stack((columns[0], -columns[1]), dim=-1)
        of_cell = images.T @ of_shift if virial else None
        ctx.save_for_backward(gradient, of_cell, potential, positions, cell, charges)
        return positions.new_tensor(energy)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return *_scaled(ctx.saved_tensors, grad), None, None


def _scaled(saved: Sequence[Any], grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Three slopes of an energy, which were saved before its three arguments, times a gradient."""
    return last_derivative(
        "the compiled energy of a mesh sum has one derivative, and it",
        lambda: tuple(None if slope is None else grad * slope for slope in saved[:3]),
        (grad, *saved[3:]),
    )
