"""Does everything work on this GPU, and how fast? ``python benchmarks/gpu_check.py``.

Versions, results against double precision on the CPU, OpenMM's CUDA platform, what the GPU waits
for, and step times; some minutes. Report what it prints. ``--device cpu --quick`` tries the script.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import openmm
import torch
from ase import Atoms
from openmm import app, unit
from openmm.unit import angstrom, kilojoule_per_mole
from ours import build_model
from step_time import salt

from openmm_nequiplr import (
    NequIPLRCalculator,
    create_system,
    device_neighbors,
    ops,
    shipped_structure,
)
from openmm_nequiplr.model import Evaluation
from openmm_nequiplr.simulation import (
    Computation,
    describe_backend,
    get_computation,
    read_structure,
)

EXACT = {"precision": "double", "charge_tolerance": 1e-9}
#: Largest errors in single precision: eV an atom, relative rms of forces, e.
BOUNDS = {"energy": 1e-5, "forces": 1e-4, "charges": 1e-4}
MODEL = {
    "type_names": ["Cl", "Na"],
    "layers": 3,
    "cutoff": 4.0,
    "l_max": 1,
    "features": 32,
    "neighbors": 12.0,
}


class Case:
    """A structure, the model for it, and what the CPU finds in double precision."""

    def __init__(self, name: str) -> None:
        if name.isdigit():
            self.atoms, self.model = (
                salt(int(name)),
                build_model({"type_names": ["Cl", "Na"]} | MODEL),
            )
            self.charge = 0.0
        else:
            self.atoms, self.model = ase.io.read(shipped_structure(name)), name
            self.charge = read_structure(shipped_structure(name)).total_charge
        self._exact: dict[str, np.ndarray] | None = None

    def evaluate(self, device: str, **options: object) -> dict[str, np.ndarray]:
        """Energy an atom, forces and charges."""
        atoms: Atoms = self.atoms.copy()
        atoms.info["total_charge"] = self.charge
        atoms.calc = NequIPLRCalculator(self.model, device=device, **options)
        energy = atoms.get_potential_energy() / len(atoms)
        found = {"energy": energy, "forces": atoms.get_forces(), "charges": atoms.get_charges()}
        if isinstance(self.model, torch.nn.Module):  # the calculator casts it
            self.model.to(torch.float32)
        return found

    def errors(self, found: dict[str, np.ndarray]) -> dict[str, float]:
        """Of the energy an atom, of the forces relative to their size, and of the charges."""
        if self._exact is None:
            self._exact = self.evaluate("cpu", **EXACT)
        exact = self._exact
        forces = np.linalg.norm(found["forces"] - exact["forces"]) / np.linalg.norm(exact["forces"])
        errors = {"energy": abs(found["energy"] - exact["energy"]), "forces": forces}
        if "charges" in found:
            errors["charges"] = np.abs(found["charges"] - exact["charges"]).max()
        return {key: float(value) for key, value in errors.items()}

    def simulation(self, device: str, integrator: openmm.Integrator, **options: object):
        """A simulation as a user makes it, on OpenMM's platform for the device, and its System."""
        topology = app.Topology()
        residue = topology.addResidue("X", topology.addChain())
        for symbol in self.atoms.symbols:
            topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        if self.atoms.pbc.any():
            topology.setPeriodicBoxVectors(np.array(self.atoms.cell) / 10 * unit.nanometer)
        barostat = options.pop("barostat", False)
        system = create_system(
            topology, self.model, device=device, total_charge=self.charge, **options
        )
        if barostat:
            system.addForce(openmm.MonteCarloBarostat(1.0, 300, 5))
        name = "CPU" if device == "cpu" else "CUDA"
        properties = {} if device == "cpu" else {"Precision": "mixed"}
        place = openmm.Platform.getPlatformByName(name)
        simulation = app.Simulation(topology, system, integrator, place, properties)
        simulation.context.setPositions(self.atoms.positions / 10)
        return simulation, system


def versions(device: str, quick: bool) -> dict:
    """What is installed, and which card."""
    found = {"python": sys.version.split()[0], "machine": platform.platform()}
    for name in ("openmm-nequiplr", "torch", "triton", "numpy", "openmm", "e3nn", "vesin"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    platforms = range(openmm.Platform.getNumPlatforms())
    found["platforms"] = [openmm.Platform.getPlatform(k).getName() for k in platforms]
    found["plugin failures"] = list(openmm.Platform.getPluginLoadFailures())
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["card"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    found["kernels"] = ops.compiled(torch.zeros(1, device=device))
    if not found["kernels"]:
        raise RuntimeError("the kernels for this device are not there: pip install triton")
    return found


def accuracy(device: str, quick: bool) -> dict:
    """Single and double precision, with kernels and without, against the CPU."""
    found = {}
    for name in ["216"] if quick else ["216", "1728", "au2-mgo", "carbon-chain"]:
        case = Case(name)
        found[f"{name} single"] = case.errors(case.evaluate(device, charge_tolerance=1e-6))
        found[f"{name} double"] = case.errors(case.evaluate(device, **EXACT))
        with ops.references():
            found[f"{name} without kernels"] = case.errors(case.evaluate(device, **EXACT))
    for name, errors in found.items():
        scale = 1.0 if name.endswith("single") else 1e-2
        bad = {key: value for key, value in errors.items() if not value <= scale * BOUNDS[key]}
        if bad:
            raise RuntimeError(f"{name}: errors {bad} (all: {found})")
    if not all(device_neighbors._right.values()):
        raise RuntimeError("neighbours: vesin fails on this GPU, and the CPU searches (see above)")
    return found | {"neighbours searched on": list(device_neighbors._right) or ["cpu"]}


def dynamics(device: str, quick: bool) -> dict:
    """OpenMM's platform: forces, drift of the total energy, minimiser and barostat."""
    found, steps = {}, 20 if quick else 500
    sums = {"graph": {}, "PME by OpenMM": {"long_range": "openmm"}}
    for label, options in sums.items():
        case = Case("216")
        simulation, system = case.simulation(device, openmm.VerletIntegrator(0.0005), **options)
        state = simulation.context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True).value_in_unit(kilojoule_per_mole / angstrom)
        energy = state.getPotentialEnergy().value_in_unit(kilojoule_per_mole) / 96.48533212
        values = {"energy": energy / len(case.atoms), "forces": forces / 96.48533212}
        found[label] = {"backend": describe_backend(system), **case.errors(values)}
        if not found[label]["forces"] < 2e-3:
            raise RuntimeError(f"{label}: {found[label]}")
        simulation.context.setVelocitiesToTemperature(100, 1)
        totals = []
        for _ in range(4):
            simulation.step(steps // 4)
            state = simulation.context.getState(energy=True)
            total = state.getPotentialEnergy() + state.getKineticEnergy()
            totals.append(total.value_in_unit(kilojoule_per_mole) / 0.09648533212)
        found[label]["change of total energy, meV/atom"] = (totals[-1] - totals[0]) / 216
    simulation, _ = Case("216").simulation(device, openmm.VerletIntegrator(0.0005))
    simulation.minimizeEnergy(maxIterations=5)
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    simulation, _ = Case("216").simulation(device, integrator, barostat=True)
    simulation.step(steps)
    energy = simulation.context.getState(energy=True).getPotentialEnergy()
    found["barostat"] = f"{energy} after {steps} steps"
    if not np.isfinite(energy.value_in_unit(kilojoule_per_mole)):
        raise RuntimeError(f"barostat: {energy}")
    return found


def moving(name: str, device: str) -> tuple[Callable[[], Evaluation], Computation, Case]:
    """Evaluation of structures whose atoms move a little from one to the next, as a step does."""
    case = Case(name)
    _, system = case.simulation("cpu", openmm.VerletIntegrator(0.001))
    if device != "cpu":
        _, system = case.simulation(device, openmm.VerletIntegrator(0.001))
    computation = get_computation(system)
    velocities = 0.004 * np.random.default_rng(0).normal(size=case.atoms.positions.shape)
    cell = np.array(case.atoms.cell)

    def step() -> Evaluation:
        case.atoms.positions += velocities
        return computation.evaluate(case.atoms.positions, cell)

    return step, computation, case


def steps(device: str, quick: bool) -> dict:
    """Milliseconds of an evaluation, kernels, and the lines that wait for the GPU."""
    found, names = {}, ["216"] if quick else ["1728", "13824", "97336"]
    for name in names:
        step, computation, case = moving(name, device)
        for _ in range(3 if device == "cpu" else 20):  # a GPU records the sixth or a later one
            step()
        times = []
        for _ in range(3 if quick else 15):
            begin = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - begin))
        found[name] = {"milliseconds": statistics.median(times), "least": min(times)}
        if device != "cpu":
            found[name]["recorded"] = computation.replays
            if not computation.replays:
                raise RuntimeError("no step was recorded; the reason is in a note above")
            found[name] |= waits(step)
            found[name]["GB"] = torch.cuda.max_memory_allocated() / 1e9
            found[name]["GB reserved"] = torch.cuda.memory_reserved() / 1e9
        if name == names[0]:
            last = step()
            values = {"forces": last.forces, "charges": last.charges}
            errors = case.errors(values | {"energy": last.energy / len(case.atoms)})
            found[name] |= {"errors": errors, "recorded": computation.replays}
            if not errors["forces"] < 2e-3:
                raise RuntimeError(f"errors of a recorded step: {found}")
    return found


def waits(step: Callable[[], object]) -> dict:
    """Lines at which one evaluation waits for the GPU, and its kernels."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    lines = [f"{w.filename.rsplit('openmm_nequiplr/', 1)[-1]}:{w.lineno}" for w in caught]
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as recorded:
        step()
    events = [e for e in recorded.key_averages() if str(e.device_type).endswith("CUDA")]
    events.sort(key=lambda event: event.self_device_time_total, reverse=True)
    return {
        "waits": dict(collections.Counter(lines)),
        "kernels": sum(event.count for event in events),
        "kernel milliseconds": sum(event.self_device_time_total for event in events) / 1e3,
        "longest": [(e.key[:60], e.count, e.self_device_time_total / 1e3) for e in events[:12]],
    }


def main() -> None:
    """Run all parts, whatever becomes of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small structures, few steps")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    found, failed = {}, []
    for part in (versions, accuracy, dynamics, steps):
        begin = time.perf_counter()
        try:
            found[part.__name__] = part(arguments.device, arguments.quick)
        except Exception as error:
            traceback.print_exc()
            found[part.__name__] = {"error": f"{type(error).__name__}: {error}"}
            failed.append(part.__name__)
        print(f"== {part.__name__} ({time.perf_counter() - begin:.0f} s)")
        print(json.dumps(found[part.__name__], indent=1, default=str), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1, default=str))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
