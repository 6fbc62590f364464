"""Runs of OpenMM read back: recomputed charges and energies are those that reporters wrote."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr import ChargeReporter, cli, create_system, shipped_structure
from openmm_nequiplr.analysis import (
    TrajectoryProperties,
    analyze,
    analyze_trajectory,
    open_trajectory,
    recompute,
    trajectories,
)
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import load_charges, read_structure
from openmm_nequiplr.simulation.md import MDOptions, run_md
from openmm_nequiplr.simulation.runfiles import RunFiles, read_log

# Positions are stored in single precision: 1e-6 Å at 10 Å, times forces of up to 10 eV/Å.
ENERGY, CHARGE = 1e-4, 5e-6


def assert_png(path):
    assert path.read_bytes()[:4] == b"\x89PNG", path


@pytest.fixture(scope="module", params=["au2-mgo", "carbon-chain"])
def run(request, tmp_path_factory):
    """A short run of each shipped model, a periodic and a charged one."""
    options = MDOptions(
        model=request.param,
        steps=8,
        report_interval=2,
        seed=1,
        output=tmp_path_factory.mktemp("run") / "md",
        platform="CPU",
        quiet=True,
    )
    return request.param, run_md(options).files


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes longer than these analyses."""
    for name in ("properties", "radial_distributions", "charge_distributions"):
        monkeypatch.setattr(analyze, f"plot_{name}", lambda *arguments: None)


def test_names_are_loaded_on_first_use():
    code = (
        "import sys, openmm_nequiplr.analysis as a;"
        "assert not {'mdtraj', 'torch', 'ase', 'matplotlib'} & set(sys.modules);"
        "assert set(a.__all__) <= set(dir(a));"
        "assert all(getattr(a, name).__name__ == name for name in a.__all__);"
        "assert not {'openmm', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_names_of_files_are_those_of_a_run(tmp_path):
    files = RunFiles(tmp_path)
    assert files.trajectory.name == trajectories.RUN_TRAJECTORY
    assert files.topology.name == trajectories.RUN_TOPOLOGY
    assert files.charges.name == trajectories.RUN_CHARGES
    assert files.settings.name == trajectories.RUN_SETTINGS


def test_a_run_is_read_back_from_the_command_line(run, capfd):
    model, files = run
    assert cli.main(["analyze", model, str(files.directory)]) == 0
    out = capfd.readouterr().out
    assert "dcdplugin" not in out  # what a library in C says of itself
    assert "4 frames of" in out
    assert "largest difference from the charges recorded in the run" in out
    folder = files.directory / "analysis"
    found = TrajectoryProperties.load(folder / "properties.npz")
    log, charges = read_log(files.log), load_charges(files.charges)
    np.testing.assert_allclose(found.energies, log["potential_eV"], rtol=0, atol=ENERGY)
    np.testing.assert_allclose(found.charges, charges.charges, rtol=0, atol=CHARGE)
    scale = np.abs(charges.charges).sum(axis=1).max()  # e times 1e-5 Å, and Å times 1e-6 e
    np.testing.assert_allclose(found.dipoles, charges.dipoles, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(found.times, charges.times)
    assert found.total_charge == {"au2-mgo": 0.0, "carbon-chain": 1.0}[model]
    if model == "au2-mgo":
        np.testing.assert_allclose(found.volumes, log["volume_A3"], rtol=1e-6)
    for name in ("properties", "radial", "charges"):
        assert_png(folder / f"{name}.png")


@pytest.mark.usefixtures("no_pictures")
def test_tables_hold_what_the_arrays_hold(run, tmp_path):
    model, files = run
    result = analyze_trajectory(
        model, files.directory, output=tmp_path / "a", stride=2, r_max=5.0, quiet=True
    )
    assert result.recorded_difference < CHARGE
    np.testing.assert_array_equal(result.properties.frames, [0, 2])
    with open(tmp_path / "a" / "properties.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["energy_eV"]) for row in rows] == pytest.approx(
        list(result.properties.energies), abs=1e-7
    )
    rarest = {"au2-mgo": "Au", "carbon-chain": "H"}[model]
    chosen = np.array(result.properties.symbols) == rarest
    mean = result.properties.charges[:, chosen].mean(axis=1)
    assert [float(row[f"charge_{rarest}_e"]) for row in rows] == pytest.approx(mean, abs=1e-7)
    with open(tmp_path / "a" / "radial.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 100
    name = {"au2-mgo": "n_Au-O", "carbon-chain": "n_H-C"}[model]
    expected = result.radial.coordination_number(*name[2:].split("-"), 3.0)
    assert float(rows[59]["r_outer"]) == pytest.approx(3.0)
    assert float(rows[59][name]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("no_pictures")
def test_results_are_not_overwritten_and_can_grow(run, tmp_path):
    model, files = run
    analyze_trajectory(model, files.directory, output=tmp_path, quiet=True)
    with pytest.raises(InputError, match="output: expected a directory without results, or resume"):
        analyze_trajectory(model, files.directory, output=tmp_path, quiet=True)
    short = TrajectoryProperties.load(tmp_path / "properties.npz")
    result = analyze_trajectory(model, files.directory, output=tmp_path, resume=True, quiet=True)
    np.testing.assert_array_equal(result.properties.energies, short.energies)


@pytest.mark.usefixtures("no_pictures")
def test_another_model_is_noticed(run, tmp_path):
    """The recorded charges are then others."""
    import copy

    from openmm_nequiplr import load_model

    model, files = run
    other = copy.deepcopy(load_model(model))
    other.hardness_parameter.data.mul_(1.1)
    result = analyze_trajectory(other, files.directory, output=tmp_path, quiet=True)
    assert result.recorded_difference > 1e-3


def test_damaged_records_of_a_run(run, tmp_path):
    _, files = run
    for path in (files.trajectory, files.topology, files.settings):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert json.loads(files.settings.read_text())["report_interval"] == 2
    found = open_trajectory(tmp_path)
    assert found.recorded is None
    assert np.isnan(next(found.frames()).time)
    np.save(tmp_path / "charges.npy", np.zeros(3))
    with pytest.raises(InputError, match="charges: expected a file written by ChargeReporter"):
        open_trajectory(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_reporters_of_openmm(wrapped, tmp_path):
    """StateDataReporter, ChargeReporter and DCDReporter of a script; wrapped atoms too."""
    start = read_structure(shipped_structure("au2-mgo"))
    system = create_system(start.topology, "au2-mgo", long_range="graph")
    integrator = openmm.LangevinMiddleIntegrator(300, 1 / unit.picosecond, 0.001)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    names = {name: str(tmp_path / name) for name in ("log.csv", "frames.dcd", "q.npy", "top.pdb")}
    simulation.reporters.append(
        app.StateDataReporter(names["log.csv"], 2, step=True, potentialEnergy=True)
    )
    dcd = app.DCDReporter(names["frames.dcd"], 2, enforcePeriodicBox=wrapped)
    simulation.reporters.append(dcd)
    charges = ChargeReporter(names["q.npy"], 2)
    simulation.reporters.append(charges)
    simulation.step(6)
    simulation.reporters.clear()
    charges.close()
    del dcd
    with open(names["top.pdb"], "w", encoding="utf-8") as handle:
        app.PDBFile.writeFile(start.topology, start.positions * unit.nanometer, handle)
    found = recompute("au2-mgo", names["frames.dcd"], names["top.pdb"])
    energies = np.loadtxt(names["log.csv"], delimiter=",", skiprows=1)[:, 1] / 96.48533212331002
    np.testing.assert_allclose(found.energies, energies, rtol=0, atol=ENERGY)
    recorded = load_charges(names["q.npy"])
    np.testing.assert_allclose(found.charges, recorded.charges, rtol=0, atol=CHARGE)
    if not wrapped:
        np.testing.assert_allclose(found.dipoles, recorded.dipoles, rtol=0, atol=1e-3)
