"""Pair scans: walls, wells and jumps are found where they are."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_nequiplr.checking.scans import PairScan, scan_pairs

R = 0.3 + 0.02 * np.arange(201)


def _scan(energy, slope, wall=1.0):
    return PairScan(("C", "O"), R, energy(R) - energy(R[-1]), -slope(R), wall)


def _wall(r):
    return 30.0 * np.exp(-3.0 * r)


def _slope(r):
    return -3.0 * _wall(r)


def test_a_wall_is_sound():
    scan = _scan(_wall, _slope)
    assert scan.problem is None
    assert scan.repulsive_to == pytest.approx(R[-1])


def test_a_well_below_the_wall_is_found():
    scan = _scan(
        lambda r: _wall(r) - 8.0 * np.exp(-(((r - 0.6) / 0.1) ** 2)),
        lambda r: _slope(r) + 1600.0 * (r - 0.6) * np.exp(-(((r - 0.6) / 0.1) ** 2)),
    )
    assert scan.largest_jump[0] < 0.0
    assert 0.5 < scan.repulsive_to < 0.65
    assert scan.problem == f"C–O is repulsive up to {scan.repulsive_to:.2f} Å (1.00 Å expected)"


def test_a_bond_is_sound_and_an_abyss_is_not():
    def bond(depth):
        return (
            lambda r: depth * ((1 - np.exp(-2.0 * (r - 1.3))) ** 2 - 1.0),
            lambda r: 4.0 * depth * (1 - np.exp(-2.0 * (r - 1.3))) * np.exp(-2.0 * (r - 1.3)),
        )

    assert _scan(*bond(9.0)).problem is None
    problem = _scan(*bond(20.0)).problem
    assert problem is not None
    assert problem.endswith("eV at 1.30 Å")


def test_a_jump_is_found_where_it_is():
    scan = _scan(lambda r: _wall(r) + 0.02 * (r < 2.0), _slope)
    assert scan.largest_jump[1] == pytest.approx(2.0, abs=0.03)
    assert "jumps by" in scan.problem


def test_energies_that_are_no_numbers_are_found():
    problem = _scan(lambda r: np.where(r < 0.35, np.nan, _wall(r)), _slope).problem
    assert problem == "C–O has no energy at 0.30 Å"


def test_scans_of_a_model(harmless, full_of_holes):
    scans = scan_pairs(harmless)
    assert [scan.pair for scan in scans] == [
        ("O", "O"), ("O", "Na"), ("O", "Cl"), ("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl")
    ]  # fmt: skip
    assert all(scan.problem is None for scan in scans)
    first = scans[0]
    assert first.distances[0] == pytest.approx(0.3)
    assert first.distances[-1] == pytest.approx(3.5, abs=0.02)
    assert first.wall == pytest.approx(0.7 * 2 * 0.66)
    assert scans[3].wall == pytest.approx(1.8)  # of the data: shorter than 0.7 × 2 × 1.66
    assert any(scan.problem for scan in scan_pairs(full_of_holes))
