"""The first-order Coulomb matrix against the operator that sums over lists of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.electrostatics import (
    EwaldCoulomb,
    MatrixCoulomb,
    SlabCoulomb,
    ewald_splitting,
    geometry_of,
    linearized_ewald,
    published_splitting,
)
from openmm_nequiplr.model.strain import strained
from openmm_nequiplr.ops import image_sums
from openmm_nequiplr.ops.choice import references

#: Cells and numbers of atoms; the cutoffs reach over several images of the smallest one.
CELLS = {
    "bulk": ([[6.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.5, 0.8, 7.0]], 9),
    "small": ([[2.1, 0.0, 0.0], [0.9, 2.4, 0.0], [0.2, -0.6, 3.0]], 2),
    "slab": ([[5.2, 0.0, 0.0], [1.1, 5.0, 0.0], [0.0, 0.0, 19.0]], 7),
}


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_value_and_derivatives_are_those_of_the_operator(name, published, rng, monkeypatch):
    """By positions and strain, as energies of charges see them; kernel and reference."""
    monkeypatch.setattr(image_sums, "_BLOCK", 900)
    box, count = CELLS[name]
    cell = torch.tensor(box, dtype=torch.float64)
    places = rng.uniform(-1.0, 2.0, size=(count, 3))
    if name == "slab":
        places[:, 2] = rng.uniform(0.0, 0.3, size=count)
    positions = torch.tensor(places) @ cell
    widths = torch.linspace(0.6, 1.5, count, dtype=torch.float64)
    if published:
        splitting = published_splitting(cell.numpy(), count)
    else:
        splitting = ewald_splitting(cell.numpy(), count, 1.5)
    geometry = geometry_of(splitting, positions.numpy(), cell.numpy())

    def exact(points, lattice):
        bulk = EwaldCoulomb(points, lattice, widths, geometry, 14.4)
        return (SlabCoulomb(bulk, points, lattice, 14.4) if name == "slab" else bulk).matrix()

    known = linearized_ewald(positions, cell, widths, splitting, 14.4, strain=True)
    with references():
        plain = linearized_ewald(positions, cell, widths, splitting, 14.4, strain=True)
    if name == "slab":
        slab = SlabCoulomb(MatrixCoulomb(known.constant), positions, cell, 14.4)
        known, plain = slab.linearized(known), slab.linearized(plain)
    left, right = torch.tensor(rng.normal(size=(2, count)))
    found = []
    for matrix in (exact, known.matrix):
        moving = positions.clone().requires_grad_()
        strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
        batch = torch.zeros(count, dtype=torch.int64)
        points, lattice = strained(moving, cell.unsqueeze(0), strain, batch)
        value = left @ matrix(points, lattice[0]) @ right
        found.append([value, *torch.autograd.grad(value, (moving, strain))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)
        assert one.abs().max() > 0.01
    torch.testing.assert_close(plain.matrix(positions), exact(positions, cell))
    for name in ("constant", "gradient", "strain"):
        torch.testing.assert_close(
            getattr(plain, name), getattr(known, name), rtol=1e-11, atol=1e-11
        )
    torch.testing.assert_close(plain.gradient, -plain.gradient.transpose(0, 1))


def test_an_atom_does_not_move_against_its_own_images():
    cell = 4.0 * torch.eye(3, dtype=torch.float64)
    splitting = ewald_splitting(cell.numpy(), 1, 1.0)
    start = torch.ones(1, 3, dtype=torch.float64)
    known = linearized_ewald(start, cell, start[0, :1], splitting, 14.4, strain=True)
    np.testing.assert_allclose(known.gradient, 0.0, atol=1e-12)
    trace = known.strain[:3, 0, 0]
    assert trace.tolist() == pytest.approx([float(trace[0])] * 3)
    np.testing.assert_allclose(known.strain[3:], 0.0, atol=1e-12)
