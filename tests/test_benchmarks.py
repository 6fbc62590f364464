"""The benchmarks: same data for all, nothing twice, tables and ratios out of what is there."""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write

from openmm_nequiplr.training.config import load_config

ROOT = Path(__file__).parents[1]
ACCURACY = ROOT / "benchmarks" / "accuracy"


def test_embedding_beside_pme(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    importlib.import_module("embedding_cost").measure(600, 4, 1)
    assert re.fullmatch(r"600 charges, 4 atoms .* ratio \d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--network"]])
def test_step_time_against_another_environment(tmp_path, monkeypatch, capsys, more):
    """The other environment is a script that starts this one's Python."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\ntouch "{tmp_path}/started"\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["step_time.py", "--against", str(other), "--salt", "64", "--slab", "--steps", "3"]
    command += ["--threads", "1", "--features", "2", "--output", str(tmp_path / "times"), *more]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module("step_time").main()
    assert (tmp_path / "started").exists()
    result = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))["salt"]["64"]
    ratios = result["ours"]["ratios"]["against"]
    for kind, value in ratios.items():
        assert value == pytest.approx(result["ours"][kind] / result["against"][kind])
    assert f"ours / against = {ratios['median']:.3f}" in capsys.readouterr().out
    assert (tmp_path / "times.png").stat().st_size > 0


def test_multiple_time_steps_with_matched_forces(make_model, monkeypatch, capsys):
    """Springs between the atoms of water are found again, and are an inner potential."""
    import openmm
    from ase.build import molecule

    from openmm_nequiplr.simulation import from_atoms

    def distances(atoms):
        return {(i, j): atoms.get_distance(i, j, vector=True) for i, j in ((0, 1), (0, 2), (1, 2))}

    rng, frames = np.random.default_rng(0), []
    for _ in range(12):
        atoms = molecule("H2O", cell=[10.0] * 3, pbc=True)
        atoms.positions += rng.normal(0.0, 0.03, size=(3, 3))
        forces = np.zeros((3, 3))
        for (i, j), vector in distances(atoms).items():
            length = np.linalg.norm(vector)
            pull = 40.0 * (length - (0.97 if i == 0 else 1.53)) * vector / length
            forces[i] += pull
            forces[j] -= pull
        atoms.arrays["REF_forces"] = forces
        frames.append(atoms)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    inner, start = importlib.import_module("matched").matched_forces(frames, frames[0]), frames[0]
    system, structure = openmm.System(), from_atoms(start)
    system.setDefaultPeriodicBoxVectors(*structure.box)
    for _ in start:
        system.addParticle(1.0)
    for force in inner:
        system.addForce(copy.deepcopy(force))
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(structure.positions)
    found = context.getState(forces=True).getForces(asNumpy=True)._value / 964.85332
    np.testing.assert_allclose(found, start.arrays["REF_forces"], atol=0.02)
    model = make_model(type_names=("O", "H"), r_max=2.5, num_layers=0)
    arguments = (model, inner, structure, [0.5], [(1.0, 2)], 0.06)
    gains = importlib.import_module("respa").measure(*arguments, settle=0.001)
    assert list(gains) == [(1.0, 2)]
    assert capsys.readouterr().out.count("meV/atom/ps") == 2


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    output = tmp_path / "found.json"
    command = ["gpu_check.py", "--device", "cpu", "--quick", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module("gpu_check").main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert list(found) == ["versions", "accuracy", "dynamics", "steps"]
    assert found["accuracy"]["216 single"]["forces"] < 1e-4
    assert "== steps" in capsys.readouterr().out


@pytest.mark.slow
def test_counts_of_a_step(monkeypatch, capsys):
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    command = ["step_time.py", "--pretend-cuda", "--salt", "216", "--slab", "--steps", "3"]
    monkeypatch.setattr(sys, "argv", [*command, "--features", "2"])
    importlib.import_module("step_time").main()
    shown = capsys.readouterr().out
    assert "216 atoms" in shown
    assert "2 copies a step" in shown


@pytest.mark.slow
def test_training_steps_of_two_environments_learn_the_same(tmp_path, monkeypatch, capsys):
    frames = [
        Atoms("NaCl", 2.5 * np.eye(2, 3) + 0.1 * k, cell=3 * [6.0], pbc=True) for k in range(4)
    ]
    for number, frame in enumerate(frames):
        frame.info["REF_energy"] = float(number)
        frame.arrays["REF_forces"] = np.full((2, 3), 0.1 * number)
    write(tmp_path / "data.extxyz", frames)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["train_time.py", str(tmp_path / "data.extxyz"), "--against", sys.executable]
    monkeypatch.setattr(sys, "argv", [*command, "--steps", "2", "--features", "2"])
    importlib.import_module("train_time").main()
    result = json.loads(capsys.readouterr().out)
    losses = result["losses"]
    assert losses["ours"] == pytest.approx(losses["against"], rel=1e-6)
    assert losses["ours"][1] < losses["ours"][0]
    assert set(result["ratios"]["against"]) == {"median", "least", "cpu"}


@pytest.fixture
def systems(monkeypatch):
    monkeypatch.syspath_prepend(str(ACCURACY))
    return importlib.import_module("systems")


@pytest.fixture
def parts(tmp_path):
    return {part: tmp_path / f"{part}.extxyz" for part in ("train", "validation", "test")}


@pytest.fixture
def dimers(rng):
    """Twelve pairs of molecules, far to near, with labels out of thin air."""
    frames = []
    for separation in np.linspace(9.0, 5.0, 12):
        atoms = Atoms("COHCOH", [[0, 0, 0], [1.2, 0, 0], [-0.6, 0.9, 0]] * 2)
        atoms.positions[3:, 2] += separation
        atoms.info = {"separation": separation, "REF_energy": -1.0 / separation}
        atoms.info["total_charge"] = 0.0
        atoms.arrays["REF_forces"] = rng.normal(0, 0.1, (6, 3))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize(
    "name", ["carbon_chain", "au2_mgo", "charged_dimer", "dipeptides", "nacl_water"]
)
def test_variants_are_valid_and_comparable(systems, parts, tmp_path, name):
    system = systems.SYSTEMS[name]
    assert name != "au2_mgo" or system.receptive_field(max(system.cutoffs)) < 11.0
    found = {}
    for variant in systems.VARIANTS:
        changes = ["equilibration.charge_epochs=3", "batch_size=3"]
        values = systems.configuration(
            system, variant, 3.0, 7, parts, tmp_path / variant, {"max_epochs": 5}, changes
        )
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(values))
        found[variant], _ = load_config(path)
    lr, short, invariant = (found[v] for v in ("lr", "short_range", "invariant"))
    for config in found.values():
        assert (config.seed, config.max_epochs, config.batch_size) == (7, 5, 3)
        assert config.data == lr.data
        assert config.max_time is None
        layers = config.model["num_layers"] + config.model["num_layers_charge"]
        assert layers == sum(system.layers)
    assert lr.equilibration.charge_epochs == 3
    assert found["separate"].model == {**lr.model, "shared_features": False}
    assert short.model["equilibration"] is False
    assert short.loss.charges == short.loss.dipole == 0.0
    assert invariant.model["l_max"] == 0 < lr.model["l_max"]
    assert {**invariant.model, "l_max": lr.model["l_max"]} == lr.model


def test_the_dimer_is_judged_beyond_what_it_saw(systems, dimers):
    divided = systems.by_separation(test=2)(dimers, [])
    separation = {part: [a.info["separation"] for a in divided[part]] for part in divided}
    assert len(separation["train"]) == 9
    assert len(separation["test"]) == 2
    assert max(separation["train"] + separation["validation"]) < min(separation["test"])
    assert min(separation["train"]) < separation["validation"][0] < max(separation["train"])
    kept_apart = systems.by_separation(test=2)(dimers[2:], dimers[:2])
    assert len(kept_apart["train"]) == 9
    assert [a.info["separation"] for a in kept_apart["test"]] == separation["test"]


def test_random_parts_do_not_overlap(systems, dimers):
    divided = systems.at_random(validation=2, test=3)(dimers, [])
    assert [len(divided[part]) for part in ("train", "validation", "test")] == [7, 2, 3]
    seen = [a.info["separation"] for part in divided.values() for a in part]
    assert len(set(seen)) == 12
    kept_apart = systems.at_random(validation=2, test=3)(dimers[1:], dimers[:1])
    assert [len(kept_apart[part]) for part in ("train", "validation", "test")] == [9, 2, 1]


@pytest.fixture
def run(systems, tmp_path, monkeypatch, capsys):
    """Run the benchmark of the charged dimer; what it prints, and its status."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["run.py", "charged_dimer", "--epochs", "1", "--cutoffs", "3", "--seeds", "0"]
    command += ["--variants", "lr", "short_range"]
    command += ["--data", str(tmp_path), "--output", str(tmp_path / "results")]
    # the stand-in charges name an element that these dimers lack
    command += ["--set", "equilibration={}", "model.gaussian_widths=null", "model.num_features=2"]

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        status = importlib.import_module("run").main()
        return capsys.readouterr().out, status

    return start


@pytest.mark.slow
def test_from_data_to_table(dimers, run, tmp_path):
    write(tmp_path / "charged_dimer_train.extxyz", dimers)
    assert run("--jobs", "list")[0].count("to do") == 2
    shown, status = run()
    assert status == 0, shown
    folder = tmp_path / "results" / "charged_dimer"
    assert len(read(folder / "data" / "test.extxyz", ":")) == 2
    for name in ("table.json", "rmse_cutoff.png", "parity.png", "learning_curves.png"):
        assert (folder / name).stat().st_size > 0
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 3
    model = folder / "lr_r3_s0" / "model.safetensors"
    before = model.stat().st_mtime_ns
    assert run()[0].count("done before") == 2
    assert model.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="other settings"):
        run("--epochs", "2")
