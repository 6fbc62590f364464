"""Backends: the OpenMM forces that can call a model, and the choice between them."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

import numpy as np
import openmm
import torch

from ..devices import resolve_device
from ..errors import BackendError, InputError, NequIPLRError, describe
from ..units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
from .computation import FORCE_NAME, Computation
from .computation_settings import ComputationSettings
from .lookup import force_backend, inner_forces
from .torchforce import compile_settings, load_openmmtorch

BACKENDS = ("auto", "python", "torch", "python_torch")

_log = logging.getLogger(__name__)


def resolve_backend(backend: str, device: str | None) -> str:
    """The backend of a System: one of :data:`BACKENDS`, with ``"auto"`` resolved.

    ``"auto"`` is ``"python"``. On a CPU a TorchForce is about as fast as the compiled loops of a
    PythonForce, but it takes seconds to compile and needs a matching openmm-torch. The
    ``PythonTorchForce`` of openmm-torch's next release has never been tested on a GPU; it is used
    only on request.

    Raises
    ------
    BackendError
        If the backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise BackendError(describe("backend", backend, " or ".join(map(repr, BACKENDS))))
    if backend == "auto":
        resolve_device(device)
        backend = "python"
    if backend != "python":
        module = load_openmmtorch()
        if backend == "python_torch" and not hasattr(module, "PythonTorchForce"):
            raise BackendError(
                f"backend: expected an openmm-torch with PythonTorchForce (newer than 1.5), got "
                f"{_version('openmmtorch')}; use 'python', which does the same through the host"
            )
    _log.info("NequIP-LR force through backend=%r", backend)
    return backend


def make_force(settings: ComputationSettings, backend: str) -> openmm.Force:
    """The OpenMM force for a backend that :func:`resolve_backend` returned.

    Raises
    ------
    BackendError
        If the backend does not support the settings, or the model cannot be compiled, see
        :func:`openmm_nequiplr.model.scripted.script_model`.
    """
    if backend == "torch" and settings.whole is not None:
        expected = "'python' for a model of isolated molecules in a periodic box"
        raise BackendError(describe("backend", backend, expected))
    if backend != "python" and settings.outside is not None:
        expected = "'python' for charges outside, which a TorchScript graph does not know"
        raise BackendError(describe("backend", backend, expected))
    if backend != "python" and settings.parameters:
        expected = "'python' for parameters of a Context, which only a PythonForce has"
        raise BackendError(describe("backend", backend, expected))
    if backend == "torch":
        force = load_openmmtorch().TorchForce(compile_settings(settings))
        force.setOutputsForces(True)
        return _configured(force, settings, backend)
    return python_force(Computation(settings), backend)


def python_force(computation: Computation, backend: str = "python") -> openmm.Force:
    """The force that calls a computation, with backend ``"python"`` or ``"python_torch"``."""
    if backend == "python_torch":
        force = load_openmmtorch().PythonTorchForce(TensorCall(computation))
    else:
        force = openmm.PythonForce(computation, computation.settings.context_parameters)
    return _configured(force, computation.settings, backend)


def _configured(force: openmm.Force, settings: ComputationSettings, backend: str) -> openmm.Force:
    force.setName(FORCE_NAME)
    force.setUsesPeriodicBoundaryConditions(settings.periodic or settings.whole is not None)
    if settings.particles is not None and backend != "torch":  # its graph selects the atoms
        if not hasattr(force, "setParticles"):
            expected = "one whose force acts on some of the atoms (PythonForce of OpenMM 8.6)"
            raise BackendError(describe("backend", f"{backend!r} here", expected))
        force.setParticles(settings.particles)
    return force


def describe_backend(system: openmm.System) -> str:
    """Backend and force of the model of a System, as ``"python: PythonForce of OpenMM 8.6"``.

    Raises
    ------
    InputError
        If the System has no NequIP-LR force.
    """
    for force in inner_forces(system):
        found = force_backend(force)
        if found == "torch":
            return f"torch: TorchForce of openmm-torch {_version('openmmtorch')}"
        if found == "python_torch":
            return f"python_torch: PythonTorchForce of openmm-torch {_version('openmmtorch')}"
        if found == "python":
            return f"python: PythonForce of OpenMM {openmm.version.short_version}"
    raise InputError(
        describe("system", "a System without NequIP-LR force", "one made by create_system")
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


class TensorCall:
    """The callable of a ``PythonTorchForce``: tensors in, tensors out.

    On a CPU it runs the computation of a ``PythonForce``, with its compiled loops. On a GPU it runs
    the TorchScript graph, so that positions and forces stay on the device.

    Parameters
    ----------
    computation : Computation
    graph : bool, optional
        Whether to use the graph; by default only on a GPU.
    """

    def __init__(self, computation: Computation, graph: bool | None = None) -> None:
        self.computation, self.graph = computation, graph
        self._graphs: dict[str, torch.jit.ScriptModule] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorCall, (self.computation, self.graph)

    def __call__(
        self, state: openmm.State, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy (kJ/mol) and forces (kJ/mol/nm) at positions, shape (N, 3), nm.

        The State provides only the box. The platform determines dtype and device of the positions.
        """
        cell = None
        if self.computation.settings.periodic:
            cell = state.getPeriodicBoxVectors(asNumpy=True)._value
        try:
            return self._compute(self._joined(positions.detach(), state), cell)
        except NequIPLRError:
            raise
        except Exception as error:  # OpenMM passes on only the message
            raise NequIPLRError(f"{type(error).__name__}: {error}") from error

    def _joined(self, positions: torch.Tensor, state: openmm.State) -> torch.Tensor:
        """Positions, shape (N, 3), nm, with molecules made whole where the model needs it."""
        if self.computation.settings.whole is None:
            return positions
        points = positions.cpu().to(torch.float64).numpy() * ANGSTROM_PER_NM
        moved = (self.computation.joined(points, state) - points) / ANGSTROM_PER_NM
        return positions + torch.from_numpy(moved).to(positions)

    def _compute(
        self, positions: torch.Tensor, cell: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        computation = self.computation
        device = positions.device
        if computation.settings.device is not None:
            device = torch.device(resolve_device(computation.settings.device))
        use_graph = device.type != "cpu" if self.graph is None else self.graph
        if use_graph:
            if str(device) not in self._graphs:
                self._graphs[str(device)] = compile_settings(computation.settings, device)
            box = None if cell is None else torch.as_tensor(cell, dtype=torch.float64)
            return self._graphs[str(device)](positions, box)
        points = positions.cpu().to(torch.float64).numpy() * ANGSTROM_PER_NM
        result = computation.evaluate(points, None if cell is None else cell * ANGSTROM_PER_NM)
        forces = np.asarray(result.forces) * (EV_TO_KJ_PER_MOL * ANGSTROM_PER_NM)
        energy = torch.tensor(result.energy * EV_TO_KJ_PER_MOL, dtype=torch.float64)
        return energy.to(positions.device), torch.from_numpy(forces).to(positions)
