"""The loop that :mod:`.charges` compiles; a separate module because its import needs numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

_set_parameters: Any = types.ExternalFunction(
    "OpenMM_NonbondedForce_setParticleParameters",
    types.void(types.uintp, types.intc, types.float64, types.float64, types.float64),
)


def set_all(force: int, charges: np.ndarray) -> None:
    """Set charge (e), σ (1 nm) and ε (0 kJ/mol) of all particles; ``force`` is its address."""
    for index in range(charges.size):
        _set_parameters(force, index, charges[index], 1.0, 0.0)
