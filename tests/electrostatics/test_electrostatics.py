"""Coulomb operators against closed forms, each other, and point-charge limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    FreeSpaceCoulomb,
    ewald_geometry,
    self_coefficient,
)
from openmm_nequiplr.errors import BoxError
from openmm_nequiplr.units import COULOMB_CONSTANT

CELLS = {
    "cubic": np.diag([7.0, 7.0, 7.0]),
    "slab": np.diag([5.0, 6.0, 19.0]),
    "triclinic": np.array([[6.0, 0.0, 0.0], [2.5, 5.5, 0.0], [-1.5, 2.0, 7.0]]),
    "smaller than any cutoff": np.array([[-0.8, 6.4, 6.0], [5.6, 0.1, 5.6], [6.0, 6.0, 0.3]]) / 2,
}


def lattice_operator(positions, cell, widths, **options) -> EwaldCoulomb:
    geometry = ewald_geometry(positions, cell, float(widths.max()), **options)
    return EwaldCoulomb(
        torch.tensor(positions), torch.tensor(cell), widths, geometry, COULOMB_CONSTANT
    )


def random_charges(rng, cell, count=6):
    positions = rng.random((count, 3)) @ cell
    widths = torch.tensor(rng.uniform(0.4, 1.6, count))
    charges = torch.tensor(rng.normal(size=count))
    return positions, widths, charges


@pytest.mark.parametrize(
    ("sites", "charges", "madelung"),
    [
        # distances in units of the cubic cell, nearest-neighbour distance, Madelung constant
        ("rocksalt", [1, 1, 1, 1, -1, -1, -1, -1], (0.5, 1.7475645946331822)),
        ("caesium chloride", [1, -1], (math.sqrt(0.75), 1.7626747730709883)),
    ],
)
def test_madelung_constants(sites, charges, madelung):
    faces = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    holes = [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]]
    grid = faces + holes if sites == "rocksalt" else [[0, 0, 0], [0.5, 0.5, 0.5]]
    edge = 4.2
    q = torch.tensor(charges, dtype=torch.float64)
    widths = torch.full_like(q, 0.05)  # narrow enough to be points
    operator = lattice_operator(np.array(grid) * edge, np.eye(3) * edge, widths)
    energy = operator.energy(q) - 0.5 * (COULOMB_CONSTANT * self_coefficient(widths) * q * q).sum()
    pairs = len(charges) / 2
    distance, constant = madelung
    assert energy.item() == pytest.approx(
        -constant * COULOMB_CONSTANT * pairs / (distance * edge), rel=1e-8
    )


def test_single_charge_with_background():
    """One charge, its images and the neutralising background: −2.837297/L in a cubic cell."""
    edge, q = 8.0, torch.tensor([1.0], dtype=torch.float64)
    widths = torch.tensor([0.05], dtype=torch.float64)
    operator = lattice_operator(np.zeros((1, 3)), np.eye(3) * edge, widths)
    own = 0.5 * COULOMB_CONSTANT * self_coefficient(widths)[0]
    expected = -0.5 * 2.837297479480620 * COULOMB_CONSTANT / edge
    assert (operator.energy(q) - own).item() == pytest.approx(expected, rel=1e-8)


def test_two_gaussians_in_free_space():
    """erf(r/√(2(σ₁² + σ₂²)))/r, by numbers from outside the package's kernels."""
    distance, first, second = 1.3, 0.6, 0.9
    positions = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, distance]], dtype=torch.float64)
    widths = torch.tensor([first, second], dtype=torch.float64)
    operator = FreeSpaceCoulomb(positions, widths, 2.0)
    pair = 2.0 * math.erf(distance / math.sqrt(2 * (first**2 + second**2))) / distance
    own = [2.0 / (math.sqrt(math.pi) * s) for s in (first, second)]
    assert operator.matrix().numpy() == pytest.approx(np.array([[own[0], pair], [pair, own[1]]]))


def test_big_cell_approaches_free_space(rng):
    """A neutral cluster without dipole in a big cell: what remains falls with the volume."""
    half = rng.normal(size=(4, 3))
    positions = np.concatenate((half, -half))
    widths = torch.tensor(np.tile(rng.uniform(0.4, 1.2, 4), 2))
    charges = torch.tensor(np.tile(rng.normal(size=4), 2))
    charges = charges - charges.mean()
    free = FreeSpaceCoulomb(torch.tensor(positions), widths, COULOMB_CONSTANT).energy(charges)
    gaps = [
        abs(lattice_operator(positions, np.eye(3) * edge, widths).energy(charges) - free).item()
        for edge in (30.0, 60.0)
    ]
    assert gaps[0] < 2e-2 * abs(free.item())
    assert gaps[1] < gaps[0] / 20  # octopoles: the fifth power of the edge


@pytest.mark.parametrize("name", CELLS)
def test_energy_does_not_depend_on_the_splitting(rng, name):
    positions, widths, charges = random_charges(rng, CELLS[name])
    energies = [
        lattice_operator(positions, CELLS[name], widths, eta=eta).energy(charges).item()
        for eta in (None, 1.9, 2.7, 3.3)
    ]
    assert np.ptp(energies) < 2e-8 * abs(energies[0])


@pytest.mark.parametrize("name", [*CELLS, "free"])
def test_fast_forms_equal_the_matrix(rng, name):
    positions, widths, charges = random_charges(rng, CELLS.get(name, CELLS["cubic"]))
    operator = (
        FreeSpaceCoulomb(torch.tensor(positions), widths, COULOMB_CONSTANT)
        if name == "free"
        else lattice_operator(positions, CELLS[name], widths)
    )
    matrix = operator.matrix()
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.diagonal(), matrix.diagonal(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(operator.potential(charges), matrix @ charges)
    torch.testing.assert_close(operator.energy(charges), 0.5 * charges @ matrix @ charges)


@pytest.mark.parametrize("name", [*CELLS, "free"])
def test_screening_turns_points_into_gaussians(rng, name):
    """Point charges (very narrow Gaussians less their self-energy) + screening = Gaussians."""
    positions, widths, charges = random_charges(rng, CELLS.get(name, CELLS["cubic"]))
    narrow = torch.full_like(widths, 1e-3)

    def operator(sigma):
        if name == "free":
            return FreeSpaceCoulomb(torch.tensor(positions), sigma, COULOMB_CONSTANT)
        return lattice_operator(positions, CELLS[name], sigma, eta=2.3)

    own = 0.5 * (COULOMB_CONSTANT * self_coefficient(narrow) * charges * charges).sum()
    points = operator(narrow).energy(charges) - own
    gaussians = operator(widths)
    # the self-energies of points are large, hence the loose tolerance on the difference
    torch.testing.assert_close(
        points + gaussians.screening().energy(charges),
        gaussians.energy(charges),
        rtol=1e-9,
        atol=1e-7,
    )


def test_supercell_is_extensive(rng):
    cell = CELLS["triclinic"]
    positions, widths, charges = random_charges(rng, cell)
    charges = charges - charges.mean()
    single = lattice_operator(positions, cell, widths).energy(charges).item()
    shifts = [np.array([i, j, k]) @ cell for i in (0, 1) for j in (0, 1) for k in (0, 1, 2)]
    many = np.concatenate([positions + shift for shift in shifts])
    copies = len(shifts)
    big = lattice_operator(
        many, cell * np.array([[2.0], [2.0], [3.0]]), widths.repeat(copies)
    ).energy(charges.repeat(copies))
    assert big.item() == pytest.approx(copies * single, rel=1e-8)


@pytest.mark.parametrize("name", ["triclinic", "slab"])
def test_gradients_of_positions_and_cell(rng, name):
    positions, widths, charges = random_charges(rng, CELLS[name], count=4)
    geometry = ewald_geometry(positions, CELLS[name], float(widths.max()))

    def energy(x, h):
        return EwaldCoulomb(x, h, widths, geometry, COULOMB_CONSTANT).energy(charges)

    inputs = (torch.tensor(positions).requires_grad_(), torch.tensor(CELLS[name]).requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs, atol=1e-5)


def test_flat_cell_is_refused():
    with pytest.raises(BoxError, match="cell"):
        ewald_geometry(np.zeros((1, 3)), np.diag([1.0, 1.0, 0.0]), 1.0)
