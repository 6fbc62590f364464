"""Signals that end a training by an exception, before Lightning handles them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import Interrupted
from ..signals import handled


class _Stop(BaseException):
    """Passes through Lightning, which takes a KeyboardInterrupt for the end of the process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals(advice: Callable[[], str]) -> Iterator[None]:
    """Within this context, SIGINT and SIGTERM end what runs.

    Only the main thread of a process can do that; in another one the context does nothing.

    Parameters
    ----------
    advice : callable
        Returns how to continue, for the message.

    Raises
    ------
    Interrupted
        After one of them.
    """

    def stop(number: int, frame: object) -> None:
        raise _Stop(number)

    try:
        with handled(stop, signal.SIGINT, signal.SIGTERM):
            yield
    except _Stop as error:
        name = signal.Signals(error.number).name
        raise Interrupted(f"ended by {name}: {advice()}", error.number) from None
