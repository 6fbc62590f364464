"""A pair potential of OpenMM's forces, matched to forces of frames by linear least squares.

Force matching (Ercolessi and Adams, Europhys. Lett. 26, 583 (1994)) for water and ions: each pair
of atoms of one molecule has a polynomial of its distance by elements, all other pairs Gaussians up
to 3.6 Å. ``respa.py --match DATA`` takes it as inner potential.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from ase.neighborlist import neighbor_list

from openmm_nequiplr.fragments import joined_by_bonds
from openmm_nequiplr.units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL

CUTOFF, WIDTH, CENTRES = 3.6, 0.22, np.arange(1.3, 3.5, 0.2)  # Å
BOND = 1.25  # Å
POWERS = np.arange(1, 5)
_RIDGE = 1e-3

Kind = tuple[str, str, bool]


def _basis(length: np.ndarray, bonded: bool, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Functions of distances, shape (P, K), and their derivatives."""
    x = length[:, None] - (mean if bonded else CENTRES)
    if bonded:
        return x**POWERS, POWERS * x ** (POWERS - 1)
    bump, inside = np.exp(-((x / WIDTH) ** 2)), 1.0 - (length[:, None] / CUTOFF) ** 2
    slope = bump * (-2.0 * x / WIDTH**2) * inside**3
    return bump * inside**3, slope - bump * 6.0 * inside**2 * length[:, None] / CUTOFF**2


def _pairs(atoms: Any) -> dict[Kind, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of each kind: first and second atom, vectors, Å."""
    molecule = joined_by_bonds(len(atoms), *neighbor_list("ij", atoms, {("H", "O"): BOND}))
    first, second, vectors = neighbor_list("ijD", atoms, CUTOFF)
    once = first < second
    first, second, vectors = first[once], second[once], vectors[once]
    kinds = [
        (*sorted((atoms.symbols[i], atoms.symbols[j])), bool(molecule[i] == molecule[j]))
        for i, j in zip(first, second, strict=True)
    ]
    found = {}
    for kind in set(kinds):
        own = [k for k, each in enumerate(kinds) if each == kind]
        found[kind] = first[own], second[own], vectors[own]
    return found


def matched_forces(frames: Sequence[Any], start: Any) -> list[openmm.Force]:
    """Forces for a start structure in a cell, matched to frames.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``REF_forces``, eV/Å.
    start : ase.Atoms
    """
    pairs = [_pairs(atoms) for atoms in frames]
    kinds = sorted(set().union(*pairs))
    means = {}
    for kind in kinds:
        vectors = np.concatenate([each[kind][2] for each in pairs if kind in each])
        means[kind] = float(np.linalg.norm(vectors, axis=1).mean())
    sizes = [len(POWERS) if kind[2] else len(CENTRES) for kind in kinds]
    ends = np.cumsum([0, *sizes])
    normal, right = _RIDGE * np.eye(ends[-1]), np.zeros(ends[-1])
    for atoms, own in zip(frames, pairs, strict=True):
        design = np.zeros((len(atoms), 3, ends[-1]))
        for kind, begin, end in zip(kinds, ends, ends[1:], strict=False):
            if kind in own:
                first, second, vectors = own[kind]
                length = np.linalg.norm(vectors, axis=1)
                slopes = _basis(length, kind[2], means[kind])[1]
                push = (vectors / length[:, None])[:, :, None] * slopes[:, None]
                np.add.at(design[..., begin:end], first, push)
                np.add.at(design[..., begin:end], second, -push)
        design = design.reshape(-1, ends[-1])
        normal += design.T @ design
        right += design.T @ atoms.arrays["REF_forces"].ravel()
    found = np.split(np.linalg.solve(normal, right), ends[1:-1])
    return _openmm_forces(start, dict(zip(kinds, found, strict=True)), means)


def _openmm_forces(
    start: Any, found: dict[Kind, np.ndarray], means: dict[Kind, float]
) -> list[openmm.Force]:
    own, scale = _pairs(start), EV_TO_KJ_PER_MOL
    bonded = [(i, j) for kind in own if kind[2] for i, j in zip(*own[kind][:2], strict=True)]
    forces: list[openmm.Force] = []
    for kind, weights in found.items():
        if kind not in own:
            continue
        if kind[2]:
            terms = "+".join(f"{scale * c}*x^{p}" for p, c in zip(POWERS, weights, strict=True))
            force = openmm.CustomBondForce(f"{terms}; x={ANGSTROM_PER_NM}*r-{means[kind]}")
            for i, j in zip(*own[kind][:2], strict=True):
                force.addBond(int(i), int(j), [])
            force.setUsesPeriodicBoundaryConditions(True)
        else:
            length = np.linspace(0.05, CUTOFF, 400)
            values = scale * _basis(length, False, 0.0)[0] @ weights
            ends = length[[0, -1]] / ANGSTROM_PER_NM
            force = openmm.CustomNonbondedForce(f"energy(r)*step({ends[1]}-r)")
            force.addTabulatedFunction("energy", openmm.Continuous1DFunction(values, *ends))
            for _ in range(len(start)):
                force.addParticle([])
            for i, j in bonded:
                force.addExclusion(int(i), int(j))
            groups = [np.flatnonzero(start.symbols == name).tolist() for name in kind[:2]]
            force.addInteractionGroup(*groups)
            force.setNonbondedMethod(force.CutoffPeriodic)
            force.setCutoffDistance(ends[1])
        forces.append(force)
    return forces
