"""Seven ML atoms among ten charged ones of a force field, and its energy by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import openmm
import torch
from openmm import app, unit

from openmm_nequiplr import create_system
from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry, self_coefficient
from openmm_nequiplr.units import COULOMB_CONSTANT, EV_TO_KJ_PER_MOL

EDGE = 1.7  # nm
CUTOFF = 0.8  # nm
COULOMB = COULOMB_CONSTANT * EV_TO_KJ_PER_MOL / 10.0  # kJ/mol nm/e²


@dataclass
class Mixture:
    """Seven ML atoms and ten charged MM ones, with everything a force field says of them."""

    positions: np.ndarray  # (17, 3), nm
    symbols: list[str]
    charges: np.ndarray  # e
    sigma: np.ndarray  # nm
    epsilon: np.ndarray  # kJ/mol
    box: np.ndarray | None  # nm
    bonds: list[tuple[int, int]]
    # pairs of which the force field has something else than the sum of its parameters
    exceptions: dict[tuple[int, int], float] = field(default_factory=dict)
    ml: tuple[int, ...] = (3, 5, 4, 9, 0, 16, 7)
    tolerance: float = 1e-6  # of the force field's mesh

    @property
    def mm(self):
        return [index for index in range(len(self.symbols)) if index not in self.ml]

    def topology(self, atoms=None):
        topology = app.Topology()
        chain = topology.addChain()
        for index in range(len(self.symbols)) if atoms is None else atoms:
            element = app.Element.getBySymbol(self.symbols[index])
            topology.addAtom(f"A{index}", element, topology.addResidue("X", chain))
        if self.box is not None:
            topology.setPeriodicBoxVectors(self.box * unit.nanometer)
        return topology

    def system(self, method=None, masses=20.0):
        """The force field for all atoms, ML ones included."""
        system = openmm.System()
        force = openmm.NonbondedForce()
        bonded = openmm.HarmonicBondForce()
        for q, s, e in zip(self.charges, self.sigma, self.epsilon, strict=True):
            system.addParticle(masses)
            force.addParticle(q, s, e)
        for first, second in self.bonds:
            bonded.addBond(first, second, 0.2, 5000.0)
        for (first, second), product in self.exceptions.items():
            force.addException(first, second, product, 0.3, 0.0)
        if self.box is not None:
            system.setDefaultPeriodicBoxVectors(*self.box)
            bonded.setUsesPeriodicBoundaryConditions(True)
        default = openmm.NonbondedForce.NoCutoff if self.box is None else openmm.NonbondedForce.PME
        force.setNonbondedMethod(default if method is None else method)
        force.setCutoffDistance(CUTOFF)
        force.setEwaldErrorTolerance(self.tolerance)
        force.setUseDispersionCorrection(False)
        system.addForce(force)
        system.addForce(bonded)
        return system

    def nearest(self):
        """Distances of all pairs, nearest images, shape (17, 17), nm; 1 on the diagonal."""
        vectors = self.positions[:, None] - self.positions[None]
        if self.box is not None:
            vectors -= np.diag(self.box) * np.round(vectors / np.diag(self.box))
        return np.linalg.norm(vectors, axis=-1) + np.eye(len(self.symbols))

    def coulomb_matrix(self):
        """Energy of unit charges at every pair of sites with all images, kJ/mol, shape (17, 17).

        An exact Ewald sum of our own (or 1/r); on the diagonal what a site's images do to it.
        """
        if self.box is None:
            return COULOMB * (1.0 / self.nearest() - np.eye(len(self.symbols)))
        positions, cell = 10.0 * self.positions, 10.0 * self.box
        widths = torch.full((len(positions),), 0.01, dtype=torch.float64)  # points, nearly
        operator = EwaldCoulomb(
            torch.from_numpy(positions),
            torch.from_numpy(cell),
            widths,
            ewald_geometry(positions, cell, 0.01),
            COULOMB_CONSTANT,
        )
        own = torch.diag(COULOMB_CONSTANT * self_coefficient(widths))
        return (operator.matrix() - own).numpy() * EV_TO_KJ_PER_MOL

    def force_field_energy(self, without=()):
        """The force field by hand, less all that two atoms of ``without`` do to one another."""
        energy, near, matrix = 0.0, self.nearest(), self.coulomb_matrix()
        removed = set(without)
        for i in range(len(self.symbols)):
            if i not in removed:
                energy += 0.5 * self.charges[i] ** 2 * matrix[i, i]
            for j in range(i):
                if {i, j} <= removed:
                    continue
                product, r = self.charges[i] * self.charges[j], near[i, j]
                energy += product * matrix[i, j]
                if (j, i) in self.exceptions:
                    energy += COULOMB * (self.exceptions[j, i] - product) / r
                elif self.box is None or r < CUTOFF:
                    ratio = (0.5 * (self.sigma[i] + self.sigma[j]) / r) ** 6
                    depth = np.sqrt(self.epsilon[i] * self.epsilon[j])
                    energy += 4.0 * depth * (ratio**2 - ratio)
        for i, j in self.bonds:
            if not {i, j} <= removed:
                energy += 0.5 * 5000.0 * (near[i, j] - 0.2) ** 2
        return energy


def make_mixture(molecule, periodic=True, ml_charge=0.0):
    """In a box or not, with the charge that the force field gives the ML atoms."""
    rng = np.random.default_rng(3)
    ml = Mixture.ml
    positions = np.zeros((17, 3))
    positions[list(ml)] = 0.1 * molecule.positions + 0.5
    placed = list(positions[list(ml)])
    for index in (i for i in range(17) if i not in ml):
        while True:
            trial = rng.uniform(0.0, EDGE, 3)
            apart = np.array(placed) - trial
            apart -= EDGE * np.round(apart / EDGE)
            if np.linalg.norm(apart, axis=1).min() > 0.3:
                break
        positions[index] = trial
        placed.append(trial)
    symbols = np.array(["Mg", "F"] * 9, dtype=object)[:17]
    symbols[list(ml)] = molecule.get_chemical_symbols()
    charges = np.where(np.arange(17) % 2, -0.8, 0.9)
    charges[list(ml)] = rng.uniform(-1.0, 1.0, 7)
    charges[list(ml)] += (ml_charge - charges[list(ml)].sum()) / 7
    return Mixture(
        positions,
        list(symbols),
        charges,
        rng.uniform(0.2, 0.3, 17),
        rng.uniform(0.1, 0.5, 17),
        EDGE * np.eye(3) if periodic else None,
        bonds=[(3, 5), (4, 9), (1, 2), (6, 8)],
        exceptions={(3, 5): 0.0, (4, 9): 0.1, (1, 2): 0.0, (2, 6): -0.3},
    )


SITES = 0.1 * np.array(
    [[0, 0, 0], [2.5, 0, 0], [0, 3.0, 1.0], [0.8, 3.5, 1.0], [-0.8, 3.5, 1.0], [0, 0, 0]]
)
SITE_CHARGES = [0.7, -0.7, 0.0, 0.5, 0.5, -1.0]


def make_salt_and_water():
    """Topology and System of Na and Cl (of the model) beside one molecule of 4-site water."""
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    chain = topology.addChain()
    for name, residue in (("Na", "NA"), ("Cl", "CL")):
        element = app.Element.getBySymbol(name)
        topology.addAtom(name, element, topology.addResidue(residue, chain))
    water = topology.addResidue("HOH", chain)
    for name in ("O", "H1", "H2"):
        topology.addAtom(name, app.Element.getBySymbol(name[0]), water)
    topology.addAtom("M", None, water)
    for index, charge in enumerate(SITE_CHARGES):
        system.addParticle(0.0 if index == 5 else 20.0)
        force.addParticle(charge, 0.25, 0.3)
    system.setVirtualSite(5, openmm.ThreeParticleAverageSite(2, 3, 4, 0.8, 0.1, 0.1))
    for i in range(2, 6):
        for j in range(i):
            if j >= 2:
                force.addException(j, i, 0.0, 1.0, 0.0)
    system.addForce(force)
    return topology, system


def potential_of(model):
    from openmmml import MLPotential

    from openmm_nequiplr.openmm_ml import NequIPLRPotentialImplFactory

    MLPotential.registerImplFactory("nequiplr", NequIPLRPotentialImplFactory())
    return MLPotential("nequiplr", modelPath=model)


def context_of(system, positions, platform=("Reference", {}), integrator=None):
    context = openmm.Context(
        system,
        integrator or openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatform(platform[0]),
        platform[1],
    )
    context.setPositions(positions)
    return context


def energy_of(system, positions):
    """In kJ/mol."""
    context = context_of(system, positions)
    context.computeVirtualSites()
    return context.getState(energy=True).getPotentialEnergy()._value


def model_energy(mixture, model, **options):
    """The model on the ML atoms alone, in the same box."""
    system = create_system(mixture.topology(mixture.ml), model, **options)
    return energy_of(system, mixture.positions[list(mixture.ml)])
