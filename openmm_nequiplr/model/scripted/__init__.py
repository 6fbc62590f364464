"""The model as one TorchScript graph, without OpenMM."""

from .build import check_scriptable, script_model

__all__ = ["check_scriptable", "script_model"]
