"""Coulomb operators of Gaussian charges: free space, Ewald sum, the published code as it was."""

from .ewald import EwaldCoulomb, EwaldGeometry, ewald_geometry, published_geometry
from .gaussian import GaussianScreening, pair_potential, pair_width, screening, self_coefficient
from .legacy import LegacyFreeCoulomb, LegacyPeriodicCoulomb
from .mesh import MeshCoulomb
from .mesh_geometry import MeshGeometry, mesh_geometry
from .nonperiodic import FreeSpaceCoulomb
from .operator import CoulombOperator, EnergyFunction, SplitCoulomb
from .splitting import MeshParameters, choose_parameters
from .tangent import CoulombTangent

__all__ = [
    "CoulombOperator",
    "CoulombTangent",
    "EnergyFunction",
    "EwaldCoulomb",
    "EwaldGeometry",
    "FreeSpaceCoulomb",
    "GaussianScreening",
    "LegacyFreeCoulomb",
    "LegacyPeriodicCoulomb",
    "MeshCoulomb",
    "MeshGeometry",
    "MeshParameters",
    "SplitCoulomb",
    "choose_parameters",
    "ewald_geometry",
    "mesh_geometry",
    "pair_potential",
    "pair_width",
    "published_geometry",
    "screening",
    "self_coefficient",
]
