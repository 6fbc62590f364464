"""The delegated Coulomb sum against slow, obvious sums."""

from __future__ import annotations

import math
import pickle

import numpy as np
import openmm
import pytest
import torch
from scipy.special import erfc

from openmm_nequiplr.electrostatics import EwaldCoulomb, ewald_geometry
from openmm_nequiplr.errors import BackendError, BoxError, InputError, NequIPLRWarning
from openmm_nequiplr.simulation import platforms
from openmm_nequiplr.simulation.box import compact_box
from openmm_nequiplr.simulation.pme import (
    PointChargeCoulomb,
    plan_pme,
)
from openmm_nequiplr.units import COULOMB_CONSTANT

from .twins import relative

CUBE = 11.0 * np.eye(3)
SKEWED = np.array([[9.0, 1.0, 0.5], [3.5, 10.0, -2.0], [-3.0, 4.0, 11.0]])
HEXAGONAL = np.array([[9.0, 0.0, 0.0], [-4.5, 4.5 * math.sqrt(3.0), 0.0], [0.0, 0.0, 8.0]])
LEFT_HANDED = np.array([[0.0, 9.0, 0.0], [8.0, 0.0, 0.0], [0.0, 1.0, 10.0]])


def ewald_by_hand(
    positions: np.ndarray, cell: np.ndarray, charges: np.ndarray
) -> tuple[float, np.ndarray]:
    """Ewald sum over explicit images and reciprocal vectors, one atom at a time; eV and eV/Å."""
    alpha, reach = 0.45, 13.0
    inverse = np.linalg.inv(cell)
    span = np.ceil(reach * np.linalg.norm(inverse, axis=0)).astype(int) + 1
    images = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in span]), -1).reshape(-1, 3) @ cell
    positions = positions - np.floor(positions @ inverse) @ cell
    energy, forces = 0.0, np.zeros_like(positions)
    for i, center in enumerate(positions):
        vectors = center - (positions[None] + images[:, None])
        distance = np.linalg.norm(vectors, axis=-1)
        near = (distance < reach) & (distance > 1e-9)
        r, other = distance[near], np.broadcast_to(charges, distance.shape)[near]
        screened = erfc(alpha * r) / r
        energy += 0.5 * charges[i] * np.sum(other * screened)
        slope = screened + 2.0 * alpha / math.sqrt(math.pi) * np.exp(-((alpha * r) ** 2))
        forces[i] = charges[i] * ((other * slope / r**2) @ vectors[near])
    volume = abs(np.linalg.det(cell))
    reciprocal, limit = 2.0 * math.pi * inverse.T, 12.0 * alpha
    span = np.ceil(limit / (2.0 * math.pi) * np.linalg.norm(cell, axis=1)).astype(int)
    waves = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in span]), -1).reshape(-1, 3)
    waves = waves[np.any(waves != 0, axis=1)] @ reciprocal
    square = np.sum(waves**2, axis=1)
    phase = np.exp(1j * positions @ waves.T)
    structure = charges @ phase
    weight = 4.0 * math.pi / volume * np.exp(-square / (4.0 * alpha**2)) / square
    energy += 0.5 * np.sum(weight * np.abs(structure) ** 2)
    forces -= charges[:, None] * (((1j * phase * structure.conj()).real * weight) @ waves)
    energy -= alpha / math.sqrt(math.pi) * np.sum(charges**2)
    energy -= math.pi / (2.0 * volume * alpha**2) * charges.sum() ** 2
    return COULOMB_CONSTANT * energy, COULOMB_CONSTANT * forces


def ions(cell: np.ndarray, net: float, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    positions = rng.uniform(-0.5, 1.5, size=(count, 3)) @ cell
    charges = rng.normal(size=count)
    return positions, charges - charges.mean() + net / count


@pytest.mark.parametrize("net", [0.0, 1.5])
@pytest.mark.parametrize(
    "cell", [CUBE, SKEWED, HEXAGONAL, LEFT_HANDED], ids=["cube", "skewed", "hexagonal", "left"]
)
def test_any_cell_and_any_charge(cell, net):
    positions, charges = ions(cell, net)
    energy, forces = ewald_by_hand(positions, cell, charges)
    found = PointChargeCoulomb(24, True, precision="double")(positions, cell, charges)
    assert found[0] == pytest.approx(energy, rel=5e-6)
    assert relative(found[1], forces) < 5e-5


def test_madelung_constant_of_rock_salt():
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)
    charges = np.where(grid.sum(axis=1) % 2 == 0, 1.0, -1.0)
    coulomb = PointChargeCoulomb(64, True, precision="double", tolerance=1e-7)
    energy, forces = coulomb(2.8 * grid, 11.2 * np.eye(3), charges)
    assert energy == pytest.approx(-1.7475645946 * COULOMB_CONSTANT / 2.8 * 32, rel=1e-6)
    assert np.abs(forces).max() < 1e-4


def test_without_a_box_all_pairs_count():
    positions, charges = ions(CUBE, 0.7)
    first, second = np.triu_indices(24, 1)
    distance = np.linalg.norm(positions[first] - positions[second], axis=1)
    expected = COULOMB_CONSTANT * np.sum(charges[first] * charges[second] / distance)
    for precision, tolerance in (("double", 1e-12), ("single", 1e-5)):
        energy, _ = PointChargeCoulomb(24, False, precision=precision)(positions, None, charges)
        assert energy == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("periodic", [True, False])
def test_forces_are_the_slope_of_the_energy(periodic):
    cell = SKEWED if periodic else None
    positions, charges = ions(SKEWED, 0.5)
    coulomb = PointChargeCoulomb(24, periodic, precision="double")
    _, forces = coulomb(positions, cell, charges)
    direction = np.random.default_rng(1).normal(size=positions.shape)
    step = 1e-4
    ahead, _ = coulomb(positions + step * direction, cell, charges)
    behind, _ = coulomb(positions - step * direction, cell, charges)
    assert (behind - ahead) / (2 * step) == pytest.approx(np.sum(forces * direction), rel=1e-4)


def test_the_answer_does_not_depend_on_the_calls_before():
    positions, charges = ions(CUBE, 0.3)
    used = PointChargeCoulomb(24, True)
    for scale in (1.0, 0.8, 1.3, 0.9, 1.1):
        used(scale * positions, scale * CUBE, -charges)
        used(scale * positions, scale * CUBE, 0.01 * charges)
    energy, forces = used(positions, CUBE, charges)
    fresh, fresh_forces = PointChargeCoulomb(24, True)(positions, CUBE, charges)
    assert energy == pytest.approx(fresh, rel=1e-6)
    np.testing.assert_allclose(forces, fresh_forces, atol=1e-4)


def test_charges_may_vanish_and_return():
    positions, charges = ions(CUBE, 0.0)
    coulomb = PointChargeCoulomb(24, True, precision="double")
    expected, _ = coulomb(positions, CUBE, charges)
    nothing, forces = coulomb(positions, CUBE, np.zeros(24))
    assert nothing == pytest.approx(0.0, abs=1e-12)
    assert np.abs(forces).max() < 1e-12
    assert coulomb(positions, CUBE, charges)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["Reference", "CPU", "OpenCL"])
def test_every_platform_sums_alike(name):
    count = openmm.Platform.getNumPlatforms()
    if name not in [openmm.Platform.getPlatform(i).getName() for i in range(count)]:
        pytest.skip(f"no platform {name} here")
    positions, charges = ions(SKEWED, 0.5)
    expected, reference = ewald_by_hand(positions, SKEWED, charges)
    coulomb = PointChargeCoulomb(24, True, platform=name)
    coulomb(positions, SKEWED, -2.0 * charges)
    energy, forces = coulomb(positions, SKEWED, charges)
    assert energy == pytest.approx(expected, rel=2e-5)
    assert relative(forces, reference) < 5e-5


def test_the_gpu_of_the_network_sums(monkeypatch):
    """OpenCL in place of CUDA."""
    if "OpenCL" not in platforms.platform_names():
        pytest.skip("no platform OpenCL here")
    assert PointChargeCoulomb(24, True, device="cuda:0").platform in ("CUDA", "HIP", "CPU")
    monkeypatch.setattr(platforms, "_ON_GPU", ("OpenCL",))
    positions, charges = ions(SKEWED, 0.5)
    expected, _ = ewald_by_hand(positions, SKEWED, charges)
    there = PointChargeCoulomb(24, True, device="cuda:0")
    assert (there.platform, there._properties["DeviceIndex"]) == ("OpenCL", "0")
    assert there(positions, SKEWED, charges)[0] == pytest.approx(expected, rel=2e-5)
    (inner,) = there._contexts.values()
    assert inner._context.getPlatform().getPropertyValue(inner._context, "DeviceIndex") == "0"
    assert PointChargeCoulomb(24, False, device="cuda:0").platform == "Reference"
    assert PointChargeCoulomb(24, True, device="cuda:0", platform="CPU").platform == "CPU"
    nowhere = PointChargeCoulomb(24, True, device="cuda:77")
    with pytest.warns(NequIPLRWarning, match="coulomb_platform: CPU, because OpenCL fails"):
        energy = nowhere(positions, SKEWED, charges)[0]
    assert energy == pytest.approx(expected, rel=2e-5)


def test_with_the_gaussian_correction_it_is_the_operator_of_the_equilibration():
    positions, charges = ions(CUBE, 1.0)
    widths = torch.linspace(0.4, 1.4, 24, dtype=torch.float64)
    geometry = ewald_geometry(positions, CUBE, 1.4)
    operator = EwaldCoulomb(
        torch.tensor(positions), torch.tensor(CUBE), widths, geometry, COULOMB_CONSTANT
    )
    points, _ = PointChargeCoulomb(24, True, precision="double")(positions, CUBE, charges)
    vector = torch.tensor(charges)
    expected = operator.energy(vector).item()
    assert points + operator.screening().energy(vector).item() == pytest.approx(expected, rel=2e-5)


def test_smooth_part_and_pairs_are_the_operator():
    """Two charge sets, a charged triclinic cell: OpenMM's part and what the lattice sum keeps."""
    rng = np.random.default_rng(5)
    positions = rng.uniform(size=(12, 3)) @ SKEWED
    first, second = rng.normal(size=(2, 12))
    widths = np.where(np.arange(12) % 2, 1.3, 0.7)
    geometry = ewald_geometry(positions, SKEWED, 1.3)
    moving = torch.from_numpy(positions).requires_grad_()
    operator = EwaldCoulomb(
        moving, torch.from_numpy(SKEWED), torch.from_numpy(widths), geometry, COULOMB_CONSTANT
    )
    q, p = torch.from_numpy(first), torch.from_numpy(second)
    whole = operator.energy(q) - operator.energy(p)
    slope = -torch.autograd.grad(whole, moving, retain_graph=True)[0].numpy()
    pairs = operator.rest_difference(q, p)
    forces = -torch.autograd.grad(pairs, moving)[0].numpy()
    coulomb = PointChargeCoulomb(12, periodic=True, precision="double", tolerance=1e-6)
    energy = float(pairs.detach())
    for sign, charges in ((1.0, first), (-1.0, second)):
        part, force = coulomb.smooth(positions, SKEWED, charges, operator.smoothing_width)
        energy += sign * part
        forces = forces + sign * force
    assert energy == pytest.approx(float(whole.detach()), rel=1e-5)
    assert np.linalg.norm(forces - slope) < 1e-5 * np.linalg.norm(slope)


def test_it_can_be_pickled_with_a_context():
    positions, charges = ions(CUBE, 0.0)
    coulomb = PointChargeCoulomb(24, True, tolerance=1e-5)
    energy, _ = coulomb(positions, CUBE, charges)
    copied = pickle.loads(pickle.dumps(coulomb))
    assert copied.tolerance == 1e-5
    assert copied(positions, CUBE, charges)[0] == pytest.approx(energy, rel=1e-6)


# ------------------------------------------------------------------------------------ parameters


def test_a_finer_tolerance_gives_a_smaller_error():
    positions, charges = ions(CUBE, 0.0)
    _, expected = ewald_by_hand(positions, CUBE, charges)
    errors = []
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
        coulomb = PointChargeCoulomb(24, True, precision="double", tolerance=tolerance)
        errors.append(relative(coulomb(positions, CUBE, charges)[1], expected))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5


def test_a_shrinking_box_shortens_the_cutoff():
    plans = [plan_pme(compact_box(s * CUBE), 1e-5) for s in (3.0, 0.9, 0.7)]
    assert [p.cutoff for p in plans] == pytest.approx([12.0, 4.9, 3.8])


def test_a_box_that_is_too_small_names_the_way_out():
    with pytest.raises(BoxError, match=r"at least 6 Å.*got 5\.000 Å.*long_range=\"graph\""):
        PointChargeCoulomb(2, True)(np.zeros((2, 3)), 5.0 * np.eye(3), np.ones(2))


def test_wrong_arguments():
    with pytest.raises(BoxError, match="cell: expected"):
        PointChargeCoulomb(2, True)(np.zeros((2, 3)), None, np.ones(2))
    with pytest.raises(InputError, match="ewald_tolerance"):
        PointChargeCoulomb(2, True, tolerance=0.0)
    with pytest.raises(BackendError, match="coulomb_platform.*Reference"):
        PointChargeCoulomb(2, True, platform="Abacus")


def test_atoms_far_away_keep_their_places(rng):
    """The CPU platform holds positions in single precision."""
    positions, charges = rng.uniform(0.0, 9.0, (10, 3)), rng.normal(size=10)
    cells = rng.integers(-100_000, 100_000, (10, 3))
    for cell in (CUBE, SKEWED):
        coulomb = PointChargeCoulomb(10, True, platform="CPU")
        energy, forces = coulomb(positions, cell, charges)
        far, pulls = coulomb(positions + cells @ cell, cell, charges)
        assert far == pytest.approx(energy, abs=1e-3)
        np.testing.assert_allclose(pulls, forces, rtol=0, atol=1e-3 * np.abs(forces).max())
    free = PointChargeCoulomb(10, False, platform="CPU")
    energy, forces = free(positions, None, charges)
    far, pulls = free(positions + 1e7, None, charges)
    assert far == pytest.approx(energy, abs=1e-4)
    positions[5:] += [1e6, 0.0, 1e7]
    energy, forces = free(positions, None, charges)
    vectors = positions[:, None] - positions
    distance = np.linalg.norm(vectors, axis=2) + np.diag(np.full(10, np.inf))
    products = COULOMB_CONSTANT * np.outer(charges, charges) / distance
    assert energy == pytest.approx(0.5 * products.sum(), rel=1e-6)
    expected = (products / distance**2)[..., None] * vectors
    np.testing.assert_allclose(forces, np.nansum(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_skewed_boxes_get_no_more_mesh_than_straight_ones():
    straight = np.diag([48.0, 9.0, 9.0])
    skewed = np.array([[48.0, 0.0, 0.0], [24.0, 9.0, 0.0], [-24.0, 4.5, 9.0]])
    plans = [plan_pme(compact_box(cell), 1e-5) for cell in (straight, skewed)]
    assert math.prod(plans[1].grid) < 2.0 * math.prod(plans[0].grid)
    with pytest.raises(BoxError, match=r"box: expected one that a mesh .* got 1e\+06 x"):
        plan_pme(compact_box(1e6 * np.eye(3)), 1e-5)
