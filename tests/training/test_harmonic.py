"""Harmonic copies: springs found again, forces of the copies, small weights in the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import Labels
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.harmonic import HarmonicConfig, harmonic_copies
from openmm_nequiplr.training.loss import balance_species, weigh_structures

LONG, CROSS = 7.0, 0.5  # eV/Å²


def spring_forces(atoms, moved):
    """Nearest neighbours of the 1 × 1 × 1 rock salt cell, in all 6 directions."""
    result = np.zeros_like(moved)
    side = atoms.cell[0, 0]
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            vector = atoms.positions[j] - atoms.positions[i]
            for image in np.ndindex(3, 3, 3):
                bond = vector + side * (np.array(image) - 1)
                length = np.linalg.norm(bond)
                if 0.1 < length < 0.6 * side:
                    unit = bond / length
                    relative = moved[j] - moved[i]
                    along = (relative @ unit) * unit
                    result[i] += LONG * along + CROSS * (relative - along)
    return result


@pytest.fixture
def oscillating(rng):
    from ase.build import bulk

    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    structures = []
    every = rng.normal(0.0, 0.03, size=(5, 8, 3))
    for moved in every - every.mean(axis=0):  # about the perfect crystal
        structures.append(
            Structure(
                symbols=tuple(atoms.get_chemical_symbols()),
                positions=atoms.positions + moved,
                cell=np.array(atoms.cell),
                pbc=True,
                energy=1.0,
                forces=spring_forces(atoms, moved),
                charges=np.zeros(8),
            )
        )
    return atoms, structures


def test_springs_are_found_and_used(oscillating):
    atoms, structures = oscillating
    config = HarmonicConfig(copies=2, displacement=0.1, weight=0.2, cutoff=3.2)
    found = harmonic_copies(structures, config, seed=1)
    assert found.residual < 1e-10 < 0.05 < found.spread
    assert len(found.structures) == 10
    for copy in found.structures:
        expected = spring_forces(atoms, copy.positions - atoms.positions)
        assert copy.forces == pytest.approx(expected, abs=1e-9)
        assert (copy.energy, copy.charges, copy.weight) == (None, None, 0.2)
    moved = [
        c.positions - s.positions for c, s in zip(found.structures, structures * 2, strict=True)
    ]
    assert np.std(moved) == pytest.approx(0.1, rel=0.2)


def test_minima_are_told_apart(oscillating):
    _, structures = oscillating
    other = [
        replace(s, positions=s.positions + 0.4 * (np.arange(8) % 2)[:, None]) for s in structures
    ]
    mixed = [s for pair in zip(structures, other, strict=True) for s in pair]
    config = HarmonicConfig(copies=1, cutoff=2.9)
    assert len(harmonic_copies(mixed, config, seed=0).structures) == 10


def test_some_structures_have_a_copy(oscillating):
    _, structures = oscillating
    config = HarmonicConfig(copies=1.4, displacement=1e-6, cutoff=3.2)
    owners = [
        min(range(5), key=lambda i: np.abs(copy.positions - structures[i].positions).sum())
        for copy in harmonic_copies(structures, config, seed=2).structures
    ]
    assert sorted(np.bincount(owners)) == [1, 1, 1, 2, 2]


def test_lonely_structures_are_refused(oscillating):
    _, structures = oscillating
    with pytest.raises(InputError, match=r"harmonic.copies.*within 0.3"):
        harmonic_copies(structures[:1], HarmonicConfig(copies=1), seed=0)


@pytest.mark.parametrize("name", ["displacement", "weight", "cutoff"])
def test_settings_are_checked(name):
    with pytest.raises(InputError, match=f"harmonic.{name}"):
        HarmonicConfig(**{name: 0.0})


def test_weights_scale_the_squares(oscillating):
    _, structures = oscillating
    both = [structures[0], replace(structures[1], weight=0.25, energy=None)]
    labels = Labels.collate([Labels.of(s) for s in both])
    errors = {
        "energy_per_atom": torch.ones(1, dtype=torch.float64),
        "forces": torch.ones(48, dtype=torch.float64),
        "charges": torch.ones(16, dtype=torch.float64),
    }
    scaled = weigh_structures(errors, labels)
    assert scaled["energy_per_atom"].tolist() == [1.0]
    assert scaled["forces"].tolist() == 24 * [1.0] + 24 * [0.5]
    assert scaled["charges"].tolist() == 8 * [1.0] + 8 * [0.5]
    types = torch.tensor([0, 1] * 8)
    balanced = balance_species(errors, labels, types, ("charges",))
    assert torch.equal(balanced["forces"], errors["forces"])
    plain = Labels.of(structures[0])
    assert weigh_structures(errors, plain) is errors
