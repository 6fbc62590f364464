"""The pair and mesh sums of :class:`.mesh.MeshCoulomb` by compiled loops, on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..derivatives import last_derivative
from ..threads import Result, each_block, even_bounds
from . import mesh_kernels
from .mesh_geometry import MeshGeometry
from .mesh_spectrum import wave_weights
from .mesh_sums import to_field, to_waves

_KERNELS: Any = mesh_kernels  # numba's types know nothing of starred arguments
# Mesh points for each thread in loops over them alone.
_POINTS_PER_THREAD = 40_000
# With fewer for each a second thread costs more than it brings: where coefficients of pairs are
# computed or differentiated, and in products.
_ATOMS_PER_THREAD, _PRODUCT_ATOMS_PER_THREAD = 500, 1500
#: First atom and the one after the last, for each thread: as many atoms, and as many pairs.
Blocks = list[tuple[tuple[int, int], tuple[int, int]]]


class CompiledSums:
    """Pair and mesh sums by compiled loops; arguments as for :class:`.mesh_sums.TorchSums`."""

    def __init__(
        self,
        positions: torch.Tensor,
        place: torch.Tensor,
        cell: torch.Tensor,
        geometry: MeshGeometry,
        constant: float,
        dtype: torch.dtype,
    ) -> None:
        self._geometry = geometry
        self._count = count = positions.shape[0]
        self._kind: Any = np.float32 if dtype == torch.float32 else np.float64
        self._points = np.ascontiguousarray(positions.numpy())
        self._shifts = (geometry.images @ cell).numpy()
        pointer = geometry.pointer.numpy()
        self._pairs = pointer, geometry.pairs[1].numpy(), geometry.image.numpy()
        self._pair_blocks = self._blocks(_ATOMS_PER_THREAD)
        self._product_blocks = self._blocks(_PRODUCT_ATOMS_PER_THREAD)
        order, shape = geometry.parameters.order, geometry.parameters.shape
        self._beyond = order - 1
        splines, *self._loops = mesh_kernels.stencil_kernels(order, self._kind)
        self._index = np.empty((count, 3, order), np.int32)
        self._weights = tuple(np.empty(self._index.shape, self._kind) for _ in range(2))
        self._layer = geometry.layer.numpy()
        self._values, self._slopes = np.empty((2, len(self._pairs[1])), self._kind)
        kinds = geometry.kind.numpy(), geometry.cutoffs.numpy() ** 2
        table = geometry.scaled_table(constant, self._kind), geometry.inverse_step
        pairs = self._points, self._shifts, self._pairs, kinds, *table, self._values, self._slopes
        stencil = place.numpy(), np.array(shape), self._index, *self._weights

        def compute(_: int, atoms: tuple[int, int], rows: tuple[int, int]) -> None:
            splines(*stencil, *atoms)
            _KERNELS.pair_values(*pairs, *rows)

        _in_threads(self._pair_blocks, compute)
        self._shape = len(geometry.mesh_widths), *shape
        self._written: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _blocks(self, fewest: int) -> Blocks:
        atoms = even_bounds(self._count, fewest)
        pointer = self._pairs[0]
        parts = np.linspace(0, pointer[-1], len(atoms)).astype(pointer.dtype)
        rows = [*np.searchsorted(pointer[:-1], parts[:-1]).tolist(), self._count]
        return list(zip(itertools.pairwise(atoms), itertools.pairwise(rows), strict=True))

    @property
    def depth(self) -> int:
        """Mesh points along the last axis."""
        return self._shape[3]

    def own_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self._geometry.pairs
        own = (first == second).nonzero().squeeze(-1)
        values = torch.from_numpy(self._values)[own]
        return first[own].long(), values.to(torch.float64)

    def potential(
        self, charges: torch.Tensor, filters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        waves = to_waves(self.distribute(charges))
        field = self.field(waves, filters)
        result = np.empty(charges.shape)
        stencil = self._index, self._weights[0], self._layer
        near = self._written[len(charges)][1]
        each = list(zip(self._continued(field), near, result, strict=True))

        def interpolate(_: int, atoms: tuple[int, int], __: Any) -> None:
            for arrays in each:
                self._loops[1](*stencil, *arrays, *atoms)

        _in_threads(self._blocks_for(charges), interpolate)
        return torch.from_numpy(result), field

    def _blocks_for(self, charges: torch.Tensor) -> Blocks:
        return self._pair_blocks if len(charges) > 1 else self._product_blocks

    def field(self, waves: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        """What waves, (C, S, M1, M2, M3//2 + 1), become by the filters (in place), on the mesh."""
        rows, factors = waves.flatten(2).numpy(), filters.flatten(1).numpy()
        bounds = even_bounds(rows.shape[2], _POINTS_PER_THREAD // len(rows))
        each_block(bounds, lambda *block: _KERNELS.filter_waves(rows, factors, *block))
        return to_field(waves, self._geometry.parameters.shape)

    def distribute(self, charges: torch.Tensor) -> torch.Tensor:
        """Charges, (C, N), on the mesh, (C, S, M1, M2, M3); keeps the potential of the pairs."""
        source = charges.numpy().astype(self._kind)
        count, blocks = len(source), self._blocks_for(charges)
        layers, height, width, depth = self._shape
        if count not in self._written:
            shape = count, len(blocks), layers, height, width, depth + self._beyond
            self._written[count] = (
                np.empty(shape, self._kind),
                np.empty((count, len(blocks), self._count), self._kind),
            )
        meshes, nears = self._written[count]

        def add(number: int, atoms: tuple[int, int], rows: tuple[int, int]) -> None:
            for row, mesh, near in zip(source, meshes[:, number], nears[:, number], strict=True):
                mesh.fill(0.0)
                self._loops[0](self._index, self._weights[0], self._layer, row, mesh, *atoms)
                near.fill(0.0)
                _KERNELS.pair_product(self._pairs, self._values, row, near, *rows)

        _in_threads(blocks, add)
        density = np.empty((count, *self._shape), self._kind)
        lines = density.reshape(count, -1, depth)
        parts = meshes.reshape(count, len(blocks), lines.shape[1], -1)
        bounds = even_bounds(lines.shape[1], _POINTS_PER_THREAD // (depth * count))
        each_block(bounds, lambda *block: _KERNELS.join_meshes(parts, lines, *block))
        return torch.from_numpy(density)

    def pair_potential(self, charges: torch.Tensor) -> torch.Tensor:
        """Potential of the pairs alone, shape (C, N), eV/e."""
        self.distribute(charges)
        return torch.from_numpy(self._written[len(charges)][1].sum(axis=1, dtype=np.float64))

    def _continued(self, field: torch.Tensor) -> np.ndarray:
        """Fields with the beginning of each line again at its end."""
        return torch.cat((field, field[..., : self._beyond]), dim=-1).numpy()

    def gather_gradient(self, fields: torch.Tensor) -> torch.Tensor:
        """Fields, (C, S, M1, M2, M3), at the atoms and their slopes per mesh spacing, (C, N, 4)."""
        result = np.empty((len(fields), self._count, 4))
        common = self._index, *self._weights, self._layer
        each = list(zip(self._continued(fields), result, strict=True))

        def interpolate(_: int, atoms: tuple[int, int], __: Any) -> None:
            for arrays in each:
                self._loops[2](*common, *arrays, *atoms)

        _in_threads(self._blocks_for(fields), interpolate)
        return torch.from_numpy(result)

    def pair_gradient(
        self, both: torch.Tensor, virial: bool
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Pair energy of q less that of p, and its derivatives by positions and images."""
        shape = (len(self._shifts) if virial else 0, 3)
        source = np.zeros((self._count, 2))
        source[:, : len(both)] = both.detach().numpy().T
        structure = self._points, self._shifts, self._pairs, self._values, self._slopes, source

        def add(_: int, __: Any, rows: tuple[int, int]) -> tuple[float, np.ndarray, np.ndarray]:
            gradient, of_shift = np.zeros((self._count, 3)), np.zeros(shape)
            energy = _KERNELS.pair_gradient(*structure, gradient, of_shift, *rows)
            return energy, gradient, of_shift

        energies, gradients, of_shifts = zip(*_in_threads(self._pair_blocks, add), strict=True)
        gradient, of_shift = (torch.from_numpy(sum(x)) for x in (gradients, of_shifts))
        return sum(energies), gradient, of_shift

    def mesh_energy(
        self,
        place: torch.Tensor,
        both: torch.Tensor,
        filters: torch.Tensor,
        fields: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return _MeshEnergy.apply(place, both, filters, self, fields)

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, both: torch.Tensor
    ) -> torch.Tensor:
        if not self._values.size:
            return both.new_zeros(())
        return _PairEnergy.apply(positions, cell, both, self, self._geometry.images)


class _MeshEnergy(torch.autograd.Function):
    """½ Σ_k |Σ_s A_s ρ_s|² of q less that of p, with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, place: Any, both: Any, filters: Any, sums: CompiledSums, fields: Any
    ) -> Any:
        by_filter = None
        signs = _signs(both)
        if fields is None:
            waves = to_waves(sums.distribute(both))
            if filters.requires_grad:
                total = (filters * waves).sum(dim=1, keepdim=True).conj()
                factor = wave_weights(sums.depth, total)
                by_filter = (signs[..., None, None, None] * factor * (total * waves).real).sum(0)
            fields = sums.field(waves, filters.to(waves.real.dtype))
        seen = sums.gather_gradient(fields)
        signed = signs * both
        by_place = (seen[..., 1:] * signed.unsqueeze(-1)).sum(dim=0)
        potential = seen[..., 0]
        by_charges = signs * potential if both.requires_grad else None
        ctx.save_for_backward(by_place, by_charges, by_filter, place, both, filters)
        return 0.5 * (signed * potential).sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return *_scaled(ctx.saved_tensors, grad), None, None


class _PairEnergy(torch.autograd.Function):
    """Σ_pairs c(r) (q_i q_j − p_i p_j), with its derivatives worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, positions: Any, cell: Any, both: Any, sums: CompiledSums, images: Any
    ) -> Any:
        virial = cell.requires_grad
        energy, gradient, of_shift = sums.pair_gradient(both, virial)
        potential = None
        if both.requires_grad:
            signs = _signs(both)
            potential = signs * sums.pair_potential(both)
        of_cell = images.T @ of_shift if virial else None
        ctx.save_for_backward(gradient, of_cell, potential, positions, cell, both)
        return positions.new_tensor(energy)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return *_scaled(ctx.saved_tensors, grad), None, None


def _signs(both: torch.Tensor) -> torch.Tensor:
    """Of what q and p add to :func:`difference`, shape (2, 1); of q alone, shape (1, 1)."""
    return both.new_tensor([1.0, -1.0][: len(both)]).unsqueeze(-1)


def _in_threads(blocks: Blocks, function: Callable[..., Result]) -> list[Result]:
    """``function(number, atoms, rows)`` of every block."""
    return each_block(range(len(blocks) + 1), lambda number, _: function(number, *blocks[number]))


def _scaled(saved: Sequence[Any], grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Three slopes of an energy, which were saved before its three arguments, times a gradient."""
    return last_derivative(
        "the compiled energy of a mesh sum has one derivative, and it",
        lambda: tuple(None if slope is None else grad * slope for slope in saved[:3]),
        (grad, *saved[3:]),
    )
