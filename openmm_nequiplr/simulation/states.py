"""Geometry and Context parameters of OpenMM States, in the units of the model."""

from __future__ import annotations

import math
import threading

import numpy as np
import openmm
import torch

from ..boundaries import whole_slab
from ..errors import InputError, describe
from ..units import ANGSTROM_PER_NM
from ..whole import WholeMolecules
from .computation_settings import ComputationSettings, Conditions


class StateReader:
    """Reads what a model needs from the States of a System.

    Parameters
    ----------
    settings : ComputationSettings
    """

    def __init__(self, settings: ComputationSettings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._whole = WholeMolecules()

    @property
    def num_atoms(self) -> int:
        """Number N of atoms."""
        return len(self.settings.symbols)

    def geometry(self, state: openmm.State) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions and box vectors, Å, from a State of the whole System.

        The positions of the model's N atoms precede those of the external charges.
        """
        positions, cell = state_geometry(state, self.settings.boxed)
        if self.settings.particles is not None:
            positions = positions[list(self.settings.particles)]
        return self.joined(positions, state), cell

    def parameters(self, state: openmm.State) -> dict[str, float]:
        """The model's Context parameters in a State; empty if the Context has none of them.

        Raises
        ------
        InputError
            If the State was made without parameters, or a value is not finite.
        """
        names = self.settings.context_parameters
        if not names:
            return {}
        try:
            values = state.getParameters()
        except openmm.OpenMMException:
            expected = f"one with parameters (getState(parameters=True): {', '.join(names)})"
            raise InputError(describe("state", "one without", expected)) from None
        try:
            found = {name: values[name] for name in names}
        except LookupError:  # the parameters of a TorchForce are fixed
            return {}
        for name, value in found.items():
            if not math.isfinite(value):
                raise InputError(describe(f"parameter {name}", value, "a finite number"))
        return found

    def conditions(self, state: openmm.State) -> Conditions:
        """The conditions of a State; the initial ones if the Context has no parameters."""
        return self.settings.conditions(self.parameters(state))

    def joined(self, positions: np.ndarray, state: openmm.State) -> np.ndarray:
        """Positions, Å, with molecules or slabs made whole where the model needs it."""
        settings = self.settings
        if not (settings.slab or settings.whole) or not np.isfinite(positions).all():
            return positions
        try:
            box = state.getPeriodicBoxVectors(asNumpy=True)._value * ANGSTROM_PER_NM
        except openmm.OpenMMException:  # the force is not periodic
            box = np.array(settings.whole)
        if settings.slab:
            return whole_slab(torch.from_numpy(positions), torch.from_numpy(box))[0].numpy()
        with self._lock:
            own = self._whole(positions[: self.num_atoms], box)
        return np.concatenate((own, positions[self.num_atoms :]))


def state_geometry(state: openmm.State, periodic: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions, shape (N, 3), and box vectors, shape (3, 3) or ``None``, of a State in Å."""
    positions = state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM
    if not periodic:
        return positions, None
    return positions, state.getPeriodicBoxVectors(asNumpy=True)._value * ANGSTROM_PER_NM
