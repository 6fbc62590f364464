"""Signals that end a training with an exception, before Lightning handles them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import Interrupted
from ..signals import handled


class _Stop(BaseException):
    """Exception that Lightning does not catch; at a KeyboardInterrupt it would end the process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals(advice: Callable[[], str]) -> Iterator[None]:
    """Context in which SIGINT and SIGTERM end the training.

    Only the main thread of a process can handle signals. In other threads, the context has no
    effect.

    Parameters
    ----------
    advice : callable
        Returns the part of the message that explains how to continue.

    Raises
    ------
    Interrupted
        After one of these signals.
    """

    def stop(number: int, frame: object) -> None:
        raise _Stop(number)

    try:
        with handled(stop, signal.SIGINT, signal.SIGTERM):
            yield
    except _Stop as error:
        name = signal.Signals(error.number).name
        raise Interrupted(f"ended by {name}: {advice()}", error.number) from None
