"""Plausibility checks of the structures of a file: units, labels of zeros, contradictions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError, describe
from .distances import check_distances
from .store import Say, without
from .structure import Structure
from .units import DataUnits

#: Labels that are treated as unknown if they are zero throughout a file.
_ZERO_IS_UNKNOWN = ("energy", "forces", "charges", "stress", "born_charges", "polarizability")
#: Debye in e Å.
_DEBYE = 0.20819434


def converted(
    structures: Iterable[Structure],
    source: object,
    given: DataUnits | None,
    own: tuple[str, str],
) -> Iterator[Structure]:
    """Convert the structures of a file to Å and eV; arguments as for :func:`finish`.

    Raises
    ------
    InputError
        If an element is unknown, or a total charge exceeds the sum of the nuclear charges.
    """
    units = (given or DataUnits()).completed(*own)
    for number, structure in enumerate(structures):
        origin = f"{source}, structure {number}"
        result = replace(units.to_angstrom_and_ev(structure), origin=origin)
        _check_nuclei(result, origin)
        yield result


def finish(
    structures: Sequence[Structure],
    source: object,
    given: DataUnits | None,
    own: tuple[str, str],
    named: Collection[str] = (),
    say: Say = print,
) -> Sequence[Structure]:
    """Check the structures of a file and drop labels that are zero throughout.

    Parameters
    ----------
    structures : sequence of Structure
        Result of :func:`converted`.
    source : object
        The file, for messages.
    given : DataUnits or None
        Units stated by the user.
    own : pair of str
        Units of length and energy of the format.
    named : collection of str
        Quantities whose key the user named; these are labels even if they are zero.
    say : callable
        Called with each note on the data.

    Returns
    -------
    sequence of Structure

    Raises
    ------
    InputError
        If the lengths are implausible in the assumed unit.
    """

    def tell(line: str) -> None:
        say(f"{source}: {line}")

    given = given or DataUnits()
    units = given.completed(*own)
    try:
        check_distances(structures, units, given.length is not None, tell)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    unknown = [name for name in _ZERO_IS_UNKNOWN if name not in named and _zero(structures, name)]
    for name in unknown:
        tell(f"{name}: all values are zero, treated as unknown")
    if unknown:
        structures = without(structures, unknown)
    for line in contradictions(structures):
        tell(line)
    return structures


def _zero(structures: Sequence[Structure], name: str) -> bool:
    """Whether a label is present and zero throughout."""
    known = False
    for structure in structures:
        value = getattr(structure, name)
        if value is not None:
            known = True
            if np.any(value):
                return False
    return known


def _check_nuclei(structure: Structure, origin: str) -> None:
    """Check that elements exist, and that the total charge is below the nuclear charge."""
    from ase.data import atomic_numbers

    numbers = {symbol: atomic_numbers.get(symbol, 0) for symbol in set(structure.symbols)}
    unknown = [symbol for symbol, number in numbers.items() if number == 0]
    if unknown:
        raise InputError(describe(f"{origin}: element", unknown[0], "an element's symbol"))
    most = sum(numbers[symbol] for symbol in structure.symbols)
    if abs(structure.total_charge) > most:
        name = f"{origin}: total_charge"
        raise InputError(describe(name, structure.total_charge, f"at most {most} e"))


def contradictions(structures: Sequence[Structure]) -> list[str]:
    """Notes on labels that contradict each other or are suspicious, one for each kind."""
    lines = [_charges(structures), _zero_forces(structures), _dipoles(structures)]
    lines += [_stresses(structures), _energies(structures), _acoustic_sums(structures)]
    weightless = sum(structure.weight == 0.0 for structure in structures)
    if weightless:
        lines.append(f"{weightless} of {len(structures)} structures have weight 0: not trained on")
    return [line for line in lines if line is not None]


def _charges(structures: Sequence[Structure]) -> str | None:
    off = []
    for index, each in enumerate(structures):
        if each.charges is not None:
            total = float(each.charges.sum())
            if abs(total - each.total_charge) > 0.02 + 5e-5 * each.num_atoms:
                off.append((abs(total - each.total_charge), index, total))
    if not off:
        return None
    _, index, total = max(off)
    return (
        f"charges contradict the total charge in {len(off)} of {len(structures)} structures "
        f"(structure {index}: they sum to {total:.4g} e, total charge "
        f"{structures[index].total_charge:.4g} e)"
    )


def _zero_forces(structures: Sequence[Structure]) -> str | None:
    zero = [not np.any(s.forces) for s in structures if s.forces is not None and s.num_atoms > 1]
    if not any(zero):
        return None
    return f"forces of {sum(zero)} of {len(zero)} structures are exactly zero: used as labels"


def _dipoles(structures: Sequence[Structure]) -> str | None:
    """Compare dipoles with those of the charges; a ratio of about five indicates Debye."""
    own, given = [], []
    for each in structures:
        neutral = abs(each.total_charge) < 1e-6 and not each.pbc
        if neutral and each.dipole is not None and each.charges is not None:
            own.append(each.charges @ each.positions)
            given.append(each.dipole)
    if len(own) < 3:
        return None
    first, second = np.concatenate(own), np.concatenate(given)
    norm = float(first @ first) * float(second @ second)
    if norm == 0.0:
        return None
    alike = float(first @ second) / np.sqrt(norm)
    ratio = float(np.sqrt((second @ second) / (first @ first)))
    if alike < -0.8:
        return "dipoles are opposite to those of the charges: expected Σ q r"
    if alike > 0.8 and abs(ratio * _DEBYE - 1.0) < 0.3:
        return f"dipoles are {ratio:.2g} times those of the charges: expected e Å, not Debye"
    return None


def _stresses(structures: Sequence[Structure]) -> str | None:
    uneven = [
        index
        for index, each in enumerate(structures)
        if each.stress is not None
        and np.abs(each.stress - each.stress.T).max() > 1e-3 * np.abs(each.stress).max() + 1e-9
    ]
    if not uneven:
        return None
    return (
        f"stress is not symmetric in {len(uneven)} of {len(structures)} structures (structure "
        f"{uneven[0]})"
    )


def _acoustic_sums(structures: Sequence[Structure]) -> str | None:
    """Acoustic sum rule: Born charges sum to the total charge."""
    off = []
    for index, each in enumerate(structures):
        if each.born_charges is not None and not each.pbc:
            wrong = np.abs(each.born_charges.sum(axis=0) - each.total_charge * np.eye(3)).max()
            if wrong > 0.05 + 1e-3 * each.num_atoms:
                off.append((float(wrong), index))
    if not off:
        return None
    wrong, index = max(off)
    return (
        f"Born charges do not sum to the total charge in {len(off)} of {len(structures)} "
        f"structures (structure {index}: {wrong:.3g} e off)"
    )


def _energies(structures: Sequence[Structure]) -> str | None:
    """Detect energies of one composition that form two groups far apart."""
    groups: dict[tuple[str, ...], list[tuple[float, int]]] = {}
    for index, each in enumerate(structures):
        if each.energy is not None:
            key = tuple(sorted(each.symbols))
            groups.setdefault(key, []).append((each.energy, index))
    for symbols, members in groups.items():
        members.sort()
        energies = np.array([energy for energy, _ in members])
        if len(energies) < 4:
            continue
        gaps = np.diff(energies)
        widest = int(gaps.argmax())
        within = max(np.ptp(energies[: widest + 1]), np.ptp(energies[widest + 1 :]))
        gap = float(gaps[widest])
        alone = min(widest + 1, len(energies) - widest - 1) < 2
        if not alone and gap > 2.0 * len(symbols) and gap > 5.0 * within:
            below, above = members[widest][1], members[widest + 1][1]
            return (
                f"energies seem to have different zeros or units: those of {len(symbols)} atoms "
                f"fall into two groups {gap:.6g} eV apart (structures {below} and {above})"
            )
    return None


def ignored_labels(names: Iterable[str], used: Collection[str]) -> list[str]:
    """Sorted names of columns and keys that look like labels but were not read.

    Parameters
    ----------
    names : iterable of str
        All names in a file.
    used : collection of str
        Names that were read.
    """
    words = ("energy", "force", "charge", "dipole", "stress", "virial", "born", "polari")
    return sorted(
        name for name in set(names) - set(used) if any(word in name.lower() for word in words)
    )
