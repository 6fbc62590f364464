"""Labels that are none, that contradict each other, or that nobody reads."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

from openmm_nequiplr.data import DataKeys, Structure, read_structures
from openmm_nequiplr.data.checking import contradictions
from openmm_nequiplr.errors import InputError

WATER = molecule("H2O")


def _water(**labels) -> Structure:
    return Structure(tuple(WATER.symbols), WATER.positions, **labels)


def _frames(rng, count: int = 4) -> list:
    frames = []
    for _ in range(count):
        atoms = WATER.copy()
        atoms.positions += rng.normal(scale=0.03, size=(3, 3))
        atoms.info |= {"REF_energy": -10.0 + rng.normal(scale=0.1), "total_charge": 0}
        atoms.arrays["REF_forces"] = rng.normal(size=(3, 3))
        frames.append(atoms)
    return frames


def _read(tmp_path, frames, **options):
    lines: list[str] = []
    write(tmp_path / "frames.xyz", frames, format="extxyz")
    structures = read_structures(tmp_path / "frames.xyz", say=lines.append, **options)
    assert all(line.startswith(str(tmp_path / "frames.xyz: ")) for line in lines)
    return structures, lines


def test_clean_data_need_no_words(tmp_path, rng):
    structures, lines = _read(tmp_path, _frames(rng))
    assert lines == []
    assert all(s.forces is not None and s.energy is not None for s in structures)


@pytest.mark.parametrize("quantity", ["energy", "forces", "charges"])
def test_zeros_throughout_are_no_labels(tmp_path, rng, quantity):
    frames = _frames(rng)
    for atoms in frames:
        home = atoms.info if quantity == "energy" else atoms.arrays
        shape = {"energy": (), "forces": (3, 3), "charges": (3,)}[quantity]
        home[f"REF_{quantity}"] = np.zeros(shape) if shape else 0.0
    structures, lines = _read(tmp_path, frames)
    assert [getattr(s, quantity) for s in structures] == [None] * 4
    assert lines == [f"{tmp_path}/frames.xyz: {quantity}: all values are zero, treated as unknown"]
    keys = DataKeys(**{quantity: f"REF_{quantity}"})  # whoever names them means them
    structures, _ = _read(tmp_path, frames, keys=keys)
    assert all(getattr(s, quantity) is not None for s in structures)


def test_some_zeros_stay_and_are_told(tmp_path, rng):
    frames = _frames(rng)
    frames[1].arrays["REF_forces"][:] = 0.0
    structures, (line,) = _read(tmp_path, frames)
    assert not structures[1].forces.any()
    assert "forces of 1 of 4 structures are exactly zero" in line


def test_labels_under_other_names_are_told(tmp_path, rng):
    frames = _frames(rng)
    for atoms in frames:
        atoms.info |= {"mp2_energy": -1.0, "dft_virial": 2.0, "temperature": 300.0}
        atoms.arrays["hirshfeld_charges"] = np.zeros(3)
    _, (line,) = _read(tmp_path, frames)
    assert "labels ignored: dft_virial, hirshfeld_charges, mp2_energy (set data.keys" in line


def test_two_names_of_one_quantity(tmp_path, rng):
    first, second, *_ = _frames(rng)
    second.info["energy"] = second.info.pop("REF_energy")
    _, (line,) = _read(tmp_path, [first, second])
    assert line.endswith("energy under several names: REF_energy, energy")


def test_a_charge_that_is_assumed_is_told(tmp_path, rng):
    frames = _frames(rng)
    del frames[2].info["total_charge"]
    structures, (line,) = _read(tmp_path, frames)
    assert structures[2].total_charge == 0.0
    assert line.endswith("total charge 0 assumed in 1 of 4 structures")


def test_a_charge_beyond_that_of_all_nuclei(tmp_path, rng):
    frames = _frames(rng)
    frames[3].info["total_charge"] = 1e6
    with pytest.raises(InputError, match=r"structure 3: total_charge: expected at most 10 e"):
        _read(tmp_path, frames)


def test_charges_against_the_total_charge():
    structures = [
        _water(charges=[-0.8, 0.4, 0.4]),
        _water(charges=[-0.8, 0.4, 0.41]),  # rounded
        _water(charges=[0.2, 0.4, 0.4]),
        _water(charges=[-0.8, 0.4, 0.4], total_charge=2.0),
    ]
    assert contradictions(structures[:2]) == []
    (line,) = contradictions(structures)
    assert "in 2 of 4 structures (structure 3: they sum to 0 e, total charge 2 e)" in line


def test_dipoles_in_debye_or_the_other_way_round(rng):
    def labelled(factor: float) -> list[Structure]:
        charges = np.array([-0.8, 0.4, 0.4])
        made = []
        for _ in range(5):
            positions = WATER.positions + rng.normal(scale=0.05, size=(3, 3))
            dipole = factor * charges @ positions
            made.append(Structure(("O", "H", "H"), positions, charges=charges, dipole=dipole))
        return made

    assert contradictions(labelled(1.0)) == []
    assert contradictions(labelled(0.7)) == []  # charges of a population analysis
    assert "not Debye" in contradictions(labelled(1.0 / 0.2082))[0]
    assert "opposite to" in contradictions(labelled(-1.0))[0]


def test_energies_with_two_zeros(rng):
    energies = -400.0 + rng.normal(scale=0.3, size=12)
    assert contradictions([_water(energy=e) for e in energies]) == []
    energies[5:] += 1000.0
    (line,) = contradictions([_water(energy=e) for e in energies])
    assert "different zeros or units" in line


def test_stress_that_is_not_symmetric():
    salt = bulk("NaCl", "rocksalt", a=5.64)

    def strained(stress) -> Structure:
        return Structure(tuple(salt.symbols), salt.positions, salt.cell[:], True, stress=stress)

    even = np.diag([0.1, 0.2, 0.3]) + 0.05
    assert contradictions([strained(even)]) == []
    even[0, 1] += 0.02
    (line,) = contradictions([strained(even)])
    assert "not symmetric in 1 of 1 structures (structure 0)" in line


def test_structures_without_weight_are_told():
    assert contradictions([_water(weight=0.0), _water()]) == [
        "1 of 2 structures have weight 0: not trained on"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000000000\nenergy=1\nO 0 0 0\n", "line 1: 1000000000 atoms declared, 1 lines"),
        ("9" * 400 + "\nenergy=1\nO 0 0 0\n", "a number of atoms above 0"),
        ("0\n\n", "a number of atoms above 0"),
        ("-3\n\nO 0 0 0\n", "a number of atoms above 0"),
        ("1\nenergy=1\nO 0 0 0\n\n1\nenergy=1\nO 0 0 0\n", "text after an empty line"),
        ("1\nenergy=1\nO 0 0 0\n2\nenergy=1\nO 0 0 0\n", "line 4: 2 atoms declared, 1 lines"),
        ("", "without a frame"),
    ],
)
def test_frames_are_counted_before_they_are_read(tmp_path, text, message):
    path = tmp_path / "frames.xyz"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_structures(path)


@pytest.mark.parametrize("text", [b"1\nname=\xff\xfe energy=1\nO 0 0 0\n", b"\x00\x01\x80\x90"])
def test_files_of_another_encoding(tmp_path, text):
    path = tmp_path / "frames.xyz"
    path.write_bytes(text)
    with pytest.raises(InputError, match="data file"):
        read_structures(path)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_labels_that_are_no_numbers_are_named(tmp_path, value):
    path = tmp_path / "frames.xyz"
    header = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
    path.write_text(f"1\n{header}\nO 0 0 0 0 0 {value}\n")
    with pytest.raises(InputError, match=r"frame 0: forces: expected finite numbers"):
        read_structures(path)
