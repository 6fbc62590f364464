"""What a mesh Coulomb sum keeps while the atoms move little: pair list, tables, spline factors."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import erf

from ..neighbors import cell_heights, search_pairs
from .mesh_kernels import sort_pairs
from .mesh_spectrum import MeshSpectrum
from .splitting import DEFAULT_ACCURACY, DEFAULT_SKIN, MeshParameters, choose_parameters

#: Above this many pairs of widths tables do not pay.
_MOST_TABLES = 300
# Points of all tables together.
_LARGEST_TABLE = 2e6
# A table of so many images pays; of more, few are used.
_MOST_IMAGES = 1e7


@dataclass(frozen=True, eq=False)
class MeshGeometry:
    """Pair list and mesh for structures near a reference; N atoms, P pairs, I images.

    Parameters
    ----------
    parameters : MeshParameters
    positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
        The reference.
    skin : float, Å
        By how much the list reaches beyond the cutoffs.
    pairs : torch.Tensor, int32, shape (2, P)
        Every pair of atoms and of images once.
    image : torch.Tensor, int32, shape (P,)
        Row of ``images``.
    images : torch.Tensor, float64, shape (I, 3)
        Integer translations of the second atom.
    kind : torch.Tensor, int32, shape (P,)
        Element of ``pair_widths``.
    pair_widths : torch.Tensor, float64, shape (2, kinds), Å
        γ of every two of the widths that occur, as they are and as they are on the mesh.
    layer : torch.Tensor, int32, shape (N,)
        Element of ``mesh_widths``: atoms of equal width share a layer of the mesh.
    mesh_widths : torch.Tensor, float64, shape (S,), Å
        Widths σ on the mesh.
    pointer : torch.Tensor, int32, shape (N + 1,)
        Where the pairs of each first atom begin.
    table : numpy.ndarray or None, shape (kinds, points, 4), 1/Å
        Pair coefficient over k_e as cubic polynomials between equidistant squares of the distance,
        for the compiled loops; the last one, beyond all cutoffs, is zero.
    inverse_step : float, 1/Å²
        Inverse distance of those points.
    spectrum : MeshSpectrum
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
    layer: torch.Tensor
    mesh_widths: torch.Tensor
    pointer: torch.Tensor
    table: np.ndarray | None
    inverse_step: float
    spectrum: MeshSpectrum
    _scaled: dict[tuple[float, type], np.ndarray] = field(
        default_factory=dict, init=False, repr=False
    )

    @functools.cached_property
    def cutoffs(self) -> torch.Tensor:
        """Cutoff of each kind of pair, shape (kinds,), Å."""
        return self.parameters.reach * self.pair_widths[1]

    @functools.cached_property
    def _cutoff(self) -> float:
        return float(self.cutoffs.max())

    def scaled_table(self, constant: float, number: type) -> np.ndarray:
        """The table times k_e, eV/e², as NumPy numbers of a type; made once."""
        key = constant, number
        if key not in self._scaled:
            assert self.table is not None
            self._scaled[key] = (constant * self.table).astype(number)
        return self._scaled[key]

    def serves(self, positions: np.ndarray, cell: np.ndarray) -> bool:
        """Whether the list still holds every pair within the cutoff, and the mesh its spacing.

        Parameters
        ----------
        positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
            The same atoms in the same order, not wrapped anew.
        """
        if positions.shape != self.positions.shape:
            return False
        sites, least = self.positions, 1.0
        if not np.array_equal(cell, self.cell):
            strain = np.linalg.solve(self.cell, cell)
            stretch = np.linalg.svd(strain, compute_uv=False)
            if not (stretch.min() > 0.97 and stretch.max() < 1.03):
                return False
            sites, least = self.positions @ strain, float(stretch.min())
        if not self.pairs.shape[1]:
            return True
        moved = positions - sites
        largest = math.sqrt(float(np.max(np.einsum("ij,ij->i", moved, moved), initial=0.0)))
        cutoff = self._cutoff
        return (cutoff + 2.0 * largest) / least <= cutoff + self.skin

    def to(self, device: torch.device | str) -> MeshGeometry:
        """Return the same lists on ``device``."""
        moved: dict[str, object] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, torch.Tensor):
                moved[entry.name] = value.to(device)
        moved["spectrum"] = self.spectrum.to(device)
        return dataclasses.replace(self, **moved)  # type: ignore[arg-type]


def mesh_geometry(
    positions: np.ndarray,
    cell: np.ndarray,
    widths: np.ndarray,
    accuracy: float = DEFAULT_ACCURACY,
    *,
    skin: float = DEFAULT_SKIN,
    uniform: bool = False,
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
    uniform : bool
        Take all charges for equally wide on the mesh.
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
    points = np.ascontiguousarray(positions, dtype=np.float64)
    widths = np.asarray(widths, dtype=np.float64)
    if parameters is None:
        parameters = choose_parameters(cell, widths, accuracy, uniform)
    sigmas, species = np.unique(widths, return_inverse=True)
    mesh_widths, layers = np.unique(parameters.on_mesh(sigmas), return_inverse=True)
    on_mesh = mesh_widths[layers]
    gamma = np.stack([np.hypot(s[:, None], s) for s in (sigmas, on_mesh)])
    cutoffs = np.where(gamma[0] == gamma[1], 0.0, parameters.reach * gamma[1] + skin)
    pointer, pairs, image, images, kind = _collect_pairs(points, cell, cutoffs, species)
    gamma = gamma.reshape(2, -1)
    table, inverse_step = _pair_table(parameters, gamma)
    return MeshGeometry(
        parameters=parameters,
        positions=points.copy(),
        cell=np.array(cell, dtype=np.float64),
        skin=skin,
        pairs=torch.from_numpy(pairs),
        image=torch.from_numpy(image),
        images=torch.from_numpy(images),
        kind=torch.from_numpy(kind),
        pair_widths=torch.from_numpy(gamma),
        layer=torch.from_numpy(layers[species].astype(np.int32)),
        mesh_widths=torch.from_numpy(mesh_widths),
        pointer=torch.from_numpy(pointer),
        table=table,
        inverse_step=inverse_step,
        spectrum=MeshSpectrum(parameters, torch.from_numpy(mesh_widths)),
    )


def _collect_pairs(
    points: np.ndarray, cell: np.ndarray, cutoffs: np.ndarray, species: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pointers and pairs within cutoffs of shape (species, species); see MeshGeometry."""
    if not cutoffs.any():
        none = np.zeros(0, np.int32)
        pointer = np.zeros(len(points) + 1, np.int32)
        return pointer, none.reshape(2, 0), none, np.zeros((0, 3)), none
    box = np.asarray(cell, dtype=np.float64)
    found = search_pairs(points, box, True, float(cutoffs.max()), False)
    pairs, shifts, distances, whole = found
    if whole is not None:
        shifts = shifts + whole[pairs[:, 0]] - whole[pairs[:, 1]]
    image, images = _number_images(shifts)
    rows = sort_pairs(pairs, image, distances, cutoffs, species, len(points))
    pointer, pairs, image, kind = rows
    return pointer, pairs, image, images, kind


def _number_images(shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of each pair's image, int32, and the distinct images, shape (I, 3)."""
    low = shifts.min(axis=0, initial=0)
    span = shifts.max(axis=0, initial=0) - low + 1
    if np.prod(span.astype(np.float64)) > _MOST_IMAGES:  # atoms far from one another's cell
        images, number = np.unique(shifts, axis=0, return_inverse=True)
        return number.reshape(-1).astype(np.int32), images.astype(np.float64)
    code = ((shifts[:, 0] - low[0]) * span[1] + shifts[:, 1] - low[1]) * span[2]
    code += shifts[:, 2] - low[2]
    used = np.zeros(int(span.prod()), dtype=bool)
    used[code] = True
    number = np.cumsum(used) - 1
    images = np.stack(np.unravel_index(np.flatnonzero(used), tuple(span)), axis=-1) + low
    return number[code].astype(np.int32), images.astype(np.float64)


def _pair_table(parameters: MeshParameters, gammas: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Pair coefficient between equidistant r² by cubic polynomials; none if that is too much.

    The last one is zero.
    """
    kinds = gammas.shape[1]
    if kinds > _MOST_TABLES:
        return None, 0.0
    longest = float(gammas[1].max())
    step = 0.024 * float(gammas.min()) ** 2  # relative error of the slopes: 1e-8
    points = (parameters.reach * longest) ** 2 / step
    if points * kinds > _LARGEST_TABLE:  # few atoms in much space
        return None, 0.0
    squares = np.arange(int(points) + 2) * step
    r = np.sqrt(squares)
    table = np.zeros((kinds, len(r), 4))
    for kind in range(kinds):
        own, mesh = (_gaussian_pair(r, float(gamma)) for gamma in gammas[:, kind])
        value, slope = own[0] - mesh[0], step * (own[1] - mesh[1])
        rise = value[1:] - value[:-1]
        table[kind, :-1, 0], table[kind, :-1, 1] = value[:-1], slope[:-1]
        table[kind, :-1, 2] = 3.0 * rise - 2.0 * slope[:-1] - slope[1:]
        table[kind, :-1, 3] = slope[:-1] + slope[1:] - 2.0 * rise
    return table, 1.0 / step


def _gaussian_pair(r: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """erf(r/√2w)/r and its derivative by r², also where r is small against w."""
    x = r / (math.sqrt(2.0) * width)
    near = x < 0.3
    safe = np.where(near, width, r)
    front = math.sqrt(2.0 / math.pi) / width
    value = erf(x) / safe
    slope = 0.5 * (front * np.exp(-x * x) - value) / safe**2
    # Σ (−1)ⁿ x²ⁿ/(n! (2n + 1)) and its derivative by x²
    y = np.where(near, x * x, 0.0)
    series, bend = np.zeros_like(y), np.zeros_like(y)
    for n in range(9, -1, -1):
        term = (-1.0) ** n / (math.factorial(n) * (2 * n + 1))
        bend = bend * y + (n + 1) * ((-1.0) ** (n + 1) / (math.factorial(n + 1) * (2 * n + 3)))
        series = series * y + term
    value = np.where(near, front * series, value)
    return value, np.where(near, front * bend / (2.0 * width**2), slope)
