"""Harmonic copies: springs found again, forces of the copies, small weights in the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from openmm_nequiplr.data import Structure
from openmm_nequiplr.data.dataset import Labels
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import load_model
from openmm_nequiplr.training.harmonic import HarmonicConfig, harmonic_copies
from openmm_nequiplr.training.loss import balance_species, weigh_structures
from openmm_nequiplr.training.run import train

from .log import check_same_training_errors, epochs

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
    structures = [replace(structures[0], weight=0.5), *structures[1:]]
    config = HarmonicConfig(copies=2, displacement=0.1, weight=0.2, cutoff=3.2)
    found = harmonic_copies(structures, config, seed=1)
    assert found.residual < 1e-10 < 0.05 < found.spread
    assert len(found.structures) == 10
    for copy, structure in zip(found.structures, structures * 2, strict=True):
        expected = spring_forces(atoms, copy.positions - atoms.positions)
        assert copy.forces == pytest.approx(expected, abs=1e-9)
        assert (copy.energy, copy.charges) == (None, None)
        assert copy.weight == 0.2 * structure.weight
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


@pytest.mark.usefixtures("no_pictures")
def test_copies_count_in_the_loss_and_not_in_the_errors(oscillating, config_file, tmp_path):
    """Heavy copies change the weights, but not the errors of the first epoch."""
    frames = []
    for one in oscillating[1]:
        atoms = Atoms(one.symbols, one.positions, cell=one.cell, pbc=True)
        atoms.info["REF_energy"] = one.energy
        atoms.arrays |= {"REF_forces": one.forces, "REF_charges": one.charges}
        frames.append(atoms)
    write(tmp_path / "crystal.extxyz", frames, format="extxyz")
    rows, weights = [], []
    for weight in (1e-9, 10.0):
        output = tmp_path / f"copies_{weight}"
        given = {
            "data.train": str(tmp_path / "crystal.extxyz"),
            "data.keys.charges": "REF_charges",  # zeros, and meant to be
            "harmonic": {"copies": 1, "weight": weight, "displacement": 0.3, "cutoff": 3.2},
            "max_epochs": 1,
            "batch_size": 16,  # one step: both judge the same random weights
            "output": str(output),
        }
        result = train(config_file, overrides=given, progress=False)
        model = load_model(result.model_path)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        rows.append(epochs(output)[0])
    assert not torch.allclose(weights[0], weights[1], atol=1e-6)
    check_same_training_errors(*rows)


@pytest.mark.parametrize(
    "other", [{"electric_field": np.array([0.1, 0.0, 0.0])}, {"total_charge": 1.0}]
)
def test_surroundings_are_told_apart(oscillating, other):
    """A field, or a charge, changes forces without a spring."""
    _, structures = oscillating
    config = HarmonicConfig(copies=1, cutoff=3.2)
    changed = [replace(s, forces=s.forces + np.eye(8, 3), **other) for s in structures]
    found = harmonic_copies([*structures, *changed], config, seed=0)
    assert found.residual < 1e-10
    assert len(found.structures) == 10
