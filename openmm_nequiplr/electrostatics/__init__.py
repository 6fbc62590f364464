"""Coulomb operators of Gaussian charges: free space, Ewald sum, SPME, slab, published code."""

from .ewald import (
    EwaldCoulomb,
    EwaldGeometry,
    EwaldSplitting,
    ewald_geometry,
    ewald_splitting,
    geometry_of,
    published_splitting,
)
from .expansion import linearized_ewald
from .external import OutsideCharges
from .gaussian import GaussianScreening, pair_potential, self_coefficient
from .legacy import LegacyFreeCoulomb, LegacyPeriodicCoulomb
from .linearized import LinearizedCoulomb
from .mesh import MeshCoulomb
from .mesh_geometry import MeshGeometry, mesh_geometry
from .nonperiodic import FreeSpaceCoulomb
from .operator import CoulombOperator, EnergyFunction, MatrixCoulomb
from .slab import SlabCoulomb
from .splitting import MeshParameters, choose_parameters

__all__ = [
    "CoulombOperator",
    "EnergyFunction",
    "EwaldCoulomb",
    "EwaldGeometry",
    "EwaldSplitting",
    "FreeSpaceCoulomb",
    "GaussianScreening",
    "LegacyFreeCoulomb",
    "LegacyPeriodicCoulomb",
    "LinearizedCoulomb",
    "MatrixCoulomb",
    "MeshCoulomb",
    "MeshGeometry",
    "MeshParameters",
    "OutsideCharges",
    "SlabCoulomb",
    "choose_parameters",
    "ewald_geometry",
    "ewald_splitting",
    "geometry_of",
    "linearized_ewald",
    "mesh_geometry",
    "pair_potential",
    "published_splitting",
    "self_coefficient",
]
