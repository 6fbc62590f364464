"""Speed and progress report of a run."""

from __future__ import annotations

import sys
import time

from ..console import duration, say

_SECONDS_PER_DAY = 86400.0


class Progress:
    """Measures the speed of a run and prints its progress at intervals.

    Parameters
    ----------
    timestep : float, fs
    quiet : bool
        Print nothing.
    """

    def __init__(self, timestep: float, quiet: bool) -> None:
        self._timestep, self._quiet = timestep, quiet
        self._printed = 0.0
        self.start(0)

    def start(self, step: int) -> None:
        """Start timing at a step."""
        self._started, self._first_step = time.perf_counter(), step

    def speed(self, step: int) -> float:
        """Speed of this run so far, ns/day."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        nanoseconds = max(step - self._first_step, 0) * self._timestep * 1e-6
        return nanoseconds / elapsed * _SECONDS_PER_DAY or float("nan")

    def show(self, step: int, last: int, temperature: float | None) -> None:
        """Print the progress, if the last line is old enough or the run has ended."""
        on_terminal, now = sys.stdout.isatty(), time.perf_counter()
        if self._quiet or (now - self._printed < (1.0 if on_terminal else 10.0) and step != last):
            return
        self._printed = now
        each = (now - self._started) / max(step - self._first_step, 1)
        heat = "" if temperature is None else f"T {temperature:.0f} K  "
        text = (
            f"step {step}/{last}  {step * self._timestep / 1000:.3f} ps  {heat}"
            f"{self.speed(step):.3g} ns/day  {1000 * each:.3g} ms/step  "
            f"{duration((last - step) * each)} left"
        )
        if on_terminal:
            say("\r" + text.ljust(79), end="\n" if step == last else "")
        else:
            say(text)
