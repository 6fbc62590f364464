"""Forked children, and first evaluations in several threads: both in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRELUDE = """
import os, sys, threading, time
import multiprocessing as mp
import numpy as np, openmm, torch
from ase.build import bulk
from openmm_nequiplr import NequIPLRCalculator, create_system
from openmm_nequiplr.simulation import from_atoms

def shaken(seed):
    atoms = bulk("MgO", "rocksalt", a=4.21, cubic=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=seed)
    return atoms

def by_calculator(seed):
    atoms = shaken(seed)
    atoms.calc = NequIPLRCalculator("au2-mgo")
    return atoms.get_potential_energy()

def context_of(system, platform):
    return openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(platform)
    )

def energy(context, seed):
    context.setPositions(shaken(seed).positions / 10)
    return context.getState(energy=True).getPotentialEnergy()._value
"""


def run(code: str, limit: float = 100.0) -> str:
    """What a process with two OpenMP threads prints; one that waits for ever is a failure."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    environment.pop("OPENMM_CPU_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_what_its_parent_does():
    """Calculators, and Systems without OpenMM's sum, in a child and in its parent."""
    code = """
assert torch.get_num_threads() == 2
system = create_system(from_atoms(shaken(0)).topology, "au2-mgo", long_range="graph")

def everything(seed):
    return [by_calculator(seed), energy(context_of(system, "Reference"), seed)]

everything(0)
with mp.get_context("fork").Pool(1) as pool:
    found = pool.apply(everything, (2,))
expected = everything(2)
assert np.allclose(found, expected, rtol=1e-9), (found, expected)
print("right")
"""
    assert run(code).strip() == "right"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_sums_by_openmm_in_a_forked_child():
    """They work where the parent made none, and are refused, not waited for, where it did."""
    code = """
system = create_system(from_atoms(shaken(0)).topology, "au2-mgo", long_range="openmm")

def one(seed):
    return energy(context_of(system, "Reference"), seed)

with mp.get_context("fork").Pool(1) as pool:
    early = pool.apply(one, (1,))
assert np.isclose(early, one(1), rtol=1e-9)
with mp.get_context("fork").Pool(1) as pool:
    try:
        pool.apply(one, (2,))
    except openmm.OpenMMException as error:
        print(error)
"""
    assert "expected one started by 'spawn' or 'forkserver'" in run(code)


def test_first_evaluations_in_several_threads():
    code = """
kinds = ["single", "double"] * 2
topology = from_atoms(shaken(0)).topology
contexts = [
    context_of(create_system(topology, "au2-mgo", precision=kind), "Reference") for kind in kinds
]
found = {}
threads = [
    threading.Thread(target=lambda n=n: found.update({n: energy(contexts[n], 1)}))
    for n in range(len(kinds))
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 4 and found[0] == found[2] and found[1] == found[3], found
print("right")
"""
    assert run(code).strip() == "right"
