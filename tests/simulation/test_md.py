"""The molecular dynamics driver: every file it writes, restarts, interruptions and mistakes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read

from openmm_nequiplr import save_model
from openmm_nequiplr.errors import BackendError, InputError, ModelFileError
from openmm_nequiplr.simulation import load_charges, md
from openmm_nequiplr.simulation.md import continued_options, run_md
from openmm_nequiplr.simulation.runfiles import RunFiles, read_log


@pytest.fixture
def options(run_options, tmp_path):
    return run_options(tmp_path / "run", steps=8)


def frames_of(files):
    return mdtraj.load_dcd(str(files.trajectory), top=str(files.topology))


def assert_consistent(files, steps):
    """Log, charges and trajectory hold exactly the frames of ``steps``."""
    log, charges, frames = read_log(files.log), load_charges(files.charges), frames_of(files)
    np.testing.assert_array_equal(log["step"], steps)
    np.testing.assert_array_equal(charges.steps, steps)
    np.testing.assert_allclose(log["time_ps"], charges.times, atol=1e-6)
    assert frames.n_frames == len(steps)
    assert np.isfinite(frames.xyz).all()
    return log, charges, frames


# ------------------------------------------------------------------------------------- the files


def test_what_a_run_leaves_behind(options, inputs):
    options = dataclasses.replace(options, structure=inputs / "salt.extxyz", ensemble="nvt")
    result = run_md(options)
    files = result.files
    assert result.steps == 8
    assert result.time == pytest.approx(0.008)
    assert result.ns_per_day > 0
    log, charges, frames = assert_consistent(files, [2, 4, 6, 8])
    np.testing.assert_allclose(log["total_eV"], log["potential_eV"] + log["kinetic_eV"], atol=1e-6)
    np.testing.assert_allclose(log["volume_A3"], 11.28**3, rtol=1e-6)
    assert log["temperature_K"][-1] == pytest.approx(result.temperature, abs=1e-3)
    np.testing.assert_allclose(charges.charges.sum(axis=1), 0.0, atol=1e-9)
    assert frames.unitcell_lengths[0, 0] == pytest.approx(1.128, abs=1e-5)
    final = read(files.final)
    np.testing.assert_allclose(final.positions, 10.0 * frames.xyz[-1], atol=1e-4)
    np.testing.assert_allclose(final.get_initial_charges(), charges.charges[-1], atol=1e-6)
    assert files.summary.read_bytes()[:4] == b"\x89PNG"
    assert not list(files.directory.glob("*.part"))


def test_progress_is_printed(options, capsys):
    run_md(dataclasses.replace(options, quiet=False))
    out = capsys.readouterr().out
    assert "step 8/8" in out
    assert re.search(r"T \d+ K  \S+ ns/day  \S+ ms/step  0:00 left", out)


def test_a_run_without_any_frame(options, capsys):
    result = run_md(dataclasses.replace(options, steps=1, quiet=False))
    assert re.search(r"step 1/1  0.001 ps  \S+ ns/day  \S+ ms/step", capsys.readouterr().out)
    assert len(read_log(result.files.log)["step"]) == 0
    assert result.files.summary.exists()
    run_md(dataclasses.replace(options, steps=3, restart=True))
    assert_consistent(result.files, [2, 4])


def test_no_steps_evaluate_the_start(options):
    result = run_md(dataclasses.replace(options, steps=0))
    assert result.steps == 0
    assert np.isfinite(result.potential_energy)


@pytest.mark.parametrize("barostat", ["isotropic", "anisotropic", "flexible"])
def test_constant_pressure(options, inputs, barostat):
    result = run_md(
        dataclasses.replace(
            options,
            structure=inputs / "salt.extxyz",
            ensemble="npt",
            barostat=barostat,
            barostat_axes="xy",
            barostat_interval=1,
            pressure=20000.0,
        )
    )
    volume = read_log(result.files.log)["volume_A3"]
    assert np.ptp(volume) > 1e-3
    lengths = frames_of(result.files).unitcell_lengths
    if barostat == "anisotropic":
        np.testing.assert_allclose(lengths[:, 2], 1.128, rtol=1e-5)


def test_minimisation_comes_first(options, capsys):
    # random weights pull the ions nearer than half a bond, which would end the run
    options = dataclasses.replace(options, on_unstable="warn")
    plain = run_md(dataclasses.replace(options, steps=0))
    relaxed = run_md(
        dataclasses.replace(
            options, steps=0, minimize=True, output=str(options.output) + "2", quiet=False
        )
    )
    assert relaxed.potential_energy < plain.potential_energy - 0.01
    assert "minimised" in capsys.readouterr().out


def test_a_pdb_file_will_do(options, inputs, tmp_path):
    first = run_md(dataclasses.replace(options, steps=2))
    output = tmp_path / "again"
    again = run_md(
        dataclasses.replace(options, structure=first.files.topology, steps=2, output=output)
    )
    assert again.potential_energy == pytest.approx(first.potential_energy, abs=0.05)


def test_threads_are_limited_for_the_run_only(options):
    import torch

    cpu = openmm.Platform.getPlatform("CPU")
    before = torch.get_num_threads(), cpu.getPropertyDefaultValue("Threads")
    run_md(dataclasses.replace(options, steps=2, platform="CPU", threads=1))
    assert (torch.get_num_threads(), cpu.getPropertyDefaultValue("Threads")) == before


def test_the_same_seed_gives_the_same_run(options, tmp_path):
    options = dataclasses.replace(options, ensemble="nvt")
    runs = [
        run_md(dataclasses.replace(options, output=tmp_path / str(k), seed=seed))
        for k, seed in enumerate((5, 5, 6))
    ]
    logs = [read_log(run.files.log)["potential_eV"] for run in runs]
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-9)
    assert np.abs(logs[0] - logs[2]).max() > 1e-6


# -------------------------------------------------------------------------------------- restarts


def test_noise_does_not_repeat_after_a_restart(options):
    seeds = set()
    for step in (None, 4, 8):
        state = None
        if step is not None:
            system = openmm.System()
            system.addParticle(1.0)
            context = openmm.Context(system, openmm.VerletIntegrator(0.001))
            context.setStepCount(step)
            state = context.getState()
        integrator, barostat = openmm.LangevinIntegrator(1, 1, 1), openmm.MonteCarloBarostat(1, 1)
        system = openmm.System()
        system.addForce(barostat)
        md._seed(system, integrator, options, state)
        assert integrator.getRandomNumberSeed() == barostat.getRandomNumberSeed() != 0
        seeds.add(integrator.getRandomNumberSeed())
    assert len(seeds) == 3


def test_a_restart_keeps_the_settings_that_are_not_given(options):
    first = dataclasses.replace(options, ensemble="nve", timestep=0.25, quiet=True)
    run_md(first)
    given = {"model": first.model, "output": first.output, "restart": True, "steps": 3}
    again = continued_options(**given)
    assert (again.ensemble, again.timestep) == ("nve", 0.25)
    assert again.steps == 3
    assert continued_options(**given, timestep=0.5).timestep == 0.5
    assert continued_options(**{**given, "restart": False}).ensemble == "nvt"


def test_restarts_tell_what_has_changed(options, capsys):
    run_md(dataclasses.replace(options, steps=2))
    run_md(dataclasses.replace(options, steps=2, restart=True, timestep=0.5, quiet=False))
    out = capsys.readouterr().out
    assert "continuing at step 2" in out
    assert "note: timestep is 0.5 from here on, it was 1.0" in out


def test_heavy_hydrogen(options, make_model, tmp_path, capsys):
    """Its mass comes from the nearest atom, and a restart keeps it."""
    atoms = molecule("H2O")
    atoms += Atoms("Na", [atoms.positions[1] + [0.0, 2.0, 0.0]])  # it counts as bonded too
    atoms.write(tmp_path / "water.extxyz")
    model = tmp_path / "water.safetensors"
    save_model(make_model(type_names=("H", "O", "Na")), model)
    run = {"model": model, "structure": tmp_path / "water.extxyz", "steps": 2, "timestep": 0.1}
    first = dataclasses.replace(options, **run, hydrogen_mass=3.0, quiet=False)
    result = run_md(first)
    assert ", hydrogen of 3 Da, " in capsys.readouterr().out
    masses = read(result.files.final).get_masses()
    np.testing.assert_allclose(masses, [15.999 - 2 * (3 - 1.008), 3, 3, 22.990], atol=1e-3)
    again = continued_options(model=model, output=options.output, restart=True, steps=2)
    assert again.hydrogen_mass == 3.0
    run_md(again)
    np.testing.assert_allclose(read(result.files.final).get_masses(), masses)
    with pytest.raises(InputError, match="hydrogen_mass: expected 3.0, as in the run"):
        run_md(dataclasses.replace(again, hydrogen_mass=2.0))
    with pytest.raises(InputError, match="hydrogen_mass: expected None for a structure without"):
        run_md(dataclasses.replace(options, output=tmp_path / "salt", hydrogen_mass=3.0))


def test_nothing_to_restart_from(options):
    with pytest.raises(InputError, match=r"restart: expected a run to continue.*got none"):
        run_md(dataclasses.replace(options, restart=True))


def test_results_are_not_overwritten(options):
    run_md(dataclasses.replace(options, steps=2))
    with pytest.raises(InputError, match=r"output: .*--restart to continue that run, or another"):
        run_md(options)


def test_a_restart_of_something_else(options, inputs):
    run_md(dataclasses.replace(options, steps=2))
    with pytest.raises(InputError, match="structure: expected the atoms of the run"):
        run_md(dataclasses.replace(options, restart=True, structure=inputs / "salt.extxyz"))
    with pytest.raises(InputError, match="report_interval: expected 2"):
        run_md(dataclasses.replace(options, restart=True, report_interval=3))
    RunFiles(Path(options.output)).checkpoint.write_text("<State>")
    with pytest.raises(InputError, match="checkpoint: expected an OpenMM State"):
        run_md(dataclasses.replace(options, restart=True))


# ---------------------------------------------------------------------------------------- errors


def test_inputs_that_do_not_fit(options, tmp_path):
    with pytest.raises(ModelFileError):
        run_md(dataclasses.replace(options, model="absent"))
    with pytest.raises(FileNotFoundError, match="structure: expected an existing file"):
        run_md(dataclasses.replace(options, structure=tmp_path / "absent.pdb"))
    with pytest.raises(InputError, match="structure: expected a structure file"):
        run_md(dataclasses.replace(options, structure=None))
    with pytest.raises(InputError, match="ensemble: expected nve or nvt"):
        run_md(dataclasses.replace(options, ensemble="npt"))
    with pytest.raises(BackendError, match="platform: expected one of"):
        run_md(dataclasses.replace(options, platform="Abacus"))
    with pytest.raises(InputError, match="charge_of: expected an element of the structure"):
        run_md(dataclasses.replace(options, charge_of="Au"))
    assert not Path(options.output).exists()
