"""Structures of several files, each read in its own way."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from openmm_nequiplr.boundaries import BULK, FREE, SLAB
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.config import parse_config
from openmm_nequiplr.training.preparation import batch_structures, read_parts, threads_of


def frames(key: str) -> list[Atoms]:
    """Three frames of other boundaries and charges."""
    found = []
    for number, pbc in enumerate((False, True, (True, True, False))):
        atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]], cell=[6.0, 6.0, 20.0], pbc=pbc)
        atoms.info.update({key: -float(number), "total_charge": number, "config_weight": 3.0})
        found.append(atoms)
    return found


@pytest.fixture
def raw(tmp_path):
    """Entries of a training on two files."""
    for name, key in (("a", "e_low"), ("b", "e_high")):
        write(tmp_path / f"{name}.extxyz", frames(key))
    files = [{"path": "a.extxyz", "keys": {"energy": "e_low"}, "weight": 0.5}, "b.extxyz"]
    data = {"train": files, "keys": {"energy": "e_high"}, "num_validation": 1}
    return {"data": data, "model": {"r_max": 4.0}, "loss": {"forces": 0.0}}


def test_keys_and_weights_are_those_of_the_file(raw, tmp_path):
    """And boundaries and charges those of the frame."""
    parts = read_parts(parse_config(raw), tmp_path / "training.yaml")
    found = sorted([*parts.train, *parts.validation], key=lambda s: s.origin)
    assert [s.weight for s in found] == [1.5] * 3 + [3.0] * 3
    assert [s.energy for s in found] == [0.0, -1.0, -2.0] * 2
    assert [s.total_charge for s in found] == [0.0, 1.0, 2.0] * 2
    assert [s.pbc for s in found] == [FREE, BULK, SLAB] * 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "a.extxyz", "weight": -1.0}, r"data\.train\.weight of a.*: expected at least 0"),
        ({"path": "a.extxyz", "wieght": 1.0}, r"data\.train.*weight"),
        ({"weight": 1.0}, r"data\.train\.path: expected an entry"),
    ],
)
def test_mistakes_are_named(raw, entry, message):
    raw["data"]["train"] = entry
    with pytest.raises(InputError, match=message):
        parse_config(raw)


def test_batches_by_atoms_and_threads_for_them(raw, tmp_path):
    structures = read_parts(parse_config(raw), tmp_path / "training.yaml").train
    assert batch_structures(parse_config(raw), structures) == 4
    config = parse_config(raw | {"batch_atoms": 7})
    assert batch_structures(config, structures) == round(7 / 2)
    assert threads_of(config, structures) == 1
    assert threads_of(parse_config(raw | {"num_threads": 3}), structures) == 3
    assert np.isclose(batch_structures(parse_config(raw | {"batch_atoms": 1}), structures), 1)
