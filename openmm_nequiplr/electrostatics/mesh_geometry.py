"""Splitting, mesh and Verlet list of a mesh Coulomb sum, reused while the atoms move little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..device_neighbors import neighbor_list_on
from ..errors import InputError, describe
from ..neighbors import cell_heights, search_pairs
from ..verlet import Reach
from .splitting import (
    DEFAULT_ACCURACY,
    DEFAULT_SKIN,
    ON_GPU,
    SPLINES,
    MeshParameters,
    choose_parameters,
)

# Largest table of images that is built; larger ones would be nearly empty.
_MOST_IMAGES = 1e7


@dataclass(frozen=True, eq=False)
class MeshGeometry:
    """Pair list and mesh for structures near a reference; N atoms, P pairs, I images.

    Parameters
    ----------
    parameters : MeshParameters
    positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
        Reference structure.
    skin : float, Å
        Range of the list beyond the cutoff.
    first, second : torch.Tensor, int64, shape (P,)
        Every pair of atoms or images once, sorted by the first atom. Pairs with γ = η, which the
        mesh sums exactly, are left out.
    image : torch.Tensor, int32, shape (P,)
        Row of ``images`` for each pair.
    images : torch.Tensor, float64, shape (I, 3)
        Image of the second atom, integers in units of the lattice vectors.
    kind : torch.Tensor, int32, shape (P,)
        Element of ``gammas`` for each pair.
    gammas : torch.Tensor, float64, shape (kinds,), Å
        γ of every combination of two widths.
    """

    parameters: MeshParameters
    positions: np.ndarray
    cell: np.ndarray
    skin: float
    first: torch.Tensor
    second: torch.Tensor
    image: torch.Tensor
    images: torch.Tensor
    kind: torch.Tensor
    gammas: torch.Tensor

    def serves(self, positions: np.ndarray, cell: np.ndarray) -> bool:
        """Whether the list contains every pair within the cutoff and the mesh is fine enough.

        Parameters
        ----------
        positions, cell : numpy.ndarray, shapes (N, 3) and (3, 3), Å
            Atoms in the order of the reference, not wrapped since.
        """
        if positions.shape != self.positions.shape:
            return False
        sites, allowed = self.reach(cell)
        if math.isinf(allowed):
            return allowed > 0.0
        moved = positions - sites
        largest = math.sqrt(float(np.max(np.einsum("ij,ij->i", moved, moved), initial=0.0)))
        return largest <= allowed

    def reach(self, cell: np.ndarray) -> Reach:
        """Displacements in a cell, shape (3, 3), Å, that it serves; negative if it serves none."""
        sites, least = self.positions, 1.0
        if not np.array_equal(cell, self.cell):
            strain = np.linalg.solve(self.cell, cell)
            stretch = np.linalg.svd(strain, compute_uv=False)
            if not (stretch.min() > 0.97 and stretch.max() < 1.03):
                return Reach(sites, -math.inf)
            sites, least = self.positions @ strain, float(stretch.min())
        cutoff = self.parameters.cutoff
        spare = 0.5 * (least * (cutoff + self.skin) - cutoff)
        return Reach(sites, spare if len(self.first) else math.inf)


def mesh_geometry(
    positions: np.ndarray,
    cell: np.ndarray,
    widths: np.ndarray,
    accuracy: float = DEFAULT_ACCURACY,
    *,
    skin: float = DEFAULT_SKIN,
    parameters: MeshParameters | None = None,
    device: torch.device | str = "cpu",
) -> MeshGeometry:
    """Choose the splitting and the mesh, and collect the pairs.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å
        Rows are lattice vectors. The cell may be triclinic and smaller than the cutoff.
    widths : numpy.ndarray, shape (N,), Å
        σ of each atom.
    accuracy : float
        Requested relative error of forces and potentials.
    skin : float, Å
        Range of the list beyond the cutoff; 0 for a list that serves one structure only.
    parameters : MeshParameters, optional
        Splitting and mesh to use instead of the chosen ones, for example to keep one mesh
        throughout a simulation.
    device : torch.device or str
        Device on which the lists are built.

    Raises
    ------
    BoxError
        If the cell has no volume.
    InputError
        If the accuracy is out of range, or η is below √2 times the largest width.
    """
    cell_heights(cell)
    points = np.ascontiguousarray(positions, dtype=np.float64)
    widths = np.asarray(widths, dtype=np.float64)
    box, widest = np.array(cell, dtype=np.float64), float(widths.max())
    if parameters is None:
        order, error = SPLINES if torch.device(device).type == "cpu" else ON_GPU
        parameters = choose_parameters(
            torch.from_numpy(box), widest, len(points), accuracy, order=order, error=error
        )
    if parameters.eta < (1.0 - 1e-12) * math.sqrt(2.0) * widest:
        expected = f"an eta of at least √2 times the largest width ({widest:g} Å)"
        raise InputError(describe("parameters", parameters, expected))
    sigmas, species = np.unique(widths, return_inverse=True)
    gammas = np.hypot(sigmas[:, None], sigmas)
    needed = gammas < (1.0 - 1e-12) * parameters.eta
    reach = (parameters.cutoff + skin) if needed.any() else 0.0
    arguments = points, box, reach, needed, species
    if reach == 0.0 or torch.device(device).type == "cpu":
        lists = tuple(torch.from_numpy(each) for each in _collect_pairs(*arguments))
    else:
        lists = _collect_pairs_on(torch.device(device), *arguments)
    first, second, image, images, kind = (each.to(device) for each in lists)
    return MeshGeometry(
        parameters=parameters,
        positions=points.copy(),
        cell=box,
        skin=skin,
        first=first,
        second=second,
        image=image,
        images=images,
        kind=kind,
        gammas=torch.from_numpy(gammas.reshape(-1)).to(device),
    )


def _collect_pairs_on(
    device: torch.device,
    points: np.ndarray,
    cell: np.ndarray,
    reach: float,
    needed: np.ndarray,
    species: np.ndarray,
) -> tuple[torch.Tensor, ...]:
    """:func:`_collect_pairs` on a device, in a reproducible order."""
    index, shift = neighbor_list_on(device, points, cell, True, reach, False)
    first, second = (
        torch.from_numpy(species).to(device).index_select(0, index.flatten()).view(2, -1)
    )
    kind = first * len(needed) + second
    if not needed.all():
        wanted = torch.from_numpy(needed.reshape(-1)).to(device).index_select(0, kind)
        chosen = torch.nonzero(wanted).squeeze(-1)
        index, shift, kind = (
            index.index_select(1, chosen), shift.index_select(0, chosen), kind[chosen],
        )  # fmt: skip
    some = torch.cat((shift, torch.zeros_like(shift[:1])))  # the list may be empty
    low = some.amin(dim=0)
    span = some.amax(dim=0) - low + 1.0
    if float(span.prod()) > _MOST_IMAGES:
        images, image = torch.unique(shift, dim=0, return_inverse=True)
    else:
        place = (shift - low) * torch.stack((span[1] * span[2], span[2], torch.ones_like(low[0])))
        code, image = torch.unique(place.sum(dim=-1), return_inverse=True)
        images = torch.zeros_like(shift[: len(code)]).index_copy(0, image, shift)
    return index[0], index[1], image.to(torch.int32), images, kind.to(torch.int32)


def _collect_pairs(
    points: np.ndarray, cell: np.ndarray, reach: float, needed: np.ndarray, species: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists of :class:`MeshGeometry`; ``needed``, shape (S, S), selects pairs of widths."""
    if reach == 0.0:
        none, index = np.zeros(0, np.int32), np.zeros(0, np.int64)
        return index, index, none, np.zeros((0, 3)), none
    pairs, shifts, _, whole = search_pairs(points, cell, True, reach, False)
    first, second = pairs.T
    kind = (species[first] * len(needed) + species[second]).astype(np.int32)
    if not needed.all():
        chosen = np.flatnonzero(needed.reshape(-1)[kind])
        first, second, shifts, kind = (x[chosen] for x in (first, second, shifts, kind))
    if (np.diff(first) < 0).any():
        order = np.argsort(first, kind="stable")
        first, second, shifts, kind = (x[order] for x in (first, second, shifts, kind))
    if whole is not None:
        shifts = shifts + whole[first] - whole[second]
    image, images = _number_images(shifts)
    return first.astype(np.int64), second.astype(np.int64), image, images, kind


def _number_images(shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of each pair's image, int32, and the distinct images, shape (I, 3)."""
    low = shifts.min(axis=0, initial=0)
    span = shifts.max(axis=0, initial=0) - low + 1
    if np.prod(span.astype(np.float64)) > _MOST_IMAGES:  # atoms many cells apart
        images, number = np.unique(shifts, axis=0, return_inverse=True)
        return number.reshape(-1).astype(np.int32), images.astype(np.float64)
    code = ((shifts[:, 0] - low[0]) * span[1] + shifts[:, 1] - low[1]) * span[2]
    code += shifts[:, 2] - low[2]
    used = np.zeros(int(span.prod()), dtype=bool)
    used[code] = True
    number = np.cumsum(used) - 1
    images = np.stack(np.unravel_index(np.flatnonzero(used), tuple(span)), axis=-1) + low
    return number[code].astype(np.int32), images.astype(np.float64)
