"""What a mesh Coulomb sum keeps while the atoms move little: pair list, tables, spline factors."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erf
from vesin import NeighborList

from ..neighbors import cell_heights
from .mesh_kernels import sort_pairs, sparse_rows
from .splitting import DEFAULT_ACCURACY, MeshParameters, choose_parameters

#: Å by which the pair list reaches beyond the cutoff, so that it serves many steps.
DEFAULT_SKIN = 0.8
#: Above this many pairs of widths tables do not pay.
_MOST_TABLES = 300


@dataclass(frozen=True, eq=False)
class MeshGeometry:
    """Pair list and mesh for structures near a reference; N atoms, P pairs, I images.

    Parameters
    ----------
    parameters : MeshParameters
    positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
        The reference.
    skin : float, Å
        By how much the list reaches beyond the cutoff.
    pairs : torch.Tensor, int32, shape (P, 2)
        Every pair of atoms and of images once.
    image : torch.Tensor, int32, shape (P,)
        Row of ``images``.
    images : torch.Tensor, float64, shape (I, 3)
        Integer translations of the second atom.
    kind : torch.Tensor, int32, shape (P,)
        Element of ``pair_widths``.
    pair_widths : torch.Tensor, float64, shape (kinds,), Å
        γ of every two of the widths that occur.
    pointer, column, slots : torch.Tensor, int32
        Sparse rows, see :func:`.mesh_kernels.sparse_rows`.
    table : numpy.ndarray or None, shape (kinds, points, 2), 1/Å and 1/Å²
        Pair coefficient over k_e, and its slope, at equidistant distances, for the compiled loops.
    inverse_step : float, 1/Å
        Inverse distance of those points.
    factors : tuple of 3 torch.Tensor, float64
        What corrects the splines in the filter, along each axis; the last one of half length.
    """

    parameters: MeshParameters
    positions: np.ndarray
    cell: np.ndarray
    skin: float
    pairs: torch.Tensor
    image: torch.Tensor
    images: torch.Tensor
    kind: torch.Tensor
    pair_widths: torch.Tensor
    pointer: torch.Tensor
    column: torch.Tensor
    slots: torch.Tensor
    table: np.ndarray | None
    inverse_step: float
    factors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    def serves(self, positions: np.ndarray, cell: np.ndarray) -> bool:
        """Whether the list still holds every pair within the cutoff, and the mesh its spacing.

        Parameters
        ----------
        positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
            The same atoms in the same order, not wrapped anew.
        """
        if positions.shape != self.positions.shape:
            return False
        strain = np.linalg.solve(self.cell, cell)
        stretch = np.linalg.svd(strain, compute_uv=False)
        if not (stretch.min() > 0.97 and stretch.max() < 1.03):
            return False
        moved = positions - self.positions @ strain
        largest = math.sqrt(float(np.max(np.einsum("ij,ij->i", moved, moved), initial=0.0)))
        reach = (self.parameters.cutoff + 2.0 * largest) / float(stretch.min())
        return reach <= self.parameters.cutoff + self.skin

    def to(self, device: torch.device | str) -> MeshGeometry:
        """Return the same lists on ``device``."""
        moved: dict[str, object] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, torch.Tensor):
                moved[entry.name] = value.to(device)
        factors = tuple(factor.to(device) for factor in self.factors)
        return dataclasses.replace(self, factors=factors, **moved)  # type: ignore[arg-type]


def mesh_geometry(
    positions: np.ndarray,
    cell: np.ndarray,
    widths: np.ndarray,
    accuracy: float = DEFAULT_ACCURACY,
    *,
    skin: float = DEFAULT_SKIN,
    parameters: MeshParameters | None = None,
) -> MeshGeometry:
    """Choose splitting and mesh, and collect the pairs.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors; any shape, also smaller than the cutoff.
    widths : numpy.ndarray, shape (N,), Å
        σ of every atom.
    accuracy : float
        Requested relative error of forces and potentials.
    skin : float, Å
        0 for a list that serves one structure only.
    parameters : MeshParameters, optional
        Overrides the choice, as to keep one discretisation over a simulation.

    Raises
    ------
    BoxError
        If the cell has no volume.
    InputError
        If the accuracy is out of range.
    """
    cell_heights(cell)
    if parameters is None:
        parameters = choose_parameters(cell, len(positions), float(widths.max()), accuracy)
    search = NeighborList(
        cutoff=parameters.cutoff + skin, full_list=False, sorted=False, n_threads=1
    )
    points = np.ascontiguousarray(positions, dtype=np.float64)
    pairs, shifts = search.compute(points, np.asarray(cell, dtype=np.float64), True, "PS")
    image, images = _number_images(shifts)
    sigmas, species = np.unique(np.asarray(widths, dtype=np.float64), return_inverse=True)
    gamma = np.hypot(sigmas[:, None], sigmas)
    # the pair term vanishes where γ = η
    needed = np.abs(gamma - parameters.eta) > 1e-9 * parameters.eta
    pairs, image, kind = sort_pairs(pairs, image, needed, species, len(points))
    gamma = gamma.ravel()
    table, inverse_step = _pair_table(parameters, gamma)
    rows = sparse_rows(pairs, len(points))
    pointer, column, slots = (torch.from_numpy(part) for part in rows)
    return MeshGeometry(
        parameters,
        points.copy(),
        np.array(cell, dtype=np.float64),
        skin,
        torch.from_numpy(pairs),
        torch.from_numpy(image),
        torch.from_numpy(images),
        torch.from_numpy(kind),
        torch.from_numpy(gamma),
        pointer,
        column,
        slots,
        table,
        inverse_step,
        _spline_factors(parameters),
    )


def _number_images(shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of each pair's image, int32, and the distinct images, shape (I, 3)."""
    whole = np.asarray(shifts, dtype=np.int64)
    low = whole.min(axis=0, initial=0)
    span = whole.max(axis=0, initial=0) - low + 1
    code = ((whole[:, 0] - low[0]) * span[1] + whole[:, 1] - low[1]) * span[2]
    code += whole[:, 2] - low[2]
    used = np.zeros(int(span.prod()), dtype=bool)
    used[code] = True
    number = np.cumsum(used) - 1
    images = np.stack(np.unravel_index(np.flatnonzero(used), tuple(span)), axis=-1) + low
    return number[code].astype(np.int32), images.astype(np.float64)


def _spline_factors(parameters: MeshParameters) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Axis factors W²/(Σ_m W²)² of the filter; W is the splines' transform, m their aliases.

    The product over the axes is the influence function of Hockney and Eastwood with the aliases of
    the (Gaussian) interaction itself left out. Highest waves of even meshes, whose sign is
    ambiguous, are dropped.
    """
    factors = []
    for axis, points in enumerate(parameters.shape):
        x = np.fft.rfftfreq(points) if axis == 2 else np.fft.fftfreq(points)
        waves = [np.sinc(x + m) ** (2 * parameters.order) for m in range(-4, 5)]
        factor = waves[4] / np.sum(waves, axis=0) ** 2
        if points % 2 == 0:
            factor[points // 2] = 0.0
        factors.append(torch.from_numpy(factor))
    return factors[0], factors[1], factors[2]


def _pair_table(parameters: MeshParameters, gammas: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Pair coefficient and slope for cubic Hermite interpolation; none for too many widths."""
    if len(gammas) > _MOST_TABLES:
        return None, 0.0
    step = min(4e-3, min(parameters.eta, float(gammas.min())) / 200.0)
    r = np.arange(int(parameters.cutoff / step) + 2) * step
    screen = _gaussian_pair(r, parameters.eta)
    own = [_gaussian_pair(r, gamma) for gamma in gammas]
    table = [np.stack((v - screen[0], s - screen[1]), axis=-1) for v, s in own]
    return np.ascontiguousarray(table), 1.0 / step


def _gaussian_pair(r: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """erf(r/√2w)/r and its derivative, also where r is small against w."""
    x = r / (math.sqrt(2.0) * width)
    safe = np.where(x > 1e-2, r, 1.0)
    density = math.sqrt(2.0 / math.pi) / width * np.exp(-x * x)
    value = erf(x) / safe
    slope = (density - value) / safe
    front = math.sqrt(2.0 / math.pi) / width
    series = front * (1.0 - x**2 / 3.0 + x**4 / 10.0 - x**6 / 42.0)
    bend = front / (math.sqrt(2.0) * width)
    series_slope = bend * (-2.0 * x / 3.0 + 0.4 * x**3 - x**5 / 7.0)
    return np.where(x > 1e-2, value, series), np.where(x > 1e-2, slope, series_slope)
