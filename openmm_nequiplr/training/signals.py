"""Signals that end a training by an exception, before Lightning handles them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import Interrupted


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
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except _Stop as error:
        name = signal.Signals(error.number).name
        raise Interrupted(f"ended by {name}: {advice()}", error.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
