"""The equilibration against OpenMM's ConstantPotentialForce, which shares no code with ours.

A charge equilibration is a constant-potential simulation with one electrode per atom: Gaussian
width √2 σ, potential −χ, Thomas-Fermi scale J/(4π k_e), and a constraint on the total charge.
Two electrodes have potentials ±½ voltage; ions are groups of one atom, of hardly any width.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms

from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry
from openmm_nequiplr.equilibration import DenseSolver, solve_batch
from openmm_nequiplr.lattice import displacements
from openmm_nequiplr.model import Evaluator, ModelConfig, NequIPLRPotential
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


def constant_potential() -> openmm.ConstantPotentialForce:
    """OpenMM's force, without particles."""
    force = openmm.ConstantPotentialForce()
    force.setCutoffDistance(CUTOFF / ANGSTROM_PER_NM)
    force.setEwaldErrorTolerance(2e-6)
    force.setConstantPotentialMethod(openmm.ConstantPotentialForce.CG)
    force.setCGErrorTolerance(1e-6)
    force.setUseChargeConstraint(True)
    return force


def by_constant_potential(problem: Problem) -> Solution:
    """OpenMM's answer to an equilibration."""
    force = constant_potential()
    for index in range(len(problem.positions)):
        force.addParticle(0.0)
        force.addElectrode(
            {index},
            -problem.chi[index] * EV_TO_KJ_PER_MOL,
            math.sqrt(2.0) * problem.widths[index] / ANGSTROM_PER_NM,
            problem.hardness[index] / (4.0 * math.pi * COULOMB_CONSTANT) * ANGSTROM_PER_NM,
        )
    force.setChargeConstraintTarget(problem.total_charge)
    return solved(force, problem.positions, problem.cell)


def solved(
    force: openmm.ConstantPotentialForce, positions: np.ndarray, cell: np.ndarray
) -> Solution:
    """What a force gives on the double-precision Reference platform."""
    system = openmm.System()
    for _ in positions:
        system.addParticle(1.0)
    system.addForce(force)
    box = reduce_box(cell)
    system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions @ box.rotation.T / ANGSTROM_PER_NM)
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


WIDTH, POINT = 0.7, 1e-3  # Å
VOLTAGE, IONS = 2.0, {"Au": 0.0, "Na": 1.0, "Cl": -1.0}


@pytest.fixture(scope="module")
def metal() -> NequIPLRPotential:
    """Gold, whose charges are those of its electrons alone, and ions; no short-range energy."""
    torch.manual_seed(0)
    config = ModelConfig(
        type_names=("Au", "Na", "Cl"),
        r_max=4.0,
        num_layers=0,
        num_layers_charge=0,
        l_max=0,
        num_features=4,
        avg_num_neighbors=12.0,
        gaussian_widths=(WIDTH, POINT, POINT),
    )
    model = NequIPLRPotential(config).double()
    with torch.no_grad():
        for parameter in model.energy_stage.parameters():
            parameter.zero_()
    return model


def capacitor(side: int, lateral: float) -> Atoms:
    """Two rough plates of side² atoms 3 Å apart, first of all atoms, and four ions in between."""
    rng, spacing, gap = np.random.default_rng(1), 3.0, 6.5
    plate = spacing * np.array([[i, j, 0] for i in range(side) for j in range(side)], float)
    low, high = np.array([0.0, 0.0, 2.0]), np.array([side * spacing, side * spacing, gap - 2.0])
    ions = [rng.uniform(low, high)]
    while len(ions) < 4:
        place, box = rng.uniform(low, high), np.diag([lateral, lateral, 99.0])
        moved = displacements(np.tile(place, (len(ions), 1)), np.array(ions), box)[0]
        if np.linalg.norm(moved, axis=1).min() > 2.2:
            ions.append(place)
    plates = np.vstack([plate, plate + np.array([0.0, 0.0, gap])])
    plates += rng.normal(scale=0.1, size=plates.shape)
    positions = np.vstack([plates, ions]) + np.array([0.5, 0.5, 4.0])
    symbols = f"Au{2 * side * side}NaClNaCl"
    return Atoms(symbols, positions, cell=[lateral, lateral, 17.0], pbc=True)


def between_electrodes(atoms: Atoms, hardness: float, field: np.ndarray) -> Solution:
    """OpenMM's answer for a capacitor in a uniform field (V/Å)."""
    force, count = constant_potential(), int((atoms.symbols == "Au").sum()) // 2
    for symbol in atoms.symbols:
        force.addParticle(IONS[symbol])
    for start, sign in ((0, 0.5), (count, -0.5)):
        force.addElectrode(
            set(range(start, start + count)),
            sign * VOLTAGE * EV_TO_KJ_PER_MOL,
            math.sqrt(2.0) * WIDTH / ANGSTROM_PER_NM,
            hardness / (4.0 * math.pi * COULOMB_CONSTANT) * ANGSTROM_PER_NM,
        )
    force.setExternalField(openmm.Vec3(*(field * TO_FORCE)))
    return solved(force, atoms.positions, atoms.cell.array)


@pytest.mark.parametrize("case", ["bulk", "slab", "field"])
def test_two_electrodes_and_ions(metal: NequIPLRPotential, case: str) -> None:
    """A slab's correction is the field of its dipole, which OpenMM is told."""
    atoms = capacitor(2, 14.0) if case == "field" else capacitor(4, 12.0)
    gold, field = np.flatnonzero(atoms.symbols == "Au"), np.zeros(3)
    if case == "field":
        field = np.array([0.05, -0.02, 0.1])
    held = np.array([IONS[symbol] for symbol in atoms.symbols])
    graph = metal.build_graph(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        (True, True, case != "slab"),
        electric_field=field if case == "field" else None,
        charge_groups=list(range(len(atoms))),
        group_charges=held,
        electrodes=np.split(gold, 2),
        electrode_voltage=VOLTAGE,
    )
    found, energy = Evaluator(metal)(graph), 0.0
    if case == "slab":
        dipole = found.charges @ atoms.positions[:, 2]
        field[2] = -4.0 * math.pi * COULOMB_CONSTANT * dipole / atoms.get_volume()
        energy = 0.5 * field[2] * dipole
    hardness = metal.hardness(graph.types).detach().numpy()
    expected = between_electrodes(atoms, hardness[0], field)
    sums = [q[gold].reshape(2, -1).sum(axis=1) for q in (found.charges, expected.charges)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)
    np.testing.assert_allclose(found.charges, expected.charges, atol=1e-6)
    np.testing.assert_allclose(found.forces, expected.forces, atol=2e-5)
    own = hardness / 2.0 + COULOMB_CONSTANT / (2.0 * math.sqrt(math.pi) * POINT)
    energy += expected.energy + held @ found.electronegativity + held**2 @ own
    assert found.energy == pytest.approx(energy, abs=1e-4)
