"""The choice of a backend, and PythonTorchForce by a stand-in for the class of openmm-torch."""

from __future__ import annotations

import pickle
import types

import numpy as np
import openmm
import pytest
import torch

from openmm_nequiplr import create_system
from openmm_nequiplr.errors import BackendError, InputError
from openmm_nequiplr.simulation import (
    backends,
    current_evaluation,
    describe_backend,
    from_atoms,
    get_computation,
    torchforce,
)
from openmm_nequiplr.simulation.backends import TensorCall, resolve_backend

from .twins import context_of, energy_and_forces

REFERENCE = openmm.Platform.getPlatform("Reference")


class _Box:
    """A State as PythonTorchForce passes it: the box and parameters, no positions."""

    def __init__(self, state, periodic):
        self._state, self._periodic = state, periodic

    def getPeriodicBoxVectors(self, asNumpy=False):
        assert self._periodic, "the State has a box only for periodic forces"
        return self._state.getPeriodicBoxVectors(asNumpy=asNumpy)


class _Adapter:
    """What openmm-torch does around the callable, in the precision of a platform."""

    def __init__(self, computation, dtype):
        self.computation, self.dtype = computation, dtype

    def __reduce__(self):  # as the real force, whose XML holds the callable alone
        return self.computation.__reduce__()

    def __call__(self, state):
        points = state.getPositions(asNumpy=True)._value
        positions = torch.tensor(points, dtype=self.dtype, requires_grad=True)
        periodic = self.computation.computation.settings.periodic
        energy, forces = self.computation(_Box(state, periodic), positions)
        assert isinstance(energy, torch.Tensor)
        assert energy.shape == ()
        assert forces.shape == positions.shape
        assert forces.is_contiguous()
        return energy.item(), forces.to(torch.float64).numpy()


def stand_in(dtype):
    """A module like the openmmtorch that is to come: PythonTorchForce(computation, ...)."""

    def python_torch_force(computation, globalParameters=None, particles=()):
        assert pickle.loads(pickle.dumps(computation)) is not None
        return openmm.PythonForce(_Adapter(computation, dtype))

    return types.SimpleNamespace(
        PythonTorchForce=python_torch_force,
        TorchForce=types.SimpleNamespace(isinstance=lambda force: False),
    )


@pytest.fixture(params=[torch.float32, torch.float64], ids=["single", "double"])
def openmmtorch(request, monkeypatch):
    monkeypatch.setattr(torchforce, "_loaded", [stand_in(request.param)])
    return request.param


@pytest.fixture
def no_openmmtorch(monkeypatch):
    monkeypatch.setattr(torchforce, "_loaded", [])

    def fail(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(torchforce.importlib, "import_module", fail)


@pytest.mark.parametrize(
    ("name", "graph"), [("skewed_salt", None), ("cluster", None), ("cluster", True)]
)
def test_python_torch(request, monkeypatch, openmmtorch, ionic_model, name, graph):
    monkeypatch.setattr(TensorCall.__init__, "__defaults__", (graph,))
    structure = from_atoms(request.getfixturevalue(name))
    contexts = [
        context_of(
            create_system(structure.topology, ionic_model, backend=backend, total_charge=1),
            structure.positions,
        )
        for backend in ("python_torch", "python")
    ]
    (energy, forces), (expected, slope) = map(energy_and_forces, contexts)
    limit = 1e-6 if openmmtorch == torch.float64 else 1e-4
    assert energy == pytest.approx(expected, rel=limit)
    assert np.linalg.norm(forces - slope) < 10 * limit * np.linalg.norm(slope)
    contexts[0].getIntegrator().step(2)
    charges = current_evaluation(contexts[0]).charges
    assert charges.sum() == pytest.approx(1.0)


def test_python_torch_travels(openmmtorch, ionic_model, cluster):
    structure = from_atoms(cluster)
    system = create_system(structure.topology, ionic_model, backend="python_torch")
    call = TensorCall(get_computation(system))
    copied = pickle.loads(pickle.dumps(call))
    assert copied.computation is call.computation
    assert copied.graph is None


def test_errors_of_python_torch_stand_alone(openmmtorch, ionic_model, cluster):
    structure = from_atoms(cluster)
    system = create_system(structure.topology, ionic_model, backend="python_torch")
    positions = structure.positions.copy()
    positions[0] = np.nan
    with pytest.raises(openmm.OpenMMException, match="got NaN or infinity for 1 of 8 atoms"):
        energy_and_forces(context_of(system, positions))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_is_python(openmmtorch, no_gpu_needed, device):
    """Even where openmm-torch has PythonTorchForce, which was never tried on a GPU."""
    assert resolve_backend("auto", device) == "python"


@pytest.fixture
def no_gpu_needed(monkeypatch):
    monkeypatch.setattr(backends, "resolve_device", lambda device: device)


def test_auto_does_without_openmmtorch(no_openmmtorch, no_gpu_needed):
    assert resolve_backend("auto", "cuda") == "python"


@pytest.mark.parametrize("backend", ["torch", "python_torch"])
def test_missing_openmmtorch(no_openmmtorch, ionic_model, cluster, backend):
    with pytest.raises(BackendError, match="pip install torch==2.9.1 openmmtorch==1.5"):
        create_system(from_atoms(cluster).topology, ionic_model, backend=backend)


def test_openmmtorch_that_does_not_load(monkeypatch, no_openmmtorch, ionic_model, cluster):
    def fail(name):
        raise ImportError("libtorch_cuda.so: cannot open shared object file")

    monkeypatch.setattr(torchforce.importlib, "import_module", fail)
    with pytest.raises(BackendError, match=r"libtorch_cuda.so.*not the CPU-only build"):
        create_system(from_atoms(cluster).topology, ionic_model, backend="torch")


def test_openmmtorch_without_python_torch_force(monkeypatch, ionic_model, cluster):
    monkeypatch.setattr(torchforce, "_loaded", [types.SimpleNamespace(TorchForce=None)])
    with pytest.raises(BackendError, match="with PythonTorchForce"):
        create_system(from_atoms(cluster).topology, ionic_model, backend="python_torch")


def test_unknown_backend(ionic_model, cluster):
    with pytest.raises(BackendError, match="'auto' or 'python' or 'torch' or 'python_torch'"):
        create_system(from_atoms(cluster).topology, ionic_model, backend="magic")


def test_description(ionic_model, cluster):
    system = create_system(from_atoms(cluster).topology, ionic_model)
    assert describe_backend(system).startswith("python: PythonForce of OpenMM 8.")
    with pytest.raises(InputError, match="made by create_system"):
        describe_backend(openmm.System())
