"""One reader for files of every format."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import from_atoms, read_structure
from openmm_nequiplr.simulation.topology import element_symbols, say_far

DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id type x y z{names}
1 1 0 0 0{first}
2 2 3 0 0{second}
"""


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "cif", "pdb", "vasp", "xyz", "json"])
def test_order_positions_and_cell(tmp_path, skewed_salt, suffix):
    """Whatever the format: distances between the atoms in their order, in names of any letters."""
    folder = tmp_path / "Größe σ"
    folder.mkdir()
    path = folder / f"salt.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path, skewed_salt, **({"format": "extxyz"} if suffix == "xyz" else {}))
        found = read_structure(path)
    assert element_symbols(found.topology) == list(skewed_salt.symbols)
    here = Atoms(skewed_salt.symbols, 10 * found.positions, cell=10 * found.box, pbc=True)
    np.testing.assert_allclose(
        here.get_all_distances(mic=True), skewed_salt.get_all_distances(mic=True), atol=6e-3
    )


@pytest.mark.parametrize("name", ["salt@300K.extxyz", "a[1]*.extxyz", "b{0}%d.traj", "-.xyz@2.xyz"])
def test_names_that_mean_something_to_ase(tmp_path, cluster, name):
    write(tmp_path / "whole.extxyz", cluster)
    (tmp_path / name).write_bytes((tmp_path / "whole.extxyz").read_bytes())
    if name.endswith("traj"):
        write(tmp_path / name, cluster)
    assert read_structure(tmp_path / name).num_atoms == len(cluster)


def test_one_of_several_frames(tmp_path, cluster):
    frames = []
    for k in range(3):
        frames.append(cluster.copy())
        frames[-1].positions[0, 0] = k
    write(tmp_path / "a.extxyz", frames)
    with pytest.warns(
        NequIPLRWarning,
        match="of several frames in .*, the last one is taken, as no frame was named",
    ):
        assert read_structure(tmp_path / "a.extxyz").positions[0, 0] == pytest.approx(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        assert read_structure(tmp_path / "a.extxyz", frame=1).positions[0, 0] == pytest.approx(0.1)
    with pytest.raises(InputError, match="frame: expected one of the frames"):
        read_structure(tmp_path / "a.extxyz", frame=3)


def test_numbers_of_types_are_no_elements(tmp_path):
    path = tmp_path / "a.lammpstrj"
    path.write_text(DUMP.format(names="", first="", second=""))
    with pytest.raises(InputError, match="elements .* in a LAMMPS file"):
        read_structure(path)
    path.write_text(DUMP.format(names=" element", first=" Na", second=" Cl"))
    assert element_symbols(read_structure(path).topology) == ["Na", "Cl"]


def test_what_cannot_be_read(tmp_path, rock_salt):
    with pytest.raises(FileNotFoundError, match="structure: expected an existing file"):
        read_structure(tmp_path)
    rock_salt = rock_salt.copy()
    rock_salt.pbc = (True, False, False)
    rock_salt.write(tmp_path / "wire.extxyz")
    with pytest.raises(InputError, match="pbc: expected periodic in all three directions"):
        read_structure(tmp_path / "wire.extxyz")
    rock_salt[:2].write(tmp_path / "copy.pdb.gz")
    with pytest.raises(InputError, match="mmCIF files not compressed"):
        read_structure(tmp_path / "copy.pdb.gz")
    (tmp_path / "nan.xyz").write_text("1\n\nH nan 0 0\n")
    with pytest.raises(InputError, match="positions: expected finite numbers"):
        read_structure(tmp_path / "nan.xyz")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("molecule with charge 0", r"atoms.info\['charge'\]: expected one finite number .*True"),
        ('lattice="9 0 0 0 9 0 0 0 9"', "lattice: expected no entry of this name: it is Lattice"),
        ("Properties=species:S:1:pos:R:3:masses:R:1", r"masses\[0\]: expected a mass in Da from"),
    ],
)
def test_comments_that_are_misread(tmp_path, comment, message):
    path = tmp_path / "a.xyz"
    path.write_text(f"1\n{comment}\nNa 0 0 0 1e-26\n")
    with pytest.raises(InputError, match=message):
        read_structure(path)


@pytest.mark.parametrize(
    ("comment", "charge", "message"),
    [
        ("total_charge=1 charge=0", 1.0, r"\+1 e is taken, which charge = 0 contradict"),
        ("Properties=species:S:1:pos:R:3:initial_charges:R:1 charge=0", 0.0,
         r"\+0 e is taken, which the sum of initial charges = 1 contradict"),
        ("Charge=1", None, "Charge = 1 is not read"),
        ("Properties=species:S:1:pos:R:3:mass:R:1", None, "the column mass of .* is not read"),
    ],
)  # fmt: skip
def test_what_is_told_twice_or_not_read(tmp_path, comment, charge, message):
    path = tmp_path / "a.xyz"
    path.write_text(f"1\n{comment}\nNa 0 0 0 1\n")
    with pytest.warns(NequIPLRWarning, match=message):
        found = read_structure(path)
    assert (found.total_charge if found.charge_given else None) == charge


POSCAR = "NaCl\n1\n5 0 0\n0 5 0\n0 0 5\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"


def test_numbers_of_atoms_of_vasp(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text(POSCAR + "\n 0 0 1\n 0 0 0\n")  # velocities
    assert element_symbols(read_structure(path).topology) == ["Na", "Cl"]
    path.write_text(POSCAR.replace("1 1\n", "1\n"))
    with pytest.raises(InputError, match="expected a number of atoms for every element"):
        read_structure(path)
    for wrong in (POSCAR + ".2 .2 .2\n", POSCAR.replace("1 1\n", "1 2\n")):
        path.write_text(wrong)
        with pytest.raises(InputError, match="expected a position for every atom"):
            read_structure(path)
    path.write_text(POSCAR.replace("Na Cl\n", ""))
    with pytest.warns(NequIPLRWarning, match="names no elements but, in its first line, 'NaCl'"):
        assert element_symbols(read_structure(path).topology) == ["Na", "Cl"]


@pytest.mark.parametrize(("away", "coarse"), [(1e3, False), (1e6, True)])
def test_trajectories_far_from_the_origin(cluster, away, coarse):
    atoms = cluster.copy()
    atoms.positions[:, 1] -= away
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        say_far(from_atoms(atoms))
    assert ["tell places to 0.06 Å only" in str(each.message) for each in said] == [True] * coarse


DATA = """LAMMPS data

2 atoms
2 atom types
0 9 xlo xhi
0 9 ylo yhi
0 9 zlo zhi
2 1 0.5 xy xz yz

Masses

1 22.99
2 35.45

Atoms # charge

2 2 0.0 3 0 0
1 1 1.0 0 0 0
"""


@pytest.mark.parametrize("suffix", ["data", "lmp"])
def test_data_of_lammps(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text(DATA)
    with pytest.warns(NequIPLRWarning, match="are told by the masses"):
        found = read_structure(path)
    assert element_symbols(found.topology) == ["Na", "Cl"]
    np.testing.assert_allclose(10 * found.box, [[9, 0, 0], [2, 9, 0], [1, 0.5, 9]], atol=1e-9)
    assert (found.total_charge, found.charge_given) == (1.0, True)
    path.write_text(DATA.partition("Masses")[0] + "Atoms" + DATA.partition("Atoms")[2])
    with pytest.raises(InputError, match="elements .* in a LAMMPS file"):
        read_structure(path)


@pytest.mark.parametrize(("scale", "charge"), [(1.0, 0), (1 / 0.529177, 1)])
def test_structures_of_runner_are_in_bohr(tmp_path, scale, charge):
    """Lengths in Å would be half as long: they are refused as in training data."""
    path = tmp_path / "input.data"
    atoms = "".join(
        f"atom {2.6 * k * scale} 0 0 {s} 0 0 0 0 0\n" for k, s in enumerate(("Na", "Cl"))
    )
    path.write_text(f"begin\n{atoms}charge {charge}\nend\n")
    if scale == 1.0:
        with pytest.raises(InputError, match="in angstrom it would be 2.6 Å"):
            read_structure(path)
        return
    with pytest.warns(NequIPLRWarning, match="are in Bohr"):
        found = read_structure(path)
    assert 10 * found.positions[1, 0] == pytest.approx(2.6, rel=1e-5)
    assert (found.total_charge, found.charge_given) == (1.0, True)


@pytest.mark.parametrize(("code", "line"), [(3, ""), (0, "M  CHG  1   1   1\n")])
def test_formal_charges_of_molfiles(tmp_path, code, line):
    path = tmp_path / "a.sdf"
    atom = "{:10.4f}    0.0000    0.0000 {:<3} 0{:3d}  0  0  0  0\n"
    atoms = atom.format(0.0, "Na", code) + atom.format(3.0, "Cl", 0)
    path.write_text(f"x\n\n\n  2  0  0  0  0  0            999 V2000\n{atoms}{line}M  END\n")
    with pytest.warns(NequIPLRWarning, match=r"\+1 e, the sum of the formal charges"):
        found = read_structure(path)
    assert (found.total_charge, found.charge_given) == (1.0, True)
