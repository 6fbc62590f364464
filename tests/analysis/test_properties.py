"""Properties along trajectories: files, and what a continuation compares."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openmm_nequiplr.analysis import TrajectoryProperties
from openmm_nequiplr.analysis.properties import check_same
from openmm_nequiplr.errors import InputError

SHAPES = {
    "frames": (3,), "times": (3,), "energies": (3,), "charges": (3, 2), "dipoles": (3, 3),
    "volumes": (3,), "last_positions": (2, 3), "last_cell": (3, 3),
}  # fmt: skip
OPTIONAL = {
    "forces": (3, 2, 3), "born_dipoles": (3, 3), "polarizabilities": (3, 3, 3),
    "last_born": (2, 3, 3), "last_field": (3,), "charge_groups": (2,), "group_charges": (1,),
    "applied": (2,),
}  # fmt: skip


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES | OPTIONAL])
def test_files_hold_everything(shapes, rng, tmp_path):
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    arrays["times"][1] = np.nan
    found = TrajectoryProperties(
        **arrays, symbols=("Na", "Cl"), total_charge=-1.0, model_digest="abc", slab=True
    )
    assert found.num_frames == 3
    found.save(tmp_path / "p.npz")
    again = TrajectoryProperties.load(tmp_path / "p.npz")
    for field in dataclasses.fields(TrajectoryProperties):
        one, other = getattr(found, field.name), getattr(again, field.name)
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other, err_msg=field.name)
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", charges=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(InputError, match=r"file: expected a file written by TrajectoryProp"):
            TrajectoryProperties.load(tmp_path / name)


def test_what_a_continuation_compares():
    for same in ((None, None), ("a", "a"), (np.ones(3), np.ones(3) + 1e-12)):
        check_same("voltage", *same)
    for old, new in ((None, np.ones(1)), (1.0, 2.0), (np.ones(3), np.ones(2)), (np.ones(1), 1.0)):
        with pytest.raises(InputError, match="resume: .* got 'results of another voltage'"):
            check_same("voltage", old, new)
