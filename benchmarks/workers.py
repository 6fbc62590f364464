"""Processes that time steps in turns: they read a JSON object a line and answer with one."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Worker:
    """A script of this directory, with the Python of some environment, that steps when told to."""

    def __init__(self, python: str, script: str, *options: str) -> None:
        command = [python, "-W", "ignore", str(Path(__file__).with_name(script)), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request) -> dict:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker has ended; its message is above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(build: Callable[[dict], Callable[[], dict]]) -> None:
    """Answer requests until the input ends: build what the first one says, then do its steps."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    step: Callable[[], dict] | None = None
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if request["do"] == "build":
            step = build(request)
        elif step is not None:
            begin, used = time.perf_counter(), time.process_time()
            answer = step()
            answer["seconds"] = time.perf_counter() - begin
            answer["cpu"] = time.process_time() - used
        answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GB
        print(json.dumps(answer), file=answers, flush=True)


def add_sides(parser: argparse.ArgumentParser) -> None:
    """Options for the environments of the other sides."""
    parser.add_argument("--peer-python", help="Python of an environment with nequip and openmmml")
    parser.add_argument("--against", help="Python of an environment with another version of ours")


def interleaved(
    arguments: argparse.Namespace,
    scripts: dict[str, tuple[str, ...]],
    options: dict,
    warm_up: dict[str, int],
) -> dict[str, list[dict]]:
    """Answers of every side to steps that take turns.

    ``scripts`` of ``ours`` and of the ``peer`` come with their arguments, ``options`` say what they
    build, and ``warm_up`` is the number of first steps that do not count.
    """
    pythons = {"ours": sys.executable, "peer": arguments.peer_python, "against": arguments.against}
    kinds = {"ours": "ours", "peer": "peer", "against": "ours"}
    workers = {
        name: Worker(python, *scripts[kinds[name]]) for name, python in pythons.items() if python
    }
    answers: dict[str, list[dict]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.ask(do="build", **options)
    for name, worker in workers.items():
        for _ in range(warm_up[kinds[name]]):
            worker.ask(do="step")
    for _ in range(arguments.steps):
        for name, worker in workers.items():
            answers[name].append(worker.ask(do="step"))
    for worker in workers.values():
        worker.close()
    return answers


def ratios(answers: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Our time over that of the others: medians and least seconds, least processor time."""

    def ratio(name: str, key: str, of: Callable[..., float]) -> float:
        ours, theirs = (of(a[key] for a in answers[side]) for side in ("ours", name))
        return ours / theirs

    return {
        name: {
            "median": ratio(name, "seconds", statistics.median),
            "least": ratio(name, "seconds", min),
            "cpu": ratio(name, "cpu", min),
        }
        for name in answers
        if name != "ours"
    }
