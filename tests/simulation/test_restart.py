"""Restarts from damaged files: refused in one line, or continued to a whole run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_nequiplr import save_model
from openmm_nequiplr.errors import DirectoryInUseError, InputError, NequIPLRError
from openmm_nequiplr.locking import directory_lock
from openmm_nequiplr.simulation import load_charges, read_structure
from openmm_nequiplr.simulation.md import continued_options, run_md
from openmm_nequiplr.simulation.reporters import RecordFile
from openmm_nequiplr.simulation.restart import (
    compare_settings,
    continued_settings,
    find_checkpoint,
)
from openmm_nequiplr.simulation.runfiles import RunFiles, read_log, read_settings

NAMES = (
    "run.json", "topology.pdb", "trajectory.dcd", "log.csv", "energies.csv", "charges.npy",
    "checkpoint.xml",
)  # fmt: skip
DAMAGES = ("empty", "deleted", "half", "end off", "flipped", "twice", "other run", "longer")


@pytest.fixture(scope="module")
def options(run_options, tmp_path_factory):
    """Options of a short run, in a directory that is copied."""
    return run_options(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def killed(options):
    """A run as a kill at step 12 leaves it, with its last checkpoint at step 8."""
    files = run_md(dataclasses.replace(options, steps=8)).files
    checkpoint = files.checkpoint.read_bytes()
    run_md(dataclasses.replace(options, steps=4, restart=True))
    files.checkpoint.write_bytes(checkpoint)
    return files


@pytest.fixture(scope="module")
def stranger(options, tmp_path_factory):
    """Another run of as many steps, of the same atoms."""
    output = tmp_path_factory.mktemp("runs") / "stranger"
    return run_md(dataclasses.replace(options, steps=8, seed=2, output=output)).files


def resume(options, directory):
    """All that a restart does before the first step, and the step it would begin at."""
    given = {"output": directory, "model": options.model, "restart": True}
    now = continued_options(**given)
    files = RunFiles(Path(now.output))
    files.require()
    structure = read_structure(files.topology)
    compare_settings(now, read_settings(files.settings))
    checkpoint = find_checkpoint(files, structure.num_atoms, structure.box is not None)
    files.cut_back(checkpoint.marks)
    return checkpoint.state.getStepCount()


def contents(files, step):
    """What a run holds up to a step; fails where its files disagree."""
    log, charges = read_log(files.log), load_charges(files.charges)
    frames = mdtraj.load_dcd(str(files.trajectory), top=str(files.topology))
    steps = np.arange(2, step + 1, 2)
    np.testing.assert_array_equal(log["step"], steps)
    np.testing.assert_array_equal(charges.steps, steps)
    assert frames.n_frames == len(steps)
    return log["total_eV"], charges.charges, charges.dipoles, frames.xyz


def damage(path, kind, rng, stranger):
    """Do to a file what its name says."""
    content = path.read_bytes()
    half = len(content) // 2
    if kind == "deleted":
        path.unlink()
        return
    if kind == "flipped":
        place = int(rng.integers(len(content)))
        changed = bytes([content[place] ^ (1 << int(rng.integers(8)))])
        content = content[:place] + changed + content[place + 1 :]
    elif kind == "twice":  # some part of it, as rows that were written twice
        first, last = sorted(int(k) for k in rng.integers(half, len(content), 2))
        content = content[:last] + content[first:]
    elif kind == "other run":
        content = (stranger.directory / path.name).read_bytes()
    else:
        content = {
            "empty": b"",
            "half": content[:half],
            "end off": content[: -int(rng.integers(1, 40))],
            "longer": content + rng.bytes(50),
        }[kind]
    path.write_bytes(content)


def test_other_options_are_recorded(options, killed, tmp_path):
    """The next restart goes on with them."""
    folder = Path(shutil.copytree(killed.directory, tmp_path / "run"))
    changed = dataclasses.replace(options, output=folder, friction=7.0)
    run_md(dataclasses.replace(changed, steps=2, restart=True))
    assert read_settings(folder / "run.json")["friction"] == 7.0
    again = continued_options(model=options.model, output=folder, restart=True, steps=2)
    assert again.friction == 7.0
    assert run_md(again).steps == 12


def refusal_of(options, directory):
    """The message with which a restart at step 8 is refused; ``None`` if it is not."""
    try:
        step = resume(options, directory)
    except (InputError, FileNotFoundError) as error:
        return str(error)
    assert step == 8
    return None


def test_a_restart_takes_up_what_a_kill_left(options, killed, tmp_path):
    directory = shutil.copytree(killed.directory, tmp_path / "run")
    assert resume(options, directory) == 8
    contents(RunFiles(directory), 8)


def test_damaged_files_are_refused_or_cut_to_a_whole_run(options, killed, stranger, tmp_path):
    clean = shutil.copytree(killed.directory, tmp_path / "clean")
    resume(options, clean)
    expected = contents(RunFiles(clean), 8)
    rng = np.random.default_rng(17)
    refused, continued = 0, 0
    variants = [(name, kind) for name in NAMES for kind in DAMAGES]
    variants += [(name, "flipped") for name in NAMES for _ in range(9)]
    variants += [(name, "half" if k % 2 else "twice") for name in NAMES for k in range(4)]
    assert len(variants) >= 126
    for number, (name, kind) in enumerate(variants):
        directory = shutil.copytree(killed.directory, tmp_path / str(number))
        damage(directory / name, kind, rng, stranger)
        refusal = refusal_of(options, directory)
        if refusal is not None:
            assert "\n" not in refusal.strip(), (name, kind)
            refused += 1
            continue
        continued += 1
        for ours, theirs in zip(contents(RunFiles(directory), 8), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}, {kind}")
    assert refused > 60
    assert continued > 5


def test_the_checkpoint_before_is_offered(options, killed, tmp_path):
    files = RunFiles(shutil.copytree(killed.directory, tmp_path / "run"))
    files.checkpoint.write_text("<State>")
    with pytest.raises(InputError, match=r"previous.xml \(step 8\) is whole: rename it"):
        resume(options, files.directory)
    files.previous_checkpoint.rename(files.checkpoint)
    assert resume(options, files.directory) == 8
    files.checkpoint.rename(files.previous_checkpoint)
    with pytest.raises(InputError, match=r"checkpoint.xml missing\); rename"):
        resume(options, files.directory)


def test_missing_frames_are_named(options, killed, tmp_path):
    files = RunFiles(shutil.copytree(killed.directory, tmp_path / "run"))
    files.log.unlink()
    files.trajectory.write_bytes(files.trajectory.read_bytes()[:400])
    with pytest.raises(InputError, match=r"log.csv is missing; trajectory.dcd has 400 bytes"):
        run_md(dataclasses.replace(options, output=files.directory, restart=True))
    assert not files.log.exists()
    assert files.trajectory.stat().st_size == 400


def test_another_model_is_refused(options, killed, tmp_path, ionic_model):
    files = RunFiles(shutil.copytree(killed.directory, tmp_path / "run"))
    other = tmp_path / "other.safetensors"
    save_model(ionic_model, other, {"comment": "not the same file"})
    with pytest.raises(InputError, match="model: expected the model of the run"):
        run_md(dataclasses.replace(options, output=files.directory, model=other, restart=True))
    shutil.copy(options.model, other)
    settings = read_settings(files.settings)
    same = dataclasses.replace(options, model=other, total_charge=settings["total_charge"])
    assert compare_settings(same, settings) == []
    assert len(settings["model_sha256"]) == 64
    older = {name: settings[name] for name in settings if "electrode" not in name}
    with pytest.raises(InputError, match="electrodes: expected None, as in the run"):
        compare_settings(dataclasses.replace(same, electrodes=((0,), (1,))), older)


def test_the_order_of_atoms_and_groups_does_not_matter(options, killed):
    settings = read_settings(killed.settings)
    held = {"total_charge": settings["total_charge"], "electrodes": ((1, 3), (4, 5))}
    held |= {"charge_groups": (0, 1, 0, 2, 1), "group_charges": (1.0, -1.0, 0.0)}
    before = {"electrodes": [[3, 1], [4, 5]], "charge_groups": [2, 0, 2, 1, 0]}
    before = settings | before | {"group_charges": [-1.0, 0.0, 1.0]}
    now = dataclasses.replace(options, **held)
    assert compare_settings(now, before) == []
    assert continued_settings(now, before)["charge_groups"] == before["charge_groups"]
    for name, other in (("electrodes", [[4, 5], [1, 3]]), ("group_charges", [1.0, 0.0, -1.0])):
        with pytest.raises(InputError, match=f"{name}: expected "):
            compare_settings(now, before | {name: other})


def test_a_settings_file_of_something_else(tmp_path):
    path = tmp_path / "run.json"
    with pytest.raises(InputError, match="restart: expected the settings"):
        read_settings(path)
    for content in ("", "[1]", json.dumps("run"), "{"):
        path.write_text(content)
        with pytest.raises(InputError, match="restart: expected the settings"):
            read_settings(path)


def test_a_second_process_is_refused(options, killed, tmp_path):
    directory = shutil.copytree(killed.directory, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    with directory_lock(directory), pytest.raises(DirectoryInUseError):
        run_md(dataclasses.replace(options, output=directory, restart=True))
    with directory_lock(tmp_path / "new"), pytest.raises(DirectoryInUseError):
        run_md(dataclasses.replace(options, output=tmp_path / "new"))
    after = {p.name: p.read_bytes() for p in directory.iterdir()}
    assert {**before, ".lock": b""} == {**after, ".lock": b""}


def test_a_full_disk_ends_a_run_that_can_go_on(options, tmp_path, monkeypatch):
    options = dataclasses.replace(options, steps=12, output=tmp_path / "run")
    write, calls = RecordFile.write, []

    def full(self, record):
        calls.append(record)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        write(self, record)

    monkeypatch.setattr(RecordFile, "write", full)
    with pytest.raises(NequIPLRError, match=r"No space left.*checkpoint, at step 8"):
        run_md(options)
    monkeypatch.undo()
    result = run_md(dataclasses.replace(options, steps=4, restart=True))
    assert result.steps == 12
    contents(result.files, 12)


def test_a_thermostat_goes_on_as_if_it_had_not_stopped(options, tmp_path):
    options = dataclasses.replace(options, ensemble="nvt")
    whole = run_md(dataclasses.replace(options, steps=14, output=tmp_path / "whole"))
    parts = dataclasses.replace(options, output=tmp_path / "parts")
    assert run_md(dataclasses.replace(parts, steps=7)).steps == 7
    result = run_md(dataclasses.replace(parts, steps=7, restart=True, structure=None))
    assert result.steps == 14
    for ours, theirs in zip(contents(result.files, 14), contents(whole.files, 14), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_what_stays_the_same_at_constant_pressure_is_said(options, inputs, tmp_path, capsys):
    options = dataclasses.replace(
        options,
        structure=inputs / "salt.extxyz",
        ensemble="npt",
        barostat_interval=1,
        output=tmp_path / "run",
    )
    run_md(dataclasses.replace(options, steps=2))
    result = run_md(dataclasses.replace(options, steps=2, restart=True, quiet=False))
    assert "OpenMM saves no state of a barostat" in capsys.readouterr().out
    contents(result.files, 4)


# ----------------------------------------------------------------------------------- unstable runs


def test_an_unstable_run_stops_with_its_last_good_checkpoint(options, tmp_path):
    options = dataclasses.replace(options, output=tmp_path / "run", timestep=20.0, steps=800)
    with pytest.raises(NequIPLRError, match=r"unstable .*--restart continues from the last good"):
        run_md(options)
    files = RunFiles(options.output)
    structure = read_structure(files.topology)
    state = find_checkpoint(files, structure.num_atoms, False).state
    positions = 10 * state.getPositions(asNumpy=True)._value
    assert np.isfinite(positions).all()
    assert read_log(files.log)["temperature_K"].max(initial=0.0) < 5000.0


def test_a_start_with_atoms_on_top_of_one_another(options, inputs, tmp_path, cluster, capsys):
    close = cluster.copy()
    close.positions[1] = close.positions[0] + [0.5, 0.0, 0.0]
    close.write(tmp_path / "close.extxyz")
    options = dataclasses.replace(
        options, structure=tmp_path / "close.extxyz", output=tmp_path / "run", steps=0
    )
    with pytest.raises(NequIPLRError, match=r"unstable at step 0: atoms 0 .* 0.50 Å apart"):
        run_md(options)
    assert not RunFiles(options.output).checkpoint.exists()
    run_md(dataclasses.replace(options, on_unstable="warn"))
    assert "warning: unstable at step 0: atoms 0" in capsys.readouterr().err
