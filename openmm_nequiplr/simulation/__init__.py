"""OpenMM interface: systems, reporters, molecular dynamics. Only this sub-package uses OpenMM."""

from .backends import describe_backend
from .collective import charge_variable, dipole_variable
from .committee import CommitteeReporter, SpreadTrajectory, load_spread
from .computation import Computation
from .energies import EnergyReporter
from .export import export_torch_force
from .lookup import current_evaluation, get_computation
from .mdtraj_topology import from_mdtraj, openmm_topology
from .multistep import add_inner_potential
from .pme import PointChargeCoulomb
from .reporters import ChargeReporter, ChargeTrajectory, load_charges
from .settings import ForceOptions
from .stability import StabilityReporter
from .storage import deserialize_system, load_system, save_system
from .structure_files import read_structure
from .system import create_force, create_system
from .topology import SimulationStructure, from_atoms, to_atoms

__all__ = [
    "ChargeReporter",
    "ChargeTrajectory",
    "CommitteeReporter",
    "Computation",
    "EnergyReporter",
    "ForceOptions",
    "PointChargeCoulomb",
    "SimulationStructure",
    "SpreadTrajectory",
    "StabilityReporter",
    "add_inner_potential",
    "charge_variable",
    "create_force",
    "create_system",
    "current_evaluation",
    "describe_backend",
    "deserialize_system",
    "dipole_variable",
    "export_torch_force",
    "from_atoms",
    "from_mdtraj",
    "get_computation",
    "load_charges",
    "load_spread",
    "load_system",
    "openmm_topology",
    "read_structure",
    "save_system",
    "to_atoms",
]
