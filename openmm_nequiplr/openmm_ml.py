"""Entry point of openmm-ml (``openmmml.potentials``).

``import openmmml`` loads every entry point, so nothing heavy is imported before a potential is
created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .simulation.mlpotential import NequIPLRPotentialImpl

#: Name of the potential in openmm-ml; ``nequiplr-NAME`` is a shipped model.
POTENTIAL_NAME = "nequiplr"


class NequIPLRPotentialImplFactory:
    """Factory of the implementation of ``openmmml.MLPotential("nequiplr", ...)``.

    It has the interface of openmm-ml's ``MLPotentialImplFactory`` without deriving from it, because
    this module must be importable without openmm-ml.
    """

    def createImpl(self, name: str, modelPath: Any = None, **args: Any) -> NequIPLRPotentialImpl:
        """Load the model of a potential.

        Parameters
        ----------
        name : str
            ``"nequiplr"``, or ``"nequiplr-"`` and the name of a shipped model.
        modelPath : path, str or NequIPLRPotential
            Model file, name of a model, or a model; only with the name ``"nequiplr"``.

        Raises
        ------
        InputError
            If no model or two models are given, or another argument.
        ModelFileError
            If there is no such file or name, or it cannot be read.
        """
        from .errors import InputError, describe
        from .simulation.mlpotential import NequIPLRPotentialImpl

        if args:
            raise InputError(describe("MLPotential", sorted(args), "modelPath and nothing else"))
        shipped = name.removeprefix(f"{POTENTIAL_NAME}-")
        if shipped != name:
            if modelPath is not None:
                expected = f"nothing, because the potential {name!r} is a shipped model"
                raise InputError(describe("modelPath", str(modelPath), expected))
            return NequIPLRPotentialImpl(name, shipped)
        if modelPath is None:
            from .pretrained import shipped_models

            expected = f"a model file or a shipped model {sorted(shipped_models())}"
            raise InputError(describe("modelPath", None, expected))
        return NequIPLRPotentialImpl(name, modelPath)
