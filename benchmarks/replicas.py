"""Steps of R replicas in one Context, beside those of one, and of R Contexts in turn.

    python benchmarks/replicas.py dipeptides --replicas 1 4 16

Times are those of the processor, the least of some rounds that alternate, on one thread.
"""

from __future__ import annotations

import argparse
import time

import openmm
import torch
from openmm import app, unit

from openmm_nequiplr import create_system, read_structure, shipped_structure
from openmm_nequiplr.simulation import SimulationStructure


def context_of(start: SimulationStructure, model: str, replicas: int, seed: int) -> openmm.Context:
    """A Context of so many copies, at 300 K."""
    positions = start.positions * unit.nanometer
    copies = app.Modeller(start.topology, positions)
    for _ in range(replicas - 1):
        copies.add(start.topology, positions)
    charge = start.total_charge
    system = create_system(copies.topology, model, total_charge=charge, replicas=replicas)
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("CPU"))
    context.setPositions(copies.positions)
    context.setVelocitiesToTemperature(300, seed)
    return context


def spent(contexts: list[openmm.Context], steps: int) -> float:
    """Processor seconds of a step of all Contexts."""
    begin = time.process_time()
    for context in contexts:
        context.getIntegrator().step(steps)
    return (time.process_time() - begin) / steps


def measure(
    start: SimulationStructure, model: str, counts: list[int], steps: int, rounds: int
) -> dict[int, tuple[float, float]]:
    """Least times (s) of a step of R replicas, and of R Contexts."""
    together = {count: [context_of(start, model, count, 1)] for count in counts}
    apart = [context_of(start, model, 1, 1 + k) for k in range(max(counts))]
    for contexts in (*together.values(), apart):
        spent(contexts, 2)
    found = {count: (float("inf"), float("inf")) for count in counts}
    for _ in range(rounds):
        for count, before in found.items():
            now = spent(together[count], steps), spent(apart[:count], steps)
            found[count] = min(before[0], now[0]), min(before[1], now[1])
    one = found[min(counts)][0] / min(counts)
    for count, (seconds, others) in found.items():
        print(
            f"{count:4} replicas: {1e3 * seconds:8.2f} ms a step, {seconds / one:6.2f} of one; "
            f"as Contexts {1e3 * others:8.2f} ms, {others / seconds:5.2f} times as long"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--structure", help="default: that of a shipped model")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = read_structure(given.structure or shipped_structure(given.model))
    print(f"{given.model}: {start.num_atoms} atoms")
    measure(start, given.model, given.replicas, given.steps, given.rounds)


if __name__ == "__main__":
    main()
