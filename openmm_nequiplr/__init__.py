"""NequIP-LR potentials for OpenMM.

An equivariant network predicts electronegativities, charge equilibration determines the charges
from them, a second network takes the charges as input, and OpenMM computes the long-range part.

The public names are loaded on first use (PEP 562), so that ``import openmm_nequiplr`` and
``nequiplr --help`` are fast and training does not require OpenMM.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from .lazy import on_first_use

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

if "torch" in sys.modules:  # graphs in the XML of a System use an operator of this package
    importlib.import_module("openmm_nequiplr.operators")


__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "analysis": ["analyze_trajectory"],
        "calculator": ["NequIPLRCalculator"],
        "checking": ["check_model"],
        "data": ["Structure", "read_structures"],
        "model": [
            "Evaluation", "Evaluator", "ModelConfig", "NequIPLRPotential", "load_model",
            "save_model",
        ],
        "pretrained": ["download_model", "shipped_models", "shipped_structure"],
        "simulation": [
            "ChargeReporter", "CommitteeReporter", "EnergyReporter", "StabilityReporter",
            "charge_variable", "create_force", "create_system", "current_evaluation",
            "deserialize_system", "dipole_variable", "export_torch_force", "from_atoms",
            "get_computation", "load_charges", "load_system", "read_structure", "save_system",
            "to_atoms",
        ],
        "training.evaluate": ["evaluate_model as evaluate"],
        "training.run": ["train"],
    },
)  # fmt: skip
