"""Copies of training structures with moved atoms, for labels that are no reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.structure import Structure


def copied_indices(count: int, copies: float, rng: np.random.Generator) -> list[int]:
    """Which of `count` structures to copy, `copies` times each on the average."""
    whole, rest = divmod(copies, 1.0)
    places, number = rng.permutation(count), round(rest * count)
    return [*int(whole) * list(range(count)), *(i for i in range(count) if places[i] < number)]


def moved_copy(structure: Structure, change: np.ndarray, weight: float) -> Structure:
    """The structure with its atoms moved by `change`, shape [N, 3], Å; without labels."""
    return replace(
        structure,
        positions=structure.positions + change,
        energy=None,
        forces=None,
        charges=None,
        dipole=None,
        stress=None,
        weight=weight,
        synthetic=True,
    )
