"""The peer: openmm-ml with an untrained NequIP model, one OpenMM step at a time.

Started by ``step_time.py`` with the Python of the environment that holds nequip and openmm-ml.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit
from workers import serve


def build_model(options: dict):
    """An untrained NequIP model; compiled ahead of time when ``options["compile"]`` asks for it."""
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        r_max=options["cutoff"],
        type_names=options["type_names"],
        num_layers=options["layers"],
        l_max=options["l_max"],
        num_features=options["features"],
        avg_num_neighbors=options["neighbors"],
    ).eval()
    return compiled(model, options) if options["compile"] else model


def compiled(model, options: dict):
    """What ``nequip-compile --mode aotinductor --target ase`` makes, behind the eager interface."""
    from ase.build import bulk
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.model.inference_models import load_aotinductor_model
    from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
    from nequip.utils.aot import aot_export_model

    target = COMPILE_TARGET_DICT["ase"]
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)
    crystal.rattle(0.05, seed=0)
    data = compute_neighborlist_(from_ase(crystal), options["cutoff"])
    data[AtomicDataDict.ATOM_TYPE_KEY] = torch.arange(len(crystal)) % len(options["type_names"])
    data = target["data_settings"](data)
    infinite = {"min": 2, "max": torch.inf}
    dims = {name: torch.export.Dim(f"num_{name}s", **infinite) for name in ("node", "edge")}
    dims = target["batch_map_settings"](dims | {"graph": torch.export.Dim.STATIC})
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "peer.nequip.pt2")
        metadata = {
            k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in model.metadata.items()
        }
        settings = {"aot_inductor.metadata": metadata}
        aot_export_model(
            model, "cpu", target["input"], target["output"], data, dims, path, settings
        )
        fast, _ = load_aotinductor_model(path, "cpu", target["input"], target["output"])
    fast.metadata = model.metadata
    return fast


def simulation(options: dict) -> app.Simulation:
    """The peer's simulation, made by openmm-ml as its users make it."""
    from nequip.model.saved_models import load_utils
    from openmmml import MLPotential

    model = build_model(options)
    load_utils.load_saved_model = lambda path: model  # no file: the model is not trained
    positions, cell = np.array(options["positions"]), np.array(options["cell"])
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in options["symbols"]:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(cell / 10 * unit.nanometer)
    potential = MLPotential("nequip", modelPath="", lengthScale=0.1, energyScale=96.4853)
    system = potential.createSystem(topology, device=options["device"])
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    name = "CPU" if options["device"] == "cpu" else "CUDA"
    properties = {"Threads": str(torch.get_num_threads())} if name == "CPU" else {}
    platform = openmm.Platform.getPlatformByName(name)
    made = app.Simulation(topology, system, integrator, platform, properties)
    made.context.setPositions(positions / 10)
    return made


def build(request: dict) -> Callable[[], dict]:
    """A step of the simulation that is asked for."""
    torch.set_num_threads(request["threads"])
    current = simulation(request)

    def step() -> dict:
        current.step(1)
        return {"parts": {}}

    return step


if __name__ == "__main__":
    serve(build)
