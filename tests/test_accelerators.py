"""Searches by mlipops find what those on the host find, and are dropped where they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from openmm_nequiplr import accelerators
from openmm_nequiplr.accelerators import DeviceSearch, HostSearch, TriedSearch, neighbor_search
from openmm_nequiplr.neighbors import neighbor_list
from openmm_nequiplr.verlet import VerletList

CUTOFF = 4.0
SERVED = {"cubic": np.diag([11.0] * 3), "brick": np.diag([8.1, 9.0, 20.0]), "free": None}
LEFT_OUT = {
    "small": np.diag([7.9, 9.0, 9.0]),
    "tiny": np.diag([2.5, 3.0, 3.5]),
    "triclinic": np.array([[12.0, 0.0, 0.0], [3.0, 11.0, 0.0], [-2.0, 2.5, 13.0]]),
    "left-handed": np.array([[0.0, 15.0, 0.0], [15.0, 0.0, 0.0], [0.0, 1.0, 18.0]]),
}


def task(rng, cell, full=True, count=60):
    """Arguments of a search; atoms lie outside the cell too."""
    if cell is None:
        return 5.0 * rng.normal(size=(count, 3)), np.zeros((3, 3)), False, CUTOFF, full
    return rng.uniform(-1.5, 2.5, size=(count, 3)) @ cell, cell, True, CUTOFF, full


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the searches below set forward."""
    now = [0.0]
    monkeypatch.setattr(accelerators.time, "perf_counter", lambda: now[0])
    return now


def taking(seconds, search, clock):
    """The same search, so much later by the clock."""

    def late(*arguments):
        clock[0] += seconds
        return search(*arguments)

    return late


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", SERVED)
def test_same_edges_in_the_same_order(rng, name, full):
    pytest.importorskip("mlipops")
    for _ in range(3):
        arguments = task(rng, SERVED[name], full)
        found = DeviceSearch("cpu")(*arguments)
        assert_same(found, neighbor_list(*arguments))
        assert found[0].shape[1] > 20
        assert not torch.signbit(found[1][found[1] == 0]).any()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_cells_that_are_left_to_the_host(rng, name):
    pytest.importorskip("mlipops")
    arguments = task(rng, LEFT_OUT[name])
    assert DeviceSearch("cpu")(*arguments) is None
    tried = TriedSearch("cpu")
    assert_same(tried(*arguments), neighbor_list(*arguments))
    assert tried.chosen is None


def test_no_atoms_near_one_another():
    pytest.importorskip("mlipops")
    arguments = (np.array([[0.0, 0, 0], [5.5, 0, 0]]), np.diag([11.0] * 3), True, CUTOFF, True)
    assert_same(DeviceSearch("cpu")(*arguments), neighbor_list(*arguments))


@pytest.mark.parametrize("name", ["cubic", "triclinic"])
def test_pairs_of_our_list_are_those_of_mlipops(rng, name):
    """An independent check, also in cells that mlipops serves on the CPU alone."""
    mlipops = pytest.importorskip("mlipops")
    points, cell, *_ = task(rng, (SERVED | LEFT_OUT)[name])
    search = mlipops.NeighborList(CUTOFF, include_symmetric=True)
    pairs = search(torch.tensor(points), torch.tensor(cell))
    index, _ = neighbor_list(points, cell, True, CUTOFF)
    assert sorted(map(tuple, pairs.tolist())) == list(zip(*index.tolist(), strict=True))


def test_kept_lists_with_a_search_by_mlipops(rng):
    pytest.importorskip("mlipops")
    kept = VerletList(1.0)
    kept._search = tried = TriedSearch("cpu")
    cell = SERVED["cubic"]
    points = rng.uniform(size=(60, 3)) @ cell
    for step in range(30):
        points = points + 0.1 * rng.normal(size=points.shape)
        tried.chosen = None if step < 3 else True  # as if it were faster
        assert_same(kept(points, cell, True, CUTOFF), neighbor_list(points, cell, True, CUTOFF))
    assert kept.searches > 5


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, True), (2.0, False)])
def test_the_faster_one_is_chosen_after_the_trial(rng, monkeypatch, clock, seconds, chosen):
    host = HostSearch("cpu")
    asked = {"fast": 0}

    def counted(*arguments):
        asked["fast"] += 1
        clock[0] += 90.0 if asked["fast"] == 1 else seconds  # compiles first
        return host(*arguments)

    tried = TriedSearch("cpu", counted)
    tried._host = taking(1.0, host, clock)
    for number in range(8):
        assert tried.chosen is (None if number < accelerators.TRIALS else chosen)
        arguments = task(rng, SERVED["cubic"])
        assert_same(tried(*arguments), neighbor_list(*arguments))
    assert asked["fast"] == (8 if chosen else accelerators.TRIALS)
    assert bool(tried.reason) is not chosen


def test_one_that_finds_other_pairs_is_dropped(rng):
    def forgetful(*arguments):
        index, shift = neighbor_list(*arguments)
        return index[:, :-1], shift[:-1]

    tried = TriedSearch("cpu", forgetful)
    arguments = task(rng, SERVED["cubic"])
    assert_same(tried(*arguments), neighbor_list(*arguments))
    assert tried.chosen is False
    assert tried.reason == "found other pairs"


@pytest.mark.parametrize("when", [None, True])
def test_one_that_raises_is_dropped(rng, when):
    def broken(*arguments):
        raise RuntimeError("out of memory")

    tried = TriedSearch("cpu", broken)
    tried.chosen = when
    arguments = task(rng, SERVED["cubic"])
    for _ in range(2):
        assert_same(tried(*arguments), neighbor_list(*arguments))
    assert tried.chosen is False
    assert "RuntimeError: out of memory" in tried.reason


def test_only_cuda_with_mlipops_and_triton_gets_a_trial(monkeypatch):
    monkeypatch.setattr(accelerators, "accelerator_available", lambda: True)
    assert isinstance(neighbor_search("cpu"), HostSearch)
    assert isinstance(neighbor_search("cuda"), TriedSearch)
    monkeypatch.undo()
    monkeypatch.setattr(accelerators.importlib.util, "find_spec", lambda name: None)
    assert isinstance(neighbor_search("cuda"), HostSearch)


KERNELS = """
import numpy as np, torch, mlipops
from openmm_nequiplr.accelerators import DeviceSearch
from openmm_nequiplr.neighbors import neighbor_list

def as_on_a_gpu(self, positions, box=None, batch=None):
    search = lambda: self._compute_large_single(positions, box, self.cutoff)
    first = search()  # nothing where the buffer is too small
    return search() if first is None else first

mlipops.NeighborList.forward = as_on_a_gpu
rng = np.random.default_rng(0)
for cell, count, cutoff in (((13, 16, 11), 240, 5.0), ((25, 9, 20), 200, 4.0), (None, 150, 4.0)):
    box = np.zeros((3, 3)) if cell is None else np.diag(np.array(cell, float))
    points = rng.uniform(-1.5, 2.5, (count, 3)) @ (box if cell else 5.0 * np.eye(3))
    task = points, box, cell is not None, cutoff, True
    found, expected = DeviceSearch("cpu")(*task), neighbor_list(*task)
    assert found[0].shape[1] > 500
    assert all(torch.equal(*pair) for pair in zip(found, expected))
"""


def test_kernels_for_gpus_under_the_interpreter():
    """The code that CUDA devices run, executed by Triton's interpreter on the CPU."""
    pytest.importorskip("mlipops")
    pytest.importorskip("triton")
    root = str(Path(accelerators.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    if "InterpreterError" in done.stderr and "has no attribute 'to_tensor'" in done.stderr:
        pytest.skip("the interpreter of this Triton (3.5, say) knows no methods of tensors")
    assert done.returncode == 0, done.stderr
