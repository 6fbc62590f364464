"""Runs that are killed at random moments and continued lose nothing and do nothing twice.

``NEQUIPLR_KILLS`` is the number of kills of each ensemble.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import time

import mdtraj
import numpy as np
import pytest

from openmm_nequiplr import cli
from openmm_nequiplr.simulation import load_charges, read_structure
from openmm_nequiplr.simulation.md import MDOptions, continued_options, run_md
from openmm_nequiplr.simulation.restart import find_checkpoint
from openmm_nequiplr.simulation.runfiles import RunFiles, read_log

KILLS = int(os.environ.get("NEQUIPLR_KILLS", "2"))
# Children of a server that has imported everything and computed nothing: they start at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["openmm_nequiplr.simulation.md", "matplotlib.figure"])


def options_of(ensemble, inputs, output):
    """NVE of a shipped model; NPT of a crystal, whose thermostat draws random numbers too."""
    crystal = {"model": inputs / "salt.safetensors", "structure": inputs / "salt.extxyz"}
    crystal["on_unstable"] = "warn"  # it has random weights
    return MDOptions(
        **(crystal if ensemble == "npt" else {"model": "carbon-chain"}),
        ensemble=ensemble,
        steps=100000,
        timestep=0.5,
        barostat_interval=3,
        report_interval=2,
        checkpoint_interval=6,
        seed=1,
        output=output,
        quiet=True,
    )


def kill_after_a_while(options, rng):
    """Start a run in a process of its own and kill it somewhere in its first frames."""
    files = RunFiles(options.output)
    before = files.log.stat().st_size if files.log.exists() else 0
    process = CONTEXT.Process(target=run_md, args=(options,))
    process.start()
    deadline = time.monotonic() + 300.0
    # one in four is killed while it starts
    rows = int(rng.integers(0, 20)) if rng.integers(4) else -1
    while rows >= 0 and time.monotonic() < deadline:
        assert process.is_alive(), process.exitcode
        if files.log.exists() and abs(files.log.stat().st_size - before) > 70 * rows:
            break
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0.0, 0.3)))
    process.kill()
    process.join()


@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_kills_lose_nothing(ensemble, inputs, tmp_path):
    options = options_of(ensemble, inputs, tmp_path / "run")
    files, rng = RunFiles(options.output), np.random.default_rng(len(ensemble) + KILLS)
    steps = 0
    for _ in range(KILLS):
        there = files.checkpoint.exists()
        kill_after_a_while(dataclasses.replace(options, restart=there), rng)
        if files.checkpoint.exists():
            atoms = read_structure(files.topology)
            found = find_checkpoint(files, atoms.num_atoms, atoms.box is not None)
            assert found.state.getStepCount() >= steps
            steps = found.state.getStepCount()
    result = run_md(dataclasses.replace(options, restart=files.checkpoint.exists(), steps=12))
    log, charges = read_log(files.log), load_charges(files.charges)
    frames = mdtraj.load_dcd(str(files.trajectory), top=str(files.topology))
    expected = np.arange(2, result.steps + 1, 2)
    np.testing.assert_array_equal(log["step"], expected)
    np.testing.assert_array_equal(charges.steps, expected)
    np.testing.assert_allclose(log["time_ps"], 0.0005 * expected, atol=1e-6)
    assert frames.n_frames == len(expected)
    assert np.linalg.norm(np.diff(frames.xyz, axis=0), axis=-1).max() < 0.02
    if ensemble == "nve":
        assert np.abs(np.diff(log["total_eV"])).max() < 0.05


def command(arguments, errors):
    """The command line in a process of its own, with its standard error in a file."""
    sys.stderr = open(errors, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    sys.exit(cli.main(arguments))


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, "start"), (signal.SIGTERM, "steps")]
)
def test_signals_end_with_their_status_and_a_checkpoint(number, moment, tmp_path):
    files, errors = RunFiles(tmp_path / "run"), tmp_path / "errors"
    arguments = ["md", "carbon-chain", "--steps", "100000", "--output", str(files.directory)]
    process = CONTEXT.Process(target=command, args=([*arguments, "--quiet"], errors))
    process.start()
    awaited = files.directory if moment == "start" else files.charges
    deadline = time.monotonic() + 300.0
    while not awaited.exists() and time.monotonic() < deadline:
        assert process.is_alive(), process.exitcode
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.join(300.0)
    assert process.exitcode == 128 + number
    text = errors.read_text(encoding="utf-8")
    assert text.count("\n") == 1
    if not files.checkpoint.exists():  # it came that early
        assert (moment, text) == ("start", f"nequiplr: {number.name} before the first step\n")
        return
    assert f"stopped by {number.name} at step" in text
    assert "--restart continues" in text
    atoms = read_structure(files.topology)
    step = find_checkpoint(files, atoms.num_atoms, False).state.getStepCount()
    assert f"at step {step} of" in text
    assert files.final.exists()
    assert files.summary.exists()
    given = {"output": files.directory, "restart": True, "steps": 10, "quiet": True}
    result = run_md(continued_options(model="carbon-chain", **given))
    assert result.steps == step + 10
    expected = np.arange(10, result.steps + 1, 10)
    np.testing.assert_array_equal(read_log(files.log)["step"], expected)
    np.testing.assert_array_equal(load_charges(files.charges).steps, expected)
