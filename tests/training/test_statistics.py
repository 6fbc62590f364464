"""Figures of a data set that a model starts from."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.data import Structure, structure_from_atoms
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.statistics import (
    charge_range,
    elements_of,
    fit_energy_scales,
    fit_energy_shifts,
    mean_num_neighbors,
    shortest_distances,
)


def _structure(symbols: str, energy: float | None = None, **labels) -> Structure:
    names = {"H": "H", "C": "C", "M": "Mg", "O": "O"}
    points = np.arange(3.0 * len(symbols)).reshape(-1, 3)
    return Structure(tuple(names[s] for s in symbols), points, energy=energy, **labels)


def test_elements_in_order_of_atomic_number():
    assert elements_of([_structure("MO"), _structure("H")]) == ("H", "O", "Mg")


def test_shifts_are_recovered():
    true = {"H": -13.6, "C": -1037.25}
    structures = [
        _structure(s, sum(true[x] for x in s)) for s in ("H", "CHHHH", "CCHH", "CHHH", "CC")
    ]
    shifts = fit_energy_shifts([*structures, _structure("CHH")], ("H", "C"))
    np.testing.assert_allclose(shifts, [-13.6, -1037.25], rtol=1e-10)


def test_all_electron_energies_keep_their_digits():
    """Mean energies are reproduced to 1e-8 eV, beside a total of 1.5e6 eV."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    noise -= noise.mean()
    energy = -1480190.2535
    structures = [_structure("MO" * 55, energy + x) for x in noise]
    shifts = fit_energy_shifts(structures, ("O", "Mg"))
    assert shifts.sum() * 55 == pytest.approx(energy, abs=1e-8)


def test_fixed_proportions_give_equal_shifts():
    """Only the sum is determined: both get the mean instead of ±huge numbers."""
    shifts = fit_energy_shifts([_structure("MOMO", -40.0), _structure("MO", -20.0)], ("O", "Mg"))
    np.testing.assert_allclose(shifts, [-10.0, -10.0])


def test_energies_count_by_their_weights():
    """A light level of theory moves the shifts little, one without weight not at all."""
    low = [_structure("CC", 10.0, weight=0.1), _structure("CC", 99.0, weight=0.0)]
    shifts = fit_energy_shifts([_structure("CC", -12.0), *low], ("C",))
    np.testing.assert_allclose(shifts, [-5.0])


def test_given_shifts_are_kept():
    structures = [_structure("CHH", -12.0), _structure("CHH", -14.0)]
    shifts = fit_energy_shifts(structures, ("H", "C"), {"H": -1.5})
    np.testing.assert_allclose(shifts, [-1.5, -10.0])
    with pytest.raises(InputError, match=r"data\.energy_shifts: expected elements among H, C"):
        fit_energy_shifts(structures, ("H", "C"), {"Xe": 1.0})


def test_no_energies_no_shifts():
    assert fit_energy_shifts([_structure("CH")], ("H", "C")).tolist() == [0.0, 0.0]


def test_scales_are_rms_forces():
    structure = _structure("HC", forces=[[3.0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(fit_energy_scales([structure], ("H", "C")), [1.5**0.5] * 2)
    separate = fit_energy_scales([structure], ("H", "C"), per_species=True)
    np.testing.assert_allclose(separate, [3**0.5, 1.0])


def test_mean_number_of_neighbours(crystal, molecule):
    from ase.neighborlist import neighbor_list

    both = (crystal, molecule)
    for cutoff in (2.8, 3.5):
        expected = sum(len(neighbor_list("i", atoms, cutoff)) for atoms in both) / 13
        found = mean_num_neighbors([structure_from_atoms(atoms) for atoms in both], cutoff)
        assert found == pytest.approx(expected)


def test_shortest_distances(crystal, molecule):
    """Images count; a pair that does not occur within the cutoff stands at the cutoff."""
    types, cutoff = ("O", "Na", "Cl"), 3.4
    expected = np.full((3, 3), cutoff)
    for atoms in (crystal, molecule):
        distances = atoms.repeat(3) if atoms.pbc.all() else atoms
        places = distances.get_all_distances()
        kinds = np.array([types.index(s) for s in distances.symbols])
        for a, b in zip(*np.triu_indices(len(distances), 1), strict=True):
            pair = kinds[a], kinds[b]
            expected[pair] = expected[pair[::-1]] = min(expected[pair], places[a, b])
    structures = [structure_from_atoms(atoms) for atoms in (crystal, molecule)]
    found = shortest_distances(structures, types, cutoff)
    np.testing.assert_allclose(found, expected)
    assert (found < cutoff).any()
    alone = shortest_distances([_structure("O")], types, cutoff)
    np.testing.assert_allclose(alone, cutoff)


def test_charge_range_has_a_margin():
    structures = [_structure("HC", charges=[-0.5, 0.5]), _structure("H")]
    assert charge_range(structures) == pytest.approx((-0.6, 0.6))
    assert charge_range([_structure("H")]) == (-1.0, 1.0)
