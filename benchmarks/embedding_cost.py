"""What electrostatic embedding costs beyond the model and the force field, in PME evaluations.

    python benchmarks/embedding_cost.py --atoms 30000 100000 --threads 2

A model of few atoms stands in a box of charges as dense as water. The potential of the charges and
the forces on them are timed beside one evaluation of OpenMM's NonbondedForce with particle mesh
Ewald (cutoff 9 Å, error tolerance 5e-4, platform CPU) for the same atoms, in turns; the best of
each counts. The list of near charges is kept meanwhile; it is searched anew every ten steps or so.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np


def box_of_water(count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions, shape (N, 3), Å, and charges of rigid molecules on a lattice, and the edge, Å."""
    rng = np.random.default_rng(1)
    molecules = count // 3
    edge = (molecules / 0.0334) ** (1.0 / 3.0)
    side = int(np.ceil(molecules ** (1.0 / 3.0)))
    centres = np.stack(np.meshgrid(*(np.arange(side),) * 3), axis=-1).reshape(-1, 3)[:molecules]
    rotations = np.linalg.qr(rng.normal(size=(molecules, 3, 3)))[0]
    molecule = np.array([[0.0, 0.0, 0.0], [0.957, 0.0, 0.0], [-0.24, 0.927, 0.0]])
    sites = (centres * edge / side)[:, None] + molecule @ rotations
    return sites.reshape(-1, 3), np.tile([-0.834, 0.417, 0.417], molecules), float(edge)


def best(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest time of each, s; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return {name: min(values[1:]) for name, values in times.items()}


def measure(count: int, model_atoms: int, repeats: int) -> None:
    import openmm
    import torch

    from openmm_nequiplr.electrostatics import OutsideCharges
    from openmm_nequiplr.simulation.pme import DEFAULT_TOLERANCE

    sites, charges, edge = box_of_water(count)
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*(0.1 * edge * np.eye(3)))
    for number, charge in enumerate(charges):
        system.addParticle(16.0)
        force.addParticle(charge, 0.315, 0.0 if number % 3 else 0.636)
    for first in range(0, len(charges), 3):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            force.addException(first + i, first + j, 0.0, 1.0, 0.0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.9)
    system.addForce(force)
    platform = openmm.Platform.getPlatform("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)

    rng = np.random.default_rng(2)
    atoms = torch.from_numpy(0.5 * edge + 3.0 * rng.normal(size=(model_atoms, 3)))
    widths = torch.full((model_atoms,), 0.7, dtype=torch.float64)
    weights = torch.from_numpy(rng.normal(size=model_atoms))
    cell = edge * torch.eye(3, dtype=torch.float64)
    outside = OutsideCharges(
        torch.from_numpy(charges), accuracy=DEFAULT_TOLERANCE, dtype=torch.float32
    )

    def embedding() -> None:
        moved = sites + 0.005 * rng.normal(size=sites.shape)
        places = [x.clone().requires_grad_() for x in (atoms, torch.from_numpy(moved))]
        torch.autograd.grad(weights @ outside(places[0], widths, places[1], cell), places)

    def pme() -> None:
        context.setPositions(0.1 * (sites + 0.005 * rng.normal(size=sites.shape)))
        context.getState(energy=True, forces=True)

    times = best({"embedding": embedding, "pme": pme}, repeats)
    print(
        f"{len(charges)} charges, {model_atoms} atoms of a model: embedding "
        f"{1e3 * times['embedding']:.1f} ms, PME {1e3 * times['pme']:.1f} ms, "
        f"ratio {times['embedding'] / times['pme']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", default=[30000])
    parser.add_argument("--model-atoms", type=int, default=22)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENMM_CPU_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(args.threads)
    for count in args.atoms:
        measure(count, args.model_atoms, args.repeats)


if __name__ == "__main__":
    main()
