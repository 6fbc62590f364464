"""Trains in children that are killed at random moments, until enough were; then to the end.

Run as a script: configuration file, number of kills and name of the signal of each training, one
after the other. Prints a line for each training: how the children ended. Modules are imported once,
before the children are forked; nothing is computed in the parent, so that forking is safe.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import yaml

import openmm_nequiplr.training.run  # noqa: F401  (before the children are forked)
from openmm_nequiplr.cli import main

#: What a child that outruns its kill adds to.
_SLOWEST = 120.0


def _start(config: Path, output: Path) -> int:
    """Fork a training, resumed where there is something to resume."""
    resume = any((output / name).exists() for name in ("last.ckpt", "previous.ckpt"))
    child = os.fork()
    if child == 0:
        with open(output.with_suffix(".log"), "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        status = 1
        with contextlib.suppress(BaseException):
            status = main(["train", str(config), "--no-check", *(["--resume"] if resume else [])])
        sys.stdout.flush()
        os._exit(status)
    return child


def _written(output: Path) -> float:
    with contextlib.suppress(OSError):
        return os.stat(output / "last.ckpt").st_mtime_ns
    return 0.0


def _ended(child: int, number: int, output: Path, moments: random.Random) -> int:
    """Send the signal some checkpoints and some milliseconds later; what the child returned."""
    wanted, seen, last = moments.randrange(3), 0, _written(output)
    deadline = time.monotonic() + _SLOWEST
    while seen < wanted and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        now = _written(output)
        seen, last = seen + (now != last), now
        time.sleep(0.001)
    time.sleep(moments.uniform(0.0, 0.08 if wanted else 1.0))
    os.kill(child, number)
    return os.waitpid(child, 0)[1]


def run(config: Path, kills: int, name: str) -> list[int]:
    """Kill a training so many times, then let it end."""
    moments = random.Random(0)
    output = Path(yaml.safe_load(config.read_text(encoding="utf-8"))["output"])
    ends = []
    for _ in range(kills):
        child = _start(config, output)
        ends.append(_ended(child, signal.Signals[name], output, moments))
    ends.append(os.waitpid(_start(config, output), 0)[1])
    return [os.waitstatus_to_exitcode(status) for status in ends]


if __name__ == "__main__":
    for path, number, name in zip(*(sys.argv[k::3] for k in (1, 2, 3)), strict=True):
        print(*run(Path(path), int(number), name), flush=True)
