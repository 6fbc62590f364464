"""Parameters of OpenMM's particle mesh Ewald sum: splitting, cutoff and mesh for a box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..checks import is_number
from ..electrostatics.splitting import MOST_POINTS
from ..errors import BoxError, InputError, describe
from .box import ReducedBox

#: Default target of the relative rms error of the forces.
DEFAULT_TOLERANCE = 2e-5
#: Longest direct-space cutoff, Å; a narrow box shortens it.
LONGEST_CUTOFF = 12.0
#: Shortest direct-space cutoff, Å; a shorter one would need an impractically fine mesh.
SMALLEST_CUTOFF = 3.0

_CUTOFF_STEP = 0.1  # Å; shortened cutoffs are multiples of it: small box changes keep the plan
ROUNDING = 1e-9  # relative rounding error allowed for half the box width
_SPLINE_ORDER = 5  # of OpenMM's B-spline charge assignment
# Relative rms errors of forces, measured on NaCl and Au2-MgO for cutoffs of 4.5 and 5.6 Å: the mesh
# with spacing h contributes 0.33 (α h)^5, the truncated direct sum 5 exp(-(α r_c)²). Truncation
# makes the energy discontinuous where pairs cross the cutoff, so it gets the smaller share.
_MESH_ERROR = 0.33
_CUTOFF_ERROR = 5.0
_CUTOFF_SHARE = 0.2


@dataclass(frozen=True)
class PMEPlan:
    """Mesh parameters; a function of the present box, independent of earlier ones.

    Parameters
    ----------
    cutoff : float, Å
        Direct-space cutoff.
    alpha : float, 1/Å
        Ewald splitting parameter.
    grid : tuple of int, length 3
        Mesh points along each box vector.
    """

    cutoff: float
    alpha: float
    grid: tuple[int, int, int]


def plan_pme(box: ReducedBox, tolerance: float) -> PMEPlan:
    """Choose cutoff, splitting and mesh for a box.

    Parameters
    ----------
    box : ReducedBox
    tolerance : float
        Target of the relative rms error of the forces.

    Raises
    ------
    BoxError
        If half the smallest width of the box is below :data:`SMALLEST_CUTOFF`.
    """
    limit = 0.5 * box.smallest_width
    chosen = LONGEST_CUTOFF
    if chosen > limit * (1.0 + ROUNDING):
        chosen = _CUTOFF_STEP * math.floor(limit / _CUTOFF_STEP + ROUNDING)
        if chosen < SMALLEST_CUTOFF:
            raise BoxError(
                f"box: expected a smallest width of at least {2 * SMALLEST_CUTOFF:g} Å for "
                f"OpenMM's particle mesh Ewald sum, got {2 * limit:.3f} Å; "
                'use long_range="graph", which has no such limit'
            )
    alpha = math.sqrt(math.log(_CUTOFF_ERROR / (_CUTOFF_SHARE * tolerance))) / chosen
    return PMEPlan(chosen, alpha, _mesh(box, alpha, tolerance))


def plan_smooth(box: ReducedBox, eta: float, tolerance: float) -> PMEPlan:
    """The mesh of a reciprocal-space sum with Ewald width η, Å; see :func:`plan_pme`."""
    alpha = 1.0 / (math.sqrt(2.0) * eta)
    # there is no direct-space sum, but OpenMM requires a valid cutoff
    fits = _CUTOFF_STEP * math.floor(0.45 * box.smallest_width / _CUTOFF_STEP)
    return PMEPlan(min(SMALLEST_CUTOFF, fits), alpha, _mesh(box, alpha, tolerance))


def _mesh(box: ReducedBox, alpha: float, tolerance: float) -> tuple[int, int, int]:
    density = alpha / (tolerance / _MESH_ERROR) ** (1.0 / _SPLINE_ORDER)
    points = [density * float(np.linalg.norm(row)) for row in box.vectors]
    if math.prod(points) > MOST_POINTS:
        size = " x ".join(f"{width:.4g}" for width in np.diag(box.vectors))
        raise BoxError(
            f"box: expected one that a mesh of {MOST_POINTS:g} points resolves, got {size} Å"
        )
    a, b, c = (_mesh_size(number) for number in points)
    return a, b, c


def check_tolerance(value: object) -> None:
    """Check that a relative force error is a possible target of the mesh.

    Raises
    ------
    InputError
        If it is not a number between 1e-12 and 1e-2.
    """
    if not (is_number(value) and 1e-12 < value < 1e-2):  # type: ignore[operator]
        raise InputError(describe("ewald_tolerance", value, "a number between 1e-12 and 1e-2"))


def _mesh_size(points: float) -> int:
    """Smallest product of 2, 3, 5 and 7 that is not below ``points``."""
    size = max(math.ceil(points), _SPLINE_ORDER + 1)
    while True:
        rest = size
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1
