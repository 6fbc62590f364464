"""Choice of the Ewald splitting and mesh of :class:`.mesh.MeshCoulomb`; TorchScript compiles it."""

# TorchScript reads annotations: no postponed ones here
import math
from typing import NamedTuple

import torch

from ..errors import BoxError, InputError, describe

#: Requested relative error of forces and potentials.
DEFAULT_ACCURACY = 1e-5
#: Smallest relative error that may be requested.
FINEST = 1e-10
#: Largest number of mesh points; such a mesh takes gigabytes.
MOST_POINTS = 2e8
#: Range of a pair list beyond the cutoff, Å.
DEFAULT_SKIN = 0.8
#: Order of the B-splines.
ORDER = 8
#: Spline order p and smallest η give relative errors ERROR (h/η)^p of the mesh forces.
_ERROR = 0.005
#: Both, on a CPU.
SPLINES = ORDER, _ERROR
#: Both on a GPU, where Fourier transforms cost little and atomic additions much.
ON_GPU = 6, 0.012
#: First neglected real-space term, relative to the requested accuracy of forces.
_CUTOFF_SAFETY = 0.03
#: Ewald width, in units of the cube root of the volume per atom, that balances pairs and mesh.
_BALANCE = 0.75


# Smallest requested error for which single precision suffices.
_SINGLE_PRECISION = 5e-6


def mesh_dtype(dtype: torch.dtype, accuracy: float) -> torch.dtype:
    """Precision of the mesh for a network's precision; single only where accurate enough."""
    single = dtype == torch.float32 and accuracy >= _SINGLE_PRECISION
    return torch.float32 if single else torch.float64


class MeshParameters(NamedTuple):
    """Splitting and discretisation of a mesh Coulomb sum.

    Parameters
    ----------
    eta : float, Å
        Ewald width. On the mesh all charges are Gaussians of the width η/√2; the pairs correct for
        this.
    cutoff : float, Å
        Cutoff of the pairs.
    shape : list of 3 int
        Mesh points along the cell vectors.
    order : int
        Order of the B-splines.
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
    """Choose the splitting and the mesh for a requested accuracy.

    The error estimates are those of forces in rattled rock salt, measured against the Ewald sum.
    The real-space error is thirty times exp(−r²/2η²) at the cutoff. The mesh error is a (h/η)^p
    with the spacing h and the spline order p. A factor of ten instead of thirty would suffice for
    forces, but in the energy the contributions of all atoms of a neglected shell may add up.

    The spacing is measured along the cell vectors, along which the splines interpolate. (The
    distance between planes of mesh points is smaller in a skewed cell. A mesh that is fine by that
    measure misses k-vectors of long wavelength.) A reduced cell (:mod:`openmm_nequiplr.lattice`)
    needs the fewest points.

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
        Constants of this module; TorchScript accepts them only as arguments.

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
    """Smallest even product of primes up to 11 that is at least ``least``.

    Transforms of odd length take 1.5 times as long.
    """
    size, rest = least - 1, 0
    while rest != 1:
        size += 1
        rest = size if size % 2 == 0 else 0
        for factor in [2, 3, 5, 7, 11]:
            while rest > 0 and rest % factor == 0:
                rest = rest // factor
    return size
