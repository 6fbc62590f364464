"""Charges outside: against the Ewald sum of all charges, images written out, and plain pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import EwaldCoulomb, OutsideCharges, ewald_geometry
from openmm_nequiplr.units import COULOMB_CONSTANT

CELL = np.array([[9.0, 0.0, 0.0], [2.5, 8.0, 0.0], [-2.0, 3.0, 8.5]])
WIDTH = 0.4


@pytest.fixture
def parts(rng):
    """Positions, widths and charges of 5 atoms, positions and charges of 60 others."""
    atoms = torch.from_numpy(rng.uniform(-4.0, 6.0, (5, 3)))
    others = torch.from_numpy(rng.uniform(-20.0, 20.0, (60, 3)))
    widths, weights = rng.uniform(0.3, 1.2, 5), rng.normal(size=5)
    charges = rng.normal(size=60)
    return atoms, *map(torch.from_numpy, (widths, weights)), others, torch.from_numpy(charges)


def with_gradients(outside, atoms, widths, weights, others, cell=None):
    """φ, and the gradients of Σ p φ by both positions."""
    places = [x.clone().requires_grad_() for x in (atoms, others)]
    potential = outside(places[0], widths, places[1], cell)
    return potential.detach(), torch.autograd.grad(weights @ potential, places)


def assert_close(found, expected, error):
    assert float((found - expected).norm() / expected.norm()) < error


def block_of_ewald_sum(atoms, widths, weights, others, charges, cell):
    """The same by the Coulomb operator of all charges together."""
    both = torch.cat((atoms, others)).requires_grad_()
    sigma = torch.cat((widths, torch.full_like(charges, WIDTH)))
    geometry = ewald_geometry(both.detach().numpy(), cell.numpy(), float(sigma.max()))
    operator = EwaldCoulomb(both, cell, sigma, geometry, COULOMB_CONSTANT)
    own = torch.cat((weights, torch.zeros_like(charges)))
    other = torch.cat((torch.zeros_like(weights), charges))
    potential = operator.potential(other)[:5].detach()
    energy = operator.energy_difference(own + other, own) - operator.energy(other)
    (gradient,) = torch.autograd.grad(energy, [both])
    return potential, (gradient[:5], gradient[5:])


@pytest.mark.parametrize(
    ("accuracy", "dtype"),
    [(1e-4, torch.float32), (1e-5, torch.float64), (1e-8, torch.float64)],
)
def test_a_cell_is_a_block_of_the_ewald_sum(parts, accuracy, dtype):
    atoms, widths, weights, others, charges = parts
    outside = OutsideCharges(charges, WIDTH, COULOMB_CONSTANT, accuracy, dtype)
    cell = torch.from_numpy(CELL)
    for step in range(3):  # small moves, jumps by lattice vectors, another cell
        found, gradients = with_gradients(outside, atoms, widths, weights, others, cell)
        expected, exact = block_of_ewald_sum(atoms, widths, weights, others, charges, cell)
        assert_close(found, expected, accuracy)
        for mine, right in zip(gradients, exact, strict=True):
            assert_close(mine, right, accuracy)
        others = 1.001 * others + 0.1 * torch.sin(others)
        others[:20] += torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64) @ cell
        cell = (1.0 + 0.01 * step) * cell


def test_a_cell_is_the_sum_of_its_images(rng):
    """Of an octupole, whose images add up to a limit whatever their order."""
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    sites = torch.from_numpy(corners @ rng.normal(size=(3, 3)) + [2.0, 3.0, 4.0])
    charges = torch.from_numpy((-1.0) ** corners.sum(axis=1))
    atoms, widths = torch.from_numpy(rng.uniform(0.0, 7.0, (4, 3))), torch.ones(4).double()
    cell = 7.0 * torch.eye(3, dtype=torch.float64)
    found = OutsideCharges(charges, accuracy=1e-8)(atoms, widths, sites, cell)
    shells = torch.tensor(list(itertools.product(range(-9, 10), repeat=3)), dtype=torch.float64)
    images = (sites + (shells @ cell).unsqueeze(1)).reshape(-1, 3)
    expected = OutsideCharges(charges.repeat(len(shells)))(atoms, widths, images)
    assert_close(found, expected, 1e-3)


def test_without_a_cell_all_pairs_are_summed(parts):
    atoms, widths, weights, others, charges = parts
    found, gradients = with_gradients(
        OutsideCharges(charges, WIDTH), atoms, widths, weights, others
    )
    places = [x.clone().requires_grad_() for x in (atoms, others)]
    distance = torch.cdist(*places)
    gamma = torch.sqrt(widths**2 + WIDTH**2).unsqueeze(-1)
    potential = COULOMB_CONSTANT * torch.erf(distance / (2**0.5 * gamma)) / distance @ charges
    assert_close(found, potential.detach(), 1e-13)
    exact = torch.autograd.grad(weights @ potential, places)
    for mine, right in zip(gradients, exact, strict=True):
        assert_close(mine, right, 1e-12)


def test_there_is_one_derivative(parts):
    atoms, widths, weights, others, charges = parts
    atoms.requires_grad_()
    energy = weights @ OutsideCharges(charges)(atoms, widths, others)
    (slope,) = torch.autograd.grad(energy, [atoms], create_graph=True)
    with pytest.raises(RuntimeError, match="outside charges has one derivative"):
        torch.autograd.grad(slope.sum(), [atoms])
