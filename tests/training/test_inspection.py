"""What is found in data, against structures made for it."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.keys import FoundKeys
from openmm_nequiplr.training.inspection import DataSummary


def _water(**more) -> Structure:
    positions = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
    return Structure(("O", "H", "H"), positions, **more)


def _slab(height: float) -> Structure:
    cell = np.diag([4.2, 4.2, height])
    sites = [[0, 0, 0], [2.1, 2.1, 0], [2.1, 0, 0], [0, 2.1, 0], [0, 0, 2.1], [2.1, 0, 2.1]]
    return Structure(("Mg", "Mg", "O", "O", "O", "Mg"), sites, cell, True)


def test_labels_that_can_be_used():
    """Dipoles of periodic structures and stresses of others are not counted."""
    tensors = {"dipole": np.zeros(3), "stress": np.eye(3), "polarizability": np.eye(3)}
    molecule = _water(energy=-1.0, **tensors)
    crystal = _water(cell=5.0 * np.eye(3), pbc=True, forces=np.ones((3, 3)), **tensors)
    summary = DataSummary((molecule, molecule, crystal))
    expected = {"energy": 2, "forces": 1, "dipole": 2, "stress": 1, "polarizability": 2}
    assert summary.labels == expected
    assert summary.num_periodic == 1
    assert summary.copies == 1
    assert summary.rms_force == pytest.approx(1.0)
    text = "\n".join(summary.lines())
    assert "1 of 3 periodic, edges 5.00 Å" in text
    assert "dipole in 2, stress in 1, polarizability in 2; no charges, born_charges" in text
    assert "repeated:     1 structure" in text


def test_elements_distances_charges():
    first = _water(charges=[-0.8, 0.4, 0.4], total_charge=0.0)
    second = _water(charges=[-0.4, 0.6, 0.8], total_charge=1.0)
    summary = DataSummary((first, second), FoundKeys({"charges": {"q"}}))
    assert summary.elements == ("H", "O")
    assert summary.num_atoms == 6
    assert summary.total_charges == {0.0: 1, 1.0: 1}
    assert summary.charges["O"].tolist() == [-0.8, -0.4]
    assert summary.distances[1, 0] == pytest.approx(0.96)
    assert np.isinf(summary.distances[1, 1])
    text = "\n".join(summary.lines())
    assert "shortest H–O 0.96, H–H 1.52 Å" in text
    assert "H +0.55 (+0.40 to +0.80), O -0.60 (-0.80 to -0.40) e" in text
    assert "charges (q) in 2" in text
    assert "0 in 1, +1 in 1" in text


def test_fields():
    field = [0.0, 0.3, 0.4]
    summary = DataSummary((_water(energy=1.0, electric_field=field), _water(energy=1.0)))
    assert "fields:       in 1, up to 0.5 V/Å" in "\n".join(summary.lines())


def test_energies_are_counted_from_a_sum_over_elements():
    energies = [-100.0 + 0.03 * sign for sign in (1, -1, 1, -1)]
    summary = DataSummary(tuple(_water(energy=energy) for energy in energies))
    assert "energies:     10 meV/atom (rms)" in "\n".join(summary.lines())


@pytest.mark.parametrize(("height", "axes"), [(20.0, (2,)), (4.2, ())])
def test_vacuum(height, axes):
    summary = DataSummary((_slab(height), _slab(25.0)))
    assert summary.open_axes == axes
    assert summary.vacuum[2] == pytest.approx(height - 2.1)
    assert summary.vacuum[0] == pytest.approx(2.1)
    assert ("vacuum of 17.9 Å along c" in "\n".join(summary.lines())) == bool(axes)


def test_one_atom_alone():
    summary = DataSummary((Structure(("He",), [[0.0, 0.0, 0.0]], energy=-2.9),))
    assert np.isinf(summary.distances).all()
    assert summary.open_axes == ()
    assert summary.lines()[0] == "structures:   1 of 1 atom, elements He: He (1)"
