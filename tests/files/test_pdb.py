"""PDB files as other programs write them: every atom, in order, with the right element."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.files.pdb import pdb_frames
from openmm_nequiplr.simulation import read_structure
from openmm_nequiplr.simulation.topology import element_symbols


def record(name, residue, number, xyz, symbol="", alt=" ", occupancy=1.0, charge="", code=" "):
    """An ATOM record; the name takes four columns as it is."""
    place = "".join(f"{value:8.3f}" for value in xyz)
    return (
        f"ATOM  {number:5d} {name:<4}{alt}{residue:<4}A{number:4d}{code}   {place}"
        f"{occupancy:6.2f}{0.0:6.2f}          {symbol:>2}{charge:<2}"
    )


@pytest.fixture
def saved(tmp_path):
    """Write lines into a PDB file."""

    def save(*lines, name="a.pdb"):
        (tmp_path / name).write_text("\n".join(lines) + "\nEND\n", encoding="utf-8")
        return tmp_path / name

    return save


def quietly(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        return read_structure(path, **options)


def test_names_that_are_repeated(tmp_path):
    crystal = bulk("MgO", "rocksalt", 4.21, cubic=True).repeat((3, 2, 2))
    write(tmp_path / "a.pdb", crystal)
    found = quietly(tmp_path / "a.pdb")
    assert element_symbols(found.topology) == list(crystal.symbols)
    np.testing.assert_allclose(10 * found.positions, crystal.positions, atol=6e-4)
    np.testing.assert_allclose(10 * found.box, crystal.cell.array, atol=1e-3)


def test_repeated_names_in_one_of_several_residues(saved):
    lines = [
        record(" O  ", "HOH", 1, (0, 0, 0), "O"),
        record(" H  ", "HOH", 1, (1, 0, 0), "H"),
        record(" H  ", "HOH", 1, (0, 1, 0), "H"),
        record(" O  ", "HOH", 2, (5, 0, 0), "O"),
        "TER",
        record("MG  ", "MG ", 2, (9, 0, 0), "MG", code="A"),
    ]
    found = quietly(saved(*lines))
    assert element_symbols(found.topology) == ["O", "H", "H", "O", "Mg"]
    np.testing.assert_allclose(10 * found.positions[:, 0], [0, 1, 0, 5, 9], atol=1e-9)


def test_insertion_codes_keep_residues_apart(saved):
    lines = [record(" O  ", "HOH", 5, (3.0 * k, 0, 0), "O", code=" AB"[k]) for k in range(3)]
    assert quietly(saved(*lines)).num_atoms == 3


def test_alternate_locations(saved):
    lines = [
        record(" O  ", "HOH", 1, (0, 0, 0), "O", "A", 0.4),
        record(" O  ", "HOH", 1, (0.3, 0, 0), "O", "B", 0.6),
        record(" H1 ", "HOH", 1, (1, 0, 0), "H", "A", 0.4),
        record(" H1 ", "HOH", 1, (1.3, 0, 0), "H", "B", 0.6),
        record(" H2 ", "HOH", 1, (0, 1, 0), "H"),
    ]
    path = saved(*lines)
    with pytest.warns(NequIPLRWarning, match="alternate locations.* 2 others are left out"):
        found = read_structure(path)
    np.testing.assert_allclose(10 * found.positions[:, 0], [0.3, 1.3, 0.0], atol=1e-9)
    assert len(pdb_frames(path)[0][0]) == 3


@pytest.mark.parametrize(
    ("sites", "kept"),
    [
        ("SER N A .6, THR N B .4, SER OG A .6, THR OG1 B .4, THR CG2 B .4", [0, 2]),
        ("SER N A .4, THR N B .6, SER OG A .4, THR OG1 B .6, THR CG2 B .6", [1, 3, 4]),
        ("HOH O - .5, HOH O B .5, HOH H1 - 1", [0, 2]),
        ("HOH O A .4, HOH H1 A .4, HOH O B .6, HOH HA B .6", [2, 3]),
        ("HOH O A .4, HOH H1 A .4, HOH O B .6", [0, 1]),
        ("LIG C1 A .7, LIG C1 B .3, LIG C7 C .2, LIG C7 D .8", [0, 3]),
    ],
)
def test_alternatives_of_a_residue_are_not_mixed(saved, sites, kept):
    """Other residues, other names, a first place without a mark, and parts that are independent."""
    lines = []
    for k, words in enumerate(site.split() for site in sites.split(", ")):
        residue, name, mark, occupancy = words
        mark = mark.replace("-", " ")
        place = (2.0 * k, 0, 0)
        lines.append(record(f" {name}", residue, 1, place, name[0], mark, float(occupancy)))
    path = saved(*lines)
    with pytest.warns(NequIPLRWarning, match=f" {len(lines) - len(kept)} others are left out"):
        found = read_structure(path)
    np.testing.assert_allclose(10 * found.positions[:, 0], [2.0 * k for k in kept], atol=1e-9)


def test_hydrogen_and_deuterium_in_one_place(saved):
    lines = [
        record(" H1 ", "HOH", 1, (0, 0, 0), "H", "A", 0.3),
        record(" D1 ", "HOH", 1, (0, 0, 0.1), "D", "B", 0.7),
    ]
    with pytest.warns(NequIPLRWarning, match="1 others are left out"):
        assert read_structure(saved(*lines)).masses == pytest.approx([2.0136], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "residue", "column", "element"),
    [
        ("AU  ", "AU ", "", "Au"),
        ("SI1 ", "SLB", "", "Si"),
        (" SI ", "SLB", "", "S"),
        ("MG  ", "MGO", "", "Mg"),
        ("NA  ", "NA ", "", "Na"),
        ("CLA ", "CLA", "", "Cl"),
        (" CA ", "ALA", "", "C"),
        ("HG11", "VAL", "HG", "H"),
        ("CA  ", "ALA", "CA", "C"),
        (" C1 ", "LIG", "XX", "C"),
        ("Cl1 ", "LIG", "", "Cl"),
        ("1HB ", "ALA", "", "H"),
        ("CL12", "LIG", "", "Cl"),
        ("NH1 ", "LIG", "", "N"),
    ],
)
def test_elements_by_names_are_said(saved, name, residue, column, element):
    path = saved(record(name, residue, 1, (0, 0, 0), column))
    with pytest.warns(NequIPLRWarning, match=f"deduced from the atoms' names: {element} "):
        found = read_structure(path)
    assert element_symbols(found.topology) == [element]


@pytest.mark.parametrize("name", [" X1 ", " UNK", " WAT"])
def test_a_name_that_tells_nothing(saved, name):
    with pytest.raises(InputError, match=r"element: expected a symbol in columns 77 and 78"):
        read_structure(saved(record(name, "DUM", 1, (0, 0, 0))))


def test_deuterium_is_heavy_hydrogen(saved):
    found = quietly(saved(record(" D1 ", "HDO", 1, (0, 0, 0), "D")))
    assert element_symbols(found.topology) == ["H"]
    assert found.masses == pytest.approx([2.0136], abs=1e-3)


def test_virtual_sites_are_left_out(saved):
    path = saved(
        record(" O  ", "HOH", 1, (0, 0, 0), "O"),
        record(" M  ", "HOH", 1, (0.1, 0, 0), "EP"),
        record(" MW ", "SOL", 2, (0.2, 0, 0)),
        record(" O  ", "WAT", 3, (4, 0, 0), "O"),
    )
    expected = r"2 virtual sites in .* left out \(M 1, MW 1\), 2 atoms"
    with pytest.warns(NequIPLRWarning, match=expected):
        found = read_structure(path)
    assert element_symbols(found.topology) == ["O", "O"]
    np.testing.assert_allclose(pdb_frames(path)[0][0], 10 * found.positions, atol=1e-9)


@pytest.mark.parametrize("lengths", ["1.000", "0.000"])
def test_cells_that_are_placeholders(saved, lengths):
    head = f"CRYST1{lengths:>9}{lengths:>9}{lengths:>9}  90.00  90.00  90.00 P 1           1"
    path = saved(head, record(" O  ", "HOH", 1, (0, 0, 0), "O"))
    if lengths == "1.000":
        with pytest.warns(NequIPLRWarning, match="placeholder"):
            assert read_structure(path).box is None
    else:
        assert quietly(path).box is None


def test_formal_charges_and_symmetry_are_said(saved):
    head = "CRYST1   20.000   30.000   25.000  90.00  95.00  90.00 P 1 21 1      4"
    path = saved(head, record("NA  ", "NA ", 1, (0, 0, 0), "NA", charge="1+"))
    with pytest.warns(NequIPLRWarning) as said:
        found = read_structure(path)
    text = "\n".join(str(each.message) for each in said)
    assert "+1 e, the sum of the formal charges" in text
    assert "space group P 1 21 1" in text
    assert (found.total_charge, found.charge_given) == (1.0, True)


@pytest.mark.parametrize(
    ("texts", "charge"), [(["+", "2-"], -1.0), (["70", "71"], None), (["+1", "A"], None)]
)
def test_formal_charges_of_all_spellings(saved, texts, charge):
    lines = [record("NA  ", "NA ", k, (9.0 * k, 0, 0), "NA", charge=t) for k, t in enumerate(texts)]
    message = "sum of the formal charges" if charge else "formal charges in .* are not read"
    with pytest.warns(NequIPLRWarning, match=message):
        found = read_structure(saved(*lines))
    assert (found.total_charge, found.charge_given) == (charge or 0.0, charge is not None)


def test_a_mark_of_the_encoding_hides_no_atom(saved):
    path = saved(record(" O  ", "HOH", 1, (0, 0, 0), "O"))
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert quietly(path).num_atoms == 1


def test_bonds_that_cannot_be_read(saved):
    lines = [record(" O  ", "HOH", k, (4.0 * k, 0, 0), "O") for k in range(2)]
    with pytest.warns(NequIPLRWarning, match="1 CONECT records"):
        assert read_structure(saved(*lines, "CONECTA0000    1", "CONECT*****    1")).num_atoms == 2


def test_a_cell_that_lies_otherwise(saved, rng):
    """SCALE records tell the orientation; positions are turned with the cell."""
    from ase import Atoms
    from ase.cell import Cell

    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    cell = Cell.fromcellpar([9, 10, 11, 80, 95, 100])
    atoms = Atoms("O3", rng.uniform(0, 8, (3, 3)) @ turn, cell=cell.array @ turn, pbc=True)
    scale = np.linalg.inv(atoms.cell.array).T
    rows = [
        f"SCALE{k + 1}    {row[0]:10.6f}{row[1]:10.6f}{row[2]:10.6f}{0:15.5f}"
        for k, row in enumerate(scale)
    ]
    head = "CRYST1    9.000   10.000   11.000  80.00  95.00 100.00 P 1           1"
    lines = [record(" O  ", "HOH", k + 1, xyz, "O") for k, xyz in enumerate(atoms.positions)]
    found = quietly(saved(head, *rows, *lines))
    turned = Atoms("O3", 10 * found.positions, cell=10 * found.box, pbc=True)
    np.testing.assert_allclose(
        turned.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=3e-3
    )


def test_frames(saved):
    lines = []
    for k in range(3):
        lines += [f"MODEL     {k + 1:4d}", record(" O  ", "HOH", 1, (k, 0, 0), "O"), "ENDMDL"]
    path = saved(*lines)
    with pytest.warns(NequIPLRWarning, match="of the 3 frames in .*, the last one"):
        assert read_structure(path).positions[0, 0] == pytest.approx(0.2)
    assert quietly(path, frame=1).positions[0, 0] == pytest.approx(0.1)
    with pytest.raises(InputError, match="frame: expected one of the 3 frames"):
        read_structure(path, frame=3)
    assert [frame[0][0, 0] for frame in pdb_frames(path)] == [0.0, 1.0, 2.0]


def test_numbers_that_are_none(saved):
    line = record(" O  ", "HOH", 1, (0, 0, 0), "O")
    with pytest.raises(InputError, match=r"columns 31 to 38 .* expected a number"):
        read_structure(saved(line[:30] + "   *****" + line[38:]))
    with pytest.raises(InputError, match=r"expected a record with coordinates in columns 31 to 54"):
        read_structure(saved(line[:52]))  # a file that was cut
    with pytest.raises(InputError, match="no atoms"):
        read_structure(saved("REMARK nothing"))
    head = "CRYST1{:9.3f}   10.000   10.000{:7.2f}  30.00 120.00 P 1           1"
    for length, angle in ((-10.0, 90.0), (10.0, 0.0), (10.0, 30.0)):
        with pytest.raises(InputError, match="cell: expected .*angles"):
            read_structure(saved(head.format(length, angle), line))
