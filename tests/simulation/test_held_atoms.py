"""Runs of structures that hold atoms fixed, give masses, or leave the charge open."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import openmm
import pytest
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixScaled
from ase.io import read

from openmm_nequiplr import create_system, save_model
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import from_atoms, read_structure, to_atoms
from openmm_nequiplr.simulation.md import MDOptions, run_md
from openmm_nequiplr.simulation.runfiles import read_log
from openmm_nequiplr.total_charge import charges_entry


@pytest.fixture
def held(cluster):
    """A cluster with three fixed atoms and a heavy one."""
    atoms = cluster.copy()
    atoms.set_constraint(FixAtoms(indices=[0, 2, 5]))
    masses = atoms.get_masses()
    masses[1] = 50.0
    atoms.set_masses(masses)
    atoms.info["total_charge"] = 0
    return atoms


@pytest.fixture
def options(ionic_model, tmp_path):
    save_model(ionic_model, tmp_path / "salt.safetensors")
    return MDOptions(
        model=tmp_path / "salt.safetensors", ensemble="nve", steps=2, seed=1, platform="Reference",
        report_interval=2, output=tmp_path / "run", quiet=True,
    )  # fmt: skip


def test_masses_of_structures(held):
    found = from_atoms(held)
    np.testing.assert_array_equal(np.flatnonzero(found.frozen), [0, 2, 5])
    assert found.masses[1] == 50.0
    plain = held.copy()
    plain.set_constraint()
    plain.set_masses("defaults")
    system = openmm.System()
    for atom in from_atoms(plain).topology.atoms():
        system.addParticle(atom.element.mass)
    expected = [system.getParticleMass(k)._value for k in range(8)]
    np.testing.assert_array_equal(from_atoms(plain).masses, expected)
    back = to_atoms(found.topology, found.positions, masses=found.masses)
    np.testing.assert_array_equal(back.constraints[0].index, [0, 2, 5])
    assert back.get_masses()[1] == 50.0
    held.set_masses(np.full(8, -1.0))
    with pytest.raises(InputError, match=r"masses\[0\]: expected a mass in Da from 0.01"):
        from_atoms(held)


def test_selective_dynamics(cluster, tmp_path):
    cluster = cluster.copy()
    cluster.cell, cluster.pbc = [12, 12, 12], True
    cluster.set_constraint(FixAtoms(indices=[3]))
    cluster.write(tmp_path / "POSCAR", format="vasp")
    assert list(np.flatnonzero(read_structure(tmp_path / "POSCAR").frozen)) == [3]
    cluster.set_constraint(FixScaled(3, (False, False, True), cluster.cell))
    cluster.write(tmp_path / "POSCAR", format="vasp")
    cluster.set_constraint(FixCartesian(3, mask=(False, False, True)))
    cluster.write(tmp_path / "a.extxyz")
    for name in ("POSCAR", "a.extxyz"):
        found = read_structure(tmp_path / name)
        assert not found.frozen.any()
        assert len(found.constraints) == 1


def test_systems_take_masses(ionic_model, held):
    start = from_atoms(held)
    dalton, second = openmm.unit.dalton, openmm.unit.second
    for masses in (start.masses, start.masses * dalton, [mass * dalton for mass in start.masses]):
        system = create_system(start.topology, ionic_model, total_charge=0, masses=masses)
        found = [system.getParticleMass(k)._value for k in range(8)]
        np.testing.assert_array_equal(found, start.masses)
        assert not any(isinstance(f, openmm.CMMotionRemover) for f in system.getForces())
    for masses in (start.masses[:3], [-1.0] * 8, ["heavy"] * 8, start.masses * second):
        with pytest.raises(InputError, match="masses: expected 8 finite masses"):
            create_system(start.topology, ionic_model, total_charge=0, masses=masses)


@pytest.mark.parametrize("ensemble", ["nve"])
def test_held_atoms_stay_in_runs_and_restarts(options, held, tmp_path, ensemble):
    held.write(tmp_path / "held.traj")
    options = dataclasses.replace(options, structure=tmp_path / "held.traj", ensemble=ensemble)
    for restart in (False, True):
        result = run_md(dataclasses.replace(options, restart=restart))
        last = read(result.files.final)
        np.testing.assert_allclose(last.positions[[0, 2, 5]], held.positions[[0, 2, 5]], atol=2e-6)
        assert np.linalg.norm(last.positions - held.positions, axis=1)[[1, 3, 4]].min() > 1e-4
        np.testing.assert_array_equal(last.constraints[0].index, [0, 2, 5])
        assert last.get_masses()[1] == 50.0
    if ensemble == "nve":
        log = read_log(result.files.log)
        temperature = 2 * log["kinetic_eV"] / (15 * 8.617333262e-5)
        np.testing.assert_allclose(log["temperature_K"], temperature, rtol=1e-3)


def test_what_cannot_be_held_is_refused(options, held, rock_salt, tmp_path):
    held.set_constraint(FixBondLengths([[0, 1]]))
    held.write(tmp_path / "bonds.traj")
    with pytest.raises(InputError, match="structure: expected no constraints .*FixBondLengths"):
        run_md(dataclasses.replace(options, structure=tmp_path / "bonds.traj"))
    salt = rock_salt.copy()
    salt.set_constraint(FixAtoms(indices=[0]))
    salt.write(tmp_path / "salt.traj")
    with pytest.raises(InputError, match="ensemble: expected nve or nvt, .* 1 atoms .* held fixed"):
        run_md(dataclasses.replace(options, structure=tmp_path / "salt.traj", ensemble="npt"))


def test_the_first_line_and_the_charge(options, cluster, ionic_model, tmp_path, capsys):
    cluster.write(tmp_path / "a.extxyz")
    options = dataclasses.replace(
        options, structure=tmp_path / "a.extxyz", steps=0, quiet=False, threads=1
    )
    with pytest.warns(NequIPLRWarning, match=r"0 is assumed, because .*a\.extxyz does not tell"):
        result = run_md(options)
    assert capsys.readouterr().out.splitlines()[0] == (
        "8 atoms Na4Cl4, charge 0 (assumed), no box, Reference, 1 thread, charges by dense solve, "
        "Coulomb energy by a sum over all pairs"
    )
    assert json.loads(result.files.settings.read_text())["total_charge"] == 0.0
    neutral = tmp_path / "neutral.safetensors"
    save_model(ionic_model, neutral, charges_entry([0.0]))
    other = dataclasses.replace(options, model=neutral, output=tmp_path / "other")
    with pytest.warns(NequIPLRWarning, match=r"\+1 e, but the model was trained on .* 0 e only"):
        run_md(dataclasses.replace(other, total_charge=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", NequIPLRWarning)
        run_md(dataclasses.replace(options, restart=True))


def test_a_rotated_cell_is_said(skewed_salt, rock_salt):
    with pytest.warns(NequIPLRWarning, match="cell is rotated"):
        from_atoms(skewed_salt)
    left = rock_salt.copy()
    left.set_cell(left.cell.array * [[1], [1], [-1]])
    with pytest.warns(NequIPLRWarning, match="left-handed"):
        found = from_atoms(left)
    np.testing.assert_allclose(
        to_atoms(found.topology, found.positions, found.box).get_all_distances(mic=True),
        left.get_all_distances(mic=True),
        atol=1e-9,
    )
