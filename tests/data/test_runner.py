"""RuNNer files, in Bohr and Hartree."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from openmm_nequiplr.data import DataKeys, read_structures
from openmm_nequiplr.errors import InputError

PERIODIC = """begin
comment a slab
lattice 10 0 0
lattice 0 11 0
lattice 1 0 12
atom 0 0 1.5 Mg 0.9 0.0 0.1 -0.2 0.3
atom 4 0 0 O -0.9 0.0 -0.1 0.2 -0.3
energy -2.5
charge 0.0
end
"""
ION = """begin
atom 1 2 3 Na 0.0 0.0 0.0 0.0 0.0
energy -160.5
charge 1.0
end
"""


def test_units_and_fields(tmp_path):
    path = tmp_path / "input.data"
    path.write_text(PERIODIC + ION)
    slab, ion = read_structures(path)
    assert slab.symbols == ("Mg", "O")
    assert slab.pbc
    assert not ion.pbc
    rtol = 1e-6  # ASE's default constants are of an older CODATA year
    np.testing.assert_allclose(slab.cell[2], np.array([1, 0, 12]) * units.Bohr, rtol=rtol)
    np.testing.assert_allclose(slab.positions[0], [0, 0, 1.5 * units.Bohr], rtol=rtol)
    np.testing.assert_allclose(slab.energy, -2.5 * units.Hartree, rtol=rtol)
    expected = np.array([0.1, -0.2, 0.3]) * units.Hartree / units.Bohr
    np.testing.assert_allclose(slab.forces[0], expected, rtol=rtol)
    np.testing.assert_array_equal(slab.charges, [0.9, -0.9])
    assert (slab.total_charge, ion.total_charge) == (0.0, 1.0)


def test_a_charge_column_of_zeros_says_nothing(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(ION)
    (ion,) = read_structures(path)
    assert ion.charges is None


def test_forces_and_energies_of_zeros_say_nothing(tmp_path):
    path, lines = tmp_path / "input.data", []
    path.write_text(PERIODIC.replace("0.1 -0.2 0.3", "0 0 0").replace("-0.1 0.2 -0.3", "0 0 0"))
    (slab,) = read_structures(path, say=lines.append)
    assert slab.forces is None
    assert (slab.energy is None, slab.charges is None) == (False, False)
    assert lines == [f"{path}: forces: all values are zero, treated as unknown"]
    path.write_text(PERIODIC.replace("-2.5", "0.0"))
    (slab,) = read_structures(path)
    assert (slab.energy, slab.forces is None) == (None, False)


def test_keys_mean_nothing_here(tmp_path):
    path, lines = tmp_path / "input.data", []
    path.write_text(PERIODIC)
    read_structures(path, DataKeys(energy="dft"), say=lines.append)
    assert lines == [f"{path}: keys of energy are ignored in a RuNNer file"]


def test_a_total_charge_that_is_not_there_is_told(tmp_path):
    path, lines = tmp_path / "input.data", []
    path.write_text(PERIODIC.replace("charge 0.0\n", ""))
    assert read_structures(path, say=lines.append)[0].total_charge == 0.0
    assert lines == [f"{path}: total charge 0 assumed in 1 of 1 structures"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ION.replace(" 0.0 0.0 0.0 0.0\n", " 0.0\n"), "line 2: atom: expected x y z element"),
        (ION.replace("1 2 3", "1 two 3"), "line 2: atom: expected 8 numbers"),
        (ION.replace("energy", "enthalpy"), "line 3: keyword: expected lattice"),
        (ION.replace("end\n", ""), "unfinished"),
        (ION.replace("end\n", "begin\n"), "line 5: line: expected 'end' first"),
        (PERIODIC.replace("lattice 0 11 0\n", ""), "structure 0: lattice: expected three or none"),
        (ION.replace("energy", "energy -1\nenergy"), "line 4: energy: expected one a structure"),
        (ION.replace("end", "charge 1\ncharge 0\nend"), "charge: expected one a structure"),
        (ION.replace("Na", "11"), "structure 0: element: expected an"),
        ("# nothing\n", "no structure"),
    ],
)
def test_errors_name_the_line(tmp_path, text, message):
    path = tmp_path / "input.data"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_structures(path, format="runner")
