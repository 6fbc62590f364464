"""Our side of ``step_time.py``: one OpenMM step, or the two networks alone, at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import torch
from openmm import app, unit
from parts import collect, measure, part
from workers import serve

from openmm_nequiplr import create_system
from openmm_nequiplr.model import ModelConfig, NequIPLRPotential
from openmm_nequiplr.neighbors import neighbor_list
from openmm_nequiplr.simulation import get_computation


def build_model(options: dict) -> NequIPLRPotential:
    """An untrained model; two thirds of the layers before the charges, one third after."""
    torch.manual_seed(0)
    after = max(1, options["layers"] // 3)
    return NequIPLRPotential(
        ModelConfig(
            type_names=tuple(options["type_names"]),
            r_max=options["cutoff"],
            num_layers=options["layers"] - after,
            num_layers_charge=after,
            l_max=options["l_max"],
            num_features=options["features"],
            avg_num_neighbors=options["neighbors"],
            hardness_min=3.0,
        )
    )


def platform_of(device: str) -> tuple[openmm.Platform, dict[str, str]]:
    """OpenMM's platform on the same device as the network, and its properties."""
    if device == "cpu":
        threads = {"Threads": str(torch.get_num_threads())}
        return openmm.Platform.getPlatformByName("CPU"), threads
    return openmm.Platform.getPlatformByName("CUDA"), {"Precision": "mixed"}


def make_system(options: dict) -> tuple[app.Topology, openmm.System]:
    """A System of the structure, with an untrained model."""
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in options["symbols"]:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(np.array(options["cell"]) / 10 * unit.nanometer)
    model, device = build_model(options), options["device"]
    return topology, create_system(topology, model, total_charge=0, device=device)


def simulation_step(options: dict) -> Callable[[], tuple[int, int]]:
    """One step of a simulation made by ``create_system``; it returns the solver's iterations."""
    topology, system = make_system(options)
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    simulation = app.Simulation(topology, system, integrator, *platform_of(options["device"]))
    simulation.context.setPositions(np.array(options["positions"]) / 10)
    computation = get_computation(system)

    def step() -> tuple[int, int]:
        simulation.step(1)
        return computation.solves[-1][:2]

    return step


def pretended_steps(options: dict, steps: int) -> list[dict[str, int]]:
    """What a GPU would do in each of some evaluations between which atoms move a little."""
    from pretended_cuda import pretended_cuda  # needs more than older versions have

    positions, cell = np.array(options["positions"]), np.array(options["cell"])
    velocities = 0.002 * np.random.default_rng(0).normal(size=positions.shape)
    found = []
    with pretended_cuda() as counts:
        computation = get_computation(make_system({**options, "device": "cuda"})[1])
        for step in range(steps):
            counts.clear()
            computation.evaluate(positions + step * velocities, cell)
            found.append(counts.totals() | {"iterations": sum(computation.solves[-1][:2])})
    return found


def network_step(options: dict) -> Callable[[], object]:
    """Neighbours, both stages and all their gradients, with made-up charges in between."""
    model = build_model(options).eval().requires_grad_(False)
    symbols = options["symbols"]
    points, box = np.array(options["positions"]), np.array(options["cell"])
    types = torch.tensor([options["type_names"].index(s) for s in symbols])
    weights = torch.linspace(-0.1, 0.1, len(symbols), dtype=torch.float64)

    def step() -> None:
        with part("neighbours"):
            edges, shift = neighbor_list(points, box, True, options["cutoff"])
        with part("stage 1"):
            positions = torch.tensor(points, requires_grad=True)
            moved = positions.index_select(0, edges[1]) - positions.index_select(0, edges[0])
            length, harmonics = model.edge_features(moved + shift @ torch.from_numpy(box))
            chi, _ = model.electronegativity_stage(types, edges, length, harmonics)
        with part("stage 2 and its gradient"):
            charges = (0.3 * torch.tanh(chi.detach())).requires_grad_()
            energy = model.energy_stage(types, charges, edges, length, harmonics).sum()
            wanted = [charges, length, harmonics]
            _, *slopes = torch.autograd.grad(energy, wanted)
        with part("gradient"):
            first = (weights * chi).sum()
            torch.autograd.grad([first, length, harmonics], positions, [None, *slopes])

    return step


def build(request: dict) -> Callable[[], dict]:
    """The step that is asked for, with the times of its parts."""
    torch.set_num_threads(request["threads"])
    step = (network_step if request["network"] else simulation_step)(request)

    def timed() -> dict:
        with collect() as parts:
            iterations = step()
        return {"iterations": iterations, "parts": parts}

    return timed


if __name__ == "__main__":
    measure()
    serve(build)
