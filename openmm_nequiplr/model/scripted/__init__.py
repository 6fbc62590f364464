"""The model as a TorchScript graph, independent of OpenMM."""

from .build import check_scriptable, script_model

__all__ = ["check_scriptable", "script_model"]
