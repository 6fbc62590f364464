"""Temporary signal handlers."""

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
    """Context manager that handles signals; it has no effect outside the main thread.

    With ``once``, the previous handlers are restored after the first signal.
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
