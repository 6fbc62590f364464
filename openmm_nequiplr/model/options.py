"""Options of an evaluation, common to calculators, trajectories and OpenMM."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..checks import check_choice
from ..devices import resolve_device
from .solving import SolverOptions

#: Precisions of a network by name.
DTYPES = {"single": torch.float32, "double": torch.float64}


@dataclass(frozen=True)
class EvaluationOptions(SolverOptions):
    """Options of the evaluation of a model.

    Parameters
    ----------
    solver, charge_tolerance, max_iterations
        See :class:`.solving.SolverOptions`.
    device : str, optional
        Device of the network.
    precision : {"single", "double"}, optional
        Precision of the network; by default that of the model.

    Raises
    ------
    InputError
        If a value is invalid.
    BackendError
        If the device does not exist.
    """

    device: str | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("precision", self.precision, (*DTYPES, None))
        if self.device is not None:
            object.__setattr__(self, "device", resolve_device(self.device))

    @property
    def dtype(self) -> torch.dtype | None:
        """Precision as a torch.dtype; None for that of the model."""
        return None if self.precision is None else DTYPES[self.precision]
