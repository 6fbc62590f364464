"""Marks of growing files: what belongs to a checkpoint, and what was changed since."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import app, unit

from openmm_nequiplr.simulation.marks import compare, cut_to, extend_mark
from openmm_nequiplr.simulation.reporters import RecordFile, load_charges, record_dtype


def write_log(path, frames, append):
    with open(path, "a" if append else "w", encoding="utf-8") as handle:
        handle.writelines(f"{step},{0.5 * step}\n" for step in frames)


def write_records(path, frames, append):
    file = RecordFile(path, record_dtype(3), append)
    for step in frames:
        record = np.zeros((), dtype=file.dtype)
        record["step"], record["charges"] = step, step
        file.write(record)
    file.close()


def write_trajectory(path, frames, append):
    topology = app.Topology()
    residue = topology.addResidue("A", topology.addChain())
    for _ in range(3):
        topology.addAtom("H", app.element.hydrogen, residue)
    with open(path, "r+b" if append else "wb") as handle:
        file = app.DCDFile(handle, topology, 0.001 * unit.picosecond, 2, 2, append)
        for step in frames:
            file.writeModel(np.full((3, 3), 0.1 * step))


KINDS = {"log.csv": write_log, "charges.npy": write_records, "trajectory.dcd": write_trajectory}


@pytest.fixture(params=list(KINDS))
def file(request, tmp_path):
    """A file with three frames, its mark at the second, and the function that adds frames."""
    path, write = tmp_path / request.param, KINDS[request.param]
    write(path, [2], False)
    first = extend_mark(path)
    write(path, [4], True)
    second = extend_mark(path, first)
    assert second == extend_mark(path)  # whether read at once or piece by piece
    assert second.size > first.size
    write(path, [6], True)
    return path, second, write


def test_a_file_may_have_grown(file):
    path, mark, _ = file
    assert compare(path, mark) is None
    assert compare(path, mark, whole=True) is not None


def test_cutting_brings_the_file_of_the_checkpoint_back(file, tmp_path):
    path, mark, write = file
    cut_to(path, mark)
    other = tmp_path / "other" / path.name
    other.parent.mkdir()
    write(other, [2], False)
    write(other, [4], True)
    ours, theirs = path.read_bytes(), other.read_bytes()
    if path.suffix == ".dcd":  # its header has the time of day
        ours, theirs = ours[:96] + ours[276:], theirs[:96] + theirs[276:]
    assert ours == theirs
    write(path, [6], True)
    assert compare(path, mark) is None
    if path.suffix == ".npy":
        np.testing.assert_array_equal(load_charges(path).steps, [2, 4, 6])


def test_changes_are_found(file, rng):
    path, mark, _ = file
    content = path.read_bytes()
    path.write_bytes(content[: mark.size - 1])
    assert "bytes, and had" in compare(path, mark)
    path.write_bytes(b"")
    assert compare(path, mark) is not None
    path.unlink()
    assert compare(path, mark) == f"{path.name} is missing"
    start = {".dcd": 276, ".npy": 128, ".csv": 0}[path.suffix]
    for place in rng.integers(start, mark.size, 20):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert compare(path, mark) == f"{path.name} holds something else"
