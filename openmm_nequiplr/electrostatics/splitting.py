"""Choice of splitting, cutoff, mesh and spline order for :class:`.mesh.MeshCoulomb`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len

from ..errors import InputError, describe
from ..neighbors import cell_heights

#: Requested relative error of forces and potentials.
DEFAULT_ACCURACY = 1e-5


@dataclass(frozen=True)
class MeshParameters:
    """How a Coulomb sum is split and discretised.

    Parameters
    ----------
    eta : float, Å
        Width of the Ewald screening charge (α = 1/(√2 η)).
    cutoff : float, Å
        Of the real-space pairs.
    shape : tuple of 3 int
        Mesh points along the cell vectors.
    order : int
        Of the B-splines, even.
    """

    eta: float
    cutoff: float
    shape: tuple[int, int, int]
    order: int


#: a and p of the model a (h/η)^p for the relative error of the mesh forces, by spline order p.
_MESH_ERROR = {6: 0.012, 8: 0.005}
#: First neglected real-space term, relative to the requested accuracy of forces.
_CUTOFF_SAFETY = 0.1
#: Ewald width in units of the cube root of the volume per atom at which pairs and mesh cost alike.
_BALANCE = 0.75


def choose_parameters(
    cell: np.ndarray, count: int, widest: float, accuracy: float = DEFAULT_ACCURACY
) -> MeshParameters:
    """Splitting and mesh for a requested accuracy.

    The errors of the two parts are taken as those of forces in rattled rock salt, which was
    measured against the Ewald sum: the real-space one is exp(−r²/2η²) at the cutoff times ten, the
    mesh one a (h/η)^p with spacing h and spline order p. The Ewald width is that which balances the
    costs, or the widest pair's γ, because the Gaussian correction reaches as far anyway.

    Parameters
    ----------
    cell : numpy.ndarray, shape (3, 3), Å
    count : int
        Number of atoms.
    widest : float, Å
        Largest σ of the atoms.
    accuracy : float
        Relative error of forces and potentials, from 1e-10 to 1e-2.

    Raises
    ------
    BoxError
        If the cell has no volume.
    InputError
        If the accuracy is out of range.
    """
    if not 1e-10 <= accuracy <= 1e-2:
        raise InputError(describe("accuracy", accuracy, "a number from 1e-10 to 1e-2"))
    heights = cell_heights(cell)
    volume = abs(float(np.linalg.det(cell)))
    eta = max(math.sqrt(2.0) * widest, _BALANCE * (volume / count) ** (1.0 / 3.0))
    cutoff = eta * math.sqrt(-2.0 * math.log(_CUTOFF_SAFETY * accuracy))
    order = 6 if accuracy > 1e-4 else 8
    spacing = eta * (accuracy / _MESH_ERROR[order]) ** (1.0 / order)
    x, y, z = (
        next_fast_len(max(order, math.ceil(h / spacing)), real=True) for h in heights.tolist()
    )
    return MeshParameters(eta, cutoff, (x, y, z), order)
