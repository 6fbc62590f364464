"""Minimisation of displaced structures, to find spurious minima of a model.

Far from its training data a potential may assign an unphysical structure a lower energy than any
real one. Displacing the atoms of a real structure at random and minimising the energy reveals such
minima: the structure collapses into one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize import FIRE

from ..calculator import NequIPLRCalculator
from ..data.structure import Structure
from ..errors import first_line
from ..model import NequIPLRPotential
from .contacts import (
    ChargeRange,
    ChargeWatch,
    Contact,
    closest_contact,
    contact_limit,
    describe_contact,
)

#: Shortest allowed distance of two atoms, relative to the sum of their covalent radii.
CLOSEST = 0.55
#: Steps before distances are checked (earlier if converged), in which atoms that the displacement
#: brought together may separate.
SETTLING_STEPS = 30
#: Largest allowed energy below that of the structure before its displacement, eV/atom.
LARGEST_DROP = 0.15

_FORCE, _LONGEST_STEP = 0.1, 0.1  # convergence criterion, eV/Å; longest step, Å


@dataclass(frozen=True)
class Minimisation:
    """Result of a minimisation of N atoms.

    Parameters
    ----------
    outcome : {"held", "distance", "energy", "evaluation"}
        ``"held"`` if the structure was stable. Otherwise the kind of collapse: two atoms too close,
        an energy too low, or a failed evaluation.
    message : str
        Short description of the collapse, with the atoms; empty if stable.
    energies : numpy.ndarray, shape (S + 1,), eV/atom
        Energy of each step relative to the structure before its displacement.
    closest : Contact
        Closest contact at the end.
    charges : ChargeWatch
        Charges after the settling steps. A charge outside its range is not a collapse.
    positions : numpy.ndarray, shape (N, 3), Å
        Final positions, or the last ones that could be evaluated.
    """

    outcome: str
    message: str
    energies: np.ndarray
    closest: Contact
    charges: ChargeWatch
    positions: np.ndarray

    @property
    def fallen(self) -> bool:
        """Whether the structure collapsed."""
        return self.outcome != "held"


def to_ase(structure: Structure) -> Atoms:
    """Convert a structure of a data file to ``ase.Atoms``, with charge, field and groups."""
    info: dict[str, Any] = {"total_charge": structure.total_charge}
    cell, periodic = structure.cell, structure.pbc
    atoms = Atoms(structure.symbols, structure.positions, cell=cell, pbc=periodic, info=info)
    structure.conditions.tell(atoms)
    return atoms


def minimise_displaced(
    structure: Structure,
    model: Calculator | NequIPLRPotential,
    displacement: float,
    rng: np.random.Generator,
    *,
    steps: int = 150,
    charges: ChargeRange | None = None,
) -> Minimisation:
    """Displace all atoms of a structure at random and minimise its energy.

    The minimiser is FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)). It stops when the
    structure collapses.

    Parameters
    ----------
    structure : Structure
        A physical structure, such as a frame of training or validation data.
    model : NequIPLRPotential or ase.calculators.calculator.Calculator
        A model is copied. For many minimisations pass a ``NequIPLRCalculator``.
    displacement : float, Å
        Standard deviation of each component.
    rng : numpy.random.Generator
        Random numbers of the displacements.
    steps : int
        Largest number of steps.
    charges : mapping of str to (float, float), optional
        Allowed range of the charges of each element, e.

    Raises
    ------
    InputError
        If the model cannot evaluate the original structure (unknown elements, no cell, …).
    ConvergenceError
        If the charges of the original structure do not converge.
    """
    atoms = to_ase(structure)
    atoms.calc = NequIPLRCalculator(model) if isinstance(model, NequIPLRPotential) else model
    run = _Run(atoms, charges, atoms.get_potential_energy())
    atoms.positions += rng.normal(scale=displacement, size=atoms.positions.shape)
    optimizer = FIRE(atoms, logfile=None, maxstep=_LONGEST_STEP)
    try:
        for converged in optimizer.irun(fmax=_FORCE, steps=steps):
            if run.fallen(converged or optimizer.nsteps > SETTLING_STEPS):
                break
    except Exception as error:  # any error would end a simulation
        run.outcome, run.message = "evaluation", f"{type(error).__name__}: {first_line(error)}"
    return Minimisation(
        run.outcome,
        run.message,
        np.array(run.energies),
        closest_contact(atoms.numbers, run.positions, structure.cell),
        run.charges,
        run.positions,
    )


class _Run:
    """State of one minimisation."""

    def __init__(self, atoms: Atoms, charges: ChargeRange | None, reference: float) -> None:
        self.atoms, self.reference = atoms, reference
        self.charges = ChargeWatch(list(atoms.symbols), charges)
        self.cell = np.array(atoms.cell) if atoms.pbc.any() else None
        at_first = closest_contact(atoms.numbers, atoms.positions, self.cell)
        self.limit = contact_limit(CLOSEST, at_first)
        self.outcome, self.message = "held", ""
        self.energies: list[float] = []
        self.positions = atoms.positions.copy()

    def fallen(self, settled: bool) -> bool:
        """Check a step; return whether the structure has collapsed."""
        energy = (self.atoms.get_potential_energy() - self.reference) / len(self.atoms)
        if not np.isfinite(energy) or not np.isfinite(self.atoms.get_forces()).all():
            self.outcome, self.message = "evaluation", "energy or forces are not finite"
            return True
        self.positions = self.atoms.positions.copy()
        self.energies.append(energy)
        if energy < -LARGEST_DROP:
            self.outcome, self.message = "energy", f"energy {energy:.2f} eV/atom too low"
        if not settled:
            return self.outcome != "held"
        contact = closest_contact(self.atoms.numbers, self.positions, self.cell)
        if contact.ratio < self.limit:
            self.outcome, self.message = "distance", describe_contact(self.charges.symbols, contact)
        self.charges.look(self.atoms.calc.results["charges"])
        return self.outcome != "held"
