"""Trajectories from files and from memory, frame by frame."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from openmm_nequiplr.analysis import open_trajectory
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import read_structure
from openmm_nequiplr.simulation.topology import element_symbols


@pytest.fixture
def structures(crystal, rng):
    """Five frames of a triclinic crystal, each with its own cell; the vectors as mdtraj wants."""
    frames = []
    for _ in range(5):
        atoms = crystal.copy()
        atoms.positions += rng.normal(scale=0.1, size=(6, 3))
        atoms.set_cell(atoms.cell.array * rng.uniform(0.98, 1.02), scale_atoms=True)
        frames.append(atoms)
    return frames


@pytest.fixture
def trajectory(structures):
    """The same frames in nm, in single precision."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("SAL", topology.add_chain())
    for number, symbol in enumerate(structures[0].symbols):
        element = mdtraj.element.Element.getBySymbol(symbol)
        topology.add_atom(f"{symbol}{number}", element, residue)
    xyz = np.array([atoms.positions for atoms in structures]) / 10
    parameters = np.array([atoms.cell.cellpar() for atoms in structures])
    return mdtraj.Trajectory(
        xyz, topology, 2.0 * np.arange(5), parameters[:, :3] / 10, parameters[:, 3:]
    )


@pytest.fixture(params=["memory", "dcd", "xtc", "pdb", "gro", "extxyz", "atoms"])
def stored(request, structures, trajectory, tmp_path):
    """A way to store the trajectory: its name, what to open, topology, precision in Å."""
    kind = request.param
    if kind == "memory":
        return kind, trajectory, None, 2e-6
    if kind == "atoms":
        return kind, structures, None, 0.0
    path = tmp_path / f"frames.{kind}"
    if kind == "extxyz":
        write(path, structures)
        return kind, path, None, 2e-8
    trajectory.save(str(path))
    trajectory[0].save_pdb(str(tmp_path / "topology.pdb"))
    top = tmp_path / "topology.pdb" if kind in ("dcd", "xtc") else None
    return kind, path, top, {"dcd": 2e-6, "xtc": 0.011, "pdb": 2e-3, "gro": 0.011}[kind]


def test_every_way_gives_the_same_frames(stored, structures):
    kind, source, topology, precision = stored
    found = open_trajectory(source, topology)
    assert found.symbols == tuple(structures[0].symbols)
    for _ in range(2):  # any number of times
        frames = list(found.frames())
        assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
        for frame, atoms in zip(frames, structures, strict=True):
            assert frame.positions.dtype == np.float64
            np.testing.assert_allclose(frame.positions, atoms.positions, atol=precision)
            cell = 0.03 if kind == "gro" else max(5e-3 if kind == "pdb" else 1e-4, precision)
            expected = structures[0] if kind == "pdb" else atoms  # a PDB file holds one cell
            np.testing.assert_allclose(frame.cell, expected.cell.array, atol=cell)
    times = [frame.time for frame in frames]
    if kind in ("memory", "xtc"):
        np.testing.assert_allclose(times, [0.0, 2.0, 4.0, 6.0, 8.0])
    else:
        assert np.isnan(times).all()


def test_stride_and_skip(stored):
    _, source, topology, _ = stored
    found = open_trajectory(source, topology, stride=2)
    assert [frame.index for frame in found.frames()] == [0, 2, 4]
    assert [frame.index for frame in found.frames(skip=2)] == [4]
    assert not list(found.frames(skip=3))
    assert [frame.index for frame in open_trajectory(found, stride=2).frames()] == [0, 4]


def test_long_files_come_in_pieces(trajectory, tmp_path, monkeypatch):
    from openmm_nequiplr.analysis import mdtraj_files

    monkeypatch.setattr(mdtraj_files, "_COORDINATES_AT_ONCE", 36)  # two frames
    long = mdtraj.join([trajectory] * 3)
    long.save(str(tmp_path / "long.dcd"))
    frames = list(open_trajectory(tmp_path / "long.dcd", trajectory.topology).frames())
    assert [frame.index for frame in frames] == list(range(15))
    np.testing.assert_allclose(frames[12].positions, 10 * trajectory.xyz[2], atol=1e-5)


def test_without_a_cell_there_is_none(molecule, tmp_path):
    write(tmp_path / "molecule.xyz", molecule)
    frame = next(open_trajectory(tmp_path / "molecule.xyz").frames())
    assert frame.cell is None
    assert next(open_trajectory(molecule).frames()).cell is None


def test_total_charge_and_time_of_extended_xyz(molecule):
    molecule.info.update(total_charge=1, time=0.5)
    found = open_trajectory([molecule])
    assert found.total_charge == 1.0
    assert next(found.frames()).time == 0.5


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def test_names_with_any_letters(trajectory, tmp_path, kind):
    folder = tmp_path / "Läufe mit Leerzeichen"
    folder.mkdir()
    trajectory.save(str(tmp_path / f"frames.{kind}"))
    (tmp_path / f"frames.{kind}").rename(folder / f"größe.{kind}")
    trajectory[0].save_pdb(str(tmp_path / "top.pdb"))
    (tmp_path / "top.pdb").rename(folder / "tôp.pdb")
    found = open_trajectory(folder / f"größe.{kind}", folder / "tôp.pdb")
    frames = list(found.frames())
    assert len(frames) == 5
    np.testing.assert_allclose(frames[-1].positions, 10 * trajectory.xyz[-1], atol=0.02)


def test_every_atom_of_a_pdb_file_counts(structures, tmp_path):
    """Names are repeated in a residue: as a topology, and as a trajectory of its own."""
    crystals = [atoms.repeat((2, 1, 1)) for atoms in structures]
    write(tmp_path / "all.pdb", crystals)
    found = open_trajectory(tmp_path / "all.pdb")
    assert found.symbols == tuple(crystals[0].symbols)
    assert len(list(found.frames())) == 5
    plain = [atoms.copy() for atoms in crystals]
    for atoms in plain:
        atoms.pbc, atoms.cell = False, None
    write(tmp_path / "all.xyz", plain, format="xyz")
    found = open_trajectory(tmp_path / "all.xyz", tmp_path / "all.pdb")
    assert found.symbols == tuple(crystals[0].symbols)
    for frame, atoms in zip(found.frames(), crystals, strict=True):
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-5)


#: Two models of an ion and heavy water, whose oxygen has two locations, and a virtual site.
TAGS = "id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id"
TAGS += " auth_seq_id occupancy Cartn_x Cartn_y Cartn_z pdbx_formal_charge pdbx_PDB_model_num"
MMCIF = "data_x\nloop_\n" + "".join(f"_atom_site.{tag}\n" for tag in TAGS.split())
ROWS = (
    "? CA . CA A . 1 1 {x} 0 0 2 {n}|O O A HOH A . 2 .4 5 0 0 ? {n}|O O B HOH A . 2 .6 6 0 0 ? {n}|"
    "D D1 . HOH A . 2 1 7 0 0 ? {n}|H H2 . HOH A . 2 1 6 1 0 ? {n}|? M . HOH A . 2 1 6 .1 0 ? {n}"
)


@pytest.fixture
def mmcif(tmp_path):
    path = tmp_path / "ion.cif"
    rows = "|".join(ROWS.format(x=model - 1, n=model) for model in (1, 2)).split("|")
    path.write_text(MMCIF + "".join(f"{k} {row}\n" for k, row in enumerate(rows)))
    return path


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_mmcif_is_read_by_the_rules_of_structures(mmcif, tmp_path):
    read = read_structure(mmcif, frame=0)
    found = open_trajectory(mmcif)
    assert found.symbols == tuple(element_symbols(read.topology)) == ("Ca", "O", "H", "H")
    assert found.total_charge == read.total_charge == 2.0
    frames = [frame.positions[:, 0] for frame in found.frames()]
    np.testing.assert_allclose(frames, [[0, 6, 7, 6], [1, 6, 7, 6]])
    np.testing.assert_allclose(10 * read.positions[:, 0], frames[0])
    with mdtraj.formats.DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write(np.zeros((2, 4, 3), dtype=np.float32))
    with pytest.warns(NequIPLRWarning) as said:
        moving = open_trajectory(tmp_path / "a.dcd", mmcif)
    assert (moving.symbols, moving.total_charge) == (found.symbols, 2.0)
    for message in ("locations", "deduced from", "sites", "charges"):
        assert any(message in str(each.message) for each in said), message
    assert len(list(moving.frames())) == 2


def test_elements_that_mdtraj_deduces_are_told(tmp_path):
    line = "{0} A 1 ION {1} {1} 0.0 {2} 0\n"
    atoms = line.format(1, "SOD", 22.99) + line.format(2, "X", 35.45)
    path = tmp_path / "a.psf"
    path.write_text(f"PSF\n\n 1 !NTITLE\n x\n\n 2 !NATOM\n{atoms}\n 0 !NBOND\n\n")
    with mdtraj.formats.DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write(np.zeros((1, 2, 3), dtype=np.float32))
    with pytest.warns(NequIPLRWarning, match="a.psf are those that mdtraj deduces: Na 1, Cl 1"):
        assert open_trajectory(tmp_path / "a.dcd", path).symbols == ("Na", "Cl")


def test_types_are_no_elements_and_compressed_records_are_refused(tmp_path):
    data = tmp_path / "a.data"
    data.write_text("x\n\n1 atoms\n1 atom types\n0 9 xlo xhi\n\nAtoms # atomic\n\n1 1 0 0 0\n")
    for topology in (None, data):
        with pytest.raises(InputError, match="elements .dump_modify element, or a section Masses"):
            open_trajectory(data, topology)
    (tmp_path / "a.pdb.gz").write_bytes(b"")
    with pytest.raises(InputError, match="mmCIF files not compressed"):
        open_trajectory(tmp_path / "a.pdb.gz")


WATER = "HETATM{0:5d}  {1:<3} HOH A   1       {0}.000   0.000   0.000  1.00  0.00          {2:>2}\n"
PARTICLES = (("O", "O"), ("M", "EP"), ("H1", "H"), ("H2", "H"))


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
@pytest.mark.parametrize("kind", ["pdb", "gro"])
def test_virtual_sites_of_a_topology_are_left_out(kind, tmp_path):
    path, atoms = tmp_path / "water.pdb", [0, 2, 3]
    path.write_text("".join(WATER.format(k, *each) for k, each in enumerate(PARTICLES)))
    water = mdtraj.load(str(path))
    water.save(str(tmp_path / "water.gro"))
    water.save(str(tmp_path / "all.xtc"))
    water.atom_slice(atoms).save(str(tmp_path / "atoms.xtc"))
    water.atom_slice([0, 2]).save(str(tmp_path / "other.xtc"))
    topology = tmp_path / f"water.{kind}"
    for name in ("all.xtc", "atoms.xtc"):
        found = open_trajectory(tmp_path / name, topology)
        assert found.symbols == ("O", "H", "H")
        (frame,) = found.frames()
        np.testing.assert_allclose(frame.positions[:, 0], atoms, atol=0.01)
    with pytest.raises(InputError, match="the 3 atoms .*, or also its virtual sites, got '2 atoms"):
        open_trajectory(tmp_path / "other.xtc", topology)


def test_charges_that_nothing_tells(molecule):
    assert open_trajectory([molecule]).total_charge is None


# ---------------------------------------------------------------------------------------- errors


def test_files_that_are_missing_or_damaged(trajectory, tmp_path):
    with pytest.raises(FileNotFoundError, match="trajectory: expected an existing file"):
        open_trajectory(tmp_path / "absent.dcd")
    trajectory.save(str(tmp_path / "frames.dcd"))
    with pytest.raises(InputError, match=r"trajectory: .*without a topology.*; give one"):
        open_trajectory(tmp_path / "frames.dcd")
    with pytest.raises(FileNotFoundError, match="topology: expected an existing file"):
        open_trajectory(tmp_path / "frames.dcd", tmp_path / "absent.pdb")
    with pytest.raises(InputError, match="topology: expected a file from which mdtraj reads"):
        open_trajectory(tmp_path / "frames.dcd", tmp_path / "frames.dcd")
    (tmp_path / "text.extxyz").write_text("nothing of the kind\n")
    with pytest.raises(InputError, match="trajectory: expected"):
        open_trajectory(tmp_path / "text.extxyz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="output directory of nequiplr md.*dcd and topology.pdb"):
        open_trajectory(tmp_path / "empty")


def test_a_topology_of_other_atoms(trajectory, tmp_path):
    trajectory.save(str(tmp_path / "frames.dcd"))
    fewer = trajectory.atom_slice([0, 1]).topology
    with pytest.raises(InputError, match="expected the 2 atoms of the topology, got '6 atoms in"):
        open_trajectory(tmp_path / "frames.dcd", fewer)


def test_frames_with_other_atoms_or_charges(molecule, crystal):
    other = molecule[:3]
    with pytest.raises(InputError, match="structures, frame 1: expected the atoms of the first"):
        list(open_trajectory([molecule, other]).frames())
    charged = molecule.copy()
    charged.info["total_charge"] = 1.0
    with pytest.raises(InputError, match="frame 1: expected the total charge 0 e"):
        list(open_trajectory([molecule, charged]).frames())
    crystal.pbc = (True, False, False)
    with pytest.raises(InputError, match="frame 0: pbc: expected periodic in all three"):
        list(open_trajectory([crystal]).frames())
    for nothing in ([], [Atoms()]):
        with pytest.raises(InputError, match="at least one"):
            open_trajectory(nothing)


def test_atoms_that_may_be_virtual_sites(trajectory):
    residue = next(trajectory.topology.residues)
    trajectory.topology.add_atom("EPW", mdtraj.element.virtual, residue)
    with pytest.raises(InputError, match=r"topology: expected an element.*EPW \(index 6\)"):
        open_trajectory(trajectory)


@pytest.mark.parametrize("stride", [0, -1, 1.5, True])
def test_strides_that_make_no_sense(molecule, stride):
    with pytest.raises(InputError, match="stride: expected a whole number"):
        open_trajectory([molecule], stride=stride)


def test_what_is_no_field_is_named(structures, tmp_path):
    structures[3].info["electric_field"] = "up"
    write(tmp_path / "fields.xyz", structures, format="extxyz")
    with pytest.raises(InputError, match="frame 3: electric_field: .*three finite numbers"):
        list(open_trajectory(tmp_path / "fields.xyz").frames())
