"""Runs all checks, each in a separate process, so that a crash is reported as a finding."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .findings import Finding
from .machine import platform_names

#: Names of the checks in their order; each OpenMM platform adds a check ``platform NAME``.
CHECKS = (
    "requirements",
    "command",
    "cache",
    "import order",
    "kernels",
    "platforms",
    "gpu",
    "torchforce",
    "training",
)
_PACKAGE = Path(__file__).parents[1]
_TIMEOUT = 300.0  # s
#: First word of the line on which a check prints its finding.
MARK = "nequiplr-finding:"

_AFTER_A_CRASH = {
    "platform OpenCL": "do not use OpenCL: pass a platform to app.Simulation and Context, or set "
    "OPENMM_DEFAULT_PLATFORM=CPU; with PoCL, an OpenCL for CPUs, this is a known crash of "
    "OpenMM's minimiser",
    "platform CUDA": "update the driver, or install the OpenMM that matches it (extras cuda12, "
    "cuda13); OPENMM_DEFAULT_PLATFORM=CPU avoids the GPU",
    "torchforce": "openmm-torch 1.5 requires torch 2.9.1: "
    'pip install "openmm-nequiplr[torchforce]", or uninstall openmmtorch; nothing else needs it',
    "kernels": "pip install --upgrade --force-reinstall numba llvmlite; without numba everything "
    "works, but slowly",
    "import order": "import torch before openmm, and install both from the same source (pip "
    "or conda), with one OpenMP runtime",
}
_REINSTALL = "reinstall the package in a fresh environment"


def examine(
    names: Sequence[str] | None = None, progress: Callable[[str], None] = lambda name: None
) -> list[Finding]:
    """Check the installation.

    Parameters
    ----------
    names : sequence of str, optional
        Checks to run, from :data:`CHECKS` or ``"platform NAME"``; by default all.
    progress : callable
        Called with the name of each check before it starts.

    Returns
    -------
    list of Finding
        One finding for each check.
    """
    findings = []
    for name in _all_names() if names is None else names:
        progress(name)
        findings.append(_weighed(run_apart(name)))
    return findings


def _weighed(finding: Finding) -> Finding:
    """Demote the failure of a platform that is used only on request to a note."""
    chosen = os.environ.get("OPENMM_DEFAULT_PLATFORM")
    optional = finding.name.removeprefix("platform ") not in (chosen, "CPU", "Reference")
    if finding.name.startswith("platform ") and chosen and optional and finding.state == "fail":
        return dataclasses.replace(finding, state="note")
    return finding


def _all_names() -> Iterator[str]:
    for name in CHECKS:
        yield name
        if name == "platforms":
            yield from (f"platform {p}" for p in platform_names() if not p.startswith("none"))


def run_apart(name: str) -> Finding:
    """Run a check in another process and return its finding; a crash is a finding as well."""
    own = os.pathsep.join([str(_PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": own.rstrip(os.pathsep), "PYTHONFAULTHANDLER": ""}
    command = [sys.executable, "-m", f"{__package__}", name]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        advice = _AFTER_A_CRASH.get(name, "")
        return Finding(name, "fail", f"no answer within {_TIMEOUT:g} s", advice)
    told = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    steps = [json.loads(line.removeprefix(MARK)) for line in told]
    if done.returncode == 0 and steps and "state" in steps[-1]:
        return Finding(**steps[-1])
    where = f" while {steps[-1]['doing']}" if steps and "doing" in steps[-1] else ""
    advice = _AFTER_A_CRASH.get(name, _REINSTALL)
    return Finding(name, "fail", f"{_how_it_ended(done)}{where}", advice)


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        try:
            return f"the process died of {signal.Signals(-done.returncode).name}"
        except ValueError:
            return f"the process died of signal {-done.returncode}"
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return f"the process ended with status {done.returncode}: {last.strip()}"


def tell(finding: Finding) -> None:
    """Print a finding for :func:`run_apart`."""
    print(MARK + json.dumps(dataclasses.asdict(finding)), flush=True)


def doing(what: str) -> None:
    """Print the next operation, which a crash report will name."""
    print(MARK + json.dumps({"doing": what}), flush=True)
