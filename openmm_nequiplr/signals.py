"""Handlers of signals for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(
    handler: Callable[[int, Any], None], *numbers: signal.Signals, once: bool = False
) -> Iterator[None]:
    """Handle signals within this context; only the main thread of a process can, others do nothing.

    With ``once``, signals after the first one are handled as before.
    """
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, earlier in before.items():
            signal.signal(number, earlier)

    def receive(number: int, frame: object) -> None:
        if once:
            restore()
        handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            before[number] = signal.getsignal(number)
            signal.signal(number, receive)
    try:
        yield
    finally:
        restore()
