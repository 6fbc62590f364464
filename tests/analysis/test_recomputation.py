"""Evaluation along trajectories against single evaluations, and going on where one stopped."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from ase.build import bulk

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.analysis import TrajectoryProperties, recomputation, recompute
from openmm_nequiplr.errors import InputError, NequIPLRWarning, UnknownElementError


@pytest.fixture
def walk(crystal, rng):
    """Six frames in which atoms move, the cell breathes, and nothing is wrapped."""
    frames = []
    for number in range(6):
        atoms = crystal.copy() if not frames else frames[-1].copy()
        atoms.positions += rng.normal(scale=0.15, size=(6, 3))
        scale = crystal.cell.array * (1.0 + 0.01 * np.sin(number))
        atoms.set_cell(scale, scale_atoms=True)
        frames.append(atoms)
    return frames


def one_by_one(model, frames, **options):
    """The slow way: a calculator, which searches neighbours anew for every frame."""
    results = []
    calculator = NequIPLRCalculator(model, **options)
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms.get_forces()
        results.append(atoms.calc.results)
    return {k: np.array([r[k] for r in results]) for k in ("energy", "forces", "charges", "dipole")}


def assert_same(first, second):
    for name in (field.name for field in dataclasses.fields(TrajectoryProperties)):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_they_are_those_of_single_evaluations(make_model, walk):
    model = make_model()
    found = recompute(model, walk, forces=True)
    expected = one_by_one(model, walk)
    np.testing.assert_allclose(found.energies, expected["energy"], atol=1e-9)
    np.testing.assert_allclose(found.forces, expected["forces"], atol=1e-9)
    np.testing.assert_allclose(found.charges, expected["charges"], atol=1e-10)
    np.testing.assert_allclose(found.dipoles, expected["dipole"], atol=1e-9)
    np.testing.assert_allclose(found.volumes, [atoms.get_volume() for atoms in walk])
    assert found.symbols == tuple(walk[0].symbols)
    np.testing.assert_array_equal(found.frames, np.arange(6))
    assert recompute(model, walk).forces is None


def test_molecules_with_a_charge(make_model, molecule, rng):
    model = make_model()
    frames = []
    for _ in range(3):
        atoms = molecule.copy()
        atoms.positions += rng.normal(scale=0.1, size=(7, 3))
        atoms.info["total_charge"] = 1.0
        frames.append(atoms)
    found = recompute(model, frames)
    np.testing.assert_allclose(found.energies, one_by_one(model, frames)["energy"], atol=1e-9)
    np.testing.assert_allclose(found.charges.sum(axis=1), 1.0)
    assert np.isnan(found.volumes).all()
    other = recompute(model, frames, total_charge=0.0)
    np.testing.assert_allclose(other.charges.sum(axis=1), 0.0, atol=1e-12)


def test_the_iterative_solver_goes_on_from_frame_to_frame(make_model, rng):
    model = make_model(r_max=3.2)
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True).repeat((2, 2, 1))
    frames = []
    for _ in range(4):
        atoms = atoms.copy()
        atoms.positions += rng.normal(scale=0.03, size=(32, 3))
        frames.append(atoms)
    iterations = []
    found = recompute(
        model,
        frames,
        forces=True,
        solver="iterative",
        charge_tolerance=1e-8,
        on_frame=lambda frame, evaluation: iterations.append(evaluation.iterations[0]),
    )
    expected = one_by_one(model, frames, solver="dense")
    np.testing.assert_allclose(found.energies, expected["energy"], atol=1e-4)
    np.testing.assert_allclose(found.charges, expected["charges"], atol=1e-6)
    assert iterations[-1] > 0


def test_wrapped_atoms_are_followed(make_model, walk, rng):
    """Charges and energies do not see images; dipoles continue those of the first frame."""
    model = make_model()
    wrapped = [atoms.copy() for atoms in walk]
    for atoms in wrapped[1:]:
        atoms.positions += rng.integers(-2, 3, size=(6, 3)) @ atoms.cell.array
    plain, found = recompute(model, walk), recompute(model, wrapped)
    np.testing.assert_allclose(found.energies, plain.energies, atol=1e-9)
    np.testing.assert_allclose(found.dipoles, plain.dipoles, atol=1e-8)
    raw = np.array([c @ a.positions for c, a in zip(found.charges, wrapped, strict=True)])
    assert np.abs(raw - plain.dipoles).max() > 1.0


def test_boxes_by_other_vectors_are_the_same_lattice(make_model, walk):
    """As a flexible barostat chooses them anew: no atom moves."""
    model = make_model()
    bases = ([1, 0, 0], [-1, 1, 0], [1, -1, 1]), ([1, 0, 0], [0, 1, 0], [-1, 0, 1])
    flipped = [atoms.copy() for atoms in walk]
    for number, atoms in enumerate(flipped[1:]):
        atoms.set_cell(np.array(bases[number % 2]) @ atoms.cell.array)
    wrapped = [atoms.copy() for atoms in flipped]
    for atoms in wrapped[1:]:
        atoms.wrap()
    plain = recompute(model, walk)
    for frames in (flipped, wrapped):
        found = recompute(model, frames)
        np.testing.assert_allclose(found.energies, plain.energies, atol=1e-8)
        np.testing.assert_allclose(found.dipoles, plain.dipoles, atol=1e-7)


def test_going_on_gives_the_whole(make_model, walk, tmp_path):
    """After an interruption in the middle, with atoms that were wrapped since."""
    model, output = make_model(), tmp_path / "p.npz"
    for number, atoms in enumerate(walk[1:], start=1):
        atoms.positions[number % 6] += [1, -1, 2] @ atoms.cell.array
    whole = recompute(model, walk, forces=True)
    seen = []

    def stop(frame, evaluation):
        seen.append(frame.index)
        if frame.index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recompute(model, walk, forces=True, output=output, on_frame=stop)
    assert TrajectoryProperties.load(output).num_frames == 4
    found = recompute(
        model,
        walk,
        forces=True,
        output=output,
        resume=True,
        on_frame=lambda f, e: seen.append(f.index),
    )
    assert seen == list(range(6))
    np.testing.assert_allclose(found.dipoles, whole.dipoles, atol=1e-9)
    np.testing.assert_allclose(found.forces, whole.forces, atol=1e-9)
    assert_same(found, TrajectoryProperties.load(output))
    again = recompute(model, walk, forces=True, output=output, resume=True)
    assert_same(found, again)


def test_results_are_saved_on_the_way(make_model, walk, tmp_path, monkeypatch):
    monkeypatch.setattr(recomputation, "_SECONDS_BETWEEN_SAVES", 0.0)
    output, there = tmp_path / "p.npz", []

    def look(frame, evaluation):
        there.append(TrajectoryProperties.load(output).num_frames if output.exists() else 0)

    recompute(make_model(), walk, output=output, on_frame=look)
    assert there == list(range(6))


def _told(atoms, info=(), arrays=(), pbc=None):
    told = atoms.copy()
    told.info.update(info)
    for name, values in dict(arrays).items():
        told.set_array(name, np.array(values))
    told.pbc = atoms.pbc if pbc is None else pbc
    return told


def test_results_of_something_else_are_not_continued(make_model, walk, tmp_path):
    model, output = make_model(), tmp_path / "p.npz"
    recompute(model, walk[:4], output=output)
    go_on = {"output": output, "resume": True}
    with pytest.raises(InputError, match="resume: .*results of another model"):
        recompute(make_model(num_features=2), walk, **go_on)
    with pytest.raises(InputError, match="resume: .*another total charge"):
        recompute(model, walk, total_charge=1.0, **go_on)
    with pytest.raises(InputError, match="resume: .*another choice of forces"):
        recompute(model, walk, forces=True, **go_on)
    with pytest.raises(InputError, match="resume: .*another atoms"):
        recompute(model, [atoms[:5] for atoms in walk], **go_on)
    with pytest.raises(InputError, match="resume: .*results of other positions in frame 3"):
        recompute(model, walk[::-1], **go_on)
    with pytest.raises(InputError, match="resume: .*results up to frame 3"):
        recompute(model, walk, stride=2, **go_on)
    held = [_told(atoms, arrays={"charge_group": [0, 0, 0, 1, 1, 1]}) for atoms in walk]
    for frames, what in (
        ([_told(atoms, info={"electric_field": [0.0, 0.1, 0.0]}) for atoms in walk], "field"),
        ([_told(atoms, pbc=[True, True, False]) for atoms in walk], "boundary"),
        (held, "groups"),
        ([_told(atoms, arrays={"electrode": [1, 0, 0, 2, 0, 0]}) for atoms in walk], "electrodes"),
    ):
        with pytest.raises(InputError, match=f"resume: .*results of another .*{what}"):
            recompute(model, frames, **go_on)
    recompute(model, held[:4], output=tmp_path / "held.npz")
    again = recompute(model, held, output=tmp_path / "held.npz", resume=True)
    np.testing.assert_allclose(again.charges[:, :3].sum(axis=1), 0.0, atol=1e-9)
    with pytest.raises(InputError, match="resume: expected False without an output"):
        recompute(model, walk, resume=True)
    assert TrajectoryProperties.load(output).num_frames == 4


def test_a_bad_frame_is_named_and_the_others_are_kept(make_model, walk, tmp_path):
    walk[4].positions[2] = np.nan
    with pytest.raises(InputError, match="structures, frame 4: positions: expected finite"):
        recompute(make_model(), walk, output=tmp_path / "p.npz")
    assert TrajectoryProperties.load(tmp_path / "p.npz").num_frames == 4


def test_arguments_that_do_not_fit(make_model, walk):
    with pytest.raises(UnknownElementError, match="O"):
        recompute(make_model(type_names=("Na", "Cl")), walk)
    with pytest.raises(InputError, match="precision: expected"):
        recompute(make_model(), walk, precision="half")


def test_the_model_is_left_alone(make_model, walk):
    model = copy.deepcopy(make_model()).requires_grad_()
    recompute(model, walk[:1], precision="single")
    assert model.dtype.itemsize == 8
    assert next(model.parameters()).requires_grad


def test_frames_without_cell_of_a_periodic_model_are_told(make_model, molecule):
    model = copy.deepcopy(make_model())
    model.metadata["periodic"] = "True"
    with pytest.warns(NequIPLRWarning, match="frame 0 of structures has no cell .*only"):
        recompute(model, [molecule], total_charge=0)
