"""Structures on disk: as in memory, read once, stale and damaged stores noticed."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from openmm_nequiplr.data import store
from openmm_nequiplr.data.keys import DataKeys
from openmm_nequiplr.data.reading import read_structures
from openmm_nequiplr.data.store import Stored, remove_others, store_of
from openmm_nequiplr.data.structure import Structure
from openmm_nequiplr.data.units import DataUnits
from openmm_nequiplr.locking import directory_lock

FRAMES = 11


@pytest.fixture
def data_file(tmp_path, rng):
    """Frames with and without a cell, labels of their own, and forces that are zero throughout."""
    from ase import Atoms
    from ase.io import write

    frames = []
    for number in range(FRAMES):
        count = 2 + number % 3
        atoms = Atoms("OHHNa"[: count + 1][:count], rng.random((count, 3)) * 4.0)
        if number % 2:
            atoms.set_cell(np.eye(3) * (6.0 + number))
            atoms.pbc = True
            atoms.info["REF_stress"] = rng.normal(size=9)
        if number != 3:
            atoms.info["REF_energy"] = float(rng.normal())
        atoms.arrays["REF_forces"] = np.zeros((count, 3))
        atoms.arrays["REF_charges"] = rng.normal(size=count)
        atoms.info["config_weight"] = float(number)
        if number == 4:
            atoms.arrays["charge_group"] = np.arange(count) % 2
            atoms.info["group_charges"] = [0.25, -0.25]
            atoms.arrays["born_charges"] = rng.normal(size=(count, 9))
            atoms.info["polarizability"] = np.eye(3)
            atoms.arrays["outside_potential"] = rng.normal(size=count)
            atoms.arrays["outside_field"] = rng.normal(size=(count, 3))
        if number == 5:
            atoms.pbc = [True, True, False]
        frames.append(atoms)
    path = tmp_path / "data.extxyz"
    write(path, frames)
    return path


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of a few structures."""
    monkeypatch.setattr(store, "IN_MEMORY", 500.0)
    monkeypatch.setattr(store, "SHARD", 500.0)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.origin == other.origin
        for each in dataclasses.fields(one):
            a, b = getattr(one, each.name), getattr(other, each.name)
            assert type(a) is type(b), each.name
            assert np.array_equal(a, b), each.name


def read(path, directory, **options):
    said = []
    return read_structures(path, store=directory, say=said.append, **options), said


def test_many_structures_are_kept_on_disk_and_are_the_same(data_file, tmp_path, small_shards):
    said = []
    expected = read_structures(data_file, say=said.append)
    found, remarks = read(data_file, tmp_path / "store")
    assert isinstance(found, Stored)
    assert len(found.shards) > 2
    assert_same(found, expected)
    assert remarks == said
    assert any("all values are zero" in line for line in said)
    assert found[-1].origin == expected[-1].origin
    assert_same(found[2:9:3], expected[2:9:3])
    assert_same(pickle.loads(pickle.dumps(found)), expected)


def test_forces_that_ase_hands_over_transposed(tmp_path, rng, small_shards):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    sites = 2.0 * np.eye(4, 3)
    frames = [Atoms("OHHNa", sites + 0.1 * rng.random((4, 3))) for _ in range(FRAMES)]
    for atoms in frames:
        forces = rng.normal(size=(4, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces)
    write(tmp_path / "data.extxyz", frames)
    expected = read_structures(tmp_path / "data.extxyz", say=str)
    found, _ = read(tmp_path / "data.extxyz", tmp_path / "store")
    assert isinstance(found, Stored)
    assert_same(found, expected)
    transposed = dataclasses.replace(expected[0], forces=np.asfortranarray(expected[0].forces))
    stored = store._arrays([transposed])
    assert all(values.flags.c_contiguous for values in stored.values())


def test_all_of_a_structure_is_kept():
    names = {each.name for each in dataclasses.fields(Structure)}
    assert names == {name for name, _, _ in store._LAYOUT} | {"symbols", "origin"}


def test_few_structures_stay_in_memory(data_file, tmp_path):
    found, _ = read(data_file, tmp_path / "store")
    assert isinstance(found, list)
    assert not (tmp_path / "store").exists()


def test_a_store_takes_the_place_of_the_file(data_file, tmp_path, small_shards, monkeypatch):
    first, said = read(data_file, tmp_path / "store")
    expected = list(first)
    monkeypatch.setattr("openmm_nequiplr.data.reading.read_extxyz", None)
    found, again = read(data_file, tmp_path / "store")
    assert_same(found, expected)
    assert again == said


@pytest.mark.parametrize("what", ["units", "file"])
def test_a_stale_store_is_made_anew(data_file, tmp_path, small_shards, what):
    read(data_file, tmp_path / "store")
    options = {}
    if what == "units":
        options["units"] = DataUnits("angstrom", "hartree")
    else:
        lines = data_file.read_text().splitlines(keepends=True)
        data_file.write_text("".join(lines[: -(2 + (FRAMES - 1) % 3) - 2]))
    found, said = read(data_file, tmp_path / "store", **options)
    assert_same(found, read_structures(data_file, say=said.append, **options))
    one, other = sorted((tmp_path / "store").iterdir(), key=lambda each: each == found.directory)
    assert other == found.directory
    mine = tmp_path / "store" / "mine"
    mine.mkdir()
    with directory_lock(one):  # another process writes it
        remove_others(tmp_path / "store", {other})
    assert {*one.parent.iterdir()} == {one, other, mine}
    remove_others(tmp_path / "store", {other})
    assert {*one.parent.iterdir()} == {other, mine}
    assert_same(read(data_file, tmp_path / "store", **options)[0], list(found))


_READ = """
import os, sys, time
from pathlib import Path
from openmm_nequiplr.data import store
from openmm_nequiplr.data.reading import read_structures
data, directory, ready = map(Path, sys.argv[1:])
store.IN_MEMORY = store.SHARD = 500.0
write = store.Store._write
def slowly(self, *arguments):
    print("written", flush=True)
    time.sleep(0.1)
    return write(self, *arguments)
store.Store._write = slowly
(ready / str(os.getpid())).touch()
while len(list(ready.iterdir())) < 2:
    time.sleep(0.01)
found = read_structures(data, store=directory)
print(type(found).__name__, len(found), sum(each.positions.sum() for each in found))
"""


def test_one_of_two_processes_writes(data_file, tmp_path):
    """The other one waits for it in the middle of the file, and finds the same."""
    (tmp_path / "ready").mkdir()
    command = [sys.executable, "-c", _READ, data_file, tmp_path / "store", tmp_path / "ready"]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    one, two = sorted((each.communicate()[0].split("\n") for each in pair), key=len)
    assert "written" in two
    assert "written" not in one
    assert one[-2:] == two[-2:]
    assert one[-2].startswith(f"Stored {FRAMES} ")


@pytest.mark.parametrize("what", ["bit", "cut", "missing", "index", "entry"])
def test_damage_is_noticed(data_file, tmp_path, small_shards, what):
    first, _ = read(data_file, tmp_path / "store")
    expected, directory = list(first), first.directory
    shard, index = directory / first.shards[1]["file"], directory / store.INDEX
    content = bytearray(shard.read_bytes())
    if what == "bit":
        content[-3] ^= 4
        shard.write_bytes(content)
    elif what == "cut":
        shard.write_bytes(content[:-8])
    elif what == "missing":
        shard.unlink()
    elif what == "index":
        index.write_text(index.read_text()[:-30])
    else:
        entries = json.loads(index.read_text())
        del entries["remarks"]
        index.write_text(json.dumps(entries))
    found, said = read(data_file, tmp_path / "store")
    assert what == "missing" or any("damaged" in line for line in said)
    assert_same(found, expected)
    assert_same(read(data_file, tmp_path / "store")[0], expected)


def test_an_interrupted_store_is_none(data_file, tmp_path, small_shards, monkeypatch):
    """The index comes last."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("openmm_nequiplr.data.extxyz.finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(data_file, tmp_path / "store")
    expected = read_structures(data_file, say=lambda line: None)
    assert_same(read(data_file, tmp_path / "store")[0], expected)


def test_files_have_a_store_each(data_file, tmp_path, small_shards):
    other = tmp_path / "other" / data_file.name
    other.parent.mkdir()
    other.write_bytes(data_file.read_bytes())
    found, _ = read([data_file, other], tmp_path / "store")
    one, two = (store_of(path, tmp_path / "store").directory for path in (data_file, other))
    assert one != two
    assert_same(found, [*read_structures(data_file), *read_structures(other)])


def test_one_file_with_two_keys_has_two_stores(data_file, tmp_path, small_shards):
    """The second reading leaves the structures of the first as they are."""
    named = DataKeys(forces="REF_forces")
    found, _ = read(data_file, tmp_path / "store")
    others, _ = read(data_file, tmp_path / "store", keys=named)
    found._open.clear()
    assert found[0].forces is None
    assert_same(found, read_structures(data_file, say=str))
    assert_same(others, read_structures(data_file, named, say=str))


def test_pages_that_were_read_are_given_back(data_file, tmp_path, small_shards):
    found, _ = read(data_file, tmp_path / "store")
    for structure in found:
        assert structure.num_atoms
        assert not found._open
