"""Recorded evaluations on a pretended GPU, against those of the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

pytest.importorskip("triton")
pytest.importorskip("numba")

from benchmarks.pretended_cuda import PretendedRecording, pretended_cuda
from openmm_nequiplr.boundaries import SLAB
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import ModelConfig, NequIPLRPotential, replay
from openmm_nequiplr.model.building import GraphBuilder
from openmm_nequiplr.model.evaluation import Evaluator
from openmm_nequiplr.ops import references

#: Evaluations until one is replayed: they fill the history, show a key, and compare.
SETTLED = 8
STEP = 0.002 * np.random.default_rng(0).normal(size=(64, 3))


@pytest.fixture
def device():
    with pretended_cuda() as counts:
        yield counts


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return NequIPLRPotential(ModelConfig(
        ("Cl", "Na"), r_max=4.0, num_layers=1, num_layers_charge=1, l_max=1, num_features=4,
        avg_num_neighbors=12.0, hardness_min=3.0,
    ))  # fmt: skip


class Run:
    """Evaluations of one structure by one evaluator."""

    def __init__(self, model, device: str, periodic=True, **options) -> None:
        self.atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
        self.atoms.rattle(0.05, seed=1)
        self.cell = self.atoms.cell.array if periodic else None
        if periodic is SLAB:
            self.cell = self.cell * [1.0, 1.0, 2.5]
        options = {"solver": "iterative", "charge_tolerance": 1e-7, **options}
        self.evaluator = Evaluator(copy.deepcopy(model), device=device, **options)
        self.build = GraphBuilder(
            model.config, list(self.atoms.symbols), periodic, skin=1.0, device=device,
            lattice_sum=False,
        )  # fmt: skip
        self.last = 0.0

    @property
    def count(self) -> int:
        return self.evaluator.replays.count

    def __call__(self, steps: float, move=0.0, strain: float = 1.0, **options):
        """The structure after so many steps, evaluated from its graph."""
        positions = (self.atoms.positions + steps * STEP) * strain + move
        cell = None if self.cell is None else self.cell * strain
        self.last = positions
        return self.evaluator(self.build(positions, cell), **options)

    def settle(self) -> Run:
        for step in range(SETTLED):
            self(step)
        assert self.count == 2
        return self


def assert_same(found, expected, tolerance: float = 2e-5):
    assert found.energy == pytest.approx(expected.energy, abs=1e-4)
    for name in ("forces", "charges", "adjoint", "electronegativity", "dipole"):
        values = [getattr(each, name) for each in (found, expected)]
        np.testing.assert_allclose(*values, atol=tolerance * max(1.0, np.abs(values[1]).max()))
    assert found.parts.keys() == expected.parts.keys()
    for name, part in expected.parts.items():
        assert found.parts[name] == pytest.approx(part, abs=2e-3)


@pytest.mark.parametrize("periodic", [False, True, SLAB])
def test_replays_agree_with_the_cpu(model, device, periodic):
    here, there = (Run(model, where, periodic) for where in ("cpu", "cuda"))
    for step in range(SETTLED + 3):
        found, expected = there(step), here(step)
        assert_same(found, expected)
    assert max(found.iterations) <= max(expected.iterations) + 2
    assert here.count == 0
    before = there.count
    assert before == 5 if periodic is not SLAB else before >= 3  # one replay did not suffice
    device.clear()
    again = there.evaluator.again(there.atoms.positions + (SETTLED + 3) * STEP)
    assert_same(again, here(SETTLED + 3))
    counts = device.totals()
    assert (counts["waits"], counts["copies"]) == (0, 2)
    assert there.count == before + 1


def test_a_strained_cell_is_recorded_with_the_same_lists(model, device):
    here, there = (Run(model, where) for where in ("cpu", "cuda"))
    there(0)
    for step in range(1, SETTLED + 1):
        found = there(step, strain=0.99)
    assert (there.count, there.build.neighbors.searches) == (2, 1)
    assert there.evaluator.memory.geometries == 1
    assert_same(found, here(SETTLED, strain=0.99))


def test_a_repeated_evaluation_changes_nothing(model, device):
    run = Run(model, "cuda", charge_tolerance=1e-3).settle()
    other = copy.deepcopy(run.evaluator)
    assert (other.replays._recording, other.again(run.last)) == (None, None)
    first = run(SETTLED)
    past = run.evaluator.memory.track.charges.past.elem.clone()
    second = run.evaluator.again(run.last)
    assert run.count == 4
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-3)
    assert torch.equal(run.evaluator.memory.track.charges.past.elem, past)
    noise = [replace(first, forces=1e-5 * (first.forces + k)) for k in (0, 1)]
    run.evaluator.replays.compare(*noise)
    assert run.evaluator.replays.trusted  # forces that vanish are not compared


@pytest.mark.parametrize(
    "change",
    [
        {"move": 0.7 * np.eye(64)[:, :3]},  # a few atoms far: new lists
        {"move": 5.64 * 2 * np.eye(64)[:, :3]},  # wrapped by a lattice vector
        {"strain": 1.01},
        {"coulomb_scale": 0.5},
        {"compute_stress": True},
    ],
)
def test_changes_are_noticed(model, device, change):
    """A change, and the way back: every evaluation is right, replayed or not."""
    here, there = (Run(model, where) for where in ("cpu", "cuda"))
    there.settle()
    scale = change.get("coulomb_scale", 1.0)
    if not {"move", "strain"}.isdisjoint(change) or scale != 1.0:
        positions = here.atoms.positions * change.get("strain", 1.0) + change.get("move", 0.0)
        if "strain" not in change:  # its cell is not among the arguments: callers compare it
            assert there.evaluator.again(positions, scale) is None
    for step, options in ((SETTLED, change), (SETTLED + 1, {}), (SETTLED + 2, {})):
        assert_same(there(step, **options), here(step, **options))


def test_lists_are_renewed_in_time(model, device):
    """Atoms that drift apart leave the recording when the skin of a list is used up."""
    here, there = (Run(model, where) for where in ("cpu", "cuda"))
    searches = []
    for step in range(22):
        found = there.evaluator.again(there.atoms.positions + 8 * step * STEP)
        assert_same(there(8 * step) if found is None else found, here(8 * step))
        searches.append(there.build.neighbors.searches)
    assert searches[-1] >= 2
    assert there.count > 5


def test_iterations_that_do_not_suffice(model, device):
    here, there = (Run(model, where) for where in ("cpu", "cuda"))
    there.settle()
    kicked = here.atoms.positions + SETTLED * STEP
    kicked[3] += [0.1, -0.1, 0.1]
    assert there.evaluator.again(kicked) is None  # too few, and the recording is dropped
    assert there.evaluator.replays._recording is None
    graphs = [run.build(kicked, run.cell) for run in (there, here)]
    assert_same(*(run.evaluator(g) for run, g in zip((there, here), graphs, strict=True)))


def test_other_uses_of_the_evaluator_in_between(model, device):
    here, there = (Run(model, where) for where in ("cpu", "cuda"))
    there.settle()
    far = here.build(here.atoms.positions[::-1].copy(), here.cell)
    for run in (here, there):
        run.evaluator.charges(run.build(far.positions.numpy(), run.cell))
    for step in range(SETTLED, SETTLED + 4):
        found = there.evaluator.again(there.atoms.positions + step * STEP)
        assert_same(there(step) if found is None else found, here(step))
    before = there.count
    for shift in (0.16, 0.31):  # of all atoms, beyond what a single step may be
        there(step, move=[shift, 0.0, 0.0], compute_stress=True)
    there(step, move=[0.312, 0.0, 0.0])
    assert there.count == before + 1


def test_changed_weights_are_noticed(model, device):
    run = Run(model, "cuda").settle()
    with torch.no_grad():
        run.evaluator.model.energy_shifts.add_(1.0)
    assert run.evaluator.again(run.last + STEP) is None
    before = run.count
    shifted = run(SETTLED)
    assert run.count == before
    assert shifted.energy == pytest.approx(Run(model, "cpu")(SETTLED).energy + 64.0, abs=1e-3)
    for step in (SETTLED + 1, SETTLED + 2):
        run(step)
    assert run.evaluator.again(run.last + STEP) is not None
    run.evaluator.model.double()
    assert run.evaluator.again(run.last + STEP) is None


def test_a_charge_of_its_own_is_on_the_device_once(model, device):
    run = Run(model, "cuda")
    graphs = [run.build(run.atoms.positions, run.cell, total_charge=q) for q in (0.5, 0.5, None)]
    assert graphs[0].total_charge is graphs[1].total_charge
    assert [float(graph.on_cpu.total_charge) for graph in graphs] == [0.5, 0.5, 0.0]
    run.evaluator(graphs[0])
    graph = graphs[0].on_cpu.to("cuda")
    device.clear()
    run.evaluator(graph)
    assert device.totals()["copies"] == 1  # the results, and no edges back to the host


@pytest.mark.parametrize("periodic", [False, True])
def test_graphs_of_another_builder(model, device, periodic):
    run, other = Run(model, "cuda", periodic), Run(model, "cuda", periodic)
    run.settle()
    run.build = other.build
    for step in range(SETTLED, SETTLED + 4):
        device.clear()
        found = run(step)
    assert device.waits.total() == 0
    assert run.count == 5
    assert_same(found, Run(model, "cpu", periodic)(step))


def test_a_molecule_after_a_crystal(model, device):
    run, crystal = Run(model, "cuda", periodic=False), Run(model, "cpu")
    atoms = crystal.atoms[:40]
    run.evaluator(model.build_graph(atoms.numbers, atoms.positions, crystal.cell, True).to("cuda"))
    run.settle()


def test_positions_that_are_not_finite(model, device):
    run = Run(model, "cuda").settle()
    bad = run.last.copy()
    bad[5] = np.nan
    assert run.evaluator.again(bad) is None
    with pytest.raises(InputError):
        run.build(bad, run.cell)
    assert_same(run(SETTLED), Run(model, "cpu")(SETTLED))


def test_what_cannot_be_recorded_is_launched_one_by_one(model, device, monkeypatch):
    def refused(*arguments):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(replay, "Recording", refused)
    run, here = Run(model, "cuda"), Run(model, "cpu")
    with pytest.warns(UserWarning, match="one by one.*operation not permitted") as caught:
        found = [run(step) for step in range(SETTLED + 1)]
    assert len(caught) == 1
    for step, each in enumerate(found):
        assert_same(each, here(step))
    assert run.count == 0


def test_nothing_is_recorded_without_kernels(model, device):
    run, here = Run(model, "cuda", periodic=False), Run(model, "cpu", periodic=False)
    with references():
        for step in range(SETTLED + 1):
            found = run(step)
    assert run.count == 0
    assert_same(found, here(SETTLED))


def test_a_wrong_replay_is_not_used(model, device, monkeypatch):
    class Broken(PretendedRecording):
        def replay(self):
            super().replay()
            self.result.collected.values.elem[8:20] += 1.0

    make = replay.Recording.func, replay.Recording.args[0]
    assert make[0] is PretendedRecording
    monkeypatch.setattr(replay, "Recording", lambda *given: Broken(make[1], *given))
    run, here = Run(model, "cuda"), Run(model, "cpu")
    with pytest.warns(UserWarning, match="one by one.*of recorded charges"):
        found = [run(step) for step in range(SETTLED + 1)]
    for step, each in enumerate(found):
        assert_same(each, here(step))
    assert run.evaluator.replays._recording is None


def test_spare_iterations_are_dropped(model, device):
    """A recording made while solves were hard is made again with fewer iterations."""
    run = Run(model, "cuda")
    for step in range(SETTLED - 2):
        run(step)
    known = run.evaluator.replays._iterations
    known.extend([(9, 9), *[known[-1]] * 6])
    run(SETTLED - 2)
    many = run.evaluator.replays._recording.kernels.total()
    for step in range(SETTLED - 1, SETTLED + 3):
        run(step)
    few = run.evaluator.replays._recording
    assert few.kernels.total() < many - 100
    assert run.count == 5
    run.evaluator.replays._iterations.extend([(0, 0)] * 10)  # a recording has at least one each
    for step in range(SETTLED + 3, SETTLED + 6):
        run(step)
    last = run.evaluator.replays._recording
    run(SETTLED + 6)
    assert run.evaluator.replays._recording is last


@pytest.mark.parametrize("count", [1, 3])
def test_atoms_whose_uniform_charges_are_exact(model, device, count):
    """Equal atoms that leave each other's cutoffs, while the guesses are those of before."""
    evaluator = Evaluator(copy.deepcopy(model), device="cuda")
    build = GraphBuilder(model.config, ["Na"] * count, skin=1.0, device="cuda")
    with torch.no_grad():
        for parameter in evaluator.model.parameters():
            parameter.mul_(3.0)
    positions, charges = np.array([[0.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 0.0]])[:count], []
    for step in range(SETTLED + 1):
        positions[-1, 2] = 2.9 + 0.2 * step
        charges.append(np.abs(evaluator(build(positions)).charges).max())
    assert (charges[0] > 0.1) == (count > 1)
    assert max(charges[-2:]) < 1e-12
    assert evaluator.replays._works
