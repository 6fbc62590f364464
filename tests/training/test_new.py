"""From data to a training file: every kind of data, and a training from end to end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from openmm_nequiplr import cli, load_model
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.config import load_config
from openmm_nequiplr.training.new import new_config
from openmm_nequiplr.training.preparation import prepare, read_parts
from openmm_nequiplr.training.run import train


def _rattled(atoms: Atoms, count: int, **labels) -> list[Atoms]:
    """Copies with small displacements; labels by the name of their key, made for each."""
    frames = []
    for seed in range(count):
        frame = atoms.copy()
        frame.rattle(0.05, seed=seed)
        for name, make in labels.items():
            home = frame.arrays if name.endswith(("forces", "charges")) else frame.info
            home[name] = make(seed)
        frames.append(frame)
    return frames


def _runner(path: Path) -> None:
    blocks = []
    for seed in range(3):
        water = molecule("H2O")
        water.rattle(0.03, seed=seed)
        lines = [
            f"atom {x / 0.529:f} {y / 0.529:f} {z / 0.529:f} {symbol} 0.1 0.0 0.01 0.02 0.0{seed}"
            for symbol, (x, y, z) in zip(water.symbols, water.positions, strict=True)
        ]
        blocks.append("\n".join(["begin", *lines, f"energy -76.{seed}", "charge 0.0", "end"]))
    path.write_text("\n".join(blocks) + "\n")


WATER, SALT = molecule("H2O"), bulk("NaCl", "rocksalt", 5.6, cubic=True)
SLAB = SALT.copy()
SLAB.center(vacuum=8.0, axis=2)
FORCES = {"REF_forces": lambda k: 0.1 * np.ones((3, 3)) * (k + 1)}
ENERGY = {"REF_energy": lambda k: -10.0 + 0.1 * k}
CHARGES = {"REF_charges": lambda k: np.array([-0.8 - 0.1 * k, 0.4, 0.4])}
CASES = {
    "single atoms": [Atoms("Ar", info={"energy": -0.1 * k}) for k in range(3)],
    "cluster": _rattled(WATER, 4, **ENERGY, **FORCES, **CHARGES),
    "no energies": _rattled(WATER, 4, **FORCES),
    "charges alone": _rattled(WATER, 4, **CHARGES),
    "dipoles alone": _rattled(WATER, 4, REF_dipole=lambda k: [0.1, 0.2, 0.1 * k]),
    "mixed total charges": _rattled(WATER, 5, **ENERGY, total_charge=lambda k: k % 3 - 1.0),
    "one structure": _rattled(WATER, 1, **ENERGY, **FORCES),
    "crystal with stress": _rattled(SALT, 3, **ENERGY, REF_stress=lambda k: 0.01 * np.eye(3)),
    "slab": _rattled(SLAB, 3, **ENERGY),
    "one atom in a cell": _rattled(bulk("Ar", "fcc", 5.3), 2, **ENERGY),
    "cells and none": [*_rattled(SALT, 2, **ENERGY), *_rattled(WATER, 3, **ENERGY)],
    "copies": [Atoms("HCl", [[0, 0, 0], [1.3, 0, 0]], info={"energy": -1.0})] * 4,
}


@pytest.mark.parametrize("name", CASES)
def test_a_training_can_begin_with_what_is_written(name, tmp_path, monkeypatch):
    """The file is read by the parser of the training, and the model and all graphs are made."""
    monkeypatch.chdir(tmp_path)
    write("data.extxyz", CASES[name], format="extxyz")
    path = new_config(["data.extxyz"], timing=0.0)
    assert path == Path("data.yaml")
    config, _ = load_config(path)
    parts = read_parts(config, path)
    model, train_data, _ = prepare(config, parts, path)
    assert config.data.train == ("data.extxyz",)
    assert set(model.config.type_names) == {s for atoms in CASES[name] for s in atoms.symbols}
    assert len(train_data) == len(parts.train) >= 1


def test_runner_files(tmp_path):
    _runner(tmp_path / "input.data")
    path = new_config([tmp_path / "input.data"], tmp_path / "water.yaml", timing=0.0)
    config, _ = load_config(path)
    assert (config.output, config.data.train) == ("water", ("input.data",))
    assert len(read_parts(config, path).train) == 2


@pytest.mark.usefixtures("no_pictures")
def test_from_data_to_a_model(data_file, tmp_path, monkeypatch, capsys):
    """As a user would: init, a dry run, and a training, here of two epochs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(data_file, "clusters.extxyz")
    assert cli.main(["init", "clusters.extxyz", "--timing", "0.1"]) == 0
    out = capsys.readouterr().out
    for piece in ("10 of 5 atoms", "charges (REF_charges) in 10", "+1 in 5", "epoch: ", "wrote"):
        assert piece in out, piece
    text = Path("clusters.yaml").read_text(encoding="utf-8")
    assert "# epoch: " in text
    assert "# nequiplr train clusters.yaml" in text
    assert cli.main(["train", "clusters.yaml", "--dry-run"]) == 0
    small = {"max_epochs": 2, "model.num_features": 2, "equilibration.charge_epochs": 1}
    result = train("clusters.yaml", overrides=small, progress=False)
    assert load_model(result.model_path).config.type_names == ("O", "Na", "Cl")
    assert result.model_path == Path("clusters/model.safetensors")


def test_nothing_is_replaced_unless_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.extxyz", CASES["cluster"], format="extxyz")
    Path("data.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"output: expected a new file, or --force, got 'data"):
        new_config(["data.extxyz"], timing=0.0)
    assert Path("data.yaml").read_text() == "mine"
    new_config(["data.extxyz"], timing=0.0, force=True)
    assert "output: data" in Path("data.yaml").read_text(encoding="utf-8")


def test_keys_that_are_alone_in_looking_like_labels(tmp_path):
    labels = {"dft_energy": ENERGY["REF_energy"], "dft_forces": FORCES["REF_forces"]}
    write(tmp_path / "data.extxyz", _rattled(WATER, 4, **labels), format="extxyz")
    said: list[str] = []
    path = new_config([tmp_path / "data.extxyz"], tmp_path / "a.yaml", timing=0.0, say=said.append)
    assert "energy: read from 'dft_energy', the only key that looks like it" in said
    config, _ = load_config(path)
    assert config.data.keys.named() == {"energy": "dft_energy", "forces": "dft_forces"}
    assert (config.loss.energy_per_atom, config.loss.forces) == (100.0, 1.0)
    assert all(s.forces is not None for s in read_parts(config, path).train)
    # two that look like it are left to the user
    labels |= {"mp2_energy": ENERGY["REF_energy"]}
    write(tmp_path / "data.extxyz", _rattled(WATER, 4, **labels), format="extxyz")
    path = new_config([tmp_path / "data.extxyz"], tmp_path / "b.yaml", timing=0.0)
    assert load_config(path)[0].loss.energy_per_atom == 0.0
    path = new_config(
        [tmp_path / "data.extxyz"], tmp_path / "c.yaml", timing=0.0, energy_key="mp2_energy"
    )
    assert load_config(path)[0].data.keys.energy == "mp2_energy"


def test_several_files_with_units(tmp_path):
    for name in ("a", "b"):
        frames = _rattled(WATER, 3, **ENERGY)
        for frame in frames:
            frame.positions /= 0.529177
        write(tmp_path / f"{name}.extxyz", frames, format="extxyz")
    files = [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    with pytest.raises(InputError, match="lengths read as angstrom"):
        new_config(files, tmp_path / "a.yaml", timing=0.0)
    units = {"length_unit": "bohr", "energy_unit": "hartree"}
    path = new_config(files, tmp_path / "a.yaml", timing=0.0, **units)
    config, _ = load_config(path)
    assert config.data.train == ("a.extxyz", "b.extxyz")
    parts = read_parts(config, path)
    assert len(parts.train) + len(parts.validation) == 6
    assert config.data.units.length == "bohr"


def test_data_far_away_are_named_by_their_whole_path(tmp_path):
    write(tmp_path / "data.extxyz", CASES["cluster"], format="extxyz")
    for folder, expected in (("a", "../data.extxyz"), ("a/b/c", str(tmp_path / "data.extxyz"))):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        path = new_config([tmp_path / "data.extxyz"], tmp_path / folder / "x.yaml", timing=0.0)
        assert load_config(path)[0].data.train == (expected,)


def test_data_of_no_use(tmp_path):
    path = tmp_path / "data.extxyz"
    write(path, _rattled(WATER, 3), format="extxyz")
    with pytest.raises(InputError, match=r"data: expected labels \(energy, forces.*got 'none of"):
        new_config([path], timing=0.0)
    write(path, [*_rattled(WATER, 3, **ENERGY), WATER], format="extxyz")
    with pytest.raises(InputError, match=r"label \(energy\), got '1 of 4 .*the first is 3'"):
        new_config([path], timing=0.0)
    path.write_text("")
    with pytest.raises(InputError, match="data file: expected one frame or more"):
        new_config([path], timing=0.0)
    half = SLAB.copy()
    half.pbc = (True, False, False)
    write(path, half, format="extxyz")
    with pytest.raises(InputError, match="periodic in all three directions, in none"):
        new_config([path], timing=0.0)
    with pytest.raises(FileNotFoundError, match=r"absent\.extxyz"):
        new_config([tmp_path / "absent.extxyz"], timing=0.0)
    write(path, CASES["cluster"], format="extxyz")
    with pytest.raises(InputError, match="max_time: expected a positive number"):
        new_config([path], max_time=0.0)
    with pytest.raises(InputError, match="output: expected a file in a directory that exists"):
        new_config([path], tmp_path / "no" / "x.yaml")
    assert not list(tmp_path.glob("*.yaml"))


def test_without_lightning_there_is_no_estimate(tmp_path, monkeypatch):
    write(tmp_path / "data.extxyz", CASES["cluster"], format="extxyz")
    monkeypatch.setitem(sys.modules, "lightning", None)
    for name in ("estimate", "module"):
        monkeypatch.delitem(sys.modules, f"openmm_nequiplr.training.{name}", raising=False)
    for name in [name for name in sys.modules if name.startswith("lightning.")]:
        monkeypatch.delitem(sys.modules, name)
    said: list[str] = []
    path = new_config([tmp_path / "data.extxyz"], tmp_path / "x.yaml", say=said.append)
    assert any("training needs Lightning" in line for line in said)
    assert not any(line.startswith("epoch") for line in said)
    assert load_config(path)[0].output == "x"
