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
    from openmm_nequiplr.calculator import NequIPLRCalculator
    from openmm_nequiplr.checking import check_model
    from openmm_nequiplr.model import (
        ModelConfig,
        NequIPLRPotential,
        load_model,
        save_model,
        shipped_models,
        shipped_structure,
    )
    from openmm_nequiplr.simulation import (
        ChargeReporter,
        CommitteeReporter,
        StabilityReporter,
        create_system,
        export_torch_force,
    )

__version__ = "0.1.0"

_HOME = {
    "ChargeReporter": "openmm_nequiplr.simulation",
    "CommitteeReporter": "openmm_nequiplr.simulation",
    "ModelConfig": "openmm_nequiplr.model",
    "NequIPLRCalculator": "openmm_nequiplr.calculator",
    "NequIPLRPotential": "openmm_nequiplr.model",
    "StabilityReporter": "openmm_nequiplr.simulation",
    "check_model": "openmm_nequiplr.checking",
    "create_system": "openmm_nequiplr.simulation",
    "export_torch_force": "openmm_nequiplr.simulation",
    "load_model": "openmm_nequiplr.model",
    "save_model": "openmm_nequiplr.model",
    "shipped_models": "openmm_nequiplr.model",
    "shipped_structure": "openmm_nequiplr.model",
}

__all__ = [
    "ChargeReporter",
    "CommitteeReporter",
    "ModelConfig",
    "NequIPLRCalculator",
    "NequIPLRPotential",
    "StabilityReporter",
    "__version__",
    "check_model",
    "create_system",
    "export_torch_force",
    "load_model",
    "save_model",
    "shipped_models",
    "shipped_structure",
]

if "torch" in sys.modules:  # graphs in the XML of a System name an operator of this package
    importlib.import_module("openmm_nequiplr.operators")


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
