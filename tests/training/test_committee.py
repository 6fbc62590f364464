"""Committees trained and judged: seeds, resumption, figures against NumPy."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import spearmanr

from openmm_nequiplr import cli
from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import load_model, save_model
from openmm_nequiplr.training import recorder
from openmm_nequiplr.training.committee import check_seeds, train_committee
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.spread import evaluate_committee, format_committee


@pytest.fixture
def members(make_model, shaken):
    """Three models with slightly different weights."""
    return [shaken(make_model(), seed) for seed in range(3)]


@pytest.fixture
def structures(make_model, molecule, crystal):
    """Labels of the model from which the members stray."""
    model, result = make_model(), []
    for atoms in (molecule, crystal, molecule[:5]):
        structure = Structure(
            atoms.get_chemical_symbols(),
            atoms.positions,
            np.asarray(atoms.cell),
            bool(atoms.pbc.all()),
        )
        graph = model.build_graph(
            structure.symbols, structure.positions, structure.cell, structure.pbc
        )
        output = model(graph)
        result.append(
            replace(
                structure,
                energy=output.energy.item(),
                forces=output.forces.numpy(),
                charges=output.charges.numpy(),
            )
        )
    return result


def predictions(model, structure):
    graph = model.build_graph(structure.symbols, structure.positions, structure.cell, structure.pbc)
    output = model(graph)
    return output.energy.item(), output.forces.numpy(), output.charges.numpy()


def test_figures_against_numpy(members, structures):
    found = evaluate_committee(members, structures, batch_size=2, verbose=False)
    spreads = {"energy_per_atom": [], "forces": [], "charges": []}
    errors = {name: [] for name in spreads}
    components = []
    for structure in structures:
        energy, forces, charges = (
            np.array(values)
            for values in zip(*(predictions(m, structure) for m in members), strict=True)
        )
        n = structure.num_atoms
        spreads["energy_per_atom"].append(np.std(energy) / n)
        errors["energy_per_atom"].append(abs(energy.mean() - structure.energy) / n)
        off = forces - forces.mean(axis=0)
        spreads["forces"] += list(np.sqrt((off**2).sum(axis=2).mean(axis=0)))
        errors["forces"] += list(np.linalg.norm(forces.mean(axis=0) - structure.forces, axis=1))
        components += list((forces.mean(axis=0) - structure.forces).ravel())
        spreads["charges"] += list(charges.std(axis=0))
        errors["charges"] += list(abs(charges.mean(axis=0) - structure.charges))
    assert found.mean.forces.rmse == pytest.approx(1e3 * np.sqrt(np.mean(np.square(components))))
    for name, figures in found.spread.items():
        spread, error = np.array(spreads[name]), np.array(errors[name])
        rms = np.sqrt(np.mean(spread**2))
        assert figures.rms == pytest.approx(1e3 * rms, rel=1e-6)
        assert figures.largest == pytest.approx(1e3 * spread.max(), rel=1e-6)
        assert figures.error == pytest.approx(1e3 * np.sqrt(np.mean(error**2)), rel=1e-6)
        assert figures.calibration == pytest.approx(np.sqrt(np.mean(error**2)) / rms, rel=1e-6)
        assert figures.correlation == pytest.approx(spearmanr(spread, error).statistic, abs=1e-6)
        assert figures.count == len(spread)
    for model, metrics in zip(members, found.members, strict=True):
        alone = evaluate_model(model, structures, verbose=False)
        assert metrics.forces.rmse == pytest.approx(alone.forces.rmse, rel=1e-9)
        assert metrics.charges.mae == pytest.approx(alone.charges.mae, rel=1e-9)


def test_identical_models_are_not_spread(members, structures):
    same = [members[0], copy.deepcopy(members[0])]
    found = evaluate_committee(same, structures, verbose=False)
    for figures in found.spread.values():
        assert figures.rms == pytest.approx(0.0, abs=1e-9)
        assert figures.error > 1e-3
    assert found.mean.forces.rmse == pytest.approx(found.members[1].forces.rmse, rel=1e-12)


def test_structures_without_some_labels(members, structures):
    bare = [replace(structures[0], energy=None, charges=None), *structures[1:]]
    found = evaluate_committee(members, bare, verbose=False)
    assert found.mean.energy_per_atom.count == 2
    assert found.spread["energy_per_atom"].count == 3
    assert found.spread["energy_per_atom"].correlation is None
    none = [replace(s, charges=None) for s in structures]
    found = evaluate_committee(members, none, verbose=False)
    assert found.spread["charges"].error is None
    assert found.spread["charges"].rms > 0
    assert "–" in format_committee(found)


def test_models_without_charges_have_no_spread_of_them(make_model, structures):
    models = [copy.deepcopy(make_model(equilibration=False)) for _ in range(2)]
    with torch.no_grad():
        models[1].energy_scales.mul_(1.1)
    found = evaluate_committee(models, structures, verbose=False)
    assert set(found.spread) == {"energy_per_atom", "forces"}
    assert found.mean.charges is None
    assert found.spread["forces"].rms > 0


def test_the_command_line_takes_files_and_directories(members, structures, tmp_path, capsys):
    from ase import Atoms
    from ase.io import write

    frames = []
    for s in structures:
        atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=s.pbc)
        atoms.info["REF_energy"] = s.energy
        atoms.arrays["REF_forces"] = s.forces
        frames.append(atoms)
    write(tmp_path / "d.extxyz", frames)
    for seed, model in enumerate(members):
        save_model(model, tmp_path / "c" / f"seed_{seed}" / "model.safetensors")
    files = [str(path) for path in sorted((tmp_path / "c").glob("*/*"))]
    data, output = str(tmp_path / "d.extxyz"), tmp_path / "out"
    assert cli.main(["evaluate", files[0], data, "--committee", *files[1:]]) == 0
    one = capsys.readouterr().out
    assert "mean of 3 models" in one
    assert cli.main(["evaluate", str(tmp_path / "c"), data, "--output", str(output)]) == 0
    assert capsys.readouterr().out == one
    assert (output / "spread_forces.png").stat().st_size > 5000
    assert json.loads((output / "committee.json").read_text())["spread"]["forces"]["rms"] > 0
    assert cli.main(["evaluate", str(tmp_path), data]) == 2
    assert "committee: expected a directory with models" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ training


@pytest.fixture
def config_file(structures, tmp_path, monkeypatch):
    """A configuration that trains in a second; its data are clusters."""
    from ase import Atoms
    from ase.io import write

    monkeypatch.setattr(recorder.Recorder, "_draw", lambda self: None)
    first, rng = structures[0], np.random.default_rng(1)
    frames = []
    for _ in range(6):
        atoms = Atoms(first.symbols, first.positions + rng.normal(0, 0.05, (7, 3)))
        atoms.info["REF_energy"] = rng.normal(0, 0.1)
        atoms.arrays["REF_forces"] = rng.normal(0, 0.2, (7, 3))
        frames.append(atoms)
    write(tmp_path / "clusters.extxyz", frames)
    config = {
        "output": str(tmp_path / "out"),
        "model": {
            "r_max": 3.5, "num_layers": 1, "num_layers_charge": 1, "l_max": 0, "num_features": 2,
            "invariant_neurons": 4, "num_bessels": 3, "num_charge_basis": 3,
        },
        "data": {"train": "clusters.extxyz", "num_validation": 2},
        "batch_size": 4,
        "max_epochs": 2,
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_seeds_share_the_split(config_file, tmp_path, capsys):
    result = train_committee(config_file, [3, 1])
    names = [path.parent.name for path in result.model_paths]
    assert names == ["seed_3", "seed_1"]
    splits = {(path.parent / "split.json").read_text() for path in result.model_paths}
    assert len(splits) == 1
    first, second = (load_model(path) for path in result.model_paths)
    assert not torch.equal(first.hardness_parameter, second.hardness_parameter)
    assert result.metrics.spread["forces"].rms > 0
    assert (tmp_path / "out" / "spread" / "spread_forces.png").is_file()
    assert "mean of 2 models" in capsys.readouterr().out
    again = evaluate_committee([tmp_path / "out"], tmp_path / "clusters.extxyz", verbose=False)
    assert len(again.members) == 2


def test_resume_keeps_what_is_finished(config_file, tmp_path, monkeypatch):
    from openmm_nequiplr.training import committee

    calls, train = [], committee.train

    def stops_at_the_second(path, resume, overrides, progress):
        calls.append((overrides["seed"], resume))
        if overrides["seed"] == 1 and len(calls) == 2:
            train(path, resume, {**overrides, "max_epochs": 1}, progress)
            return None  # as after Ctrl-C
        return train(path, resume, overrides, progress)

    monkeypatch.setattr(committee, "train", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_committee(config_file, [3], progress=False)
    first = (tmp_path / "out" / "seed_0" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"output: expected a directory without a committee"):
        train_committee(config_file, [3], progress=False)
    train_committee(config_file, [3], resume=True, progress=False)
    assert calls == [(0, False), (1, False), (1, True), (2, False)]
    assert (tmp_path / "out" / "seed_0" / "model.safetensors").read_bytes() == first
    rows = (tmp_path / "out" / "seed_1" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2
    train_committee(config_file, [0, 1, 2, 5], resume=True, progress=False)
    assert calls[4:] == [(5, False)]


def test_mistakes_are_named(config_file, tmp_path):
    for seeds in ([1], [0], [2, 2], [-1, 2], [True, 2], []):
        with pytest.raises(InputError, match="seeds: expected two different whole numbers"):
            check_seeds(seeds)
    assert check_seeds([3]) == [0, 1, 2]
    with pytest.raises(InputError, match=r"trainer.devices: expected one device for a committee"):
        train_committee(config_file, [2], overrides={"trainer.devices": 2})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "committee.json").write_text("{")
    with pytest.raises(InputError, match="resume: expected a readable file"):
        train_committee(config_file, [2], resume=True)
    record = {"finished": [0], "data": {"train": "other.extxyz"}}
    (tmp_path / "out" / "committee.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="data: expected the data and split of the committee"):
        train_committee(config_file, [2], resume=True)


def test_the_command_line_trains_committees(config_file, tmp_path, capsys):
    command = ["train", str(config_file), "--seeds", "2", "--no-check", "--set", "max_epochs=1"]
    assert cli.main(command) == 0
    assert "mean of 2 models" in capsys.readouterr().out
    assert cli.main([*command, "--resume"]) == 0
    assert capsys.readouterr().out.count("finished before") == 2
