"""The evaluation on a pretended GPU: nothing is refused, and little is waited for."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from ase.build import bulk

pytest.importorskip("triton")
pytest.importorskip("numba")

from benchmarks.pretended_cuda import Pretended, pretended_cuda
from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.conditions import ChargeConditions
from openmm_nequiplr.model import replay
from openmm_nequiplr.model.building import GraphBuilder
from openmm_nequiplr.model.evaluation import Evaluator
from openmm_nequiplr.ops.activation import silu_along
from openmm_nequiplr.ops.image_sums import image_sums

#: In a step of up to four iterations, which is what 13,824 atoms need, and for each of them.
KERNELS, AN_ITERATION, WAITS_AND_COPIES = 450, 28, 4
#: Of replicas, whatever their number; a dense solve looks at its matrix, factors and residuals.
MORE_OF_REPLICAS, WAITS_OF_REPLICAS = 15, 8


@pytest.fixture
def device():
    with pretended_cuda() as counts:
        yield counts


def salt(count: int):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (count, count, count)
    atoms.rattle(0.05, seed=1)
    return atoms


def steps_of(model, device: str, counts=None, steps: int = 9, charge_tolerance=1e-4, **options):
    """Evaluations of salt that moves evenly, and what each of them did on the device."""
    atoms, found, done = salt(3), [], []
    evaluator = Evaluator(model, device=device, charge_tolerance=charge_tolerance)
    periodic = evaluator.iterative(len(atoms), True)
    build = GraphBuilder(
        model.config, list(atoms.symbols), True, 0.0, skin=1.0, device=device,
        lattice_sum=not periodic,
    )  # fmt: skip
    velocities = 0.003 * np.random.default_rng(0).normal(size=(len(atoms), 3))
    for step in range(steps):
        if counts is not None:
            counts.clear()
        graph = build(atoms.positions + step * velocities, atoms.cell.array)
        found.append(evaluator(graph, **options))
        done.append(None if counts is None else counts.totals())
    return found, done


def assert_same(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-3)
        for name in ("forces", "charges", "stress"):
            values = [getattr(each, name) for each in (one, other)]
            if values[1] is not None:
                np.testing.assert_allclose(*values, atol=tolerance * np.abs(values[1]).max())


@pytest.fixture(scope="module")
def model():
    from openmm_nequiplr.model import ModelConfig, NequIPLRPotential

    torch.manual_seed(0)
    config = ModelConfig(
        ("Cl", "Na"), r_max=4.0, num_layers=2, num_layers_charge=1, l_max=1, num_features=32,
        avg_num_neighbors=12.0, hardness_min=3.0,
    )  # fmt: skip
    return NequIPLRPotential(config)


def copy_of(model):
    import copy

    return copy.deepcopy(model)


def test_a_step_within_budgets(model, device):
    found, counts = steps_of(copy_of(model), "cuda", device, 12)
    settled = {key: statistics.median(c[key] for c in counts[4:]) for key in counts[0]}
    assert statistics.median(sum(each.iterations) for each in found[4:]) <= 2
    # the second step does as many iterations as the first needed
    sharp, more = steps_of(copy_of(model), "cuda", device, 2, charge_tolerance=1e-6)
    iterations = sum(sharp[0].iterations) - sum(found[0].iterations)
    assert iterations >= 4
    assert more[1]["kernels"] - counts[1]["kernels"] <= AN_ITERATION * iterations
    assert settled["kernels"] + 2 * AN_ITERATION <= KERNELS
    assert settled["waits"] + settled["copies"] <= WAITS_AND_COPIES
    # one step is recorded, and compared with the same step without a recording
    assert max(c["waits"] + c["copies"] for c in counts[7:]) <= WAITS_AND_COPIES
    from_the_device = {key for key in device.numpy if "evaluation.py" in key}
    assert sum(device.numpy[key] for key in from_the_device) == 1


@pytest.mark.parametrize("periodic", [False, True])
def test_kernels_do_not_grow_with_replicas(make_model, molecule, crystal, device, periodic):
    """Between searches, where copies of one structure are a few operations more than itself."""
    atoms, model, counts = crystal if periodic else molecule, make_model(), {}
    for replicas in (1, 16):
        groups = None if replicas == 1 else np.repeat(np.arange(replicas), len(atoms))
        build = GraphBuilder(
            model.config, list(atoms.symbols) * replicas, periodic, skin=1.0, device="cuda",
            conditions=ChargeConditions(charge_groups=groups), replicas=replicas,
        )  # fmt: skip
        evaluator = Evaluator(copy_of(model), device="cuda")
        for step in range(2):
            device.clear()
            points = np.tile(atoms.positions + 0.01 * step, (replicas, 1))
            found = evaluator(build(points, atoms.cell.array if periodic else None))
        counts[replicas] = device.totals()
    assert np.ptp(found.replica_energies) < 1e-6
    assert counts[16]["kernels"] <= counts[1]["kernels"] + MORE_OF_REPLICAS
    assert counts[16]["waits"] + counts[16]["copies"] <= WAITS_OF_REPLICAS


@pytest.mark.parametrize("stress", [False, True])
def test_results_are_those_of_the_cpu(model, device, stress):
    results = [
        steps_of(copy_of(model), where, steps=3, charge_tolerance=1e-7, compute_stress=stress)[0]
        for where in ("cuda", "cpu")
    ]
    assert_same(*results)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_small_structures(make_model, molecule, crystal, device, periodic, solver):
    results = []
    atoms = crystal if periodic else molecule
    for where in ("cuda", "cpu"):
        atoms.calc = NequIPLRCalculator(copy_of(make_model()), device=where, solver=solver)
        values = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_charges()
        results.append(values)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_a_gpu_refuses_is_refused(device):
    tensor = torch.ones(3, device="cuda")
    assert isinstance(tensor, Pretended)
    with pytest.raises(TypeError, match="no array"):
        tensor.numpy()
    with pytest.raises(RuntimeError, match="two devices"):
        tensor + torch.ones(3)


def test_counts(device):
    tensor = torch.arange(4.0, device="cuda")
    assert float((2.0 * tensor).sum()) == 12.0
    assert tensor[tensor > 1.0].cpu().tolist() == [2.0, 3.0]
    torch.tensor([1.0], device="cuda")
    # arange, product, sum, comparison; the sum and the mask; the two copies
    assert device.totals() == {"kernels": 4, "waits": 2, "copies": 2, "numpy": 0}


def test_what_has_no_kernel_there_runs_as_torch():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    positions = (
        torch.as_tensor(salt.positions) + torch.linspace(0.0, 0.4, 24).reshape(8, 3).double()
    )
    cell, widths = torch.as_tensor(salt.cell.array), torch.full((8,), 0.8).double()
    expected = image_sums(positions, cell, widths, 1.0, 6.0, True)
    with pretended_cuda():
        inputs = (each.to("cuda") for each in (positions, cell, widths))
        found = image_sums(*inputs, 1.0, 6.0, True)
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), expected)


def test_recordings_are_as_strict_as_those_of_a_gpu():
    with pretended_cuda():
        x = [torch.ones(3, device="cuda")]
        recording = replay.Recording(lambda: x[0] * 2.0, x[0].device)
        assert recording.result.elem.isnan().all()
        x[0].add_(1.0)
        recording.replay()
        assert recording.result.elem.tolist() == [4.0, 4.0, 4.0]
        y, wave = torch.eye(3, device="cuda"), torch.ones(4, device="cuda")
        torch.fft.rfftn(wave)
        silu_along(torch.stack((wave, wave)))
        replay.Recording(
            lambda: (torch.fft.rfftn(wave), silu_along(torch.stack((wave, wave)))), y.device
        )
        for function in (
            lambda: torch.fft.rfftn(y),
            lambda: silu_along(torch.stack((wave.double(), wave.double()))),
            lambda: silu_along(y[:2, :1]),
            lambda: torch.zeros(3, device="cuda").copy_(torch.tensor(1.0)),
            lambda: y.add_(1.0),
            lambda: torch.linalg.inv(y),
            lambda: y.sum().item(),
            lambda: y[y > 0.0],
            lambda: torch.tensor([1.0], device="cuda"),
            lambda: y.cpu(),
        ):
            with pytest.raises(RuntimeError, match="not permitted"):
                replay.Recording(function, y.device)
        x.clear()
        with pytest.raises(RuntimeError, match="freed memory"):
            recording.replay()
