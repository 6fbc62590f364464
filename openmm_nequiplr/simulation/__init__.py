"""OpenMM: systems, reporters and a molecular dynamics driver. The only place that knows OpenMM."""

from .committee import CommitteeReporter, SpreadTrajectory, load_spread
from .computation import Computation, current_evaluation, get_computation
from .pme import PointChargeCoulomb
from .reporters import ChargeReporter, ChargeTrajectory, load_charges
from .system import create_system
from .topology import SimulationStructure, from_atoms, read_structure, to_atoms

__all__ = [
    "ChargeReporter",
    "ChargeTrajectory",
    "CommitteeReporter",
    "Computation",
    "PointChargeCoulomb",
    "SimulationStructure",
    "SpreadTrajectory",
    "create_system",
    "current_evaluation",
    "from_atoms",
    "get_computation",
    "load_charges",
    "load_spread",
    "read_structure",
    "to_atoms",
]
