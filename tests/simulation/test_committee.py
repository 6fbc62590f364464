"""A committee along a trajectory: what is written, what is saved, when it stops."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from ase.io import read
from openmm import unit

from openmm_nequiplr import CommitteeReporter, save_model
from openmm_nequiplr.errors import InputError, UncertaintyError, UnknownElementError
from openmm_nequiplr.model.committee import Committee
from openmm_nequiplr.simulation import get_computation, load_charges, load_spread
from openmm_nequiplr.simulation.md import continued_options, run_md
from openmm_nequiplr.simulation.runfiles import RunFiles, read_log

from .twins import PLATFORMS, Frames, simulation_of


@pytest.fixture(scope="module")
def others(ionic_model, shaken):
    """Two models that differ a little from the ionic one."""
    return [shaken(ionic_model, seed) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("platform", "name"),
    [("Reference", "cluster"), *((name, "tiny_salt") for name in PLATFORMS)],
    indirect=["platform"],
)
def test_spread_of_every_frame(tmp_path, ionic_model, others, request, platform, name):
    atoms = request.getfixturevalue(name)
    simulation = simulation_of(atoms, ionic_model, platform=platform, long_range="graph")
    kept = Frames(2)
    simulation.reporters += [CommitteeReporter(tmp_path / "s.npy", 2, others), kept]
    simulation.step(4)
    found = load_spread(tmp_path / "s.npy")
    np.testing.assert_array_equal(found.steps, [2, 4])
    np.testing.assert_allclose(found.times, [0.002, 0.004])
    committee = Committee([copy.deepcopy(m) for m in (ionic_model, *others)])
    for index, (positions, box) in enumerate(kept.frames):
        expected = committee(atoms.numbers, positions, box, atoms.pbc).spread
        assert found.energy[index] == pytest.approx(expected.energy, rel=1e-4)
        np.testing.assert_allclose(found.forces[index], expected.forces, atol=1e-5)
        np.testing.assert_allclose(found.charges[index], expected.charges, atol=1e-6)
    assert found.forces.max() > 1e-3
    assert found.charges.max() > 1e-3


def test_identical_models_are_not_spread(tmp_path, ionic_model, rock_salt):
    """All members sum their charges alike, the delegated part included."""
    simulation = simulation_of(rock_salt, ionic_model)
    simulation.reporters.append(CommitteeReporter(tmp_path / "s.npy", 1, [ionic_model]))
    simulation.step(2)
    found = load_spread(tmp_path / "s.npy")
    assert not found.forces.any()
    assert not found.charges.any()
    assert not found.energy.any()


def test_only_one_drives_and_reports_are_rare(tmp_path, ionic_model, others, cluster):
    alone = simulation_of(cluster, ionic_model)
    alone.step(6)
    simulation = simulation_of(cluster, ionic_model)
    reporter = CommitteeReporter(tmp_path / "s.npy", 3, others)
    simulation.reporters.append(reporter)
    simulation.step(6)
    expected, found = (
        s.context.getState(positions=True).getPositions(asNumpy=True)._value
        for s in (alone, simulation)
    )
    np.testing.assert_array_equal(found, expected)
    assert [member.evaluations for member in reporter._members] == [7, 2, 2]
    assert get_computation(simulation.system) is reporter._members[0]


def test_frames_beyond_the_threshold_are_saved(tmp_path, ionic_model, others, rock_salt):
    first = simulation_of(rock_salt, ionic_model)
    first.reporters.append(CommitteeReporter(tmp_path / "a.npy", 1, others))
    first.step(4)
    largest = load_spread(tmp_path / "a.npy").forces.max(axis=1)
    threshold = float(np.sort(largest)[1:3].mean())  # two of the four frames are beyond it
    again = simulation_of(rock_salt, ionic_model)
    reporter = CommitteeReporter(tmp_path / "b.npy", 1, others, threshold)
    kept = Frames(1)
    again.reporters += [reporter, kept]
    again.step(4)
    expected = [step for step, value in enumerate(largest, start=1) if value > threshold]
    saved = read(tmp_path / "b.extxyz", ":")
    assert [frame.info["step"] for frame in saved] == expected
    assert reporter.saved == len(expected) == 2
    assert reporter.largest == pytest.approx(largest.max())
    for frame in saved:
        positions, box = kept.frames[frame.info["step"] - 1]
        np.testing.assert_allclose(frame.positions, positions, atol=1e-6)
        np.testing.assert_allclose(frame.cell.array, box, atol=1e-6)
        record = load_spread(tmp_path / "b.npy").forces[frame.info["step"] - 1]
        np.testing.assert_allclose(frame.arrays["force_spread"], record, atol=1e-6)
        assert frame.info["total_charge"] == 0.0


def test_the_threshold_stops_a_script(tmp_path, ionic_model, others, cluster):
    simulation = simulation_of(cluster, ionic_model)
    reporter = CommitteeReporter(tmp_path / "s.npy", 2, others, 1e-6, action="stop")
    simulation.reporters.append(reporter)
    with pytest.raises(UncertaintyError, match=r"spread by at most 1e-06 eV/Å, got .* at step 2"):
        simulation.step(10)
    assert simulation.currentStep == 2
    np.testing.assert_array_equal(load_spread(tmp_path / "s.npy").steps, [2])
    assert len(read(tmp_path / "s.extxyz", ":")) == 1


def test_a_restart_drops_what_it_will_do_again(tmp_path, ionic_model, others, cluster):
    path = tmp_path / "s.npy"
    first = simulation_of(cluster, ionic_model)
    first.reporters.append(CommitteeReporter(path, 1, others, 1e-6))
    first.step(2)
    state = first.context.getState(positions=True, velocities=True)
    first.step(2)
    first.reporters[0].close()
    with open(tmp_path / "s.extxyz", "a", encoding="utf-8") as handle:
        handle.write("8\nhalf a frame")
    second = simulation_of(cluster, ionic_model)
    second.context.setState(state)
    reporter = CommitteeReporter(path, 1, others, 1e-6, append=True)
    second.reporters.append(reporter)
    second.step(2)
    np.testing.assert_array_equal(load_spread(path).steps, [1, 2, 3, 4])
    assert [frame.info["step"] for frame in read(tmp_path / "s.extxyz", ":")] == [1, 2, 3, 4]
    assert reporter.saved == 4


@pytest.mark.parametrize("append", [False, True])
def test_files_with_other_contents_are_kept(tmp_path, ionic_model, others, cluster, append):
    """The default name of the frames may be that of the data."""
    data = tmp_path / "chain.extxyz"
    cluster.write(data)
    before = data.read_bytes()
    simulation = simulation_of(cluster, ionic_model)
    reporter = CommitteeReporter(tmp_path / "chain.npy", 1, others, 1e-6, append=append)
    simulation.reporters.append(reporter)
    with pytest.raises(InputError, match="frames: expected a new file, or one with the frames"):
        simulation.step(1)
    simulation.reporters = [CommitteeReporter(tmp_path / "chain.npy", 1, others, append=append)]
    simulation.step(1)
    assert data.read_bytes() == before


def test_wrong_use(tmp_path, ionic_model, others, cluster, make_model):
    path = tmp_path / "s.npy"
    for options, text in (
        ({"reportInterval": 0}, "reportInterval"),
        ({"threshold": 0.0}, "threshold: expected a positive number"),
        ({"threshold": True}, "threshold: expected a positive number"),
        ({"threshold": 1.0 * unit.nanometer}, "threshold: expected a positive number"),
        ({"action": "pause"}, "action: expected one of 'save', 'stop'"),
        ({"models": []}, "models: expected one model or more"),
        ({"models": "au2-mgo"}, "models: expected a list"),
    ):
        arguments = {"reportInterval": 1, "models": others, **options}
        with pytest.raises(InputError, match=text):
            CommitteeReporter(path, **arguments)
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(CommitteeReporter(path, 1, [make_model(type_names=("H",))]))
    with pytest.raises(InputError, match="committee, model 2: expected the elements"):
        simulation.step(1)
    assert not path.exists()
    assert issubclass(UnknownElementError, InputError)
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="written by CommitteeReporter"):
        load_spread(path)


# ------------------------------------------------------------------------------- nequiplr md


@pytest.fixture
def options(ionic_model, others, run_options, tmp_path):
    """A short run of the cluster with a committee in a directory that holds its driver too."""
    folder = tmp_path / "committee"
    for seed, model in enumerate((ionic_model, *others)):
        save_model(model, folder / f"seed_{seed}" / "model.safetensors")
    model = folder / "seed_0" / "model.safetensors"
    return run_options(tmp_path / "run", steps=8, model=model, committee=(folder,), quiet=False)


def test_a_run_with_a_committee(options, capsys):
    files = run_md(options).files
    found = load_spread(files.spread)
    np.testing.assert_array_equal(found.steps, [2, 4, 6, 8])
    assert "committee: forces spread by" in capsys.readouterr().out
    assert not files.uncertain.exists()
    run_md(continued_options(output=options.output, restart=True, steps=4))
    np.testing.assert_array_equal(load_spread(files.spread).steps, [2, 4, 6, 8, 10, 12])


def test_a_run_that_the_threshold_ends_can_go_on(options):
    options = dataclasses.replace(options, spread_threshold=1e-6, on_spread="stop", quiet=True)
    with pytest.raises(UncertaintyError, match=r"at step 2; .*--restart continues"):
        run_md(options)
    files = RunFiles(options.output)
    for steps in (read_log(files.log)["step"], load_charges(files.charges).steps):
        np.testing.assert_array_equal(steps, [2])
    assert files.final.exists()
    again = continued_options(
        output=options.output, restart=True, steps=4, on_spread="save", quiet=True
    )
    assert run_md(again).steps == 6
    np.testing.assert_array_equal(load_spread(files.spread).steps, [2, 4, 6])
    assert [frame.info["step"] for frame in read(files.uncertain, ":")] == [2, 4, 6]


def test_options_are_checked(options):
    with pytest.raises(InputError, match="spread_threshold: expected nothing without a committee"):
        dataclasses.replace(options, committee=(), spread_threshold=1.0)
    with pytest.raises(InputError, match="spread_threshold: expected a finite number above 0"):
        dataclasses.replace(options, spread_threshold=-1.0)
    with pytest.raises(InputError, match="on_spread: expected one of"):
        dataclasses.replace(options, on_spread="pause")
    with pytest.raises(InputError, match="models: expected one model or more"):
        run_md(dataclasses.replace(options, committee=(options.model,)))
    assert not options.output.exists()


def test_a_threshold_may_have_a_unit(tmp_path, others):
    eV = 96.48533212331002 * unit.kilojoule_per_mole
    for given in (0.25, 0.25 * eV / unit.angstrom, 2.5 * eV / unit.nanometer):
        reporter = CommitteeReporter(tmp_path / "c.npy", 1, others, given)
        assert reporter.threshold == pytest.approx(0.25, rel=1e-9)
