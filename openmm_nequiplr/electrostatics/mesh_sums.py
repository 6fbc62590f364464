"""The pair and mesh sums of :class:`.mesh.MeshCoulomb` in plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .gaussian import screening
from .mesh_geometry import MeshGeometry
from .mesh_spectrum import wave_weights


def pair_distances(
    positions: torch.Tensor, pairs: torch.Tensor, shifts: torch.Tensor
) -> torch.Tensor:
    """Distances of atoms ``pairs``, shape (2, P), the second one translated; shape (P,), Å."""
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0]) + shifts
    return torch.linalg.vector_norm(vectors, dim=-1)


def to_waves(density: torch.Tensor) -> torch.Tensor:
    """Transforms of densities, shape (..., M1, M2, M3): shape (..., M1, M2, M3//2 + 1)."""
    return torch.fft.rfftn(density, dim=(-3, -2, -1))


def to_field(waves: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Fields on meshes of a shape (M1, M2, M3) out of their waves: Σ_k V(k) exp(ikx)."""
    return torch.fft.irfftn(waves, s=tuple(shape), dim=(-3, -2, -1), norm="forward")


def difference(values: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """What belongs to charges q less what belongs to p; the former where p was left out."""
    return values[0] if len(values) == 1 else values[0] - values[1]


class TorchSums:
    """Pair and mesh sums for any device; slow twin of :class:`.mesh_compiled.CompiledSums`.

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

    def potential(
        self, charges: torch.Tensor, filters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Potentials of pairs and mesh at the atoms, and what charges make on the mesh.

        Parameters
        ----------
        charges : torch.Tensor, float64, shape (C, N), e
        filters : torch.Tensor, shape (S, M1, M2, M3//2 + 1), e⁻¹√eV

        Returns
        -------
        torch.Tensor, float64, shape (C, N), eV/e
        torch.Tensor, shape (C, S, M1, M2, M3), eV/e
        """
        potentials, fields = [], []
        for row in charges:
            waves = to_waves(self._spread(self._index, self._weights, row.to(self._dtype)))
            waves = filters * (filters * waves).sum(dim=0)
            field = to_field(waves, self._geometry.parameters.shape)
            smooth = (field.flatten()[self._index] * self._weights).sum(dim=-1)
            first, second = self._pairs
            near = torch.zeros_like(row)
            near.index_add_(0, first, self._values * row[second])
            near.index_add_(0, second, self._values * row[first])
            potentials.append(near + smooth)
            fields.append(field)
        return torch.stack(potentials), torch.stack(fields)

    def _spread(
        self, index: torch.Tensor, weights: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        shape = (len(self._geometry.mesh_widths), *self._geometry.parameters.shape)
        values = (weights * charges.unsqueeze(-1)).flatten()
        mesh = values.new_zeros(math.prod(shape)).index_add(0, index.flatten(), values)
        return mesh.view(shape)

    def mesh_energy(
        self,
        place: torch.Tensor,
        both: torch.Tensor,
        filters: torch.Tensor,
        fields: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """½ Σ_k |Σ_s A_s ρ_s|² of charges q less that of p, eV.

        Parameters
        ----------
        place : torch.Tensor, shape (N, 3)
            Of the atoms, in mesh spacings.
        both : torch.Tensor, shape (2, N), e
            q and p; or q alone, shape (1, N).
        filters : torch.Tensor, shape (S, M1, M2, M3//2 + 1), e⁻¹√eV
        fields : torch.Tensor, optional, shape (2, S, M1, M2, M3), eV/e
            What q and p make on the mesh, which saves the compiled loops the way there.
        """
        index, weights = self._stencil(place)
        energies = []
        for charges in both:
            waves = to_waves(self._spread(index, weights, charges))
            total = (filters * waves).sum(dim=0)
            factor = wave_weights(self._geometry.parameters.shape[2], total)
            energies.append(0.5 * ((total.real**2 + total.imag**2) * factor).sum())
        return difference(energies)

    def pair_energy(
        self, positions: torch.Tensor, cell: torch.Tensor, both: torch.Tensor
    ) -> torch.Tensor:
        """Σ_pairs c(r) (q_i q_j − p_i p_j) in eV; ``both`` as for :meth:`mesh_energy`."""
        value = self._pair_coefficients(positions, cell)
        products = both[:, self._pairs[0]] * both[:, self._pairs[1]]
        return difference((value * products).sum(dim=1))
