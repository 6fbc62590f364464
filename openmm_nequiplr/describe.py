"""One-line descriptions of a computation: atoms, charge, box, charge solver, Coulomb sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.formula import Formula
from ase.geometry import cell_to_cellpar

from .conditions import ChargeConditions
from .costs import Crossings, crossings
from .model.config import ModelConfig
from .model.solving import SolverOptions
from .units import ANGSTROM_PER_NM


def describe_atoms(
    symbols: Sequence[str],
    charge: float,
    box: np.ndarray | None,
    assumed: bool = False,
    frozen: int = 0,
    slab: bool = False,
) -> str:
    """Text such as ``64 atoms Na32Cl32, charge 0, box 11.3 × 11.3 × 11.3 Å``.

    Parameters
    ----------
    symbols : sequence of str, length N
    charge : float, e
    box : numpy.ndarray, shape (3, 3), Å, or None
        Rows are box vectors.
    assumed : bool
        Whether the charge is assumed, not given.
    frozen : int
        Number of atoms that are held fixed.
    slab : bool
        Whether the structure is a slab.
    """
    style = "hill" if "C" in symbols else "metal"
    formula = Formula.from_list(list(symbols)).format(style)
    count = f"{counted(len(symbols), 'atom')} {formula}"
    held = f" ({frozen} held fixed)" if frozen else ""
    sign = f"{charge:+g}" if charge else "0"
    parts = [count + held, f"charge {sign}" + (" (assumed)" if assumed else ""), _box(box)]
    return ", ".join(parts) + (" of a slab" if slab else "")


def _box(box: np.ndarray | None) -> str:
    if box is None:
        return "no box"
    lengths, angles = np.split(cell_to_cellpar(box), 2)
    text = "box " + " × ".join(f"{length:.1f}" for length in lengths) + " Å"
    if np.abs(angles - 90.0).max() > 0.05:
        text += " (" + ", ".join(f"{angle:.1f}°" for angle in angles) + ")"
    return text


def describe_conditions(conditions: ChargeConditions) -> str:
    """Text of the conditions on the charges, to append to :func:`describe_atoms`."""
    text = ""
    if conditions.electric_field is not None:
        field = ANGSTROM_PER_NM * np.asarray(conditions.electric_field)
        text += ", field ({:g}, {:g}, {:g}) V/nm".format(*field)
    charges = conditions.group_charges
    if charges is not None and len(charges) > 1:
        text += f", charges of {len(charges)} groups constrained"
    if conditions.electrodes is not None:
        first, second = map(len, conditions.electrodes)
        voltage = conditions.electrode_voltage
        text += f", electrodes of {first} and {second} atoms at {voltage:g} V"
    return text


def describe_charges(
    config: ModelConfig,
    count: int,
    periodic: bool,
    solver: SolverOptions,
    long_range: str | None = None,
    device: str | None = None,
) -> str:
    """Text of the charge solver, and of the method for the Coulomb energy.

    Parameters
    ----------
    config : ModelConfig
    count : int
        Number N of atoms.
    periodic : bool
    solver : SolverOptions
    long_range : {"openmm", "graph"}, optional
        As in :class:`.simulation.computation.ComputationSettings`; ``None`` means ``"graph"``.
    device : str, optional
        Device of the network.
    """
    if not config.equilibration:
        return "no charges"
    iterative = solver.iterative(config, count, periodic, device)
    found = f"charges by {'iterative' if iterative else 'dense'} solve"
    if solver.solver == "auto" and crossings(device) != Crossings():
        found += " (as measured here)"
    if not periodic:
        return f"{found}, Coulomb energy by a sum over all pairs"
    if config.legacy_periodic:
        return f"{found} that do not interact, as in the published code"
    if long_range == "openmm":
        return f"{found}, Coulomb energy by PME"
    return f"{found}, Coulomb energy by {'the mesh of the solve' if iterative else 'an Ewald sum'}"


def describe_threads(count: int) -> str:
    """Text of the number of threads."""
    return counted(count, "thread")


def counted(count: int, noun: str) -> str:
    """Text of a number of things, such as ``1 atom`` or ``2 atoms``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
