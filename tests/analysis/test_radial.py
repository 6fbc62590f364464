"""Radial distributions against a plain count over images, and against mdtraj."""

from __future__ import annotations

import itertools

import mdtraj
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from openmm_nequiplr.analysis import charge_distributions, radial_distributions
from openmm_nequiplr.errors import InputError

WIDTH = 0.25


def slow_counts(atoms: Atoms, first: str, second: str, edges: np.ndarray, own: bool) -> np.ndarray:
    """Directed pairs by distance, over many images of each, shape (R,)."""
    counts = np.zeros(len(edges) - 1)
    reach = range(-4, 5) if atoms.pbc.all() else range(1)
    images = np.array(list(itertools.product(reach, repeat=3))) @ atoms.cell.array
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        if (atoms.symbols[i], atoms.symbols[j]) != (first, second) or (i == j and not own):
            continue
        distances = np.linalg.norm(atoms.positions[j] - atoms.positions[i] + images, axis=1)
        counts += np.histogram(distances[distances > 1e-9], edges)[0]
    return counts


@pytest.fixture
def frames(crystal, rng):
    """Three frames of a narrow triclinic cell whose volume changes."""
    made = []
    for scale in (0.97, 1.0, 1.04):
        atoms = crystal.copy()
        atoms.positions += rng.normal(scale=0.3, size=(6, 3))
        atoms.set_cell(scale * crystal.cell.array, scale_atoms=True)
        made.append(atoms)
    return made


def test_distributions_are_those_of_a_plain_count(frames):
    """Beyond half the cell, in a cell narrower than the longest distance."""
    found = radial_distributions(frames, r_max=7.0, bin_width=WIDTH)
    assert found.elements == ("Cl", "Na", "O")
    assert found.num_frames == 3
    np.testing.assert_allclose(found.edges, WIDTH * np.arange(29))
    shells = 4 / 3 * np.pi * np.diff(found.edges**3)
    density = np.mean([1 / atoms.get_volume() for atoms in frames])
    numbers = frames[0].symbols.formula.count()
    for a, b in itertools.product(found.elements, repeat=2):
        apart, around = (
            sum(slow_counts(atoms, a, b, found.edges, own) for atoms in frames) / 3
            for own in (False, True)
        )
        pairs = numbers[a] * (numbers[b] - (a == b))
        if pairs:
            np.testing.assert_allclose(found.between(a, b), apart / (pairs * shells * density))
        else:
            assert np.isnan(found.between(a, b)).all()
        expected = np.cumsum(around) / numbers[a]
        i, j = found.elements.index(a), found.elements.index(b)
        np.testing.assert_allclose(found.coordination[i, j], expected)


@pytest.mark.parametrize("angles", [(90, 90, 90), (60, 75, 80)])
def test_distributions_are_those_of_mdtraj(angles, rng):
    """Below half the cell, for boxes of both kinds."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("SAL", topology.add_chain())
    for symbol in ["Na"] * 20 + ["Cl"] * 20:
        topology.add_atom(symbol, mdtraj.element.Element.getBySymbol(symbol), residue)
    cell = np.tile([1.5, 1.6, 1.8], (4, 1)) * np.array([1.0, 1.01, 0.99, 1.02])[:, None]
    frames = mdtraj.Trajectory(
        rng.uniform(-1, 2, size=(4, 40, 3)), topology, None, cell, np.tile(angles, (4, 1))
    )
    found = radial_distributions(frames, r_max=5.0, bin_width=WIDTH)
    for a, b in found.pairs:
        pairs = topology.select_pairs(f"element {a}", f"element {b}")
        r, g = mdtraj.compute_rdf(frames, pairs, r_range=(0, 0.5), n_bins=20)
        np.testing.assert_allclose(found.r, 10 * r)
        # single precision may put a pair or two into the next bin
        assert np.abs(found.between(a, b) - g).sum() < 0.02 * np.abs(g).sum()


def test_independent_positions_give_one_at_any_distance(rng):
    cell = np.array([[6.0, 0, 0], [1.0, 6.5, 0], [0.5, -1.0, 7.0]])
    gas = [
        Atoms("NaCl" * 5, rng.uniform(size=(10, 3)) @ cell, cell=cell, pbc=True) for _ in range(150)
    ]
    found = radial_distributions(gas, r_max=9.0, bin_width=1.0)
    for a, b in found.pairs:
        np.testing.assert_allclose(found.between(a, b)[4:], 1.0, atol=0.05)


def test_coordination_of_a_perfect_crystal():
    """Also in a primitive cell, where all neighbours of one kind are images of one atom."""
    for atoms in (bulk("NaCl", "rocksalt", 5.64), bulk("NaCl", "rocksalt", 5.64, cubic=True)):
        found = radial_distributions(atoms, r_max=6.0)
        assert found.coordination_number("Na", "Cl", 3.5) == pytest.approx(6)
        assert found.coordination_number("Cl", "Cl", 4.5) == pytest.approx(12)
        assert found.coordination_number("Na", "Na", 5.8) == pytest.approx(18)
        assert found.coordination_number("Na", "Na", 3.0) == 0


def test_without_a_cell_neighbours_are_counted(molecule):
    found = radial_distributions([molecule], r_max=6.0, bin_width=WIDTH)
    assert np.isnan(found.g).all()
    expected = np.cumsum(slow_counts(molecule, "Na", "Cl", found.edges, True)) / 3
    i, j = found.elements.index("Na"), found.elements.index("Cl")
    np.testing.assert_allclose(found.coordination[i, j], expected)


def test_lengths_and_elements_that_make_no_sense(molecule):
    for options in ({"r_max": 0.0}, {"bin_width": -1.0}, {"r_max": np.inf}):
        with pytest.raises(InputError, match="expected a length"):
            radial_distributions([molecule], **options)
    with pytest.raises(InputError, match="bin_width: expected at most r_max, 1 Å"):
        radial_distributions([molecule], r_max=1.0, bin_width=2.0)
    found = radial_distributions([molecule], r_max=5.0)
    with pytest.raises(InputError, match="element: expected one of Cl, Na, O, got 'Xe'"):
        found.between("Xe", "O")
    with pytest.raises(InputError, match="radius: expected a distance up to 5 Å"):
        found.coordination_number("Na", "O", 5.5)


# --------------------------------------------------------------------------------------- charges


def test_charge_distributions(rng):
    symbols = ["O", "Mg", "Mg", "O", "Al"]
    charges = rng.normal(size=(200, 5)) * [0.1, 0.2, 0.2, 0.1, 0.0] + [-1, 1, 1.1, -1.1, 2]
    found = charge_distributions(charges, symbols, bins=15)
    assert found.elements == ("Al", "Mg", "O")
    for k, columns in enumerate(([4], [1, 2], [0, 3])):
        chosen = charges[:, columns]
        assert found.mean[k] == pytest.approx(chosen.mean())
        assert found.deviation[k] == pytest.approx(chosen.std())
        widths = np.diff(found.edges[k])
        assert found.density[k] @ widths == pytest.approx(1.0)
        counts = found.density[k] * widths * chosen.size
        inside = (chosen >= found.edges[k][3]) & (chosen < found.edges[k][4])
        assert counts[3] == pytest.approx(inside.sum(), abs=1e-6)


def test_charges_that_do_not_fit():
    for charges in (np.zeros((3, 4)), np.zeros(5), np.zeros((0, 5))):
        with pytest.raises(InputError, match=r"charges: expected shape \(F, 5\)"):
            charge_distributions(charges, ["O"] * 5)
    with pytest.raises(InputError, match="bins: expected at least 1"):
        charge_distributions(np.zeros((1, 5)), ["O"] * 5, bins=0)
