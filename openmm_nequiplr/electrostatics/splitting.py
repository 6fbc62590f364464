"""Choice of splitting and mesh for :class:`.mesh.MeshCoulomb`; TorchScript compiles it."""

# TorchScript reads annotations: no postponed ones here
import math
from typing import NamedTuple

import torch

from ..errors import BoxError, InputError, describe

#: Requested relative error of forces and potentials.
DEFAULT_ACCURACY = 1e-5
#: The smallest that a mesh aims at.
FINEST = 1e-10
#: A mesh of so many points takes gigabytes.
MOST_POINTS = 2e8
#: Å by which a pair list reaches beyond the cutoff.
DEFAULT_SKIN = 0.8
#: Order of the B-splines.
ORDER = 8
#: Spline order p and smallest η give relative errors ERROR (h/η)^p of the mesh forces.
_ERROR = 0.005
#: First neglected real-space term, relative to the requested accuracy of forces.
_CUTOFF_SAFETY = 0.03
#: Ewald width in units of the cube root of the volume per atom at which pairs and mesh cost alike.
_BALANCE = 0.75


# From this accuracy on a mesh may be in single precision.
_SINGLE_PRECISION = 5e-6


def mesh_dtype(dtype: torch.dtype, accuracy: float) -> torch.dtype:
    """Type of a mesh for a network of some type: single precision where it is accurate enough."""
    single = dtype == torch.float32 and accuracy >= _SINGLE_PRECISION
    return torch.float32 if single else torch.float64


class MeshParameters(NamedTuple):
    """How a Coulomb sum is split and discretised.

    Parameters
    ----------
    eta : float, Å
        Ewald width: the mesh takes all charges for Gaussians of the width η/√2, and pairs put that
        right.
    cutoff : float, Å
        Of the pairs.
    shape : list of 3 int
        Mesh points along the cell vectors.
    order : int
        Of the B-splines.
    """

    eta: float
    cutoff: float
    shape: list[int]
    order: int


def choose_parameters(
    cell: torch.Tensor,
    widest: float,
    count: int,
    accuracy: float = DEFAULT_ACCURACY,
    order: int = ORDER,
    balance: float = _BALANCE,
    error: float = _ERROR,
    safety: float = _CUTOFF_SAFETY,
    most_points: float = MOST_POINTS,
) -> MeshParameters:
    """Splitting and mesh for a requested accuracy.

    The errors of the two parts are taken as those of forces in rattled rock salt, which was
    measured against the Ewald sum: the real-space one is exp(−r²/2η²) at the cutoff times thirty,
    and the mesh one a (h/η)^p with spacing h and spline order p. For forces ten would do instead of
    thirty; the energy, to which all atoms of a neglected shell may add with one sign, needs more of
    the pairs than of the mesh.

    The spacing is that of the points along the cell vectors, for splines interpolate along these.
    (The distance of the planes of points is less in a skewed cell, and a mesh that is fine by that
    measure leaves out long waves.) A reduced cell (:mod:`openmm_nequiplr.lattice`) needs the fewest
    points.

    Parameters
    ----------
    cell : torch.Tensor, float64, shape (3, 3), Å
    widest : float, Å
        Largest σ of the atoms.
    count : int
        Number N of atoms.
    accuracy : float
        Relative error of forces and potentials, from 1e-10 to 1e-2.
    order, balance, error, safety, most_points
        The constants of this module, which TorchScript takes as arguments alone.

    Raises
    ------
    BoxError
        If the cell is too large for any mesh.
    InputError
        If the accuracy is out of range.
    """
    if not (accuracy >= 1e-10 and accuracy <= 1e-2):
        raise InputError(f"accuracy: expected a number from 1e-10 to 1e-2, got {accuracy}")
    volume = float(torch.linalg.det(cell).abs())
    eta = max(math.sqrt(2.0) * widest, balance * math.pow(volume / count, 1.0 / 3.0))
    spacing = eta * math.pow(accuracy / error, 1.0 / order)
    lengths: list[float] = torch.linalg.vector_norm(cell, dim=1).tolist()
    points = 1.0
    for length in lengths:
        points = points * max(float(order), length / spacing)
    if points > most_points:
        if torch.jit.is_scripting():
            raise RuntimeError("cell: expected one that a mesh resolves, got a larger one")
        else:
            raise BoxError(_too_large(lengths, count))
    shape: list[int] = []
    for length in lengths:
        shape.append(fast_length(max(order, math.ceil(length / spacing))))
    return MeshParameters(eta, math.sqrt(-2.0 * math.log(safety * accuracy)) * eta, shape, order)


def _too_large(lengths: list[float], count: int) -> str:
    size = " × ".join(f"{length:.4g}" for length in lengths)
    expected = f"a cell that a mesh of {MOST_POINTS:g} points resolves (or solver='dense')"
    return describe("cell", f"one of {size} Å with {count} atoms", expected)


def fast_length(least: int) -> int:
    """Smallest even product of primes up to 11 that is not below ``least``.

    Odd lengths of transforms take half as long again.
    """
    size, rest = least - 1, 0
    while rest != 1:
        size += 1
        rest = size if size % 2 == 0 else 0
        for factor in [2, 3, 5, 7, 11]:
            while rest > 0 and rest % factor == 0:
                rest = rest // factor
    return size
