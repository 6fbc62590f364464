"""Minimisation of displaced structures: does a model restore them, or do they fall into a hole?

A potential may give an unphysical structure a lower energy than any real one where it has no data.
Displacing the atoms of a real structure at random and minimising the energy shows where.
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
from ..fragments import tell_groups
from ..model import NequIPLRPotential
from .contacts import (
    ChargeRange,
    ChargeWatch,
    Contact,
    closest_contact,
    contact_limit,
    describe_contact,
)

#: A minimisation has fallen when two atoms are closer than this part of their covalent radii …
CLOSEST = 0.55
#: … after so many steps, in which atoms that the displacement brought together may part (or when
#: forces are small before),
SETTLING_STEPS = 30
#: … or when the energy is so far below that of the structure before displacement, eV/atom.
LARGEST_DROP = 0.15

_FORCE, _LONGEST_STEP = 0.1, 0.1  # eV/Å at which a minimisation ends; Å a step


@dataclass(frozen=True)
class Minimisation:
    """The end of a minimisation of N atoms.

    Parameters
    ----------
    outcome : {"held", "distance", "energy", "evaluation"}
        Whether the structure held, or how it fell: two atoms too close, an energy too low, or an
        evaluation that failed.
    message : str
        The fall in a few words, with the atoms; empty where it held.
    energies : numpy.ndarray, shape (S + 1,), eV/atom
        Of every step, less that of the structure before it was displaced.
    closest : Contact
        At the end.
    charges : ChargeWatch
        Charges after the first steps, within which distances do not count either. One outside its
        range is no fall.
    positions : numpy.ndarray, shape (N, 3), Å
        At the end, or the last ones that could be evaluated.
    """

    outcome: str
    message: str
    energies: np.ndarray
    closest: Contact
    charges: ChargeWatch
    positions: np.ndarray

    @property
    def fallen(self) -> bool:
        """Whether it fell."""
        return self.outcome != "held"


def to_ase(structure: Structure) -> Atoms:
    """A structure of a data file as ``ase.Atoms``, with charge, field and groups."""
    info: dict[str, Any] = {"total_charge": structure.total_charge}
    if structure.electric_field is not None:
        info["electric_field"] = structure.electric_field
    cell, periodic = structure.cell, structure.pbc
    atoms = Atoms(structure.symbols, structure.positions, cell=cell, pbc=periodic, info=info)
    tell_groups(atoms, structure.charge_groups, structure.group_charges)
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
    """Displace all atoms of a structure at random, minimise its energy, and see where it ends.

    The method is FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)); it stops at a fall.

    Parameters
    ----------
    structure : Structure
        A real one: a frame of training or validation data.
    model : NequIPLRPotential or ase.calculators.calculator.Calculator
        A model is copied; for many minimisations with the same, make one ``NequIPLRCalculator``.
    displacement : float, Å
        Standard deviation of each component.
    rng : numpy.random.Generator
        Of the displacements.
    steps : int
        At most.
    charges : mapping of str to (float, float), optional
        Allowed range of the charges of each element, e.

    Raises
    ------
    InputError
        If the model cannot evaluate the structure as it is given (unknown elements, no cell, …).
    ConvergenceError
        If its charges cannot be solved for as it is given.
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
    except Exception as error:  # whatever it is, a simulation would end here
        first = next(iter(str(error).splitlines()), "")
        run.outcome, run.message = "evaluation", f"{type(error).__name__}: {first}"
    return Minimisation(
        run.outcome,
        run.message,
        np.array(run.energies),
        closest_contact(atoms.numbers, run.positions, structure.cell),
        run.charges,
        run.positions,
    )


class _Run:
    """The steps of one minimisation."""

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
        """Check a step; whether the structure has fallen."""
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
