"""Pickled forces that can always be unpickled, and say what is missing when they are called.

OpenMM 8.6 ends the process, without a word, if the function of a ``PythonForce`` cannot be
unpickled. So what is pickled here needs nothing but the standard library at that moment: it looks
for :func:`restore`, which never raises, and puts a function in its place where the package is not
installed. This module imports nothing heavy for the same reason.
"""

from __future__ import annotations

import functools
import importlib
import operator
import pydoc
from collections.abc import Callable
from typing import Any

from .errors import NequIPLRError

_RESTORE = f"{__name__}.restore"
_HOME = ("openmm_nequiplr.simulation.computation", "restore_computation")
# The end of "'State' object has no attribute '…'", all that the standard library lets one say.
_NOT_INSTALLED = (
    "NequIPLR, because the package openmm-nequiplr is not installed here; install it to evaluate "
    "this System"
)


class Unavailable:
    """Stands for a computation that cannot be restored here; tells why when it is called.

    Parameters
    ----------
    payload : dict of str to object
        What was pickled; pickled again it is the same.
    reason : str
    """

    def __init__(self, payload: dict[str, Any], reason: str) -> None:
        self.payload, self.reason = payload, reason

    def __call__(self, *arguments: object) -> None:
        """Raise a :class:`NequIPLRError` with the reason."""
        raise NequIPLRError(self.reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduction(self.payload)


class _Call:
    """Pickles as a call that is made when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments

    def __call__(self, *arguments: object) -> Any:
        return self.function(*self.arguments)(*arguments)


def reduction(payload: dict[str, Any]) -> tuple[Any, ...]:
    """What ``__reduce__`` returns for ``restore(payload)``, or less where there is no package."""
    absent = functools.partial(operator.methodcaller, _NOT_INSTALLED)
    candidates = [_Call(pydoc.locate, _RESTORE), absent]
    return _Call(next, _Call(filter, None, candidates)), (payload,)


def restore(payload: dict[str, Any]) -> Any:
    """The computation of a payload, or something that tells why there is none; never raises."""
    module, name = _HOME
    try:
        return getattr(importlib.import_module(module), name)(payload)
    except NequIPLRError as error:
        return Unavailable(payload, str(error))
    except Exception as error:
        version = payload.get("version", "of an unknown version")
        return Unavailable(
            payload,
            f"a NequIP-LR force, written by openmm-nequiplr {version}, cannot be restored here "
            f"({type(error).__name__}: {error}); repair the installation of openmm-nequiplr",
        )
