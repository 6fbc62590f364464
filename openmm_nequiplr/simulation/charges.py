"""Charges of a NonbondedForce by the thousand, through OpenMM's C interface.

A Python loop of ``setParticleParameters`` takes about 1 µs per atom, more than everything else
that a step does with the charges. The same loop, compiled over the C function of the same name,
takes 4 ns.
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
from ..jit import FEWEST_ATOMS, compiled, numba_available

_SYMBOL = "OpenMM_NonbondedForce_setParticleParameters"
_LIBRARY = {"darwin": "libOpenMM.dylib", "win32": "OpenMM.dll"}.get(sys.platform, "libOpenMM.so")
_SIGMA, _EPSILON = 1.0, 0.0  # nm, kJ/mol: no Lennard-Jones interaction


def set_charges(force: openmm.NonbondedForce, charges: np.ndarray) -> None:
    """Give every particle of a force its charge, and no other interaction.

    The Context is left as it is: ``force.updateParametersInContext`` comes after.

    Parameters
    ----------
    force : openmm.NonbondedForce
    charges : numpy.ndarray, float64, shape (N,), e

    Raises
    ------
    InputError
        If there are not as many charges as particles.
    """
    count = force.getNumParticles()
    if charges.shape != (count,):
        raise InputError(describe("charges", charges.shape, f"shape ({count},)"))
    loop = compiled_loop() if count >= FEWEST_ATOMS else None
    if loop is None:
        set_charges_slowly(force, charges)
    else:
        loop(int(force.this), np.ascontiguousarray(charges, dtype=np.float64))


def set_charges_slowly(force: openmm.NonbondedForce, charges: np.ndarray) -> None:
    """The same in plain Python. Arguments as in :func:`set_charges`."""
    set_parameters = force.setParticleParameters
    for index, charge in enumerate(charges.tolist()):
        set_parameters(index, charge, _SIGMA, _EPSILON)


@functools.cache
def compiled_loop() -> Callable[[int, np.ndarray], None] | None:
    """The loop over the C function, or ``None`` where numba or the function is missing.

    It takes the address of the force and contiguous charges, one for each particle: neither is
    checked.
    """
    if not (numba_available() and _register_symbol()):
        return None
    try:
        from ._charges_loop import set_all
    except ImportError:
        return None
    return compiled(set_all)


def _register_symbol() -> bool:
    """Make the C function known to numba's linker by its name."""
    try:
        import llvmlite.binding
        from openmm.version import openmm_library_path

        library = ctypes.CDLL(str(Path(openmm_library_path) / _LIBRARY))
        address = ctypes.cast(getattr(library, _SYMBOL), ctypes.c_void_p).value
    except (ImportError, OSError, AttributeError):
        return False
    llvmlite.binding.add_symbol(_SYMBOL, address)
    return True
