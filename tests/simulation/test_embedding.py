"""Mechanical embedding: every interaction once, against sums over pairs and over images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

pytest.importorskip("openmmml", reason="openmm-ml is not installed")
from openmmml import MLPotential
from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding

from openmm_nequiplr import create_system
from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry, self_coefficient
from openmm_nequiplr.errors import BoxError, InputError
from openmm_nequiplr.openmm_ml import NequIPLRPotentialImplFactory
from openmm_nequiplr.simulation import current_evaluation
from openmm_nequiplr.simulation.embedding import with_box
from openmm_nequiplr.units import COULOMB_CONSTANT, EV_TO_KJ_PER_MOL

EDGE = 1.7  # nm
CUTOFF = 0.8  # nm
COULOMB = COULOMB_CONSTANT * EV_TO_KJ_PER_MOL / 10.0  # kJ/mol nm/e²
PERIODIC = [True, False]


def names(periodic):
    return "box" if periodic else "free"


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


@pytest.fixture
def mixture(molecule):
    """Factory: in a box or not, with the charge that the force field gives the ML atoms."""

    def make(periodic=True, ml_charge=0.0):
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

    return make


def potential_of(model):
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


# ------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("ml_charge", [0.0, 1.0])
@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_every_interaction_counts_once(make_model, mixture, periodic, ml_charge):
    model, mixed = make_model(), mixture(periodic, ml_charge)
    force_field = mixed.system()
    before = openmm.XmlSerializer.serialize(force_field)
    system = potential_of(model).createMixedSystem(
        mixed.topology(), force_field, mixed.ml, totalCharge=ml_charge, ewald_tolerance=1e-7
    )
    assert openmm.XmlSerializer.serialize(force_field) == before
    # the reference agrees with OpenMM about the force field alone
    assert energy_of(force_field, mixed.positions) == pytest.approx(
        mixed.force_field_energy(), abs=2e-4
    )
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(mixed, model, total_charge=ml_charge, long_range="graph")
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=2e-4)


def test_a_force_field_with_a_plain_ewald_sum(make_model, mixture):
    model, mixed = make_model(), mixture()
    mixed.tolerance = 1e-7
    system = potential_of(model).createMixedSystem(
        mixed.topology(), mixed.system(openmm.NonbondedForce.Ewald), mixed.ml
    )
    expected = mixed.force_field_energy(without=mixed.ml) + model_energy(mixed, model)
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=5e-3)


def test_exceptions_alone_would_keep_the_images(make_model, mixture):
    """What is left if only nearest images are removed: the reason for all this."""
    model, mixed = make_model(), mixture()
    potential = potential_of(model)
    right = potential.createMixedSystem(mixed.topology(), mixed.system(), mixed.ml)
    potential._impl.sums_images = False
    wrong = MechanicalEmbedding().createMixedSystem(
        potential._impl, mixed.topology(), mixed.system(), list(mixed.ml), 0, False
    )
    difference = energy_of(wrong, mixed.positions) - energy_of(right, mixed.positions)
    ml, charges = list(mixed.ml), mixed.charges[list(mixed.ml)]
    nearest = COULOMB * (1.0 / mixed.nearest() - np.eye(17))[np.ix_(ml, ml)]
    images = mixed.coulomb_matrix()[np.ix_(ml, ml)] - nearest
    expected = 0.5 * charges @ images @ charges
    assert abs(expected) > 1.0  # kJ/mol
    assert difference == pytest.approx(expected, abs=2e-3)


def test_two_cells_have_twice_the_energy(make_model, mixture):
    """Images of ML atoms are ML atoms to one another: written out they must do the same."""
    model, mixed = make_model(), mixture()
    twice = copy.deepcopy(mixed)
    count = len(mixed.symbols)
    twice.box = mixed.box * np.array([[2.0], [1.0], [1.0]])
    twice.positions = np.concatenate((mixed.positions, mixed.positions + mixed.box[0]))
    for name in ("charges", "sigma", "epsilon"):
        setattr(twice, name, np.tile(getattr(mixed, name), 2))
    twice.symbols = 2 * mixed.symbols
    twice.bonds = [(i + n, j + n) for n in (0, count) for i, j in mixed.bonds]
    twice.exceptions = {
        (i + n, j + n): p for n in (0, count) for (i, j), p in mixed.exceptions.items()
    }
    twice.ml = (*mixed.ml, *(i + count for i in mixed.ml))
    energies = []
    for cell in (mixed, twice):
        system = potential_of(model).createMixedSystem(
            cell.topology(), cell.system(), cell.ml, long_range="graph"
        )
        energies.append(energy_of(system, cell.positions))
    assert energies[1] == pytest.approx(2.0 * energies[0], abs=5e-3)


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_forces_are_slopes(make_model, mixture, periodic, rng):
    mixed = mixture(periodic)
    system = potential_of(make_model()).createMixedSystem(
        mixed.topology(), mixed.system(), mixed.ml, long_range="graph"
    )
    context = context_of(system, mixed.positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=0.2)  # the mesh moves them a little
    step = 1e-5
    for direction in rng.normal(size=(3, 17, 3)):
        energies = []
        for sign in (-1, 1):
            context.setPositions(mixed.positions + sign * step * direction)
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert slope == pytest.approx(float((forces * direction).sum()), rel=2e-4, abs=0.05)


def test_every_platform(make_model, mixture, platform):
    mixed = mixture()
    system = potential_of(make_model()).createMixedSystem(
        mixed.topology(), mixed.system(), mixed.ml
    )
    expected = energy_of(system, mixed.positions)
    context = context_of(system, mixed.positions, (platform[0].getName(), platform[1]))
    energy = context.getState(energy=True).getPotentialEnergy()._value
    assert energy == pytest.approx(expected, rel=1e-5, abs=0.02)


@pytest.mark.parametrize("periodic", PERIODIC, ids=names)
def test_interpolation(make_model, mixture, periodic):
    mixed = mixture(periodic)
    arguments = (mixed.topology(), mixed.system(), mixed.ml)
    potential = potential_of(make_model())
    ends = [
        energy_of(system, mixed.positions)
        for system in (mixed.system(), potential.createMixedSystem(*arguments))
    ]
    system = potential.createMixedSystem(*arguments, interpolate=True)
    context = context_of(system, mixed.positions)
    for value in (0.0, 0.25, 1.0):
        context.setParameter("lambda_interpolate", value)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        assert energy == pytest.approx((1.0 - value) * ends[0] + value * ends[1], abs=2e-3)
    assert current_evaluation(context).charges.shape == (7,)


def chain_of(symbols, spacing, box):
    """A bonded zigzag chain along x in a box, as a mixture whose first atoms are ML ones."""
    count = len(symbols)
    positions = 0.5 + np.outer(np.arange(count), [spacing, 0.0, 0.0])
    positions[:, 1] += 0.03 * (np.arange(count) % 2)
    charges = 0.3 * (-1.0) ** np.arange(count)
    bonds = [(i, i + 1) for i in range(count - 1)]
    return Mixture(
        positions,
        symbols,
        charges,
        np.full(count, 0.3),
        np.full(count, 0.2),
        box,
        bonds,
        dict.fromkeys(bonds, 0.0),
    )


@pytest.mark.parametrize("interpolate", [False, True])
def test_link_atoms_with_a_lattice_sum(make_model, interpolate):
    model = make_model(type_names=("H", "C"))
    mixed = chain_of(["C", "C", "C", "C", "C", "C"], 0.14, EDGE * np.eye(3))
    mixed.ml = (0, 1, 2)
    topology = mixed.topology()
    atoms = list(topology.atoms())
    for i, j in mixed.bonds:
        topology.addBond(atoms[i], atoms[j])
    info = potential_of(model).createMixedSystem(
        topology,
        mixed.system(),
        mixed.ml,
        totalCharge=0,
        linkAtomDistances=[(2, 3, 0.11 * unit.nanometer)],
        interpolate=interpolate,
        returnInfo=True,
        long_range="graph",
    )
    assert info["topology"].getNumAtoms() == 7
    assert topology.getNumAtoms() == 6
    bond = mixed.positions[3] - mixed.positions[2]
    cap = mixed.positions[2] + 0.11 * bond / np.linalg.norm(bond)
    capped = copy.deepcopy(mixed)
    capped.symbols, capped.ml = [*mixed.symbols, "H"], (0, 1, 2, 6)
    capped.positions = np.concatenate((mixed.positions, cap[None]))
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(capped, model, long_range="graph")
    found = energy_of(info["system"], np.concatenate((mixed.positions, np.zeros((1, 3)))))
    assert found == pytest.approx(expected, abs=2e-3)


def test_a_force_field_without_charges_may_have_a_cutoff(make_model, mixture):
    model, mixed = make_model(), mixture()
    mixed.charges[:] = 0.0
    mixed.exceptions = {}
    system = potential_of(model).createMixedSystem(
        mixed.topology(), mixed.system(openmm.NonbondedForce.CutoffPeriodic), mixed.ml, charge=1
    )
    expected = mixed.force_field_energy(without=mixed.ml)
    expected += model_energy(mixed, model, total_charge=1)
    assert energy_of(system, mixed.positions) == pytest.approx(expected, abs=1e-4)
    assert not any(isinstance(force, openmm.CustomCVForce) for force in system.getForces())


@pytest.mark.parametrize("interpolate", [False, True])
def test_the_box_may_be_that_of_the_system(make_model, mixture, interpolate):
    mixed = mixture()
    topology = mixed.topology()
    expected, found = (
        energy_of(
            potential_of(make_model()).createMixedSystem(
                topology, mixed.system(), mixed.ml, interpolate=interpolate
            ),
            mixed.positions,
        )
        for _ in (0, topology.setPeriodicBoxVectors(None))
    )
    assert found == pytest.approx(expected, rel=1e-9)
    assert topology.getPeriodicBoxVectors() is None  # not ours to change
    assert with_box(topology, mixed.system()).getPeriodicBoxVectors() is not None


# ----------------------------------------------------------------------------------- simulations


def test_through_xml(make_model, mixture):
    mixed = mixture()
    system = potential_of(make_model()).createMixedSystem(
        mixed.topology(), mixed.system(), mixed.ml
    )
    restored = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    expected = energy_of(system, mixed.positions)
    assert energy_of(restored, mixed.positions) == pytest.approx(expected, rel=1e-12)


def total_energy(context):
    state = context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


@pytest.fixture
def simulated(make_model, mixture):
    """Factory of Contexts of the mixture in a box, minimised."""

    def make(integrator, *forces):
        mixed = mixture()
        mixed.tolerance = 1e-4
        mixed.epsilon[:] = 5.0  # hard enough to keep opposite charges apart
        mixed.bonds, mixed.exceptions = [], {}
        system = potential_of(make_model()).createMixedSystem(
            mixed.topology(), mixed.system(), mixed.ml
        )
        for force in forces:
            system.addForce(force)
        context = context_of(system, mixed.positions, integrator=integrator)
        before = context.getState(energy=True).getPotentialEnergy()._value
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 30)
        assert context.getState(energy=True).getPotentialEnergy()._value < before - 100.0
        return context

    return make


def test_energy_is_conserved(simulated):
    integrator = openmm.VerletIntegrator(0.0005)
    context = simulated(integrator)
    context.setVelocitiesToTemperature(150.0, 3)
    energies, kinetic = [], []
    for _ in range(15):
        integrator.step(4)
        energies.append(total_energy(context))
        kinetic.append(context.getState(energy=True).getKineticEnergy()._value)
    assert np.ptp(kinetic) > 2.0
    assert np.ptp(energies) < 0.02 * np.ptp(kinetic)


def test_a_barostat_changes_the_box(simulated):
    barostat = openmm.MonteCarloBarostat(20000.0, 300.0, 1)
    barostat.setRandomNumberSeed(2)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    context = simulated(integrator, barostat)
    integrator.step(10)
    state = context.getState(energy=True, positions=True)
    assert abs(state.getPeriodicBoxVolume()._value / EDGE**3 - 1.0) > 1e-4
    fresh = context_of(context.getSystem(), state.getPositions(asNumpy=True))
    fresh.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    energy = fresh.getState(energy=True).getPotentialEnergy()._value
    assert state.getPotentialEnergy()._value == pytest.approx(energy, abs=1e-4)


# --------------------------------------------------------------------------------------- errors


def mixed_with(make_model, mixture, change=None, periodic=True, **options):
    mixed = mixture(periodic)
    topology, system = mixed.topology(), mixed.system()
    if change is not None:
        change(topology, system)
    atoms = options.pop("atoms", mixed.ml)
    return potential_of(make_model()).createMixedSystem(topology, system, atoms, **options)


def test_a_cutoff_for_charges_is_refused(make_model, mixture):
    def cut(topology, system):
        system.getForce(0).setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)

    with pytest.raises(InputError, match=r"expected PME.*charges with a cutoff"):
        mixed_with(make_model, mixture, cut)


def test_a_box_of_the_topology_alone_is_refused(make_model, mixture):
    def box(topology, system):
        topology.setPeriodicBoxVectors(EDGE * np.eye(3) * unit.nanometer)

    with pytest.raises(BoxError, match=r"setPeriodicBoxVectors\(None\)"):
        mixed_with(make_model, mixture, box, periodic=False)


def test_a_missing_charge_is_asked_for(make_model, mixture):
    mixed = mixture(ml_charge=1.0)
    with pytest.raises(InputError, match=r"totalCharge: .*sum to \+1\.000 e, got none"):
        potential_of(make_model()).createMixedSystem(mixed.topology(), mixed.system(), mixed.ml)


def test_what_cannot_be_taken_out_is_refused(make_model, mixture):
    def second_sum(topology, system):
        system.addForce(copy.deepcopy(system.getForce(0)))

    def offset(topology, system):
        system.getForce(0).addGlobalParameter("x", 0.0)
        system.getForce(0).addParticleParameterOffset("x", 3, 1.0, 0.0, 0.0)

    def exception_offset(topology, system):
        system.getForce(0).addGlobalParameter("x", 0.0)
        system.getForce(0).addExceptionParameterOffset("x", 0, 1.0, 0.0, 0.0)

    def multipoles(topology, system):
        system.addForce(openmm.AmoebaMultipoleForce())

    for change, match in (
        (second_sum, "one NonbondedForce with a lattice sum, got '2 of them'"),
        (offset, "fixed parameters for the chosen atoms"),
        (exception_offset, "fixed parameters for the chosen atoms"),
        (multipoles, "AmoebaMultipoleForce"),
    ):
        with pytest.raises(InputError, match=match):
            mixed_with(make_model, mixture, change)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"atoms": []}, "at least one atom"),
        ({"atoms": [17]}, "indices from 0 to 16"),
        ({"atoms": [3, 3]}, "each index once"),
        ({"atoms": [1, 3]}, "elements that the model knows"),
        ({"totalCarge": 1}, "did you mean 'totalCharge'"),
        ({"mlLongRange": True}, "options: expected some of"),
    ],
)
def test_wrong_arguments(make_model, mixture, options, match):
    with pytest.raises(InputError, match=match):
        mixed_with(make_model, mixture, **({"totalCharge": 0} | options))


def test_another_number_of_particles(make_model, mixture):
    with pytest.raises(InputError, match="a System of the topology's 17 atoms"):
        mixed_with(make_model, mixture, lambda topology, system: system.addParticle(1.0))


def test_another_embedding_is_refused(make_model, mixture):
    mixed = mixture()
    impl = potential_of(make_model())._impl
    arguments = (mixed.topology(), mixed.system(), list(mixed.ml), 0, False)
    with pytest.raises(InputError, match="embedding: expected 'mechanical', got 'electrostatic'"):
        impl.createMixedSystem(*arguments, "electrostatic")
