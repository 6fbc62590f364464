"""Charge groups and electrodes of a topology.

The total charge of each charge group is constrained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..checks import is_whole
from ..conditions import read_electrodes
from ..describe import counted
from ..errors import InputError, describe, notify
from ..fragments import (
    MOLECULES,
    Fragments,
    by_formula,
    joined_by_bonds,
    nearby_molecules,
    read_groups,
)
from .quantities import without_unit
from .topology import WHENCE_BONDS, SimulationStructure, element_symbols

#: Elements whose atoms are hardly ever molecules or ions of their own.
_SELDOM_ALONE = frozenset(("H", "B", "C", "N", "O", "Si", "P", "S", "Se"))


def plain_groups(groups: Any) -> Any:
    """Charge groups as plain values: ``"molecules"``, tuples of labels or indices, or ``None``.

    Raises
    ------
    InputError
        If the value is none of these.
    """
    if groups is None or (isinstance(groups, str) and groups == MOLECULES):
        return groups
    expected = f"{MOLECULES!r}, a label for each atom, or lists of the indices of atoms"
    if isinstance(groups, str | bytes) or not isinstance(groups, Iterable):
        raise InputError(describe("charge_groups", groups, expected))
    found = tuple(tuple(g) if isinstance(g, Iterable) else _plain(g) for g in groups)
    if len({isinstance(each, tuple) for each in found}) > 1:
        raise InputError(describe("charge_groups", found, expected))
    return found


def plain_charges(charges: Any) -> Any:
    """Charges of groups as plain numbers, e: a tuple, a mapping by formula, or ``None``."""
    if charges is None or isinstance(charges, str):
        return charges
    charges = _in_charges(charges)
    if isinstance(charges, Mapping):
        return {str(name): _plain(_in_charges(charge)) for name, charge in charges.items()}
    if not isinstance(charges, Iterable):
        raise InputError(describe("group_charges", charges, "a charge for each group (e)"))
    return tuple(_plain(_in_charges(charge)) for charge in charges)


def _in_charges(value: Any) -> Any:
    expected = "charges in units of elementary charge"
    return without_unit("group_charges", value, unit.elementary_charge, expected)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def topology_groups(
    topology: app.Topology,
    atoms: Sequence[int] | None,
    groups: Any,
    charges: Any,
    total_charge: float | None,
    electrodes: Any = None,
) -> Fragments | None:
    """Charge groups among the atoms of a topology that a model acts on.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : sequence of int, length N, optional
        Indices of these atoms in the topology; by default all.
    groups : "molecules", or as for :func:`openmm_nequiplr.fragments.read_groups`
        Lists contain indices of the topology; labels refer to the N atoms in order.
    charges : sequence of float or mapping of str to float, optional, e
        Total charge of each group, in order or by formula. By default the sum of the formal
        charges in the topology. A missing formal charge counts as 0, with a notice.
    total_charge : float, optional, e
        By default the sum.
    electrodes : optional
        As returned by :func:`topology_electrodes`; formulas do not apply to their groups.

    Raises
    ------
    InputError
        If the groups are invalid, molecules are requested of a topology without bonds, or the
        charges do not sum to the total charge.
    """
    every = list(topology.atoms())
    chosen = list(range(len(every))) if atoms is None else list(atoms)
    place = {index: k for k, index in enumerate(chosen)}
    if isinstance(groups, str):
        groups = _bonded(topology, place)
        _say_lonely(topology, chosen, groups, read_electrodes(len(chosen), electrodes))
    elif groups is not None and any(np.ndim(each) for each in groups):
        groups = [[_placed(index, place) for index in each] for each in groups]
    if isinstance(charges, Mapping):
        symbols = element_symbols(topology)
        sides = read_electrodes(len(chosen), electrodes)
        charges = by_formula([symbols[index] for index in chosen], groups, charges, sides)
    found = read_groups(len(chosen), groups, charges, None if charges is None else total_charge)
    if found is None or charges is not None:
        return found
    formal = [every[index].formalCharge for index in chosen]
    values = np.bincount(found.groups, [charge or 0.0 for charge in formal])
    known = np.bincount(found.groups, [charge is not None for charge in formal]) > 0
    if len(values) == 1 and not known.all() and total_charge is not None:
        return Fragments(found.groups, np.array([total_charge]))
    if not known.all():
        notify(
            f"charge_groups: charge 0 is assumed for {int((~known).sum())} of {len(known)} groups, "
            "because neither group_charges nor formal charges of the topology tell it"
        )
    return read_groups(len(chosen), found.groups, values, total_charge)


def _placed(index: int, place: dict[int, int], name: str = "charge_groups") -> int:
    if not is_whole(index) or index not in place:
        got, expected = f"atom {index}", "indices of atoms that the model acts on"
        raise InputError(describe(name, got, expected))
    return place[index]


def topology_electrodes(
    topology: app.Topology, atoms: Sequence[int] | None, electrodes: Any
) -> tuple[tuple[int, ...], ...] | None:
    """Atoms of two electrodes, as indices among the atoms that a model acts on.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : sequence of int, length N, optional
        Indices of the atoms that the model acts on; by default all.
    electrodes : sequence of 2, optional
        Each is a list of indices of the topology, or a string: the identifier of a chain, the name
        of residues, or indices such as ``"0-31,40"``.

    Returns
    -------
    tuple of 2 tuple of int, or None
        Indices from 0 to N − 1.

    Raises
    ------
    InputError
        If there are no such atoms, or the electrodes share atoms.
    """
    if electrodes is None:
        return None
    every = list(topology.atoms())
    chosen = range(len(every)) if atoms is None else atoms
    place = {index: k for k, index in enumerate(chosen)}
    lists = [_named(each, every) if isinstance(each, str) else each for each in electrodes]
    found = tuple(tuple(_placed(index, place, "electrodes") for index in each) for each in lists)
    read_electrodes(len(place), found)
    return found


def _named(name: str, atoms: Sequence[app.topology.Atom]) -> list[int]:
    """Indices of atoms from a chain identifier, a residue name, or ranges of indices."""
    found = [a.index for a in atoms if name in (a.residue.chain.id, a.residue.name)]
    try:
        spans = [] if found else [tuple(map(int, span.split("-"))) for span in name.split(",")]
    except ValueError:
        spans = [(len(atoms),)]
    if any(len(span) > 2 or not 0 <= span[0] <= span[-1] < len(atoms) for span in spans):
        expected = f"a chain, residues, or indices to {len(atoms) - 1} such as '0-31,40'"
        raise InputError(describe("electrodes", name, expected))
    return found + [index for span in spans for index in range(span[0], span[-1] + 1)]


def _bonded(topology: app.Topology, place: dict[int, int]) -> np.ndarray:
    """Index of the molecule of each atom, int64, shape (N,)."""
    if topology.getNumBonds() == 0 and len(place) > 1:
        expected = (
            f"a topology with bonds to find molecules along ({WHENCE_BONDS}), or lists of the "
            "indices of atoms"
        )
        raise InputError(describe("charge_groups", f"{MOLECULES!r} without bonds", expected))
    bonds = [(place.get(a.index), place.get(b.index)) for a, b in topology.bonds()]
    inside = [(a, b) for a, b in bonds if a is not None and b is not None]
    first, second = zip(*inside, strict=True) if inside else ((), ())
    return joined_by_bonds(len(place), first, second)


def _say_lonely(
    topology: app.Topology, chosen: Sequence[int], groups: np.ndarray, sides: np.ndarray | None
) -> None:
    """Warn of atoms that are molecules of their own, but of elements that hardly ever are."""
    symbols = element_symbols(topology)
    alone = np.bincount(groups)[groups] == 1
    if sides is not None:
        alone &= sides == 0
    lonely = [
        index
        for index, one in zip(chosen, alone, strict=True)
        if one and symbols[index] in _SELDOM_ALONE
    ]
    if lonely:
        notify(
            f"charge_groups: {len(lonely)} atoms such as {symbols[lonely[0]]} (index {lonely[0]}) "
            "are groups of their own, because the topology has no bonds of them; does it lack some?"
        )


def join_links(
    topology: app.Topology, system: openmm.System, chosen: Sequence[int], groups: Any
) -> tuple[app.Topology, Any]:
    """Add link atoms to the charge groups of the atoms that they cap.

    Returns
    -------
    topology : openmm.app.Topology
        If the groups are molecules, with bonds between link atoms and the atoms that they cap.
    groups
        If they are labels or lists of atoms, with the link atoms.

    Raises
    ------
    InputError
        If the groups are invalid.
    """
    among, hosts, groups = set(chosen), {}, plain_groups(groups)
    for index in filter(system.isVirtualSite, chosen):
        site = system.getVirtualSite(index)
        particles = map(site.getParticle, range(site.getNumParticles()))
        hosts[index] = next(particle for particle in particles if particle in among)
    if not hosts:
        return topology, groups
    if isinstance(groups, str):
        topology = copy.deepcopy(topology)
        atoms = list(topology.atoms())
        for link, host in hosts.items():
            topology.addBond(atoms[link], atoms[host])
        return topology, groups
    if groups and not isinstance(groups[0], tuple):
        own = [index for index in chosen if index not in hosts]
        if len(groups) != len(own):
            expected = f"a label for each of {len(own)} atoms, or lists of their indices"
            raise InputError(describe("charge_groups", f"{len(groups)} labels", expected))
        labels = dict(zip(own, groups, strict=True))
        return topology, [labels[hosts.get(index, index)] for index in chosen]
    joined = [[*each, *(a for a, host in hosts.items() if host in each)] for each in groups]
    return topology, joined


def structure_groups(
    structure: SimulationStructure,
    groups: Any,
    charges: Any,
    total_charge: float | None,
    electrodes: Any = None,
) -> Fragments | None:
    """:func:`topology_groups` of a structure; by default the groups that the structure specifies.

    If the structure has no bonds, molecules are found by interatomic distances, with a notice.
    """
    topology = structure.topology
    if groups is None and structure.charge_groups is not None:
        groups = structure.charge_groups
        charges = structure.group_charges if charges is None else charges
    if isinstance(groups, str) and topology.getNumBonds() == 0:
        sides = read_electrodes(structure.num_atoms, electrodes)
        groups = nearby_molecules(*structure.plain(), sides)
        count = counted(int(groups.max()) + 1, "molecule")
        notify(
            f"charge_groups: {count}, found by the distances of atoms, "
            "as the structure has no bonds"
        )
    return topology_groups(topology, None, groups, charges, total_charge, electrodes)
