"""A force on some of the particles of a System."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from openmm_nequiplr import ChargeReporter, charge_variable
from openmm_nequiplr.errors import NequIPLRWarning, UnknownElementError
from openmm_nequiplr.simulation import (
    create_force,
    current_evaluation,
    from_atoms,
    get_computation,
    load_charges,
)

from .twins import context_of

CHOSEN = [9, 1, 5, 2, 8, 3, 7]


def with_others(molecule):
    """The molecule's atoms at the indices ``CHOSEN`` among neon atoms, which the model ignores."""
    from ase import Atoms

    atoms = Atoms("Ne10", np.random.default_rng(0).uniform(0.0, 5.0, (10, 3)))
    symbols = np.array(atoms.get_chemical_symbols(), dtype=object)
    symbols[CHOSEN] = molecule.get_chemical_symbols()
    atoms.set_chemical_symbols(list(symbols))
    atoms.positions[CHOSEN] = molecule.positions
    atoms.cell, atoms.pbc = molecule.cell, molecule.pbc
    return atoms


def part_of(structure, force):
    """A System of a structure's atoms with nothing but one force."""
    system = openmm.System()
    for _ in range(structure.topology.getNumAtoms()):
        system.addParticle(10.0)
    if structure.box is not None:
        system.setDefaultPeriodicBoxVectors(*structure.box)
    system.addForce(force)
    return system


def test_charges_are_those_of_the_chosen_atoms(tmp_path, make_model, molecule):
    structure = from_atoms(with_others(molecule))
    force = create_force(structure.topology, make_model(), atoms=CHOSEN, total_charge=-1)
    system = part_of(structure, force)
    simulation = openmm.app.Simulation(
        structure.topology,
        system,
        openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(structure.positions)
    charges = current_evaluation(simulation.context).charges
    assert charges.shape == (7,)
    assert charges.sum() == pytest.approx(-1.0)
    evaluations = get_computation(system).evaluations
    reporter = ChargeReporter(tmp_path / "charges.npy", 1)
    simulation.reporters.append(reporter)
    simulation.step(2)
    reporter.close()
    written = load_charges(tmp_path / "charges.npy").charges
    assert written.shape == (2, 7)
    assert not np.array_equal(written[1], charges)
    assert get_computation(system).evaluations <= evaluations + 4


def test_only_the_chosen_elements_matter(make_model, molecule):
    topology = from_atoms(with_others(molecule)).topology
    with pytest.raises(UnknownElementError, match=r"Ne \(1 atoms, first index 4\)"):
        create_force(topology, make_model(), atoms=[1, 4])


def test_the_atom_of_a_wrong_position_is_named(make_model, molecule):
    structure = from_atoms(with_others(molecule))
    force = create_force(structure.topology, make_model(), atoms=CHOSEN)
    positions = structure.positions.copy()
    positions[5, 0] = np.nan
    context = context_of(part_of(structure, force), positions)
    with pytest.raises(openmm.OpenMMException, match="first: atom 5"):
        context.getState(energy=True)


@pytest.mark.parametrize("more", [-1, 1])
def test_particles_that_the_topology_lacks(tiny_model, cluster, more):
    """A force on all atoms of a topology tells how to leave out others."""
    start, system = from_atoms(cluster), openmm.System()
    count = len(cluster)
    for _ in range(count + more):
        system.addParticle(20.0)
    system.addForce(create_force(start.topology, tiny_model, total_charge=0))
    positions = np.concatenate((start.positions, start.positions[:1] + 1.0))[: count + more]
    with pytest.raises(openmm.OpenMMException, match=r"system: .*the 8 .*atoms=range\(8\)"):
        context_of(system, positions).getState(energy=True)


def test_two_models_in_one_system(tiny_model, cluster):
    """Reports are of the first one, and say so."""
    start = from_atoms(cluster + cluster)
    count, system = len(cluster), openmm.System()
    for _ in range(2 * count):
        system.addParticle(20.0)
    for charge in (0, 1):
        atoms = range(charge * count, (charge + 1) * count)
        system.addForce(create_force(start.topology, tiny_model, atoms=atoms, total_charge=charge))
    with pytest.warns(NequIPLRWarning, match="system: only the first of its 2 NequIP-LR forces"):
        assert get_computation(system).settings.total_charge == 0.0
    assert charge_variable(system.getForce(1), [count]).getName() == "NequIPLRVariable"
