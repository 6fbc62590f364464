"""mlipops beside ours on the CPU: ``python benchmarks/accelerators.py``.

Neighbour lists by mlipops, vesin and the cell list of exported models, and energy with all
gradients of Gaussian charges by mlipops' PME and by our mesh, at equal errors of the forces.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from mlipops import CoulombPME, NeighborList
from step_time import salt

from openmm_nequiplr.electrostatics import MeshCoulomb, MeshGeometry, mesh_geometry
from openmm_nequiplr.electrostatics.gaussian import GaussianScreening
from openmm_nequiplr.model.scripted.pairs import half_pairs
from openmm_nequiplr.neighbors import neighbor_list
from openmm_nequiplr.units import COULOMB_CONSTANT

#: Cutoff of the neighbour lists, Å.
CUTOFF = 5.0
#: Requested relative error of our forces, and α (1/Å), α × cutoff, α × spacing and order of PME.
ACCURACY = 1e-5
SETTINGS = [
    (alpha, reach, spacing, order)
    for alpha in (0.35, 0.5)
    for reach in (3.4, 3.8)
    for spacing, order in ((0.16, 5), (0.2, 6), (0.25, 8))
]
Setting = tuple[float, float, float, int]
Gradients = tuple[torch.Tensor, ...]


def cpu_time(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of the processor, after one call that is not timed."""
    if repeats > 1:
        work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def lists(count: int, repeats: int) -> None:
    """Times of half lists of rock salt."""
    atoms = salt(count)
    points, cell = np.array(atoms.positions), np.array(atoms.cell)
    tensors = torch.tensor(points), torch.tensor(cell)
    single = [tensor.float() for tensor in tensors]
    cell_list = torch.jit.script(half_pairs)

    def theirs() -> torch.Tensor:
        return NeighborList(CUTOFF)(*single)

    vesin = cpu_time(lambda: neighbor_list(points, cell, True, CUTOFF, full=False), repeats)
    scripted = cpu_time(lambda: cell_list(*tensors, CUTOFF), repeats)
    # all pairs of atoms: tens of seconds and some GB from 10,000 on, hence once and float32
    mlipops = cpu_time(theirs, repeats if len(points) < 5000 else 1)
    print(f"half list within {CUTOFF} Å, {len(points)} atoms:")
    for name, seconds in (("vesin", vesin), ("scripted", scripted), ("mlipops", mlipops)):
        print(f"  {name:9} {1e3 * seconds:9.1f} ms  {seconds / vesin:7.1f} x vesin")


class Charges:
    """Gaussian charges on rock salt, and their energy in two ways."""

    def __init__(self, count: int) -> None:
        atoms = salt(count)
        cations = atoms.numbers == 11
        self.points, self.cell = np.array(atoms.positions), torch.tensor(np.array(atoms.cell))
        self.widths = torch.tensor(np.where(cations, 1.0, 0.8))
        noise = 0.05 * np.random.default_rng(0).normal(size=len(atoms))
        self.charges = torch.tensor(np.where(cations, 0.8, -0.8) + noise)

    def gradients(self, energy: Callable[..., torch.Tensor]) -> Gradients:
        """Energy, its gradient in the positions, and in the charges."""
        positions = torch.tensor(self.points, requires_grad=True)
        charges = self.charges.clone().requires_grad_()
        found = energy(positions, charges)
        return found.detach(), *torch.autograd.grad(found, (positions, charges))

    def geometry(self, accuracy: float) -> MeshGeometry:
        """What our mesh keeps from step to step."""
        return mesh_geometry(self.points, self.cell.numpy(), self.widths.numpy(), accuracy)

    def ours(self, geometry: MeshGeometry) -> Gradients:
        """By our mesh; what is kept between steps is given."""

        def energy(positions: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
            operator = MeshCoulomb(positions, self.cell, self.widths, geometry, COULOMB_CONSTANT)
            return operator.energy(charges)

        return self.gradients(energy)

    def theirs(self, setting: Setting) -> Callable[[], Gradients]:
        """By mlipops (float32, all it has) with our short-ranged correction; pairs are kept too."""
        alpha, reach, spacing, order = setting
        shape = [math.ceil(alpha * edge / spacing) for edge in self.cell.diagonal().tolist()]
        pairs = NeighborList(reach / alpha, padding=0.8)
        sum_of_points = CoulombPME(pairs, None, *shape, order, alpha, COULOMB_CONSTANT)
        widest = 5.3 * math.sqrt(2.0) * float(self.widths.max())
        index, shift = neighbor_list(self.points, self.cell.numpy(), True, widest, full=False)
        box = self.cell.float()
        images = shift @ self.cell

        def energy(positions: torch.Tensor, charges: torch.Tensor) -> torch.Tensor:
            vectors = positions[index[1]] - positions[index[0]] + images
            distance = torch.linalg.vector_norm(vectors, dim=1)
            gaussian = GaussianScreening(index, distance, self.widths, COULOMB_CONSTANT)
            points = sum_of_points(positions.float(), charges.float(), box)
            return points.double().squeeze() + gaussian.energy(charges)

        return lambda: self.gradients(energy)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of all components together."""
    norm = torch.linalg.vector_norm
    return (norm(found - expected) / norm(expected)).item()


def charges(count: int, repeats: int) -> None:
    """Times of energy and gradients; of mlipops' settings the fastest that is as accurate."""
    problem = Charges(count)
    _, exact, _ = problem.ours(problem.geometry(1e-9))
    geometry = problem.geometry(ACCURACY)
    reached = error(problem.ours(geometry)[1], exact)
    ours = cpu_time(lambda: problem.ours(geometry), repeats)
    print(f"energy and gradients of Gaussian charges, {len(problem.points)} atoms:")
    print(f"  mesh      {1e3 * ours:9.1f} ms  error of forces {reached:.1e}")
    best: tuple[float, float, Setting] | None = None
    for setting in SETTINGS:
        work = problem.theirs(setting)
        wrong = error(work()[1], exact)
        if wrong > max(reached, ACCURACY):
            continue
        seconds = cpu_time(work, 1)
        if best is None or seconds < best[0]:
            best = (seconds, wrong, setting)
    if best is None:
        print("  mlipops: no setting is as accurate")
        return
    seconds = cpu_time(problem.theirs(best[2]), repeats)
    print(
        f"  mlipops   {1e3 * seconds:9.1f} ms  error of forces {best[1]:.1e}"
        f"  {seconds / ours:.1f} x mesh"
    )
    print("  with α (1/Å), α × cutoff, α × spacing, order:", best[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, nargs="*", default=[1000, 10000], metavar="ATOMS")
    parser.add_argument("--charges", type=int, nargs="*", default=[1728], metavar="ATOMS")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for count in arguments.lists:
        lists(count, arguments.repeats)
    for count in arguments.charges:
        charges(count, arguments.repeats)


if __name__ == "__main__":
    main()
