"""Choice of splitting, mesh and spline order for :class:`.mesh.MeshCoulomb`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len

from ..errors import BoxError, InputError, describe
from ..neighbors import cell_heights

#: Requested relative error of forces and potentials.
DEFAULT_ACCURACY = 1e-5


@dataclass(frozen=True)
class MeshParameters:
    """How a Coulomb sum is split and discretised.

    Parameters
    ----------
    narrowest : float, Å
        Width σ of the narrowest Gaussians that the mesh resolves: it takes narrower charges for
        such ones, and pairs put that right.
    reach : float
        Cutoff of the pairs, in units of the pair's γ on the mesh.
    shape : tuple of 3 int
        Mesh points along the cell vectors.
    order : int
        Of the B-splines, even.
    """

    narrowest: float
    reach: float
    shape: tuple[int, int, int]
    order: int

    def on_mesh(self, widths: np.ndarray) -> np.ndarray:
        """Widths that charges of ``widths`` have on the mesh, the same shape, Å."""
        return np.maximum(widths, self.narrowest)


#: a and p of the model a (h/γ)^p for the relative error of the mesh forces, by spline order p.
MESH_ERROR = {6: 0.012, 8: 0.005}
#: First neglected real-space term, relative to the requested accuracy of forces.
CUTOFF_SAFETY = 0.03
#: Nanoseconds per step that an atom's spline row, a mesh point and a pair cost on a processor: they
#: take part in about eight products.
_ROW_COST, _POINT_COST, _PAIR_COST = 14.0, 78.0, 17.0
#: A layer of so many points takes gigabytes.
MOST_POINTS = 2e8
#: Å by which the pair list reaches beyond the cutoff.
DEFAULT_SKIN = 0.8


def choose_parameters(
    cell: np.ndarray,
    widths: np.ndarray,
    accuracy: float = DEFAULT_ACCURACY,
    uniform: bool = False,
) -> MeshParameters:
    """Splitting and mesh for a requested accuracy, those that should cost least.

    The errors of the two parts are taken as those of forces in rattled rock salt, which was
    measured against the Ewald sum: the real-space one is exp(−r²/2γ²) at the cutoff times thirty, γ
    being the pair's width on the mesh, and the mesh one a (h/γ)^p with spacing h, spline order p
    and the smallest γ. For forces ten would do instead of thirty; the energy, to which all atoms of
    a neglected shell may add with one sign, needs more of the pairs than of the mesh.

    The spacing is that of the points along the cell vectors, for splines interpolate along these.
    (The distance of the planes of points is less in a skewed cell, and a mesh that is fine by that
    measure leaves out long waves.) A reduced cell (:mod:`openmm_nequiplr.lattice`) needs the fewest
    points.

    Parameters
    ----------
    cell : numpy.ndarray, shape (3, 3), Å
    widths : numpy.ndarray, shape (N,), Å
        σ of the atoms.
    accuracy : float
        Relative error of forces and potentials, from 1e-10 to 1e-2.
    uniform : bool
        Take all charges for equally wide on the mesh, as a point-charge sum does.

    Raises
    ------
    BoxError
        If the cell has no volume, or is too large for any mesh.
    InputError
        If the accuracy is out of range.
    """
    if not 1e-10 <= accuracy <= 1e-2:
        raise InputError(describe("accuracy", accuracy, "a number from 1e-10 to 1e-2"))
    cell_heights(cell)  # refuses a cell without volume
    lengths = np.linalg.norm(cell, axis=1).tolist()
    volume = abs(float(np.linalg.det(cell)))
    reach = math.sqrt(-2.0 * math.log(CUTOFF_SAFETY * accuracy))
    kinds, counts = np.unique(widths, return_counts=True)
    spread = 0.5 * (volume / len(widths)) ** (1.0 / 3.0)
    candidates = [*kinds, *(spread * 1.1 ** np.arange(-4, 12))]
    if uniform:
        candidates = [c for c in candidates if c >= kinds[-1]]
    best, least = None, math.inf
    for narrowest in sorted(float(c) for c in candidates):
        for order, factor in MESH_ERROR.items():
            spacing = math.sqrt(2.0) * narrowest * (accuracy / factor) ** (1.0 / order)
            if math.prod(max(order, length / spacing) for length in lengths) > MOST_POINTS:
                continue
            fewest = [max(order, math.ceil(length / spacing)) for length in lengths]
            x, y, z = (_fast_length(points) for points in fewest)
            tried = MeshParameters(narrowest, reach, (x, y, z), order)
            cost = _cost(tried, volume, kinds, counts)
            if cost < least:
                best, least = tried, cost
    if best is None:
        size = " × ".join(f"{length:.4g}" for length in lengths)
        expected = f"a cell that a mesh of {MOST_POINTS:g} points resolves (or solver='dense')"
        raise BoxError(describe("cell", f"one of {size} Å with {len(widths)} atoms", expected))
    return best


def _fast_length(points: int) -> int:
    """An even length for transforms, no less than ``points``: odd ones take half as long again."""
    return 2 * int(next_fast_len((points + 1) // 2))


def _cost(
    parameters: MeshParameters, volume: float, kinds: np.ndarray, counts: np.ndarray
) -> float:
    """Expected nanoseconds for a step; ``counts`` atoms have the widths ``kinds``."""
    count = counts.sum()
    mesh = parameters.on_mesh(kinds)
    gamma = np.hypot(mesh[:, None], mesh)
    needed = gamma != np.hypot(kinds[:, None], kinds)
    cutoffs = parameters.reach * gamma + DEFAULT_SKIN
    pairs = 2.0 * math.pi / 3.0 * (np.outer(counts, counts) * needed * cutoffs**3).sum() / volume
    points = len(np.unique(mesh)) * math.prod(parameters.shape)
    rows = count * parameters.order**2
    return float(_ROW_COST * rows + _POINT_COST * points + _PAIR_COST * pairs)
