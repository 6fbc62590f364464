"""The slab term against the exact two-dimensional Ewald sum, and against itself in other forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf, erfc, erfcx

from openmm_nequiplr.boundaries import BULK, SLAB
from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    MeshCoulomb,
    SlabCoulomb,
    ewald_geometry,
    mesh_geometry,
)
from openmm_nequiplr.electrostatics.slab import bounded
from openmm_nequiplr.units import COULOMB_CONSTANT

LATERAL = np.array([[5.0, 0.0, 0.0], [1.3, 6.0, 0.0], [0.0, 0.0, 0.0]])
THICKNESS = 4.0


def two_dimensional(positions: np.ndarray, widths: np.ndarray, eta: float = 1.2) -> np.ndarray:
    """K of Gaussian charges in a layer that is periodic along two vectors, shape (N, N), eV/e².

    The sum of Parry (1975, doi:10.1016/0039-6028(75)90362-3) for point charges, whose direct part
    here takes Gaussians of any width in the place of points.
    """
    alpha, area = 1.0 / (math.sqrt(2.0) * eta), LATERAL[0, 0] * LATERAL[1, 1]
    apart = positions[:, None] - positions
    gamma = np.hypot(widths[:, None], widths)
    found = np.zeros(gamma.shape)
    steps = np.arange(-8, 9)
    for vector in (i * LATERAL[0] + j * LATERAL[1] for i in steps for j in steps):
        r = np.linalg.norm(apart + vector, axis=-1)
        safe = np.where(r < 1e-9, 1.0, r)
        pair = (erf(safe / (math.sqrt(2.0) * gamma)) - erf(alpha * safe)) / safe
        own = math.sqrt(2.0 / math.pi) / gamma - 2.0 * alpha / math.sqrt(math.pi)
        found += np.where(r < 1e-9, own, pair)
    z = apart[..., 2]
    found -= 2.0 * math.sqrt(math.pi) / area * np.exp(-((alpha * z) ** 2)) / alpha
    found -= 2.0 * math.pi / area * z * erf(alpha * z)
    rows = 2.0 * math.pi * np.linalg.inv(LATERAL[:2, :2]).T
    steps = np.arange(-15, 16)
    for wave in (i * rows[0] + j * rows[1] for i in steps for j in steps if i or j):
        h = float(np.linalg.norm(wave))
        up, down = h / (2.0 * alpha) + alpha * z, h / (2.0 * alpha) - alpha * z
        # exp(hz) erfc(up), in a form that does not overflow
        scale = np.exp(-((h / (2.0 * alpha)) ** 2) - (alpha * z) ** 2)
        layers = np.where(up > 0, scale * erfcx(np.abs(up)), np.exp(h * z) * erfc(up))
        layers += np.where(down > 0, scale * erfcx(np.abs(down)), np.exp(-h * z) * erfc(down))
        found += math.pi / area * np.cos(apart[..., :2] @ wave) / h * layers
    return COULOMB_CONSTANT * found


@pytest.fixture
def layer(rng):
    """Positions, shape (7, 3), Å, and widths of a slab 4 Å thick."""
    positions = rng.random((7, 3)) @ (LATERAL + np.diag([0.0, 0.0, THICKNESS]))
    return positions, torch.tensor(rng.uniform(0.4, 1.1, 7))


def cell_of(gap: float) -> np.ndarray:
    return LATERAL + np.diag([0.0, 0.0, THICKNESS + gap])


def operator_of(layer, gap, kind="ewald") -> SlabCoulomb:
    (positions, widths), cell = layer, cell_of(gap)
    points, box = torch.tensor(positions), torch.tensor(cell)
    if kind == "ewald":
        geometry = ewald_geometry(positions, cell, float(widths.max()))
        periodic = EwaldCoulomb(points, box, widths, geometry, COULOMB_CONSTANT)
    else:
        geometry = mesh_geometry(positions, cell, widths.numpy(), 1e-8)
        periodic = MeshCoulomb(points, box, widths, geometry, COULOMB_CONSTANT)
    return SlabCoulomb(periodic, points, box, COULOMB_CONSTANT)


def test_the_two_dimensional_sum_does_not_depend_on_its_splitting(layer):
    positions, widths = layer[0], layer[1].numpy()
    found = [two_dimensional(positions, widths, eta) for eta in (1.0, 1.4)]
    np.testing.assert_allclose(found[0], found[1], rtol=0.0, atol=1e-9)


def test_a_growing_gap_leads_to_the_two_dimensional_sum(layer):
    """Element by element, so for charged slabs too; the rest falls as exp(−2π gap/λ)."""
    expected = two_dimensional(layer[0], layer[1].numpy())
    gaps = [3.0, 6.0, 12.0, 24.0]
    errors = [np.abs(operator_of(layer, gap).matrix().numpy() - expected).max() for gap in gaps]
    lowest = 2.0 * math.pi * np.linalg.norm(np.linalg.inv(LATERAL[:2, :2]), axis=0).min()
    for k in (0, 1):
        falls = math.exp(-lowest * (gaps[k + 1] - gaps[k]))
        assert errors[k + 1] == pytest.approx(errors[k] * falls, rel=0.5)
    assert errors[0] > 1e-3  # eV/e²
    assert errors[-1] < 1e-7
    bulk = operator_of(layer, gaps[-1]).periodic.matrix().numpy()
    assert np.abs(bulk - expected).max() > 1.0


@pytest.mark.parametrize(("kind", "limit"), [("ewald", 1e-12), ("mesh", 1e-6)])
def test_every_form_is_that_of_the_matrix(layer, rng, kind, limit):
    operator = operator_of(layer, 8.0, kind)
    matrix = operator_of(layer, 8.0).matrix()
    charges = torch.tensor(rng.normal(size=(2, 7)))
    energies = [0.5 * q @ matrix @ q for q in charges]
    operator.prepare()
    close = {"rtol": limit, "atol": 10.0 * limit}
    torch.testing.assert_close(operator.potential(charges[0]), matrix @ charges[0], **close)
    torch.testing.assert_close(operator.energy(charges[0]), energies[0], **close)
    torch.testing.assert_close(operator.diagonal(), matrix.diagonal(), rtol=1e-3, atol=1e-3)
    points = operator.periodic.energy_difference(*charges)
    points = points - operator.periodic.rest_difference(*charges)
    found = operator.rest_difference(*charges) + points
    torch.testing.assert_close(found, energies[0] - energies[1], **close)
    # of a whole point-charge sum, the rest is the screening
    periodic = operator.periodic
    lacking = operator.energy(charges[0]) - periodic.energy(charges[0])
    both = [each.screening() for each in (operator, periodic)]
    none = torch.zeros_like(charges[0])
    rests = [each.energy_difference(charges[0], none) for each in both]
    torch.testing.assert_close(rests[0] - rests[1], lacking)


def test_neutral_charges_repel_by_their_dipole(layer, rng):
    """On charges that sum to zero the term is positive, as conjugate gradients need it."""
    operator = operator_of(layer, 8.0)
    term = (operator.matrix() - operator.periodic.matrix()).numpy()
    charges = rng.normal(size=7)
    charges -= charges.mean()
    volume = abs(np.linalg.det(cell_of(8.0)))
    expected = 2.0 * math.pi * COULOMB_CONSTANT / volume * (charges @ layer[0][:, 2]) ** 2
    assert 0.5 * charges @ term @ charges == pytest.approx(expected, rel=1e-10)
    (column,) = operator.low_rank().numpy().T
    assert 0.5 * (column @ charges) ** 2 == pytest.approx(expected, rel=1e-10)
    assert operator.periodic.low_rank().numel() == 0


def test_gradients_by_positions_and_cell(layer, rng):
    charges = torch.tensor(rng.normal(size=7))
    geometry = ewald_geometry(layer[0], cell_of(8.0), float(layer[1].max()))

    def energy(x, h):
        periodic = EwaldCoulomb(x, h, layer[1], geometry, COULOMB_CONSTANT)
        return SlabCoulomb(periodic, x, h, COULOMB_CONSTANT).energy(charges)

    inputs = (torch.tensor(layer[0]).requires_grad_(), torch.tensor(cell_of(8.0)).requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs, atol=1e-5)


def test_the_term_comes_with_slabs_alone(layer):
    operator = operator_of(layer, 8.0)
    given = operator.periodic, torch.tensor(layer[0]), torch.tensor(cell_of(8.0)), COULOMB_CONSTANT
    assert bounded(BULK, *given) is operator.periodic
    torch.testing.assert_close(bounded(SLAB, *given).matrix(), operator.matrix(), rtol=0, atol=0)
