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
    assert element_symbols(read_structure(path).topology) == ["O", "H", "H"]
    path = water(tmp_path / "b.cif")
    path.write_text(path.read_text() + "HETATM 4 O O HOH A 1 0.1 0.0 0.0 B\n")
    with pytest.warns(NequIPLRWarning, match="alternate locations: .* 1 others"):
        assert read_structure(path).num_atoms == 3


#: Atoms of the residues ``A 1`` and ``A 2`` in several sets and models.
SETS = """data_sets
loop_
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.auth_seq_id
_atom_site.occupancy
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.pdbx_formal_charge
_atom_site.pdbx_PDB_model_num
"""


@pytest.mark.parametrize(
    ("rows", "places", "charge"),
    [
        # two waters without a number under label_seq_id, both in two places
        ("O O A HOH A . 1 .4 0|O O B HOH A . 1 .6 1|O O A HOH A . 2 .7 5|O O B HOH A . 2 .3 6",
         [1, 5], None),
        ("N N A SER A 1 1 .6 0|N N B THR A 1 1 .4 1|O OG A SER A 1 1 .6 3|C CG2 B THR A 1 1 .4 5",
         [0, 3], None),
        ("NA NA . NA A . 1 1 0 ? 0 2|CL CL . CL A . 2 1 3 ? 0 1-", [0, 3], 1.0),
    ],
)  # fmt: skip
def test_alternatives_and_charges(tmp_path, rows, places, charge):
    lines = []
    for number, row in enumerate(rows.split("|")):
        words = row.split()[:9]
        formal = row.split()[11] if len(row.split()) > 9 else "?"
        lines.append(f"{number} {' '.join(words)} 0 0 {formal} 1\n")
    path = tmp_path / "a.cif"
    path.write_text(SETS + "".join(lines))
    with pytest.warns(NequIPLRWarning):
        found = read_structure(path)
    np.testing.assert_allclose(10 * found.positions[:, 0], places, atol=1e-9)
    assert (found.total_charge if found.charge_given else None) == charge


def test_models_of_different_atoms(tmp_path):
    atoms = (
        "O O . HOH A . 1 1 0 0 0 ? 1",
        "O O . HOH A . 1 1 7 0 0 ? 2",
        "H H1 . HOH A . 1 1 8 0 0 ? 2",
    )
    rows = "".join(f"{k} {atom}\n" for k, atom in enumerate(atoms))
    path = tmp_path / "a.cif"
    path.write_text(SETS + rows)
    assert element_symbols(read_structure(path, frame=0).topology) == ["O"]
    found = read_structure(path, frame=1)
    np.testing.assert_allclose(10 * found.positions[:, 0], [7, 8], atol=1e-9)
    for wrong in (SETS.replace("Cartn_x", "fract_x") + rows, SETS + rows.replace(" 7 ", " nan ")):
        path.write_text(wrong)
        with pytest.raises(InputError, match="position: expected numbers under Cartn_x"):
            read_structure(path, frame=1)


P21N = ["x,y,z", "1/2-x,1/2+y,1/2-z", "-x,-y,-z", "1/2+x,1/2-y,1/2+z"]
#: Space group, its operations, cell and sites; number of atoms, or what the refusal says.
CRYSTALS = [
    (("P 1 21/n 1", ""), P21N, "6 7 8 90 100 90", "C1 C .1 .2 .3", 4),
    (("unheard of", ""), P21N, "6 7 8 90 100 90", "C1 C .1 .2 .3", 4),
    (("", ""), ["x,y,z", "-x,-y,-z"], "6 7 8 80 95 100", "C1 C .1 .2 .3", 2),
    (("P 21/c", 14), None, "6 7 8 90 100 90", "C1 C .1 .2 .3", 4),
    (("P 21/n", 14), None, "6 7 8 90 100 90", "C1 C .1 .2 .3", "operations"),
    (("P b n m", 62), None, "5 5.5 7.7 90 90 90", "C1 C .1 .2 .3", "operations"),
    (("F d -3 m :2", 227), None, "3.6 3.6 3.6 90 90 90", "C1 C .125 .125 .125", "operations"),
    (("", 227), None, "3.6 3.6 3.6 90 90 90", "C1 C 0 0 0", "operations"),
    (("R -3 c", 167), None, "4.8 4.8 13 90 90 120", "Al Al 0 0 .352|O O .306 0 .25", 30),
    (("R -3 c", 167), None, "5.1 5.1 5.1 55 55 55", "Al Al .352 .352 .352", "operations"),
    (("P 63 m c", 186), None, "3.3 3.3 5.2 90 90 120", "Zn Zn .333 .667 0", "at least 0.5 Å apart"),
    (("P 63 m c", 186), None, "3.3 3.3 5.2 90 90 120", "Zn Zn .33333 .66667 0", 2),
    (("P 1", 1), None, "6 7 8 90 90 90", "C1 C 0 0 0|C2 C .02 0 0", "at least 0.5 Å apart"),
    (("P 1", 1), None, "6 7 8 90 90 90", "C1 C 0 0 0|H1 H ? ? ?", "a number for every site"),
]


@pytest.mark.parametrize("case", range(len(CRYSTALS)))
def test_the_symmetry_is_that_of_the_file(tmp_path, case):
    """Listed operations win over names; without them the setting has to be the only one."""
    (name, number), operations, cell, sites, expected = CRYSTALS[case]
    tags = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_c", *(f"_cell_{t} {v}" for t, v in zip(tags, cell.split(), strict=True))]
    lines += [f"_symmetry_space_group_name_H-M '{name}'"] * bool(name)
    lines += [f"_symmetry_Int_Tables_number {number}"] * bool(number)
    if operations:
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{each}'" for each in operations)]
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"] + sites.split("|")
    path = tmp_path / "a.cif"
    path.write_text("\n".join(lines) + "\n")
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            read_structure(path)
    else:
        assert read_structure(path).num_atoms == expected
