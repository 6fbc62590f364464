"""Pickled forces that can always be unpickled, and that report missing packages when called.

OpenMM 8.6 terminates the process without a message if the function of a ``PythonForce`` cannot be
unpickled. The pickles created here therefore need only the standard library: they look up
:func:`restore`, which never raises, and substitute a function that raises an error if the package
is not installed. For the same reason this module imports nothing heavy.

Unpickling executes arbitrary code, so ``openmm.XmlSerializer.deserialize`` executes code of the
author of the XML. :func:`read_pickled` executes nothing: it replaces the few functions that occur
in a pickle of this package with inert objects, and rejects all other names.
"""

from __future__ import annotations

import functools
import importlib
import io
import operator
import pickle
import pickletools
import pydoc
from collections.abc import Callable
from typing import Any

from .errors import InputError, NequIPLRError

_RESTORE = f"{__name__}.restore"
_HOME = ("openmm_nequiplr.simulation.collective", "restore_callable")
# End of "'State' object has no attribute '…'", the only message possible with the standard library.
_NOT_INSTALLED = (
    "NequIPLR, because the package openmm-nequiplr is not installed here; install it to evaluate "
    "this System"
)


class Unavailable:
    """Placeholder of a computation that cannot be restored; calling it raises an error.

    Parameters
    ----------
    payload : dict of str to object
        Payload of the pickle; it is unchanged when pickled again.
    reason : str
        Error message.
    """

    def __init__(self, payload: dict[str, Any], reason: str) -> None:
        self.payload, self.reason = payload, reason

    def __call__(self, *arguments: object) -> None:
        """Raise a :class:`NequIPLRError` with the reason."""
        raise NequIPLRError(self.reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduction(self.payload)


class _Call:
    """Object that is pickled as a function call, executed when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments

    def __call__(self, *arguments: object) -> Any:
        return self.function(*self.arguments)(*arguments)


def reduction(payload: dict[str, Any]) -> tuple[Any, ...]:
    """Result of ``__reduce__`` for ``restore(payload)``, with a fallback without the package."""
    absent = functools.partial(operator.methodcaller, _NOT_INSTALLED)
    candidates = [_Call(pydoc.locate, _RESTORE), absent]
    return _Call(next, _Call(filter, None, candidates)), (payload,)


def restore(payload: dict[str, Any]) -> Any:
    """The computation of a payload, or an :class:`Unavailable`; never raises."""
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


# ---------------------------------------------------------------- reading without executing

_COMPUTATION = "openmm_nequiplr.simulation.computation"
_RECORDS = {
    (_COMPUTATION, "ComputationSettings"),
    ("openmm_nequiplr.simulation.serialization", "ModelFile"),
}
_FUNCTIONS = {
    ("builtins", "next"), ("builtins", "filter"), ("pydoc", "locate"), ("functools", "partial"),
    ("operator", "methodcaller"), ("_operator", "methodcaller"), (_COMPUTATION, "_restore"),
    ("openmm_nequiplr.simulation.backends", "TensorCall"),
}  # fmt: skip
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEXT_BUFFER"}
_MOST_CONTAINERS = 1000
_PLAIN = (str, bytes, int, float, bool, type(None))


def read_pickled(data: bytes) -> dict[str, Any]:
    """Read the payload of a pickled force of this package without executing the pickle.

    Returns
    -------
    dict of str to object
        Plain values: ``format``, ``version``, ``token`` and ``settings``; also ``graph`` if the
        callable takes and returns tensors, and ``observable`` if it is a collective variable.

    Raises
    ------
    InputError
        If the pickle is not of this package.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _REFUSED_OPCODES:
                raise pickle.UnpicklingError(f"it uses the operation {opcode.name}")
            if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("it is damaged")
        found = _Reader(io.BytesIO(data)).load()
        payload = _payload(found)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise any error
        raise InputError(_foreign(f"{type(error).__name__}: {error}")) from error
    return payload


def _foreign(reason: str) -> str:
    return (
        "system: expected only Python functions of openmm-nequiplr, got another pickle "
        f"({reason}); unpickling can execute arbitrary code, so it was not read"
    )


class _Inert:
    """Inert stand-in for a function that occurs in a pickle of this package."""

    __slots__ = ("_name",)
    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __setstate__(self, state: Any) -> None:
        """Accept only the state of the fallback for a missing package."""
        function, arguments, *rest = state
        message = len(arguments) == 1 and isinstance(arguments[0], str)
        if self._name != "absent" or _name(function) != "methodcaller" or not message or any(rest):
            raise InputError(_foreign(f"it changes {self._name}"))

    def __call__(self, *arguments: Any) -> Any:
        if self._name == "locate" and arguments == (_RESTORE,):
            return _Inert("restore")
        if self._name == "partial" and [_name(each) for each in arguments] == ["methodcaller"]:
            return _Inert("absent")
        if self._name == "filter" and len(arguments) == 2 and arguments[0] is None:
            return arguments[1]
        if self._name == "next" and len(arguments) == 1 and isinstance(arguments[0], list):
            names = [_name(each) for each in arguments[0]]
            return arguments[0][0] if names == ["restore", "absent"] else None
        if self._name == "restore" and len(arguments) == 1 and isinstance(arguments[0], dict):
            return _Restored(arguments[0])
        if self._name == "_restore" and len(arguments) == 2:  # as version 0.1.0 pickled it
            token, settings = arguments
            values = {"format": 1, "version": "0.1.0", "token": token, "settings": settings}
            return _Restored(values)
        if self._name == "TensorCall" and len(arguments) == 2:
            computation, graph = arguments
            if isinstance(computation, _Restored) and graph in (None, True, False):
                return _Restored({**computation.payload, "graph": graph})
        raise InputError(_foreign(f"it calls {self._name} with other arguments"))


def _name(value: object) -> str:
    return value._name if isinstance(value, _Inert) else ""


class _Restored:
    """Stand-in for a computation, with its payload."""

    __slots__ = ("payload",)

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload


class _Record:
    """Stand-in for an object with plain fields."""


class _Reader(pickle.Unpickler):
    """Unpickler restricted to stand-ins and plain values."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _FUNCTIONS:
            return _Inert(name)
        if (module, name) in _RECORDS:
            return type(name, (_Record,), {})
        raise InputError(_foreign(f"it names {module}.{name}"))


def _payload(found: object) -> dict[str, Any]:
    if not isinstance(found, _Restored):
        raise InputError(_foreign(f"it is a {type(found).__name__}"))
    plain: dict[str, Any] = _plain(found.payload, [_MOST_CONTAINERS])
    missing = {"format", "version", "token", "settings"} - set(plain)
    if missing or not isinstance(plain["settings"], dict):
        raise InputError(_foreign("it lacks settings"))
    return plain


def _plain(value: object, budget: list[int], depth: int = 0) -> Any:
    """Convert to plain values, with records as dictionaries; anything else is an error."""
    if type(value) in _PLAIN:
        return value
    budget[0] -= 1
    if budget[0] < 0 or depth > 8:
        raise InputError(_foreign("it is nested too deeply"))
    if isinstance(value, _Record):
        value = vars(value)
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise InputError(_foreign("its settings have no names"))
        return {key: _plain(item, budget, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [_plain(item, budget, depth + 1) for item in value]  # type: ignore[attr-defined]
        return items if type(value) is list else tuple(items)
    raise InputError(_foreign(f"it holds a {type(value).__name__}"))
