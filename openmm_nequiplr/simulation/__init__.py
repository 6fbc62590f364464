"""OpenMM: systems, reporters and a molecular dynamics driver. The only place that knows OpenMM."""

from .computation import Computation, current_evaluation, get_computation
from .mdtraj_topology import from_mdtraj, openmm_topology
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
    "from_mdtraj",
    "get_computation",
    "load_charges",
    "openmm_topology",
    "read_structure",
    "to_atoms",
]
