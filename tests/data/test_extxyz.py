"""Extended XYZ files under their many key names."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.boundaries import BULK, FREE, SLAB
from openmm_nequiplr.data import DataKeys, DataUnits, read_extxyz, read_structures
from openmm_nequiplr.errors import InputError


def _file(tmp_path, *, atoms: str = "", info: str = "", pbc: str = "F F F", columns: str = ""):
    """Two hydrogen atoms with `atoms` properties (`columns` as values) and `info` entries."""
    path = tmp_path / "data.extxyz"
    path.write_text(
        f'2\nLattice="5 0 0 0 6 0 1 0 7" Properties=species:S:1:pos:R:3{atoms} {info} '
        f'pbc="{pbc}"\nH 0 0 0 {columns}\nH 0 0 0.75 {columns}\n'
    )
    return path


@pytest.mark.parametrize("prefix", ["", "REF_"])
def test_labels_with_and_without_prefix(tmp_path, prefix):
    path = _file(
        tmp_path,
        atoms=f":{prefix}forces:R:3:{prefix}charges:R:1",
        info=f'{prefix}energy=-1480190.2535228764 {prefix}dipole="1 2 3" total_charge=-1.0',
        columns="0.5 -0.25 1 -0.5",
    )
    (structure,) = read_extxyz(path)
    assert structure.energy == -1480190.2535228764
    np.testing.assert_array_equal(structure.forces, [[0.5, -0.25, 1.0]] * 2)
    np.testing.assert_array_equal(structure.charges, [-0.5, -0.5])
    np.testing.assert_array_equal(structure.dipole, [1, 2, 3])
    assert structure.total_charge == -1.0
    assert structure.cell is None
    assert not structure.pbc


def test_charge_per_atom_and_in_total(tmp_path):
    """``charge`` is a column of atomic charges here and the total charge there."""
    path = _file(tmp_path, atoms=":charge:R:1", info="charge=1", columns="0.5")
    (structure,) = read_extxyz(path)
    np.testing.assert_array_equal(structure.charges, [0.5, 0.5])
    assert structure.total_charge == 1.0


def test_prefixed_labels_win(tmp_path):
    path = _file(tmp_path, info="energy=-1.0 REF_energy=-2.0")
    assert read_extxyz(path)[0].energy == -2.0


def test_configured_keys(tmp_path):
    path = _file(
        tmp_path,
        atoms=":f_dft:R:3:hirshfeld:R:1",
        info="e_dft=-3.5 energy=7 q=2",
        columns="1 2 3 0.25",
    )
    keys = DataKeys(energy="e_dft", forces="f_dft", charges="hirshfeld", total_charge="q")
    (structure,) = read_extxyz(path, keys)
    assert structure.energy == -3.5
    assert structure.total_charge == 2.0
    np.testing.assert_array_equal(structure.forces[1], [1, 2, 3])
    np.testing.assert_array_equal(structure.charges, [0.25, 0.25])


def test_weights_of_structures(tmp_path):
    assert read_extxyz(_file(tmp_path, info="energy=1"))[0].weight == 1.0
    path = _file(tmp_path, info="config_weight=0.25 own=3")
    assert read_extxyz(path)[0].weight == 0.25
    assert read_extxyz(path, DataKeys(weight="own"))[0].weight == 3.0
    assert read_extxyz(_file(tmp_path, info="config_weight=0"))[0].weight == 0.0
    with pytest.raises(InputError, match=r"weight: expected a number of at least 0, got -1\.0"):
        read_extxyz(_file(tmp_path, info="config_weight=-1"))


def test_configured_key_that_is_nowhere(tmp_path):
    path = _file(tmp_path, info="energy=7")
    with pytest.raises(InputError, match=r"keys\.energy: expected a key of the file.*e_dft"):
        read_extxyz(path, DataKeys(energy="e_dft"))


def test_unlabelled_quantities_are_none(tmp_path):
    (structure,) = read_extxyz(_file(tmp_path))
    assert structure.energy is structure.forces is structure.charges is structure.stress is None
    assert structure.total_charge == 0.0


@pytest.mark.parametrize("key", ["stress", "REF_stress"])
def test_periodic_with_stress(tmp_path, key):
    path = _file(tmp_path, info=f'{key}="1 2 3 2 4 5 3 5 6"', pbc="T T T")
    (structure,) = read_extxyz(path)
    np.testing.assert_array_equal(structure.stress, [[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    np.testing.assert_array_equal(structure.cell, [[5, 0, 0], [0, 6, 0], [1, 0, 7]])
    assert structure.pbc


def test_stress_of_six_numbers(tmp_path):
    path = _file(tmp_path, info='REF_stress="1 2 3 4 5 6"', pbc="T T T")
    expected = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    np.testing.assert_array_equal(read_extxyz(path)[0].stress, expected)


def test_response_of_a_frame(tmp_path):
    """Nine columns row by row, and polarisabilities in atomic units."""
    from ase import units

    columns = {"atoms": ":born_charges:R:9", "columns": "1 2 3 4 5 6 7 8 9"}
    path = _file(tmp_path, info='polarizability="1 2 3 0.4 0.5 0.6"', **columns)
    said = []
    (structure,) = read_structures(path, units=DataUnits("angstrom", "hartree"), say=said.append)
    np.testing.assert_array_equal(structure.born_charges, [np.arange(1.0, 10.0).reshape(3, 3)] * 2)
    tensor = np.array([[1, 0.6, 0.5], [0.6, 2, 0.4], [0.5, 0.4, 3]])
    np.testing.assert_allclose(structure.polarizability, tensor / units.Hartree)
    assert any("Born charges do not sum to the total charge in 1 of 1" in line for line in said)
    with pytest.raises(InputError, match=r"born_charges: expected shape \[2, 3, 3\]"):
        read_extxyz(_file(tmp_path, atoms=":born_charges:R:3", columns="1 2 3"))


def test_each_frame_has_its_boundaries(tmp_path):
    found = []
    for pbc in ("T T T", "T T F", "F F F"):
        path = _file(tmp_path, pbc=pbc)
        path.write_text(path.read_text().replace("1 0 7", "0 0 7"))
        found += read_extxyz(path)
    assert [each.pbc for each in found] == [BULK, SLAB, FREE]
    assert [each.cell is None for each in found] == [False, False, True]
    with pytest.raises(InputError, match="frame 0: cell of a slab: expected a third vector perp"):
        read_extxyz(_file(tmp_path, pbc="T T F"))
    with pytest.raises(InputError, match=r"frame 0: pbc: expected periodic in all three"):
        read_extxyz(_file(tmp_path, pbc="T F T"))


def test_broken_file_is_an_input_error(tmp_path):
    path = tmp_path / "broken.extxyz"
    path.write_text("3\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")
    with pytest.raises(InputError, match=r"broken\.extxyz"):
        read_extxyz(path)


def test_several_files_in_order(tmp_path):
    (tmp_path / "a").mkdir()
    first = _file(tmp_path / "a", info="energy=1")
    second = _file(tmp_path, info="energy=2")
    assert [s.energy for s in read_structures([second, first])] == [2.0, 1.0]


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.xyz"):
        read_structures(tmp_path / "nothing.xyz")
    with pytest.raises(InputError, match="format: expected one of 'extxyz', 'runner', got 'vasp'"):
        read_structures(_file(tmp_path), format="vasp")


def test_field_of_a_frame(tmp_path):
    path = _file(tmp_path, info='electric_field="0 0.1 -0.2"')
    np.testing.assert_array_equal(read_extxyz(path)[0].electric_field, [0.0, 0.1, -0.2])
    with pytest.raises(InputError, match=r"frame 0: electric_field: expected shape \[3\]"):
        read_extxyz(_file(tmp_path, info="electric_field=0.1"))


def test_field_in_the_units_of_the_file(tmp_path):
    from ase import units

    path = tmp_path / "data.extxyz"
    path.write_text(
        '2\nProperties=species:S:1:pos:R:3 electric_field="0 0 0.01" pbc="F F F"\n'
        "H 0 0 0\nH 0 0 1.4\n"
    )
    (structure,) = read_structures(path, units=DataUnits("bohr", "hartree"), say=lambda line: None)
    np.testing.assert_allclose(structure.electric_field[2], 0.01 * units.Hartree / units.Bohr)


def test_charge_groups_of_a_frame(tmp_path):
    """Labels in any order, nine charges (which ASE takes for a matrix), one, and none."""
    path = tmp_path / "data.extxyz"
    rows = [f"H {2 * k} 0 0 {9 - k // 2}" for k in range(18)]
    charges = [1.0, 0.0, -0.5, 0.25, 0.0, 0.0, 2.0, 0.0, -1.0]
    head = "18\nProperties=species:S:1:pos:R:3:charge_group:I:1"
    text = f'{head} group_charges="{" ".join(map(str, charges))}"\n' + "\n".join(rows)
    path.write_text(text + "\n")
    (structure,) = read_extxyz(path)
    assert structure.charge_groups.tolist() == [8 - k // 2 for k in range(18)]
    assert structure.group_charges.tolist() == charges
    assert structure.total_charge == sum(charges)
    column = {"atoms": ":charge_group:I:1", "columns": "3"}
    one = _file(tmp_path, info="group_charges=1 total_charge=1", **column)
    assert read_extxyz(one)[0].group_charges.tolist() == [1.0]
    assert read_extxyz(_file(tmp_path, **column))[0].group_charges.tolist() == [0.0]
    wrong = _file(tmp_path, info="group_charges=1 charge=0", **column)
    with pytest.raises(InputError, match=r"frame 0: group_charges: .*total charge \+0 e"):
        read_extxyz(wrong)
