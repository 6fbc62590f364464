"""Errors that end a run: their cause, and advice on how to continue."""

from __future__ import annotations

import openmm

from ..errors import InputError, InstabilityError, Interrupted, NequIPLRError
from .signals import StopRequest


def cause_of(
    error: Exception, failure: NequIPLRError | None, stop: StopRequest, advice: str
) -> BaseException:
    """The original error behind an OpenMMException, which preserves only its message.

    Parameters
    ----------
    error : Exception
    failure : NequIPLRError or None
        Error of the last failed evaluation.
    stop : StopRequest
    advice : str
        How to continue.
    """
    if not isinstance(error, openmm.OpenMMException):
        return error
    if failure is None or str(failure) not in str(error):
        return error
    if "interrupted" in str(failure) and stop:
        return Interrupted(f"{stop.name} in an evaluation; {advice}", stop.number)
    return failure


def described(cause: BaseException, step: int, advice: str) -> BaseException:
    """The error to raise when integration failed at a step; see :func:`cause_of`."""
    if isinstance(cause, Interrupted):
        return cause
    if isinstance(cause, OSError):
        return NequIPLRError(f"the files of the run cannot be written: {cause}; {advice}")
    unstable = isinstance(cause, InstabilityError | InputError) or "NaN" in str(cause)
    if not unstable:
        kind = type(cause) if isinstance(cause, NequIPLRError) else NequIPLRError
        return kind(f"step {step}: {cause}; {advice}")
    text = str(cause)
    if not text.startswith("unstable at step"):
        text = f"unstable after step {step}: {text.removeprefix('unstable: ')}"
    return InstabilityError(f"{text}; {advice}")
