"""What multiple time steps gain at equal conservation of energy, in NVE.

    python benchmarks/respa.py MODEL start.extxyz --inner INNER --plain 0.5 1 1.5 --outer 2/4 4/8
    python benchmarks/respa.py MODEL start.extxyz --match frames.extxyz

Every run starts from the same positions and velocities, after a while at 300 K. ``4/8`` is an outer
step of 4 fs with 8 inner ones. With ``--match`` the inner potential is one of OpenMM's forces, see
``matched.py``. The fluctuation is that of the energy per atom about its drift. A run's gain is the
time that the cheapest plain run takes whose energy fluctuates as little, over its own: processor
time of this process per simulated time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import ase.io
import numpy as np
import openmm
import torch
from matched import matched_forces
from openmm import unit

from openmm_nequiplr import create_system, read_structure
from openmm_nequiplr.simulation import SimulationStructure
from openmm_nequiplr.simulation.multistep import Inner

_MEV = 10.364269  # of kJ/mol
_CHUNK = 12.0  # fs between energies, and of no period of the integrators


@dataclass(frozen=True)
class Found:
    """What one run showed: drift (meV/atom/ps), fluctuation (meV/atom), seconds per ps."""

    drift: float
    fluctuation: float
    cost: float


def context_of(
    start: SimulationStructure,
    model: str,
    integrator: openmm.Integrator,
    masses: np.ndarray | None,
    inner: Inner | None = None,
) -> openmm.Context:
    """A Context at the start."""
    system = create_system(
        start.topology, model, total_charge=start.total_charge, masses=masses, inner=inner
    )
    platform = openmm.Platform.getPlatform("CPU")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(start.positions)
    return context


def energies(context: openmm.Context, step: float, length: float) -> Found:
    """Energy along a run of so many ps."""
    count = context.getSystem().getNumParticles()
    every = max(1, round(_CHUNK / step))
    times, totals, spent = [], [], 0.0
    for _ in range(round(1000 * length / step / every)):
        begin = time.process_time()
        context.getIntegrator().step(every)
        spent += time.process_time() - begin
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        times.append(state.getTime()._value)
        totals.append(total._value * _MEV / count)
    line = np.polyfit(times, totals, 1)
    rest = np.array(totals) - np.polyval(line, times)
    return Found(
        float(line[0]), float(rest.std()), spent / (times[-1] - times[0] + step * every / 1e3)
    )


def measure(
    model: str,
    inner: Inner,
    start: SimulationStructure,
    plain: list[float],
    outer: list[tuple[float, int]],
    length: float,
    masses: np.ndarray | None = None,
    settle: float = 0.1,
) -> dict[tuple[float, int], float]:
    """Print all runs; the gain of each with several steps."""
    bath = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.0005)
    context = context_of(start, model, bath, masses)
    context.setVelocitiesToTemperature(300.0, 1)
    bath.step(round(1000 * settle / 0.5))
    state = context.getState(positions=True, velocities=True)
    positions, velocities = state.getPositions(), state.getVelocities()

    def run(integrator: openmm.Integrator, step: float, cheap: Inner | None) -> Found:
        made = context_of(start, model, integrator, masses, cheap)
        made.setPositions(positions)
        made.setVelocities(velocities)
        integrator.step(1)  # compiles and caches
        found = energies(made, step, length)
        figures = f"drift {found.drift:+8.3f} meV/atom/ps, fluctuation {found.fluctuation:.4f}"
        print(f"{figures} meV/atom, {found.cost:7.1f} s/ps", end="", flush=True)
        return found

    alone = []
    for step in plain:
        print(f"\n{step:4g} fs         ", end="")
        alone.append(run(openmm.VerletIntegrator(step * unit.femtosecond), step, None))
    gains = {}
    for step, count in outer:
        print(f"\n{step:4g} fs with {count:2d} ", end="")
        integrator = openmm.MTSIntegrator(step * unit.femtosecond, [(0, 1), (1, count)])
        found = run(integrator, step, inner)
        good = [each.cost for each in alone if each.fluctuation <= found.fluctuation]
        gains[step, count] = min(good, default=np.nan) / found.cost
        print(f", gain {gains[step, count]:.2f}", end="")
    print()
    return gains


def _pair(text: str) -> tuple[float, int]:
    step, count = text.split("/")
    return float(step), int(count)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("start")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--inner", help="model of nequiplr init --distill MODEL")
    kind.add_argument("--match", help="extended XYZ with REF_forces, of which every 20th counts")
    parser.add_argument("--plain", type=float, nargs="+", default=[0.5, 1.0, 1.5], help="fs")
    parser.add_argument("--outer", type=_pair, nargs="+", default=[(2, 4), (4, 8)], help="fs/steps")
    parser.add_argument("--length", type=float, default=1.0, help="ps")
    parser.add_argument("--hydrogen", type=float, help="mass of hydrogen, Da; none is taken off")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    platform = openmm.Platform.getPlatform("CPU")
    platform.setPropertyDefaultValue("Threads", str(given.threads))
    start, masses = read_structure(given.start), None
    if given.hydrogen is not None:
        elements = [atom.element for atom in start.topology.atoms()]
        masses = np.array([given.hydrogen if e.symbol == "H" else e.mass._value for e in elements])
    inner: Inner = given.inner
    if given.match:
        inner = matched_forces(ase.io.read(given.match, "::20"), ase.io.read(given.start))
    arguments = (given.model, inner, start, given.plain, given.outer, given.length)
    measure(*arguments, masses=masses)


if __name__ == "__main__":
    main()
