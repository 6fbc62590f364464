"""NequIP-LR potentials for OpenMM.

An equivariant network predicts electronegativities, charge equilibration turns them into
charges, a second network sees the charges, and OpenMM carries the long-range part.

The public names are loaded on first use (PEP 562), so that ``import openmm_nequiplr`` and
``nequiplr --help`` cost nothing and a training machine needs no OpenMM.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmm_nequiplr.analysis import analyze_trajectory
    from openmm_nequiplr.calculator import NequIPLRCalculator
    from openmm_nequiplr.checking import check_model
    from openmm_nequiplr.data import Structure, read_structures
    from openmm_nequiplr.model import (
        Evaluation,
        Evaluator,
        ModelConfig,
        NequIPLRPotential,
        load_model,
        save_model,
    )
    from openmm_nequiplr.pretrained import download_model, shipped_models, shipped_structure
    from openmm_nequiplr.simulation import (
        ChargeReporter,
        CommitteeReporter,
        EnergyReporter,
        StabilityReporter,
        charge_variable,
        create_force,
        create_system,
        current_evaluation,
        deserialize_system,
        dipole_variable,
        export_torch_force,
        from_atoms,
        get_computation,
        load_charges,
        load_system,
        read_structure,
        save_system,
        to_atoms,
    )
    from openmm_nequiplr.training.evaluate import evaluate_model as evaluate
    from openmm_nequiplr.training.run import train

__version__ = "0.2.0"

#: Module and name there of each public name.
_HOME = {
    "ChargeReporter": ("openmm_nequiplr.simulation", "ChargeReporter"),
    "CommitteeReporter": ("openmm_nequiplr.simulation", "CommitteeReporter"),
    "EnergyReporter": ("openmm_nequiplr.simulation", "EnergyReporter"),
    "Evaluation": ("openmm_nequiplr.model", "Evaluation"),
    "Evaluator": ("openmm_nequiplr.model", "Evaluator"),
    "ModelConfig": ("openmm_nequiplr.model", "ModelConfig"),
    "NequIPLRCalculator": ("openmm_nequiplr.calculator", "NequIPLRCalculator"),
    "NequIPLRPotential": ("openmm_nequiplr.model", "NequIPLRPotential"),
    "StabilityReporter": ("openmm_nequiplr.simulation", "StabilityReporter"),
    "Structure": ("openmm_nequiplr.data", "Structure"),
    "analyze_trajectory": ("openmm_nequiplr.analysis", "analyze_trajectory"),
    "charge_variable": ("openmm_nequiplr.simulation", "charge_variable"),
    "check_model": ("openmm_nequiplr.checking", "check_model"),
    "create_force": ("openmm_nequiplr.simulation", "create_force"),
    "create_system": ("openmm_nequiplr.simulation", "create_system"),
    "current_evaluation": ("openmm_nequiplr.simulation", "current_evaluation"),
    "deserialize_system": ("openmm_nequiplr.simulation", "deserialize_system"),
    "dipole_variable": ("openmm_nequiplr.simulation", "dipole_variable"),
    "download_model": ("openmm_nequiplr.pretrained", "download_model"),
    "evaluate": ("openmm_nequiplr.training.evaluate", "evaluate_model"),
    "export_torch_force": ("openmm_nequiplr.simulation", "export_torch_force"),
    "from_atoms": ("openmm_nequiplr.simulation", "from_atoms"),
    "get_computation": ("openmm_nequiplr.simulation", "get_computation"),
    "load_charges": ("openmm_nequiplr.simulation", "load_charges"),
    "load_model": ("openmm_nequiplr.model", "load_model"),
    "load_system": ("openmm_nequiplr.simulation", "load_system"),
    "read_structure": ("openmm_nequiplr.simulation", "read_structure"),
    "read_structures": ("openmm_nequiplr.data", "read_structures"),
    "save_model": ("openmm_nequiplr.model", "save_model"),
    "save_system": ("openmm_nequiplr.simulation", "save_system"),
    "shipped_models": ("openmm_nequiplr.pretrained", "shipped_models"),
    "shipped_structure": ("openmm_nequiplr.pretrained", "shipped_structure"),
    "to_atoms": ("openmm_nequiplr.simulation", "to_atoms"),
    "train": ("openmm_nequiplr.training.run", "train"),
}

__all__ = [
    "ChargeReporter",
    "CommitteeReporter",
    "EnergyReporter",
    "Evaluation",
    "Evaluator",
    "ModelConfig",
    "NequIPLRCalculator",
    "NequIPLRPotential",
    "StabilityReporter",
    "Structure",
    "__version__",
    "analyze_trajectory",
    "charge_variable",
    "check_model",
    "create_force",
    "create_system",
    "current_evaluation",
    "deserialize_system",
    "dipole_variable",
    "download_model",
    "evaluate",
    "export_torch_force",
    "from_atoms",
    "get_computation",
    "load_charges",
    "load_model",
    "load_system",
    "read_structure",
    "read_structures",
    "save_model",
    "save_system",
    "shipped_models",
    "shipped_structure",
    "to_atoms",
    "train",
]

if "torch" in sys.modules:  # graphs in the XML of a System name an operator of this package
    importlib.import_module("openmm_nequiplr.operators")


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _HOME[name]
    value = getattr(importlib.import_module(module), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
