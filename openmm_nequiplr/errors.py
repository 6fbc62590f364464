"""Typed errors. Every message stands alone: it names the argument, what came, what was expected."""

from __future__ import annotations

import difflib
import reprlib
import sys
import warnings
from collections.abc import Iterable


class NequIPLRError(Exception):
    """Base class of every error that this package raises on purpose."""


class InputError(NequIPLRError, ValueError):
    """An argument has a wrong value, shape or type."""


class UnknownElementError(InputError):
    """A structure holds elements that the model was not trained on."""


class ModelFileError(InputError):
    """A model file is missing, damaged or of another format."""


class BoxError(InputError):
    """A periodic box is missing, degenerate or too small."""


class ConvergenceError(NequIPLRError, RuntimeError):
    """A solve failed or did not converge."""


class UncertaintyError(NequIPLRError, RuntimeError):
    """The models of a committee disagree by more than is allowed."""


class DirectoryInUseError(NequIPLRError, RuntimeError):
    """Another process writes into the same output directory."""


class InstabilityError(NequIPLRError, RuntimeError):
    """A simulation has left what its model can describe."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work, after what belongs to the end was done.

    Parameters
    ----------
    message : str
        What was done, and how to continue.
    number : int
        Number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class BackendError(NequIPLRError, RuntimeError):
    """A backend, device or platform is not available."""


class NequIPLRWarning(UserWarning):
    """An assumption, an omission or a doubt; the command line prints it as a line."""


def notify(message: str) -> None:
    """Issue a :class:`NequIPLRWarning` at the line outside this package that led here.

    Parameters
    ----------
    message : str
        One line that stands alone.
    """
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, NequIPLRWarning, stacklevel=level)


# What came may be huge, or nested without end (aliases of YAML): a message shows its beginning.
_shown = reprlib.Repr()
_shown.maxlevel = 4
_shown.maxlist = _shown.maxtuple = _shown.maxset = _shown.maxdict = _shown.maxfrozenset = 40
_shown.maxstring = _shown.maxother = _shown.maxlong = 400
_LONGEST = 1000


def describe(argument: str, got: object, expected: str) -> str:
    """Return the message ``argument: expected …, got …``.

    Parameters
    ----------
    argument : str
        Name of the offending argument.
    got : object
        What came.
    expected : str
        What would have been right.
    """
    shown = _shown.repr(got)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return f"{argument}: expected {expected}, got {shown}"


def closest(got: object, known: Iterable[str]) -> str | None:
    """Return the name that is most like one that is unknown, whatever the case of its letters.

    Parameters
    ----------
    got : object
        What came.
    known : iterable of str
        The names that there are.

    Returns
    -------
    str or None
        None if no name is much like it.
    """
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(got).lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def suggestion(got: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` for the end of a message; nothing if no name is close."""
    name = closest(got, known) if isinstance(got, str) else None
    return "" if name is None else f"; did you mean {name!r}?"


def unknown(
    kind: str, got: object, known: Iterable[str], where: str = "", meant: str | None = None
) -> str:
    """Return the message ``unknown KIND 'GOT' in WHERE: did you mean 'NAME'?``.

    Parameters
    ----------
    kind : str
        What is looked up: ``"key"``, ``"option"``, ``"command"``.
    got : object
        The name that came.
    known : iterable of str
        The names that there are; all are listed if none is close.
    where : str
        Where it was looked up; nothing is said if empty.
    meant : str, optional
        The name that was meant, where that is known otherwise.
    """
    names = list(known)
    name = meant or closest(got, names)
    place = f" in {where}" if where else ""
    advice = f"did you mean {name!r}?" if name else "expected one of " + ", ".join(names)
    return f"unknown {kind} {_shown.repr(got)}{place}: {advice}"
