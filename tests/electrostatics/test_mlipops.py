"""Our sums against code that shares nothing with them: mlipops' PME and Ewald sums.

mlipops sums point charges in single precision, so that errors of some 1e-6 are its own.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    MeshCoulomb,
    ewald_geometry,
    mesh_geometry,
)
from openmm_nequiplr.electrostatics.gaussian import GaussianScreening
from openmm_nequiplr.neighbors import neighbor_list
from openmm_nequiplr.units import COULOMB_CONSTANT

mlipops = pytest.importorskip("mlipops")

CELLS = {
    "cubic": np.diag([12.0, 12.0, 12.0]),
    "triclinic": np.array([[13.0, 0.0, 0.0], [3.0, 12.5, 0.0], [-2.5, 2.0, 13.0]]),
}
ALPHA, CUTOFF = 0.7, 5.9  # 1/Å, Å; erfc(α × cutoff) is 5e-9
SUMS = {
    "PME": lambda pairs: mlipops.CoulombPME(pairs, None, 48, 48, 48, 6, ALPHA, COULOMB_CONSTANT),
    "Ewald": lambda pairs: mlipops.CoulombEwald(pairs, None, 14, 14, 14, ALPHA, COULOMB_CONSTANT),
}


class Problem:
    """Gaussian charges that are no nearer to one another than atoms are."""

    def __init__(self, rng, cell: np.ndarray, neutral: bool) -> None:
        sites = np.stack(np.meshgrid(*3 * [np.arange(4)], indexing="ij"), axis=-1).reshape(-1, 3)
        self.cell = cell
        self.points = (sites / 4.0) @ cell + rng.uniform(-0.4, 0.4, size=sites.shape)
        self.widths = torch.tensor(rng.choice([0.6, 1.0, 1.3], size=len(sites)))
        charges = torch.tensor(rng.normal(size=len(sites)))
        self.charges = charges - charges.mean() + (0.0 if neutral else 0.05)

    def gradients(self, energy):
        positions = torch.tensor(self.points, requires_grad=True)
        charges = self.charges.clone().requires_grad_()
        found = energy(positions, charges)
        return found.detach(), *torch.autograd.grad(found, (positions, charges))

    def theirs(self, name):
        """Point charges by mlipops, and our short-ranged correction in double precision."""
        sum_of_points = SUMS[name](mlipops.NeighborList(CUTOFF))
        reach = 6.0 * math.sqrt(2.0) * float(self.widths.max())
        index, shift = neighbor_list(self.points, self.cell, True, reach, full=False)
        box = torch.tensor(self.cell)

        def energy(positions, charges):
            vectors = positions[index[1]] - positions[index[0]] + shift @ box
            distance = torch.linalg.vector_norm(vectors, dim=1)
            gaussian = GaussianScreening(index, distance, self.widths, COULOMB_CONSTANT)
            points = sum_of_points(positions.float(), charges.float(), box.float())
            return points.double().squeeze() + gaussian.energy(charges)

        return self.gradients(energy)

    def ours(self, name):
        if name == "mesh":
            geometry = mesh_geometry(self.points, self.cell, self.widths.numpy(), 1e-7)
            kind = MeshCoulomb
        else:
            geometry = ewald_geometry(self.points, self.cell, float(self.widths.max()), 1e-12)
            kind = EwaldCoulomb
        box = torch.tensor(self.cell)

        def made(positions):
            return kind(positions, box, self.widths, geometry, COULOMB_CONSTANT)

        results = self.gradients(lambda positions, charges: made(positions).energy(charges))
        return *results, made(torch.tensor(self.points)).potential(self.charges)


def relative(found, expected) -> float:
    norm = torch.linalg.vector_norm
    return (norm(found - expected) / norm(expected)).item()


@pytest.mark.parametrize("neutral", [True, False])
@pytest.mark.parametrize("theirs", SUMS)
@pytest.mark.parametrize("ours", ["mesh", "Ewald"])
@pytest.mark.parametrize("cell", CELLS)
def test_energy_forces_and_potentials(rng, cell, ours, theirs, neutral):
    problem = Problem(rng, CELLS[cell], neutral)
    energy, slope, in_charges, potential = problem.ours(ours)
    expected = problem.theirs(theirs)
    assert relative(energy, expected[0]) < 3e-6
    assert relative(slope, expected[1]) < 2e-5
    assert relative(in_charges, expected[2]) < 3e-6
    assert relative(potential, expected[2]) < 3e-6
