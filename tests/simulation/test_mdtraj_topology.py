"""Topologies, trajectories and files of mdtraj as systems."""

from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr import create_system
from openmm_nequiplr.errors import BoxError, InputError, UnknownElementError
from openmm_nequiplr.model import NequIPLRPotential
from openmm_nequiplr.simulation import (
    from_atoms,
    from_mdtraj,
    openmm_topology,
    read_structure,
    to_atoms,
)

ANGLES = [(90.0, 90.0, 90.0), (60.0, 90.0, 90.0), (75.0, 60.0, 110.0)]


def trajectory_of(symbols, positions, cell=None, frames=1):
    """A trajectory of one residue; lengths in nm, the cell as lengths and angles."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("RES", topology.add_chain())
    for number, symbol in enumerate(symbols):
        element = mdtraj.element.Element.getBySymbol(symbol)
        topology.add_atom(f"{symbol}{number}", element, residue)
    xyz = np.broadcast_to(positions, (frames, *np.shape(positions)))
    lengths = angles = None
    if cell is not None:
        lengths, angles = np.broadcast_to(np.reshape(cell, (2, 1, 3)), (2, frames, 3))
    return mdtraj.Trajectory(xyz, topology, unitcell_lengths=lengths, unitcell_angles=angles)


def potential(system, positions):
    """Energy in kJ/mol, at the default box of the system."""
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy()._value


@pytest.fixture
def salt(rock_salt):
    return trajectory_of(
        rock_salt.symbols, rock_salt.positions / 10, [(1.128,) * 3, (90.0,) * 3], frames=2
    )


def test_a_trajectory_is_as_good_as_an_openmm_topology(salt, rock_salt, ionic_model):
    start = from_atoms(rock_salt)
    ours = create_system(salt, ionic_model)
    theirs = create_system(start.topology, ionic_model)
    for a, b in zip(
        ours.getDefaultPeriodicBoxVectors(), theirs.getDefaultPeriodicBoxVectors(), strict=True
    ):
        np.testing.assert_allclose(a._value, b._value, atol=1e-6)
    masses = [[s.getParticleMass(k)._value for k in range(64)] for s in (ours, theirs)]
    assert masses[0] == masses[1]
    positions = np.array(salt.xyz[0], dtype=float)
    assert potential(ours, positions) == pytest.approx(potential(theirs, positions), abs=1e-3)


def test_the_box_is_that_of_the_first_frame(salt, ionic_model):
    salt.unitcell_lengths = np.array([[1.2, 1.3, 1.4], [1.5, 1.5, 1.5]])
    box = create_system(salt, ionic_model).getDefaultPeriodicBoxVectors()
    np.testing.assert_allclose(np.diag([list(v._value) for v in box]), [1.2, 1.3, 1.4], atol=1e-6)
    later = from_mdtraj(salt, frame=-1).box
    np.testing.assert_allclose(np.diag(later), 1.5, atol=1e-6)


def test_a_topology_has_no_box(cluster, ionic_model):
    frames = trajectory_of(cluster.symbols, cluster.positions / 10)
    for given in (frames.topology, frames):
        system = create_system(given, ionic_model)
        assert not system.usesPeriodicBoundaryConditions()
        expected = create_system(from_atoms(cluster).topology, ionic_model)
        positions = cluster.positions / 10
        assert potential(system, positions) == pytest.approx(potential(expected, positions))


def test_periodic_models_say_how_the_box_gets_in(salt, ionic_model):
    import copy

    model: NequIPLRPotential = copy.deepcopy(ionic_model)
    model.metadata["periodic"] = "true"
    with pytest.raises(BoxError, match=r"got none; .*mdtraj\.Trajectory with unit cells"):
        create_system(salt.topology, model)
    assert create_system(salt, model).usesPeriodicBoundaryConditions()


@pytest.mark.parametrize("angles", ANGLES)
def test_triclinic_cells_become_boxes_of_openmm(angles, rng):
    lengths = (1.4, 1.5, 1.7)
    frames = trajectory_of("OOO", rng.normal(size=(3, 3)), [lengths, angles])
    structure = from_mdtraj(frames)
    context = openmm.System()
    context.setDefaultPeriodicBoxVectors(*structure.box)  # refuses what is not reduced
    cell = frames.unitcell_vectors[0].astype(float) @ structure.rotation.T
    whole = structure.box @ np.linalg.inv(cell)
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-5)  # the same lattice
    assert abs(np.linalg.det(whole)) == pytest.approx(1.0, abs=1e-5)
    before = to_atoms(structure.topology, frames.xyz[0], frames.unitcell_vectors[0])
    after = to_atoms(structure.topology, structure.positions, structure.box)
    np.testing.assert_allclose(
        before.get_all_distances(mic=True), after.get_all_distances(mic=True), atol=1e-5
    )


def test_openmm_topologies_are_left_alone(rock_salt):
    topology = from_atoms(rock_salt).topology
    assert openmm_topology(topology) is topology


def test_residues_and_bonds_are_kept():
    frames = trajectory_of("OHH", [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]])
    oxygen, first, second = frames.topology.atoms
    frames.topology.add_bond(oxygen, first)
    frames.topology.add_bond(oxygen, second)
    topology = openmm_topology(frames)
    assert [r.name for r in topology.residues()] == ["RES"]
    assert topology.getNumBonds() == 2


def test_gro_files_are_read(salt, tmp_path):
    salt[0].save_gro(str(tmp_path / "salt.gro"))
    structure = read_structure(tmp_path / "salt.gro")
    np.testing.assert_allclose(structure.positions, salt.xyz[0], atol=1e-3)
    np.testing.assert_allclose(np.diag(structure.box), 1.128, atol=1e-4)
    assert [a.element.symbol for a in structure.topology.atoms()] == [
        a.element.symbol for a in salt.topology.atoms
    ]
    assert isinstance(structure.topology, app.Topology)
    assert unit.is_quantity(structure.topology.getPeriodicBoxVectors())


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("element", [None, mdtraj.element.virtual])
def test_virtual_sites_and_nameless_atoms(element, ionic_model):
    frames = trajectory_of("OO", np.eye(3)[:2])
    residue = next(frames.topology.residues)
    frames.topology.add_atom("EPW", element, residue)
    with pytest.raises(
        InputError, match=r"topology: .*1 of 3 atoms: RES\d+-EPW \(index 2\).*slice"
    ):
        create_system(frames.topology, ionic_model)


def test_other_objects(ionic_model):
    with pytest.raises(InputError, match="topology: expected an OpenMM topology, an mdtraj"):
        create_system("salt.pdb", ionic_model)


def test_unknown_elements(ionic_model):
    frames = trajectory_of(["Xe"], [[0, 0, 0]])
    with pytest.raises(UnknownElementError, match="Xe"):
        create_system(frames, ionic_model)


def test_frames_that_are_not_there(salt):
    with pytest.raises(InputError, match="frame: expected one of 2 frames, got 2"):
        from_mdtraj(salt, frame=2)


def test_flat_cells(salt, ionic_model):
    salt.unitcell_lengths = np.zeros((2, 3))
    with pytest.raises(BoxError, match="cell: expected"):
        create_system(salt, ionic_model)
