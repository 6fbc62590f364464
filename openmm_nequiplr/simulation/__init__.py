"""OpenMM: systems, reporters and a molecular dynamics driver. The only place that knows OpenMM."""

from .computation import Computation, current_evaluation, get_computation
from .pme import PointChargeCoulomb
from .reporters import ChargeReporter, ChargeTrajectory, load_charges
from .system import create_force, create_system
from .topology import SimulationStructure, from_atoms, read_structure, to_atoms

__all__ = [
    "ChargeReporter",
    "ChargeTrajectory",
    "Computation",
    "PointChargeCoulomb",
    "SimulationStructure",
    "create_force",
    "create_system",
    "current_evaluation",
    "from_atoms",
    "get_computation",
    "load_charges",
    "read_structure",
    "to_atoms",
]
