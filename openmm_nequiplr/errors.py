"""Typed errors, whose messages name the argument, the given value and what was expected."""

from __future__ import annotations

import difflib
import reprlib
import sys
import warnings
from collections.abc import Iterable


class NequIPLRError(Exception):
    """Base class of all errors of this package."""


class InputError(NequIPLRError, ValueError):
    """An argument has a wrong value, shape or type."""


class UnknownElementError(InputError):
    """A structure contains elements that the model was not trained on."""


class ModelFileError(InputError):
    """A model file is missing, damaged or of another format."""


class BoxError(InputError):
    """A periodic box is missing, degenerate or too small."""


class ConvergenceError(NequIPLRError, RuntimeError):
    """A charge equilibration failed or did not converge."""


class UncertaintyError(NequIPLRError, RuntimeError):
    """The disagreement of a committee of models exceeds its limit."""


class DirectoryInUseError(NequIPLRError, RuntimeError):
    """Another process is using the output directory."""


class InstabilityError(NequIPLRError, RuntimeError):
    """A simulation has become unphysical."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work, after its state was saved.

    Parameters
    ----------
    message : str
        Description of the saved state, and of how to continue.
    number : int
        Number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class BackendError(NequIPLRError, RuntimeError):
    """A backend, device or platform is not available."""


class NequIPLRWarning(UserWarning):
    """Warning of an assumption, an omission or a doubt; the command line prints it as a note."""


def notify(message: str) -> None:
    """Issue a :class:`NequIPLRWarning` that points to the calling line outside this package.

    Parameters
    ----------
    message : str
        One self-contained line.
    """
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, NequIPLRWarning, stacklevel=level)


# Values may be huge, or nested indefinitely (aliases of YAML): a message shows their beginning.
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
        The given value.
    expected : str
        Description of valid values.
    """
    shown = _shown.repr(got)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return f"{argument}: expected {expected}, got {shown}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, empty if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")


def closest(got: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to an unknown one, ignoring case.

    Parameters
    ----------
    got : object
        The unknown name.
    known : iterable of str
        All known names.

    Returns
    -------
    str or None
        None if no name is similar.
    """
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(got).lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def suggestion(got: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` to append to a message; empty if no name is similar."""
    name = closest(got, known) if isinstance(got, str) else None
    return "" if name is None else f"; did you mean {name!r}?"


def unknown(
    kind: str, got: object, known: Iterable[str], where: str = "", meant: str | None = None
) -> str:
    """Return the message ``unknown KIND 'GOT' in WHERE: did you mean 'NAME'?``.

    Parameters
    ----------
    kind : str
        Kind of name: ``"key"``, ``"option"``, ``"command"``.
    got : object
        The unknown name.
    known : iterable of str
        All known names; the message lists them if none is similar.
    where : str
        Context of the name; may be empty.
    meant : str, optional
        Name to suggest instead of the most similar one.
    """
    names = list(known)
    name = meant or closest(got, names)
    place = f" in {where}" if where else ""
    advice = f"did you mean {name!r}?" if name else "expected one of " + ", ".join(names)
    return f"unknown {kind} {_shown.repr(got)}{place}: {advice}"
