"""mmCIF and crystal CIF under one suffix."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import read_structure
from openmm_nequiplr.simulation.topology import element_symbols

MGO = """data_mgo
_cell_length_a 4.21
_cell_length_b 4.21
_cell_length_c 4.21
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Mg1 Mg 0 0 0 {occupancy}
O1 O 0.5 0.5 0.5 1
"""

WATER = """data_water
{cell}loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
{names}
HETATM 1 O O HOH A 1 0.0 0.0 0.0 {first}
HETATM 2 H H1 HOH A 1 0.9 0.0 0.0 .
HETATM 3 H H2 HOH A 1 0.0 0.9 0.0 .
"""


def test_crystals_with_symmetry(tmp_path):
    path = tmp_path / "mgo.cif"
    path.write_text(MGO.format(occupancy=1))
    found = read_structure(path)
    assert sorted(element_symbols(found.topology)) == ["Mg"] * 4 + ["O"] * 4
    np.testing.assert_allclose(10 * found.box, 4.21 * np.eye(3), atol=1e-9)
    crystal = bulk("MgO", "rocksalt", 4.21).repeat(2)
    write(tmp_path / "primitive.cif", crystal)
    assert read_structure(tmp_path / "primitive.cif").num_atoms == 16


def test_sites_that_are_occupied_in_part(tmp_path):
    path = tmp_path / "mgo.cif"
    path.write_text(MGO.format(occupancy=0.5))
    with pytest.raises(InputError, match=r"full occupancy of every site.*Mg 0\.5"):
        read_structure(path)
    path.write_text(MGO.format(occupancy=0.5) + "Ni1 Ni 0 0 0 0.5\n")
    with pytest.raises(InputError, match="full occupancy of every site"):
        read_structure(path)


def test_deuterium_in_a_crystal(tmp_path):
    path = tmp_path / "d.cif"
    path.write_text(MGO.format(occupancy=1).replace("O1 O", "D1 D"))
    found = read_structure(path)
    heavy = np.array(element_symbols(found.topology)) == "H"
    assert heavy.sum() == 4
    np.testing.assert_allclose(found.masses[heavy], 2.0136, atol=1e-3)


def water(path, cell="", names="_atom_site.label_alt_id", first="."):
    path.write_text(WATER.format(cell=cell, names=names, first=first))
    return path


def test_molecules(tmp_path):
    found = read_structure(water(tmp_path / "a.cif"))
    assert element_symbols(found.topology) == ["O", "H", "H"]
    assert found.box is None
    unknown = "".join(f"_cell.{name} ?\n" for name in ("length_a", "length_b", "length_c"))
    assert read_structure(water(tmp_path / "b.cif", unknown)).box is None
    names = {"length": 20.0, "angle": 90.0}
    lines = [f"_cell.length_{x} 20.0\n_cell.angle_{y} 90\n"
             for x, y in zip("abc", ("alpha", "beta", "gamma"), strict=True)]  # fmt: skip
    found = read_structure(water(tmp_path / "c.cif", "".join(lines)))
    np.testing.assert_allclose(10 * found.box, names["length"] * np.eye(3), atol=1e-9)


def test_atoms_that_openmm_would_drop(tmp_path):
    path = water(tmp_path / "a.cif")
    text = path.read_text().replace("label_alt_id", "note").replace("H2", "H1")
    path.write_text(text.replace("0.0 .\n", "0.0 x\n"))
    with pytest.raises(InputError, match="expected all atoms, got .2 of the 3"):
        read_structure(path)
    path = water(tmp_path / "b.cif")
    path.write_text(path.read_text() + "HETATM 4 O O HOH A 1 0.1 0.0 0.0 B\n")
    with pytest.warns(NequIPLRWarning, match="alternate locations: the first ones.* 1 others"):
        assert read_structure(path).num_atoms == 3
