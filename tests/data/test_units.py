"""Units of data files: stated, or refused where distances say that they are others."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import write

from openmm_nequiplr.data import DataUnits, read_structures
from openmm_nequiplr.errors import InputError

PER_LENGTH = {"angstrom": 1.0, "bohr": 1.0 / units.Bohr, "nm": 0.1}


def _runner(path, atoms: Atoms, length: float, energy: float = -100.0) -> None:
    lines = ["begin"]
    if atoms.pbc.all():
        lines += ["lattice " + " ".join(map(str, row)) for row in atoms.cell[:] * length]
    for symbol, place in zip(atoms.symbols, atoms.positions * length, strict=True):
        lines.append(f"atom {' '.join(map(str, place))} {symbol} 0.1 0.0 0.5 0.0 -0.25")
    path.write_text("\n".join([*lines, f"energy {energy}", "charge 0", "end", ""]))


def _systems() -> dict[str, Atoms]:
    return {
        "ethanol": molecule("CH3CH2OH"),
        "gold": bulk("Au", cubic=True),
        "salt": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    }


@pytest.mark.parametrize("name", ["ethanol", "gold", "salt"])
@pytest.mark.parametrize("unit", ["angstrom", "bohr", "nm"])
def test_runner_files_in_any_unit(tmp_path, name, unit):
    """In Bohr they are read; in Å and nm they are refused, and read when that is stated."""
    atoms, path = _systems()[name], tmp_path / "input.data"
    _runner(path, atoms, PER_LENGTH[unit])
    if unit != "bohr":
        with pytest.raises(InputError, match=rf"input\.data: lengths read as bohr.*in {unit} it"):
            read_structures(path)
    (structure,) = read_structures(path, units=DataUnits(unit, "eV"))
    np.testing.assert_allclose(structure.positions, atoms.positions, atol=1e-6)
    if atoms.pbc.all():
        np.testing.assert_allclose(structure.cell, atoms.cell, atol=1e-6)
    assert structure.energy == pytest.approx(-100.0)
    per_length = PER_LENGTH[unit]
    np.testing.assert_allclose(structure.forces[0], np.array([0.5, 0, -0.25]) * per_length)


@pytest.mark.parametrize("unit", ["bohr", "nm"])
def test_extended_xyz_in_another_unit(tmp_path, unit):
    path, atoms = tmp_path / "frames.xyz", molecule("C6H6")
    scaled = atoms.copy()
    scaled.positions *= PER_LENGTH[unit]
    scaled.info |= {"REF_energy": -2.0, "REF_dipole": [0.0, 0.0, 1.0], "total_charge": 0}
    write(path, [scaled, scaled], format="extxyz")
    with pytest.raises(InputError, match=f"lengths read as angstrom.*in {unit} it would be"):
        read_structures(path)
    structure, _ = read_structures(path, units=DataUnits(unit, "hartree"))
    np.testing.assert_allclose(structure.positions, atoms.positions, atol=1e-5)
    assert structure.energy == pytest.approx(-2.0 * units.Hartree, rel=1e-6)
    assert structure.dipole[2] == pytest.approx(1.0 / PER_LENGTH[unit], rel=1e-6)


def test_stresses_are_energies_per_volume(tmp_path):
    path, atoms = tmp_path / "cell.xyz", bulk("NaCl", "rocksalt", a=5.64)
    atoms.info["REF_stress"] = np.diag([0.01, 0.02, 0.03])
    write(path, atoms, format="extxyz")
    (structure,) = read_structures(path, units=DataUnits("angstrom", "kcal/mol"))
    kcal = units.kcal / units.mol
    np.testing.assert_allclose(np.diag(structure.stress), np.array([1, 2, 3]) * kcal / 100, 1e-6)


def test_what_is_stated_is_believed_and_said(tmp_path):
    """Also what is far from bonds: a gas of radicals, a model of hard spheres."""
    path, lines = tmp_path / "input.data", []
    _runner(path, molecule("H2O"), 1.0)
    (structure,) = read_structures(path, units=DataUnits("bohr", "hartree"), say=lines.append)
    assert np.linalg.norm(structure.positions[1] - structure.positions[0]) < 0.6
    assert any("lengths read as bohr" in line for line in lines)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Ar3", [[0, 0, 0], [3.76, 0, 0], [0, 3.76, 0]]),
        Atoms("NaCl", [[0, 0, 0], [13.0, 0, 0]]),
        Atoms("U", [[0, 0, 0]]),
        Atoms("OUO", [[0, 0, -1.75], [0, 0, 0], [0, 0, 1.75]]),
        molecule("N2"),
    ],
)
def test_rare_but_right_distances(tmp_path, atoms):
    write(tmp_path / "frame.xyz", atoms, format="extxyz")
    (structure,) = read_structures(tmp_path / "frame.xyz")
    np.testing.assert_allclose(structure.positions, atoms.positions)


def test_a_scan_through_short_distances_is_told_of(tmp_path):
    frames = [Atoms("CO", [[0, 0, 0], [0, 0, d]]) for d in (0.3, 0.8, 1.1, 1.3, 1.6, 2.0)]
    write(tmp_path / "scan.xyz", frames, format="extxyz")
    lines = []
    assert len(read_structures(tmp_path / "scan.xyz", say=lines.append)) == 6
    assert any("in 1 structures" in line and "C and O, 0.3" in line for line in lines)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": "feet"}, r"units\.length: expected one of angstrom, bohr"),
        ({"energy": "calorie"}, r"units\.energy: expected one of eV"),
    ],
)
def test_unknown_units(given, message):
    with pytest.raises(InputError, match=message):
        DataUnits(**given)


def test_half_a_statement_is_refused(tmp_path):
    path = tmp_path / "input.data"
    _runner(path, molecule("H2O"), 1.0)
    with pytest.raises(InputError, match=r"units\.energy: expected a unit, as units\.length"):
        read_structures(path, units=DataUnits(length="Å"))
    assert DataUnits("Angstrom", "EV") == DataUnits("angstrom", "eV")
