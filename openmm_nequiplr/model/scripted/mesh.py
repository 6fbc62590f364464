"""The mesh Coulomb sum inside the graph, for many atoms; in torch, for any device.

The same sum as :class:`openmm_nequiplr.electrostatics.MeshCoulomb`: pairs as a sparse matrix, the
smooth rest with B-splines on a mesh whose parameters follow from the box alone.
"""

import math

import torch

from ...electrostatics.gaussian import pair_width, self_coefficient
from ...electrostatics.splitting import CUTOFF_SAFETY, MESH_ERROR, MOST_POINTS
from .direct import PeriodicMatrix, screened_pairs

#: Ewald width in units of the cube root of the volume per atom at which pairs and mesh cost alike.
BALANCE = 0.75


def next_fast_length(least: int) -> int:
    """Smallest product of 2, 3 and 5 that is not below ``least``."""
    size, rest = least - 1, 0
    while rest != 1:
        size += 1
        rest = size
        for factor in [2, 3, 5]:
            while rest % factor == 0:
                rest = rest // factor
    return size


def spline_weights(fraction: torch.Tensor, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cardinal B-spline weights of mesh points, and their derivatives.

    Parameters
    ----------
    fraction : torch.Tensor, float64, shape (N, 3)
        How far, in mesh spacings, an atom lies beyond the mesh point below it.
    order : int

    Returns
    -------
    weights, slopes : torch.Tensor, float64, shape (N, 3, order)
    """
    zero = torch.zeros_like(fraction)
    weights = [1.0 - fraction, fraction]
    slopes = [zero, zero]
    for n in range(3, order + 1):
        low, high = [zero] + weights, weights + [zero]
        slopes = [low[j] - high[j] for j in range(n)]
        weights = [
            ((fraction + float(n - 1 - j)) * low[j] + (1.0 + float(j) - fraction) * high[j])
            / float(n - 1)
            for j in range(n)
        ]
    return torch.stack(weights, dim=-1), torch.stack(slopes, dim=-1)


class MeshMatrix(PeriodicMatrix):
    """Gaussian charges in a periodic cell by pairs and a mesh.

    Parameters
    ----------
    constant : float, eV Å/e²
    widest : float, Å
        Largest √2 σ.
    count : int
        Number N of atoms.
    accuracy : float
        Relative error of forces and potentials to aim at.
    """

    def __init__(self, constant: float, widest: float, count: int, accuracy: float) -> None:
        super().__init__()
        self.constant, self.widest, self.count = constant, widest, count
        self.order = 6 if accuracy > 1e-4 else 8
        self.reach = math.sqrt(-2.0 * math.log(CUTOFF_SAFETY * accuracy))
        self.spacing = (accuracy / MESH_ERROR[self.order]) ** (1.0 / self.order)
        self.balance, self.most_points = BALANCE, MOST_POINTS
        self.register_buffer("cell", torch.zeros(3, 3, dtype=torch.float64))
        self.register_buffer("spectrum", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("own_wave", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("pointer", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("column", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("slots", torch.zeros(0, dtype=torch.int64))

    def eta(self, cell: torch.Tensor) -> float:
        """Ewald width, Å, the same for all charges."""
        volume = float(torch.linalg.det(cell).abs())
        return max(self.widest, self.balance * math.pow(volume / self.count, 1.0 / 3.0))

    def far_cutoff(self, cell: torch.Tensor) -> float:
        """Cutoff of the pairs, Å."""
        return self.reach * self.eta(cell)

    def _shape(self, cell: torch.Tensor) -> list[int]:
        lengths: list[float] = torch.linalg.vector_norm(cell, dim=1).tolist()
        spacing = self.eta(cell) * self.spacing
        if lengths[0] * lengths[1] * lengths[2] / spacing**3 > self.most_points:
            raise RuntimeError(
                "cell: expected one that a mesh resolves, got vectors of {}, {} and {} Å for {} "
                "atoms".format(lengths[0], lengths[1], lengths[2], self.count)
            )
        shape: list[int] = []
        for length in lengths:
            shape.append(next_fast_length(max(self.order, math.ceil(length / spacing))))
        return shape

    def _spline_factor(self, points: int, frequency: torch.Tensor) -> torch.Tensor:
        """W²/(Σ_m W²)² of one axis, see :mod:`openmm_nequiplr.electrostatics.mesh_spectrum`."""
        total = torch.zeros_like(frequency)
        for alias in range(-4, 5):
            total = total + torch.sinc(frequency + float(alias)) ** (2 * self.order)
        factor = torch.sinc(frequency) ** (2 * self.order) / (total * total)
        if points % 2 == 0:
            factor[points // 2] = 0.0
        return factor

    def _renew_spectrum(self, cell: torch.Tensor) -> None:
        """The filter of the half mesh, with the background at k = 0, eV/e²."""
        eta, shape = self.eta(cell), self._shape(cell)
        volume = torch.linalg.det(cell).abs()
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).t()
        vectors = torch.zeros([1, 1, 1, 3], dtype=cell.dtype, device=cell.device)
        factors = torch.ones([1, 1, 1], dtype=cell.dtype, device=cell.device)
        for axis, points in enumerate(shape):
            whole = torch.arange(points, dtype=cell.dtype, device=cell.device)
            if axis == 2:
                whole = whole[: points // 2 + 1]
            else:
                whole = torch.where(whole >= float((points + 1) // 2), whole - points, whole)
            size = [1, 1, 1]
            size[axis] = whole.shape[0]
            vectors = vectors + whole.reshape(size).unsqueeze(-1) * reciprocal[axis]
            factors = factors * self._spline_factor(points, whole / float(points)).reshape(size)
        squared = (vectors * vectors).sum(dim=-1)
        squared[0, 0, 0] = 1.0
        smooth = torch.exp(-0.5 * eta * eta * squared) / squared
        smooth[0, 0, 0] = -0.5 * eta * eta
        smooth = 4.0 * math.pi * self.constant / volume * smooth
        self.own_wave = 2.0 * smooth.sum() - smooth[:, :, 0].sum()
        self.spectrum = smooth * factors
        self.cell = cell.clone()

    def _renew_rows(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Sparse rows of the symmetric pair matrix: every pair twice."""
        rows = torch.cat((first, second))
        self.slots = torch.argsort(rows)
        members = torch.bincount(rows, minlength=self.count)
        start = torch.zeros(1, dtype=members.dtype, device=members.device)
        self.pointer = torch.cat((start, torch.cumsum(members, 0))).to(torch.int32)
        columns = torch.cat((second, first)).index_select(0, self.slots)
        self.column = columns.to(torch.int32)

    def setup(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        widths: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        vector: torch.Tensor,
        renewed: bool,
    ) -> list[torch.Tensor]:
        """What the other methods take as ``kept``; ``renewed`` tells of another list of pairs."""
        if not torch.equal(cell, self.cell):
            self._renew_spectrum(cell)
        if renewed:
            self._renew_rows(first, second)
        eta = self.eta(cell)
        distance = torch.linalg.vector_norm(vector, dim=-1)
        width = pair_width(widths.index_select(0, first), widths.index_select(0, second))
        value, slope = screened_pairs(distance, width, eta, self.reach * eta)
        value = self.constant * value
        along = (self.constant * slope / distance).unsqueeze(-1) * vector
        shape = torch.tensor(self._shape(cell), device=cell.device)
        scale = torch.linalg.inv(cell) * shape
        place = positions @ scale
        floor = torch.floor(place)
        weights, slopes = spline_weights(place - floor, self.order)
        steps = torch.arange(self.order, device=cell.device)
        index = (floor.long().unsqueeze(-1) + steps) % shape.unsqueeze(-1)
        flat = index[:, 0].unsqueeze(-1) * shape[1] + index[:, 1].unsqueeze(1)
        flat = (flat.unsqueeze(-1) * shape[2] + index[:, 2].unsqueeze(1).unsqueeze(1)).flatten(1)
        plane = (weights[:, 1].unsqueeze(-1) * weights[:, 2].unsqueeze(1)).flatten(1)
        spread = (weights[:, 0].unsqueeze(-1) * plane.unsqueeze(1)).flatten(1)
        doubled = torch.cat((value, value)).index_select(0, self.slots)
        return [
            value,
            along,
            first,
            second,
            flat,
            spread,
            weights,
            slopes,
            scale,
            self.constant * self_coefficient(widths),
            torch.full([1], eta, dtype=torch.float64),  # torch.tensor would round it to single
            shape,
            doubled,
        ]

    def _field(self, kept: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        """Smooth potential on the mesh, flattened, eV/e."""
        shape: list[int] = kept[11].tolist()
        points = shape[0] * shape[1] * shape[2]
        values = (kept[5] * charges.unsqueeze(-1)).flatten()
        density = charges.new_zeros([points]).index_add(0, kept[4].flatten(), values)
        waves = torch.fft.rfftn(density.reshape(shape)) * self.spectrum
        return torch.fft.irfftn(waves, s=shape, norm="forward").flatten()

    def diagonal(self, kept: list[torch.Tensor]) -> torch.Tensor:
        """The diagonal of K, shape (N,), eV/e², to the accuracy of the mesh."""
        own = torch.nonzero(kept[2] == kept[3]).squeeze(-1)
        atoms = kept[2].index_select(0, own)
        images = 2.0 * kept[0].index_select(0, own)
        return (self._own(kept) + self.own_wave).index_add(0, atoms, images)

    def potential(self, kept: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        """K q, shape (N,), eV/e."""
        field = self._field(kept, charges)
        size = kept[4].shape
        gathered = (field.index_select(0, kept[4].flatten()).reshape(size) * kept[5]).sum(dim=-1)
        count = charges.shape[0]
        value = kept[12]
        matrix = torch.sparse_csr_tensor(
            self.pointer,
            self.column,
            value,
            [count, count],
            dtype=value.dtype,
            device=value.device,
        )
        pairs = (matrix @ charges.unsqueeze(-1)).squeeze(-1)
        return gathered + pairs + self._own(kept) * charges

    def _smooth(
        self, kept: list[torch.Tensor], charges: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The smooth part of one charge vector, eV, and its forces, eV/Å."""
        field = self._field(kept, charges)
        size = kept[4].shape
        seen = field.index_select(0, kept[4].flatten()).reshape(size)
        squares = math.sqrt(2.0 / math.pi) * self.constant / float(kept[10]) * (charges @ charges)
        energy = 0.5 * (charges @ (seen * kept[5]).sum(dim=-1) - squares)
        weights, slopes = kept[6], kept[7]
        cube = seen.reshape(-1, self.order, self.order, self.order)
        rows = torch.einsum("nabc,nc->nab", [cube, weights[:, 2]])
        ends = torch.einsum("nabc,nc->nab", [cube, slopes[:, 2]])
        gradient = torch.stack(
            (
                torch.einsum("nab,na,nb->n", [rows, slopes[:, 0], weights[:, 1]]),
                torch.einsum("nab,na,nb->n", [rows, weights[:, 0], slopes[:, 1]]),
                torch.einsum("nab,na,nb->n", [ends, weights[:, 0], weights[:, 1]]),
            ),
            dim=-1,
        )
        return energy, -charges.unsqueeze(-1) * (gradient @ kept[8].t())
