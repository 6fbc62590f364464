"""The equilibration against OpenMM's ConstantPotentialForce, which shares no code with ours.

A charge equilibration is a constant-potential simulation with one electrode per atom: Gaussian
width √2 σ, potential −χ, Thomas-Fermi scale J/(4π k_e), and a constraint on the total charge.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import openmm
import pytest
import torch

from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry
from openmm_nequiplr.equilibration import DenseSolver, solve_batch
from openmm_nequiplr.simulation.box import reduce_box
from openmm_nequiplr.units import ANGSTROM_PER_NM, COULOMB_CONSTANT, EV_TO_KJ_PER_MOL

# Å; erfc(CUTOFF / (√2 γ)) of the widest pair must vanish
CUTOFF = 5.6
TO_FORCE = EV_TO_KJ_PER_MOL * ANGSTROM_PER_NM


@dataclass(frozen=True)
class Problem:
    """A periodic equilibration in Å, eV and e."""

    positions: np.ndarray
    cell: np.ndarray
    chi: np.ndarray
    hardness: np.ndarray
    widths: np.ndarray
    total_charge: float


@dataclass(frozen=True)
class Solution:
    """Charges (e), energy (eV) and forces (eV/Å, at fixed χ and J)."""

    charges: np.ndarray
    energy: float
    forces: np.ndarray


def sodium_chloride(skewed: bool, total_charge: float) -> Problem:
    """144 shaken atoms with parameters of their own."""
    rng = np.random.default_rng(5)
    spacing, repeats = 2.82, np.array([4, 6, 6])
    grid = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 3)
    sodium = grid.sum(axis=1) % 2 == 0
    box = np.diag(spacing * repeats).astype(float)
    if skewed:
        box[1, 0], box[2, 0], box[2, 1] = 1.3, -2.1, 2.6
    positions = (grid / repeats) @ box + rng.uniform(-0.25, 0.25, (len(grid), 3))
    noise = rng.uniform(-1.0, 1.0, (3, len(grid)))
    return Problem(
        positions=positions,
        cell=box,
        chi=np.where(sodium, 0.5, 7.5) + 0.5 * noise[0],
        hardness=np.where(sodium, 5.0, 7.0) + noise[1],
        widths=np.where(sodium, 0.60, 0.70) + 0.05 * noise[2],
        total_charge=total_charge,
    )


def by_constant_potential(problem: Problem) -> Solution:
    """OpenMM's answer, on the double-precision Reference platform."""
    system = openmm.System()
    force = openmm.ConstantPotentialForce()
    force.setCutoffDistance(CUTOFF / ANGSTROM_PER_NM)
    force.setEwaldErrorTolerance(2e-6)
    force.setConstantPotentialMethod(openmm.ConstantPotentialForce.CG)
    force.setCGErrorTolerance(1e-6)
    for index in range(len(problem.positions)):
        system.addParticle(1.0)
        force.addParticle(0.0)
        force.addElectrode(
            {index},
            -problem.chi[index] * EV_TO_KJ_PER_MOL,
            math.sqrt(2.0) * problem.widths[index] / ANGSTROM_PER_NM,
            problem.hardness[index] / (4.0 * math.pi * COULOMB_CONSTANT) * ANGSTROM_PER_NM,
        )
    force.setUseChargeConstraint(True)
    force.setChargeConstraintTarget(problem.total_charge)
    system.addForce(force)
    box = reduce_box(problem.cell)
    system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(problem.positions @ box.rotation.T / ANGSTROM_PER_NM)
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True)._value @ box.rotation
    return Solution(
        np.array([q._value for q in force.getCharges(context)]),
        state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL,
        forces / TO_FORCE,
    )


def ours(problem: Problem, solver: str) -> Solution:
    """Our answer: dense equilibration over the Ewald operator."""
    tensor = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in vars(problem).items()}
    positions = tensor["positions"].requires_grad_()
    geometry = ewald_geometry(problem.positions, problem.cell, float(problem.widths.max()))
    operator = EwaldCoulomb(positions, tensor["cell"], tensor["widths"], geometry, COULOMB_CONSTANT)
    matrix = operator.matrix() + torch.diag(tensor["hardness"])
    if solver == "factors":
        charges = DenseSolver(matrix).solve(tensor["chi"], tensor["total_charge"]).charges
    else:
        charges = solve_batch(
            [matrix], tensor["chi"], tensor["total_charge"].reshape(1), [len(problem.chi)]
        ).charges
    energy = tensor["chi"] @ charges + 0.5 * charges @ matrix @ charges
    (gradient,) = torch.autograd.grad(energy, positions)
    return Solution(charges.detach().numpy(), energy.item(), -gradient.numpy())


@functools.cache
def reference(skewed: bool, total_charge: float) -> tuple[Problem, Solution]:
    """A problem and OpenMM's answer to it, which takes seconds."""
    problem = sodium_chloride(skewed, total_charge)
    return problem, by_constant_potential(problem)


@pytest.mark.parametrize(
    ("skewed", "total_charge"), [(False, 0.0), (True, 0.0), (False, 2.0)], ids=str
)
@pytest.mark.parametrize("solver", ["factors", "batch"])
def test_charges_energy_and_forces(skewed: bool, total_charge: float, solver: str) -> None:
    problem, expected = reference(skewed, total_charge)
    found = ours(problem, solver)
    assert found.charges.sum() == pytest.approx(total_charge, abs=1e-9)
    assert np.abs(expected.charges).max() > 0.4  # the comparison is about something
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-6)
    assert found.energy == pytest.approx(expected.energy, rel=1e-7)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5)
