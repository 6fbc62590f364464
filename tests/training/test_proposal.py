"""Choices for data of several kinds; each text is read back by the parser of trainings."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.data import Structure
from openmm_nequiplr.training.config import parse_config
from openmm_nequiplr.training.inspection import DataSummary
from openmm_nequiplr.training.preparation import divide
from openmm_nequiplr.training.proposal import propose
from openmm_nequiplr.yaml_files import parse_yaml


def _config(structures, **data):
    entries = {"train": "some data.extxyz", **data}
    text = propose(DataSummary(tuple(structures)), entries, "out", 60.0, "two\n\nlines: here")
    assert text.startswith("# two\n#\n# lines: here\n\n")
    assert max(map(len, text.splitlines())) <= 110
    config = parse_config(parse_yaml(text))
    divide(config, structures, structures if config.data.validation else ())
    return config, text


def _salt(rng, *labels: str, spacing: float = 2.8, spread: float = 0.02, **fixed) -> Structure:
    """Eight ions of rock salt, with labels that mean little."""
    sites = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    symbols = ["Na" if s.sum() % 2 == 0 else "Cl" for s in sites]
    signs = np.array([1.0 if symbol == "Na" else -1.0 for symbol in symbols])
    made = {
        "energy": -30.0,
        "forces": rng.normal(size=(8, 3)),
        "charges": 0.8 * signs + spread * rng.normal(size=8),
        "dipole": rng.normal(size=3),
        "stress": 0.01 * np.eye(3),
    }
    positions = spacing * sites + 0.1 * rng.normal(size=(8, 3))
    options = {"cell": 2 * spacing * np.eye(3), "pbc": True, **fixed}
    return Structure(symbols, positions, **options, **{name: made[name] for name in labels})


@pytest.mark.parametrize(
    ("labels", "weights"),
    [
        (("energy", "forces"), {"energy_per_atom": 100.0, "forces": 1.0}),
        (("forces",), {"forces": 1.0}),
        (("energy",), {"energy_per_atom": 100.0}),
        (("charges",), {"charges": 30.0}),
        (("energy", "forces", "stress"), {"energy_per_atom": 100, "forces": 1, "stress": 1000}),
        (("forces", "dipole"), {"forces": 1.0}),  # of no use in a cell
    ],
)
def test_weights_are_those_of_the_labels(rng, labels, weights):
    config, _ = _config([_salt(rng, *labels) for _ in range(6)])
    given = {name: weight for name, weight in config.loss.weights().items() if weight}
    assert given == weights


def test_ions_that_keep_their_charge_are_hard(rng):
    config, _ = _config([_salt(rng, "energy", "forces", "charges") for _ in range(30)])
    assert config.equilibration.hardness == {"Na": 500, "Cl": 500}
    assert config.equilibration.fit_electronegativity
    assert config.model["effective_charges"] is True
    exchanging = [_salt(rng, "forces", "charges", spread=0.4) for _ in range(30)]
    config, _ = _config(exchanging)
    assert config.equilibration.hardness == {"Na": 20, "Cl": 20}
    assert "effective_charges" not in config.model


def test_dipoles_of_molecules_are_learned_without_charges(rng):
    molecules = [_salt(rng, "forces", "dipole", cell=None, pbc=False) for _ in range(5)]
    config, text = _config(molecules)
    assert config.loss.dipole > 0
    assert config.equilibration.hardness == {"Na": 20, "Cl": 20}
    assert not config.equilibration.fit_electronegativity
    assert "# equilibration:" not in text


def test_data_without_charges_come_with_a_start_for_them(rng):
    """It is a comment; without its signs it is part of the configuration."""
    structures = [_salt(rng, "energy", "forces") for _ in range(5)]
    config, text = _config(structures)
    assert config.equilibration.hardness is None
    start = text[text.index("# equilibration:") :].split("\n\n")[0]
    lines = [line.removeprefix("# ") for line in start.splitlines()]
    added = parse_config(parse_yaml(text + "\n" + "\n".join(lines) + "\n"))
    assert added.equilibration.charges == {"Na": 1, "Cl": -1}
    assert added.equilibration.fit_electronegativity


@pytest.mark.parametrize(
    ("count", "sizes"), [(2, (1, 0)), (19, (2, 0)), (20, (2, 2)), (60, (6, 6))]
)
def test_sizes_of_the_parts(rng, count, sizes):
    config, _ = _config([_salt(rng, "forces")] * count)
    assert (config.data.num_validation, config.data.num_test) == sizes


def test_one_structure_is_its_own_validation(rng):
    config, text = _config([_salt(rng, "energy", "forces")])
    assert config.data.validation == config.data.train == ("some data.extxyz",)
    assert "errors are those of the training itself" in text


@pytest.mark.parametrize(("spacing", "cutoff"), [(1.6, 3.5), (2.1, 4.0), (4.0, 5.0)])
def test_cutoffs_follow_the_density(rng, spacing, cutoff):
    config, _ = _config([_salt(rng, "forces", spacing=spacing) for _ in range(3)])
    assert config.model["r_max"] == cutoff


def test_batches_are_of_about_two_hundred_atoms(rng):
    assert _config([_salt(rng, "forces")] * 3)[0].batch_size == 1
    assert _config([_salt(rng, "forces")] * 100)[0].batch_size == 4  # twenty steps in an epoch
    assert _config([_salt(rng, "forces")] * 1000)[0].batch_size == 16


def test_structures_of_mixed_sizes_are_batched_by_atoms(rng):
    small = Structure(("Na", "Cl"), [[0, 0, 0], [0, 0, 2.4]], forces=np.ones((2, 3)))
    config, _ = _config([_salt(rng, "forces"), *[small] * 99])
    assert config.batch_atoms is not None
    assert config.batch_atoms >= _salt(rng, "forces").num_atoms
    assert _config([_salt(rng, "forces")] * 3)[0].batch_atoms is None


def test_names_that_yaml_would_misread(rng):
    """Nobelium is no boolean, and a path may hold anything."""
    atom = Structure(("No", "Y"), [[0, 0, 0], [3, 0, 0]], charges=[0.1, -0.1], energy=1.0)
    keys = {"energy": "on", "charges": "1e3"}
    paths = ["a: b#c.extxyz", "null"]
    config, _ = _config([atom, atom, atom], train=paths, keys=keys, units={"length": "bohr",
                        "energy": "hartree"})  # fmt: skip
    assert set(config.equilibration.hardness) == {"No", "Y"}
    assert config.data.train == tuple(paths)
    assert (config.data.keys.energy, config.data.keys.charges) == ("on", "1e3")


def test_large_structures_are_noticed(rng):
    assert "Smaller cells teach as much" not in _config([_salt(rng, "forces")] * 2)[1]
    grid = 3.0 * np.array([[i, j, k] for i in range(8) for j in range(8) for k in range(8)], float)
    large = Structure(["Ar"] * 512, grid, 24.0 * np.eye(3), True, energy=1.0)
    assert "up to 512 atoms" in _config([large, large])[1]


def test_structures_near_minima_are_noticed(rng):
    from dataclasses import replace

    hot = [_salt(rng, "energy", "forces") for _ in range(4)]
    cold = [replace(each, forces=0.01 * each.forces) for each in hot]
    assert "harmonic" not in _config(hot)[1]
    assert "# harmonic: {copies: 1" in _config(cold)[1]
