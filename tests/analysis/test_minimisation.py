"""Displaced minimisations: what counts as a fall, and where it happens."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from openmm_nequiplr.analysis.contacts import ChargeWatch, closest_contact, contact_limit
from openmm_nequiplr.analysis.minimisation import minimise_displaced, to_ase
from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import ConvergenceError

SQUARE = Structure(
    ("C", "C", "H", "H"),
    np.array([[0.0, 0, 0], [1.5, 0, 0], [0, 1.5, 0], [1.5, 1.5, 0]]),
    total_charge=1.0,
)


class Springs(Calculator):
    """Springs between all atoms, k (r − r₀)²/2 for r₀ of the first structure, or r₀ = 0."""

    implemented_properties = ["energy", "forces", "charges"]  # noqa: RUF012

    def __init__(self, k: float, collapse: bool = False, fails_after: int = 10**9) -> None:
        super().__init__()
        self.k, self.collapse, self.left, self.rest = k, collapse, fails_after, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.left == 0:
            raise ConvergenceError("charges: expected a solution, got none")
        self.left -= 1
        x = self.atoms.positions
        vectors = x[:, None] - x[None]
        r = np.linalg.norm(vectors, axis=-1) + np.eye(len(x))
        if self.rest is None:
            self.rest = np.zeros_like(r) if self.collapse else r
        away = np.where(np.eye(len(x)), 0.0, r - self.rest)
        self.results = {
            "energy": self.k / 4.0 * (away**2).sum(),
            "forces": -self.k * (away[..., None] * vectors / r[..., None]).sum(axis=1),
            "charges": np.full(len(x), self.atoms.info["total_charge"] / len(x)),
        }


def _end(calculator, **options):
    return minimise_displaced(SQUARE, calculator, 0.15, np.random.default_rng(1), **options)


def test_what_springs_hold_together_does_not_fall():
    end = _end(Springs(5.0))
    assert not end.fallen
    assert end.message == ""
    assert end.energies[0] > 0.05
    assert end.energies[-1] < 0.01
    # C–C and C–H are 1.5 Å apart: 0.99 and 1.40 of their radii
    assert end.closest.atoms == (0, 1)
    assert end.closest.ratio == pytest.approx(1.5 / 1.52, abs=0.1)
    assert end.charges.seen == {"C": (0.25, 0.25), "H": (0.25, 0.25)}


def test_atoms_that_meet_are_named():
    end = _end(Springs(0.06, collapse=True), steps=300)  # its whole energy is less than the limit
    assert end.outcome == "distance"
    assert end.closest.ratio < 0.55
    first, second = end.closest.atoms
    names = [f"{SQUARE.symbols[k]}{k}" for k in (first, second)]
    assert end.message == f"{'–'.join(names)} {end.closest.distance:.2f} Å apart"
    assert end.energies[-1] > -0.15


def test_an_energy_far_below_is_a_fall():
    end = _end(Springs(5.0, collapse=True))
    assert end.outcome == "energy"
    assert end.energies[-1] < -0.15
    assert (end.energies[:-1] >= -0.15).all()
    assert "eV/atom" in end.message


def test_an_evaluation_that_fails_is_a_fall():
    end = _end(Springs(5.0, fails_after=4))
    assert end.outcome == "evaluation"
    assert end.message == "ConvergenceError: charges: expected a solution, got none"
    assert np.isfinite(end.positions).all()


def test_a_structure_that_cannot_be_evaluated_itself_is_an_error():
    with pytest.raises(ConvergenceError):
        _end(Springs(5.0, fails_after=0))


def test_charges_outside_their_range_are_told():
    end = _end(Springs(0.06, collapse=True), charges={"H": (-0.1, 0.1)}, steps=300)
    assert end.charges.outside == "H2 +0.25 e, outside -0.10 … +0.10 e"


def test_the_same_random_numbers_give_the_same_end():
    one, two = _end(Springs(5.0)), _end(Springs(5.0))
    np.testing.assert_array_equal(one.positions, two.positions)


def test_contacts_reach_through_the_cell():
    cell = np.diag([4.0, 8.0, 8.0])
    positions = np.array([[0.1, 0, 0], [3.6, 0, 0]])
    numbers = np.array([8, 1])
    contact = closest_contact(numbers, positions, cell)
    assert contact.distance == pytest.approx(0.5)
    assert contact.ratio == pytest.approx(0.5 / (0.66 + 0.31))
    assert closest_contact(numbers, positions, None).atoms == ()
    assert contact_limit(0.55, contact) == pytest.approx(0.9 * contact.ratio)
    assert contact_limit(0.55, closest_contact(numbers, positions, None)) == 0.55


def test_charges_are_watched_by_element():
    watch = ChargeWatch(["O", "H", "H"], {"H": (0.0, 0.5)})
    watch.look(np.array([-9.0, 0.2, 0.4]))  # nothing is known of O
    assert watch.outside == ""
    watch.look(np.array([-0.8, 0.2, 0.6]))
    assert watch.outside.startswith("H2 +0.60 e")
    assert watch.seen == {"O": (-9.0, -0.8), "H": (0.2, 0.6)}
    lost = ChargeWatch(["H"], {"H": (0.0, 0.5)})
    lost.look(np.array([np.nan]))
    assert "H0" in lost.outside


def test_structures_keep_their_charge_in_ase():
    atoms = to_ase(SQUARE)
    assert isinstance(atoms, Atoms)
    assert atoms.info["total_charge"] == 1.0
    assert not atoms.pbc.any()
