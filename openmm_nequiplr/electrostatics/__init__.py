"""Coulomb operators of Gaussian charges: free space, Ewald sum, the published code as it was."""

from .ewald import EwaldCoulomb, EwaldGeometry, ewald_geometry, published_geometry
from .gaussian import GaussianScreening, pair_potential, pair_width, screening, self_coefficient
from .legacy import LegacyFreeCoulomb, LegacyPeriodicCoulomb
from .nonperiodic import FreeSpaceCoulomb
from .operator import CoulombOperator
from .tangent import CoulombTangent

__all__ = [
    "CoulombOperator",
    "CoulombTangent",
    "EwaldCoulomb",
    "EwaldGeometry",
    "FreeSpaceCoulomb",
    "GaussianScreening",
    "LegacyFreeCoulomb",
    "LegacyPeriodicCoulomb",
    "ewald_geometry",
    "pair_potential",
    "pair_width",
    "published_geometry",
    "screening",
    "self_coefficient",
]
