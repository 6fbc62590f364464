"""A dipeptide in TIP3P water with electrostatic embedding: energy along NVE, or survival at 300 K.

    python benchmarks/embedding_run.py --ps 10 --nve
    python benchmarks/embedding_run.py --ps 100 --timestep 2 --hydrogen-mass 4

The system is that of examples/electrostatic_embedding.py, in a box of 2.55 nm. NVE starts after
0.5 ps at 300 K, and its drift is the slope of the total energy. A run at 300 K has failed when the
atoms of the model are hotter than twice the target after 0.5 ps, when two of them are closer than
half the sum of their covalent radii, or when an evaluation fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

#: kJ/mol in meV.
MEV = 10.364269
#: Edge of the box, nm.
EDGE = 2.55


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--nve", action="store_true", help="constant energy instead of 300 K")
    parser.add_argument("--hydrogen-mass", type=float, help="of the model's hydrogen atoms, Da")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENMM_CPU_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    from ase import Atoms
    from electrostatic_embedding import mixed_simulation
    from liquid import closest
    from openmm import LangevinMiddleIntegrator, unit

    mass = arguments.hydrogen_mass and arguments.hydrogen_mass * unit.dalton
    integrator = LangevinMiddleIntegrator(300.0, 1.0, 0.001 * arguments.timestep)
    integrator.setRandomNumberSeed(arguments.seed)
    simulation, atoms = mixed_simulation(EDGE, integrator, hydrogen_mass=mass)
    context, system = simulation.context, simulation.system
    elements = [atom.element for atom in simulation.topology.atoms()]
    model = Atoms([elements[i].symbol for i in atoms])
    masses = np.array([system.getParticleMass(i)._value for i in atoms])
    freedom = 3 * system.getNumParticles() - system.getNumConstraints()
    simulation.minimizeEnergy(maxIterations=100)
    context.setVelocitiesToTemperature(300.0, arguments.seed)
    block = max(1, round(50 / arguments.timestep))
    if arguments.nve:
        simulation.step(round(500 / arguments.timestep))
        integrator.setFriction(0.0)
    begin, start, end = time.time(), simulation.currentStep, "held"
    times, energies, heat, model_heat, distances = [], [], [], [], []
    for _ in range(round(1000 * arguments.ps / arguments.timestep / block)):
        try:
            simulation.step(block)
            state = context.getState(energy=True, positions=True, velocities=True)
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
            break
        kinetic = state.getKineticEnergy()._value
        times.append(0.001 * arguments.timestep * (simulation.currentStep - start))
        energies.append(MEV * (state.getPotentialEnergy()._value + kinetic) / len(elements))
        heat.append(2 * kinetic / (freedom * 0.00831446))
        own = state.getVelocities(asNumpy=True)._value[atoms]
        model_heat.append((masses[:, None] * own**2).sum() / (3 * len(atoms) * 0.00831446))
        distances.append(closest(model, 10 * state.getPositions(asNumpy=True)._value[atoms]))
        hot = not arguments.nve and times[-1] > 0.5 and model_heat[-1] > 600
        if hot or distances[-1] < 0.5:
            end = "hot" if hot else "close"
            break
        if len(times) % 20 == 0:
            print(f"{times[-1]:.1f} ps, {np.mean(model_heat):.0f} K", file=sys.stderr, flush=True)
    result = {
        "atoms": len(elements),
        "end": end,
        "ps": times[-1] if times else 0.0,
        "mean temperature, K": float(np.mean(heat)),
        "of the model, K": float(np.mean(model_heat)),
        "shortest distance": min(distances),
        "ms a step": 1e3 * (time.time() - begin) / (simulation.currentStep - start),
    }
    if arguments.nve:
        result["drift, meV/atom/ps"] = float(np.polyfit(times, energies, 1)[0])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
