"""Fast assignment of the charges of a NonbondedForce, through OpenMM's C interface.

A Python loop over ``setParticleParameters`` takes about 1 µs per atom, more than everything else
that a step does with the charges. A compiled loop over the C function of the same name takes 4 ns
per atom.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm

from ..errors import InputError, describe
from ..jit import compiled, numba_available

_SYMBOL = "OpenMM_NonbondedForce_setParticleParameters"
_LIBRARY = {"darwin": "libOpenMM.dylib", "win32": "OpenMM.dll"}.get(sys.platform, "libOpenMM.so")
_SIGMA, _EPSILON = 1.0, 0.0  # nm, kJ/mol: no Lennard-Jones interaction


def set_charges(force: openmm.NonbondedForce, charges: np.ndarray) -> None:
    """Set the charge of every particle of a force, without Lennard-Jones interactions.

    The Context is not updated; call ``force.updateParametersInContext`` afterwards.

    Parameters
    ----------
    force : openmm.NonbondedForce
    charges : numpy.ndarray, float64, shape (N,), e

    Raises
    ------
    InputError
        If the number of charges is not the number of particles.
    """
    count = force.getNumParticles()
    if charges.shape != (count,):
        raise InputError(describe("charges", charges.shape, f"shape ({count},)"))
    loop = compiled_loop()
    if loop is None:
        set_charges_slowly(force, charges)
    else:
        loop(int(force.this), np.ascontiguousarray(charges, dtype=np.float64))


def set_charges_slowly(force: openmm.NonbondedForce, charges: np.ndarray) -> None:
    """:func:`set_charges` as a plain Python loop."""
    set_parameters = force.setParticleParameters
    for index, charge in enumerate(charges.tolist()):
        set_parameters(index, charge, _SIGMA, _EPSILON)


@functools.cache
def compiled_loop() -> Callable[[int, np.ndarray], None] | None:
    """The compiled loop over the C function, or ``None`` without numba or the function.

    Its arguments, the address of the force and a contiguous array with the charge of each particle,
    are not checked.
    """
    if not (numba_available() and _register_symbol()):
        return None
    try:
        from ._charges_loop import set_all
    except ImportError:
        return None
    return compiled(set_all)


def _register_symbol() -> bool:
    """Register the C function with numba's linker under its name."""
    try:
        import llvmlite.binding
        from openmm.version import openmm_library_path

        library = ctypes.CDLL(str(Path(openmm_library_path) / _LIBRARY))
        address = ctypes.cast(getattr(library, _SYMBOL), ctypes.c_void_p).value
    except (ImportError, OSError, AttributeError):
        return False
    llvmlite.binding.add_symbol(_SYMBOL, address)
    return True
