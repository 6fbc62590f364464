"""TorchForce: the complete model as a TorchScript graph that OpenMM runs.

The graph is that of :mod:`openmm_nequiplr.model.scripted`. A custom operator
(:mod:`openmm_nequiplr.operators`) can delegate its long-range part to OpenMM's particle mesh Ewald.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import threading
import uuid
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np
import openmm
import torch

from ..devices import resolve_device
from ..errors import BackendError
from ..model import NequIPLRPotential
from ..model.io import serialize_model
from ..model.options import DTYPES
from ..model.scripted import script_model
from ..operators import provide
from .computation import FORCE_NAME, Computation
from .computation_settings import ComputationSettings
from .pme import PointChargeCoulomb
from .serialization import ModelFile, load_embedded

_REMEDY = (
    "openmm-torch 1.5 goes with torch 2.9.1 in its default build, also without a GPU "
    "(pip install torch==2.9.1 openmmtorch==1.5; not the CPU-only build, and none for CUDA 13); "
    "backend='python' needs none of it"
)
_MOST_SUMS = 8
_MOST_COMPANIONS = 4

_log = logging.getLogger(__name__)
_lock = threading.RLock()
_sums: OrderedDict[str, tuple[threading.Lock, PointChargeCoulomb]] = OrderedDict()
_companions: OrderedDict[str, Computation] = OrderedDict()
_loaded: list[ModuleType] = []


def load_openmmtorch() -> ModuleType:
    """The module ``openmmtorch``, with its plugins loaded regardless of the order of imports.

    Raises
    ------
    BackendError
        If it is missing, or incompatible with the installed torch.
    """
    if _loaded:
        return _loaded[0]
    try:
        module = importlib.import_module("openmmtorch")
        # OpenMM loads plugins when it is imported, perhaps before torch
        for text in openmm.Platform.getPluginLoadFailures():
            found = re.search(r"[^ ]*OpenMMTorch[^ :]*", text)
            if found is not None:
                _load_plugin(found.group())
        if not openmm.Platform.getPlatform("Reference").supportsKernels(["CalcTorchForce"]):
            raise ImportError("its plugins for OpenMM's platforms are missing")
    except ModuleNotFoundError as error:
        raise BackendError(
            f"backend: expected openmm-torch to be installed, got none ({error}); {_REMEDY}"
        ) from error
    except (ImportError, openmm.OpenMMException) as error:
        raise BackendError(
            f"backend: expected an openmm-torch that goes with torch {torch.__version__}, got one "
            f"that cannot be loaded ({error}); {_REMEDY}"
        ) from error
    _loaded.append(module)
    return module


def _load_plugin(path: str) -> None:
    """Load a plugin that failed before; plugins for missing GPUs fail again."""
    try:
        openmm.Platform.loadPluginLibrary(path)
    except openmm.OpenMMException as error:
        _log.info("openmm-torch does without %s: %s", path, error)


# ------------------------------------------------------------------------------------- the graph


class DelegatedSum(torch.nn.Module):
    """Delegates the smooth part of the Coulomb sum of a graph to OpenMM.

    Parameters
    ----------
    settings : str
        As for :func:`openmm_nequiplr.operators.point_charge_difference`.
    """

    def __init__(self, settings: str) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        eta: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = torch.ops.openmm_nequiplr.point_charge_difference(
            positions, cell, charges, subtracted, eta, self.settings
        )
        return energy, forces


def compile_settings(
    settings: ComputationSettings, device: torch.device | str | None = None
) -> torch.jit.ScriptModule:
    """The TorchScript graph of a computation; it contains its settings (see :func:`companion`).

    Without a box, and thus without a mesh, the graph always sums all pairs itself.

    Parameters
    ----------
    settings : ComputationSettings
    device : torch.device or str, optional
        Device of the graph; by default ``settings.device``, or the CPU. On platform CUDA,
        openmm-torch moves the graph to the GPU.
    """
    external = None
    if settings.long_range == "openmm" and settings.periodic:
        external = DelegatedSum(
            json.dumps(
                {
                    "num_atoms": len(settings.symbols),
                    "tolerance": settings.tolerance,
                    "precision": settings.precision,
                    "platform": settings.coulomb_platform,
                }
            )
        )
    model = load_embedded(settings.model)
    # the graph always contains the model
    stored = serialize_model(model) if isinstance(settings.model, ModelFile) else settings.model
    where = device if device is not None else settings.device
    return script_settings(
        settings,
        model,
        "cpu" if where is None else resolve_device(str(where)),
        external=external,
        notes={"token": uuid.uuid4().hex, "settings": json.dumps(settings.plain())},
        model_file=stored,
        atoms=settings.atoms,
    )


def script_settings(
    settings: ComputationSettings, model: NequIPLRPotential, device: str, **more: Any
) -> torch.jit.ScriptModule:
    """The graph of a model with the settings of a computation, on a device.

    Further arguments, and errors, are those of
    :func:`openmm_nequiplr.model.scripted.script_model`.
    """
    return script_model(
        model,
        settings.symbols,
        settings.pbc,
        settings.total_charge,
        dtype=DTYPES[settings.precision],
        device=device,
        options=settings.solver_options,
        **vars(settings.charge_conditions),
        **more,
    )


def _point_charge_difference(
    positions: np.ndarray,
    cell: np.ndarray,
    charges: np.ndarray,
    subtracted: np.ndarray,
    eta: float,
    settings: str,
) -> tuple[float, np.ndarray]:
    """Implementation of the operator; calls with equal settings share Contexts, one at a time."""
    with _lock:
        if settings not in _sums:
            while len(_sums) >= _MOST_SUMS:
                _sums.popitem(last=False)
            plain = json.loads(settings)
            _sums[settings] = threading.Lock(), PointChargeCoulomb(periodic=True, **plain)
        _sums.move_to_end(settings)
        turn, coulomb = _sums[settings]
    total, forces = 0.0, np.zeros_like(positions)
    with turn:
        for sign, values in ((1.0, charges), (-1.0, subtracted)):
            if values.any():
                energy, force = coulomb.smooth(positions, cell, values, eta)
                total += sign * energy
                forces += sign * force
    return total, forces


provide(_point_charge_difference)


def _in_forked_child() -> None:
    """Replace locks that threads of the parent may have held."""
    global _lock
    _lock = threading.RLock()
    _sums.update({settings: (threading.Lock(), sum_) for settings, (_, sum_) in _sums.items()})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


# ------------------------------------------------------------------------------ looking inside


def companion(force: openmm.Force) -> Computation | None:
    """A computation with the settings of a NequIP-LR TorchForce; ``None`` for any other force.

    It provides the charges that the graph does not expose. Repeated calls for one System return the
    same object, while it is in a cache of limited size.
    """
    try:
        module = load_openmmtorch()
    except BackendError:
        return None
    if not module.TorchForce.isinstance(force):
        return None
    graph = module.TorchForce.cast(force).getModule()
    notes = json.loads(getattr(graph, "notes", "{}"))
    if "settings" not in notes:
        return None
    with _lock:
        token = notes["token"]
        if token not in _companions:
            while len(_companions) >= _MOST_COMPANIONS:
                _companions.popitem(last=False)
            model = bytes(graph.model_file.cpu().numpy())
            settings = ComputationSettings.of_plain(json.loads(notes["settings"]), model=model)
            _companions[token] = Computation(settings)
        _companions.move_to_end(token)
        return _companions[token]


def restored_graph(element: ElementTree.Element) -> openmm.Force:
    """The TorchForce of an XML element, which openmm-torch 1.5 cannot read with OpenMM 8.6."""
    graph = torch.jit.load(BytesIO(bytes.fromhex(element.get("encodedFileContents", ""))))
    force = load_openmmtorch().TorchForce(graph)
    if hasattr(graph, "notes"):  # openmm-torch does not store names
        force.setName(FORCE_NAME)
    force.setForceGroup(int(element.get("forceGroup", "0")))
    force.setOutputsForces(element.get("outputsForces") == "1")
    force.setUsesPeriodicBoundaryConditions(element.get("usesPeriodic") == "1")
    for item in element.findall("GlobalParameters/Parameter"):
        force.addGlobalParameter(item.get("name"), float(item.get("default", "0")))
    for item in element.findall("ParameterDerivatives/Parameter"):
        force.addEnergyParameterDerivative(item.get("name"))
    for item in element.findall("Properties/Property"):
        force.setProperty(item.get("name"), item.get("value"))
    return force
