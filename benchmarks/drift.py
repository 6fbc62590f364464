"""Energy drift and iterations of the charge solver in NVE: ``python benchmarks/drift.py``.

An untrained model acts on rock salt, whose atoms springs hold near their sites: what is measured is
the solver and its coupling to OpenMM, not a model's physics.
"""

from __future__ import annotations

import argparse

import numpy as np
import openmm
import torch
from openmm import app, unit
from ours import build_model, platform_of
from step_time import salt

from openmm_nequiplr import create_system
from openmm_nequiplr.simulation import get_computation

#: Springs that hold atoms near their sites, kJ/mol/nm².
SPRING = 3000.0


def simulation(arguments: argparse.Namespace) -> app.Simulation:
    """Rock salt at 300 K, ready for the first step."""
    atoms = salt(arguments.atoms)
    topology = app.Topology()
    residue = topology.addResidue("NACL", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(np.array(atoms.cell) / 10 * unit.nanometer)
    options = {
        "type_names": sorted(set(atoms.symbols)),
        "layers": 3,
        "cutoff": 4.0,
        "l_max": 1,
        "features": 32,
        "neighbors": 12.0,
    }
    tolerance = {} if arguments.tolerance is None else {"charge_tolerance": arguments.tolerance}
    system = create_system(
        topology,
        build_model(options),
        total_charge=0,
        long_range=arguments.long_range,
        device="cpu",
        **tolerance,
    )
    springs = openmm.CustomExternalForce("0.5*k*periodicdistance(x, y, z, x0, y0, z0)^2")
    springs.addGlobalParameter("k", SPRING)
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    for index, site in enumerate(atoms.positions / 10):
        springs.addParticle(index, site.tolist())
    system.addForce(springs)
    integrator = openmm.VerletIntegrator(0.001 * arguments.timestep)
    made = app.Simulation(topology, system, integrator, *platform_of("cpu"))
    made.context.setPositions(atoms.positions / 10)
    made.context.setVelocitiesToTemperature(300.0, 1)
    return made


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=1728)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--tolerance", type=float, help="charge_tolerance")
    parser.add_argument("--long-range", default="auto", choices=("auto", "openmm", "graph"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    made = simulation(arguments)
    computation = get_computation(made.system)
    count = made.system.getNumParticles()
    every = max(1, arguments.steps // 250)
    times, energies, heat = [], [], []
    for _ in range(arguments.steps // every):
        made.step(every)
        state = made.context.getState(energy=True)
        kinetic = state.getKineticEnergy()._value
        times.append(state.getTime()._value)
        energies.append((state.getPotentialEnergy()._value + kinetic) * 10.364269 / count)
        heat.append(kinetic)
    solves = np.array([solve[:2] for solve in computation.solves])[1:]
    drift, _ = np.polyfit(times, energies, 1)
    temperature = 2.0 * np.mean(heat) / (3 * count * 0.00831446)
    print(
        f"{count} atoms, {times[-1]:.2f} ps of {arguments.timestep:g} fs, mean {temperature:.0f} K"
    )
    print(f"drift {drift:+.5f} meV/atom/ps, rms {np.std(energies):.5f} meV/atom")
    first, second = solves.mean(axis=0)
    print(f"iterations a solve: charges {first:.2f}, adjoint charges {second:.2f}")


if __name__ == "__main__":
    main()
