"""Structures on their way to OpenMM and back."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from ase.build import bulk
from openmm import app, unit

from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import BoxError, InputError, NequIPLRWarning
from openmm_nequiplr.simulation import from_atoms, read_structure, to_atoms
from openmm_nequiplr.simulation.topology import element_masses


def distances(atoms):
    return atoms.get_all_distances(mic=bool(atoms.pbc.all()))


def test_a_skewed_cell_keeps_its_distances(skewed_salt):
    structure = from_atoms(skewed_salt)
    assert np.allclose(structure.box, np.tril(structure.box))
    back = to_atoms(structure.topology, structure.positions, structure.box)
    np.testing.assert_allclose(distances(back), distances(skewed_salt), atol=1e-9)
    assert list(back.symbols) == list(skewed_salt.symbols)
    same = to_atoms(
        structure.topology, structure.positions, structure.box, rotation=structure.rotation
    )
    np.testing.assert_allclose(same.positions, skewed_salt.positions, atol=1e-9)


def test_a_rectangular_cell_is_left_alone(rock_salt):
    structure = from_atoms(rock_salt)
    np.testing.assert_allclose(10 * structure.positions, rock_salt.positions, atol=1e-12)
    np.testing.assert_allclose(10 * structure.box, rock_salt.cell.array)
    vectors = structure.topology.getPeriodicBoxVectors()
    assert vectors[0][0]._value == pytest.approx(1.128)


def test_without_a_cell_there_is_no_box(cluster):
    structure = from_atoms(cluster)
    assert structure.box is None
    assert structure.topology.getPeriodicBoxVectors() is None
    assert not to_atoms(structure.topology, structure.positions).pbc.any()


def test_units_of_positions_and_box_are_heeded(skewed_salt):
    given = from_atoms(skewed_salt)
    expected = to_atoms(given.topology, given.positions, given.box)
    rows = [openmm.Vec3(*row) for row in given.positions]
    for positions, box in (
        (10.0 * given.positions * unit.angstrom, 10.0 * given.box * unit.angstrom),
        (rows * unit.nanometer, given.topology.getPeriodicBoxVectors()),
        (rows, [row * unit.nanometer for row in given.box]),
    ):
        found = to_atoms(given.topology, positions, box)
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-12)
        np.testing.assert_allclose(found.cell.array, expected.cell.array, atol=1e-12)
    for wrong in (given.positions * unit.picosecond, given.positions[:3], None):
        with pytest.raises(InputError, match=r"positions: expected shape \(36, 3\), in nm"):
            to_atoms(given.topology, wrong)


@pytest.mark.parametrize("given", [False, True])
def test_deuterium_keeps_its_mass(given):
    topology = app.Topology()
    residue = topology.addResidue("DOH", topology.addChain())
    for symbol in "ODH":
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    masses = element_masses(topology) if given else None
    atoms = to_atoms(topology, np.eye(3), masses=masses)
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(atoms.get_masses(), [15.999, 2.0136, 1.008], atol=1e-3)
    np.testing.assert_allclose(from_atoms(atoms).masses, element_masses(topology), atol=1e-3)


def test_virtual_sites_are_no_atoms(cluster):
    topology = from_atoms(cluster).topology
    topology.addAtom("M", None, list(topology.residues())[-1])
    with pytest.raises(InputError, match="an element for every atom .*none for atom 8"):
        to_atoms(topology, np.zeros((9, 3)))


def test_the_total_charge_comes_along(cluster):
    cluster = cluster.copy()
    assert from_atoms(cluster).total_charge == 0.0
    cluster.info["charge"] = 2
    assert from_atoms(cluster).total_charge == 2.0
    cluster.info["total_charge"] = -1
    assert from_atoms(cluster).total_charge == -1.0


def test_structures_of_the_data_package_are_understood(rock_salt):
    structure = from_atoms(
        Structure(tuple(rock_salt.symbols), rock_salt.positions, rock_salt.cell.array, True, 1.0)
    )
    assert structure.total_charge == 1.0
    assert structure.topology.getNumAtoms() == 64


@pytest.mark.parametrize("suffix", ["extxyz", "pdb", "cif"])
def test_files(tmp_path, rock_salt, suffix):
    path = tmp_path / f"salt.{suffix}"
    structure = from_atoms(rock_salt)
    if suffix == "extxyz":
        rock_salt.write(path)
    else:
        writer = app.PDBFile if suffix == "pdb" else app.PDBxFile
        with open(path, "w") as handle:
            writer.writeFile(structure.topology, 10 * structure.positions, handle)
    read = read_structure(path)
    assert read.num_atoms == 64  # no atom is taken for an alternate location of another
    np.testing.assert_allclose(read.positions, structure.positions, atol=2e-4)
    np.testing.assert_allclose(read.box, structure.box, atol=1e-4)


def test_a_slab_there_and_back(tiny_slab):
    """In any orientation; its normal becomes z."""
    turned = tiny_slab.copy()
    turned.rotate(50.0, (1.0, 2.0, 0.5), rotate_cell=True)
    with pytest.warns(NequIPLRWarning, match="create_system and create_force take slab=True"):
        structure = from_atoms(turned)
    assert structure.slab
    np.testing.assert_allclose(structure.box[2], [0.0, 0.0, 2.0], atol=1e-12)
    back = to_atoms(*(getattr(structure, n) for n in ("topology", "positions", "box", "rotation")),
                    slab=structure.slab)  # fmt: skip
    np.testing.assert_allclose(back.positions, turned.positions, atol=1e-10)
    assert back.pbc.tolist() == [True, True, False]


def test_what_cannot_be_converted(tmp_path, rock_salt):
    slab = rock_salt.copy()
    slab.pbc = (True, False, True)
    with pytest.raises(InputError, match="pbc: expected periodic in all three directions"):
        from_atoms(slab)
    slab.pbc = (True, True, False)
    slab.cell[2] = 0.0
    with pytest.raises(BoxError, match="cell of a slab: expected a third vector along the normal"):
        from_atoms(slab)
    with pytest.raises(InputError, match="atoms: expected at least one atom"):
        from_atoms(slab[:0])
    strange = bulk("Cu")
    strange.symbols = "X"
    with pytest.raises(InputError, match="symbol of atom 0"):
        from_atoms(strange)
    with pytest.raises(FileNotFoundError, match="structure: expected an existing file"):
        read_structure(tmp_path / "absent.xyz")
    broken = tmp_path / "broken.extxyz"
    broken.write_text("not a structure\n")
    with pytest.raises(InputError, match="structure: expected a readable file"):
        read_structure(broken)
