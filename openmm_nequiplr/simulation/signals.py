"""Signals (SIGINT, SIGTERM) that stop a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..signals import handled


class StopRequest:
    """Request of a signal to stop; true after the signal has arrived."""

    def __init__(self) -> None:
        #: Number of the signal; 0 before it arrives.
        self.number = 0

    def __bool__(self) -> bool:
        return self.number != 0

    @property
    def name(self) -> str:
        """Name of the signal, such as ``"SIGTERM"``."""
        return signal.Signals(self.number).name


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one acts as usual."""
    request = StopRequest()

    def receive(number: int, frame: object) -> None:
        request.number = number

    with handled(receive, signal.SIGINT, signal.SIGTERM, once=True):
        yield request
