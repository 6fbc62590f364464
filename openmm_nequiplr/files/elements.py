"""Elements deduced from the names of atoms, for files without element symbols."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ase.data import atomic_numbers

from ..errors import notify

#: Names of water residues in common programs.
_WATER = {"HOH", "WAT", "SOL", "TIP", "TP3", "TP4", "TP5", "T3P", "T4P", "T5P", "H2O", "SPC", "DOD"}
_BIOPOLYMER = {
    "ALA", "ARG", "ASH", "ASN", "ASP", "CYM", "CYS", "CYX", "GLH", "GLN", "GLU", "GLY", "HIS",
    "HID", "HIE", "HIP", "HSD", "HSE", "HSP", "ILE", "LEU", "LYN", "LYS", "MET", "MSE", "PHE",
    "PRO", "SEC", "SER", "THR", "TRP", "TYR", "VAL", "ACE", "NME", "NMA", "NH2", "DA", "DC", "DG",
    "DT", "DU", "DI", "A", "C", "G", "U", "I",
}  # fmt: skip
_POLYMER_ELEMENTS = {"H", "D", "C", "N", "O", "S", "P", "SE"}
_IONS = {
    "SOD": "Na", "CLA": "Cl", "POT": "K", "CAL": "Ca", "CES": "Cs", "LIT": "Li", "RUB": "Rb",
    "BAR": "Ba",
}  # fmt: skip
# Pairs of letters that mean a two-letter element although the first is an organic element.
_TWO_LETTERS = {"CL", "BR", "NA", "SI", "SE", "FE", "CU", "BE", "NI", "NE"}
# First letters of organic names such as CA, CD, HG, NB, OS; other pairs mean a two-letter element.
_ORGANIC = set("CHNO")
# One-letter elements that other letters may follow in names.
_ONE_LETTER = _ORGANIC | set("SPFBIK")
# Common four-letter names, which have no column for the second letter of an element.
_HALOGENS = {"CL", "BR"}
_HEAVIEST = 103  # heavier elements are not supported
_SITE = re.compile(r"(EPW?|LPW?|MW|M-?SITE)\d*")


def known_element(symbol: str) -> str | None:
    """Symbol in its usual spelling; ``None`` if there is no such element."""
    usual = symbol.strip().capitalize()
    return usual if usual == "D" or atomic_numbers.get(usual, 0) > 0 else None


def is_site(name: str, residue: str = "") -> bool:
    """Whether a name is that of a virtual site (4- and 5-site water, lone pairs)."""
    plain = name.strip().upper()
    if _SITE.fullmatch(plain):
        return True
    return residue.strip().upper()[:3] in _WATER and plain in {"M", "L1", "L2", "MC"}


def fits(symbol: str, residue: str) -> bool:
    """Whether an element may occur in a residue; in an amino acid HG is hydrogen, not mercury."""
    if residue.strip().upper() not in _BIOPOLYMER:
        return True
    return symbol.strip().upper() in _POLYMER_ELEMENTS


def element_from_name(name: str, residue: str, aligned: bool = False) -> str | None:
    """Deduce an element from the names of atom and residue.

    Parameters
    ----------
    name, residue : str
    aligned : bool
        Whether the name has four columns, the first two of which are the element (PDB).

    Returns
    -------
    str or None
        ``None`` if the name does not start with the symbol of an element.
    """
    letters = re.sub(r"^[^A-Za-z]*", "", name)
    found = re.match(r"[A-Za-z]+", letters)
    if found is None:
        return None
    core, place = found.group(), residue.strip().upper()
    upper = core.upper()
    if place in _BIOPOLYMER or place[:3] in _WATER:
        return known_element("SE" if upper.startswith("SE") and place == "MSE" else upper[0])
    if upper in _IONS and place[:3] == upper[:3]:
        return known_element(_IONS[upper])
    two = known_element(core[:2]) if len(core) > 1 else None
    if atomic_numbers.get(str(two), 0) > _HEAVIEST:
        two = None
    one = known_element(core[0])
    if len(core) > 1 and core[0].upper() not in _ONE_LETTER:
        one = None
    if two is None or (core[1].islower() and core[0].isupper()):
        return two or one
    alone = re.sub(r"[^A-Z]", "", place) == upper
    if alone or one is None:
        return two if len(core) == 2 or one is None else one
    if aligned and len(name) == 4 and upper[:2] not in _HALOGENS:
        return two if name[:2] == core[:2] and len(name.strip()) < 4 else one
    if upper[:2] in _TWO_LETTERS or core[0].upper() not in _ORGANIC:
        return two
    return one


def say_guesses(path: Path, guesses: Sequence[tuple[str, str]]) -> None:
    """Report elements that were deduced from atom names; arguments as in `told_elements`."""
    if guesses:
        notify(
            f"structure: {path} gives no usable element for {len(guesses)} atoms, which are "
            f"deduced from the atoms' names: {told_elements(guesses)}"
        )


def told_elements(guesses: Iterable[tuple[str, str]]) -> str:
    """Text of the elements deduced from names, for example ``Mg (MG) 32, O (O) 32``.

    Parameters
    ----------
    guesses : iterable of (name, symbol)
    """
    counts = Counter((symbol, re.sub(r"[^A-Za-z]*$", "", name.strip())) for name, symbol in guesses)
    shown = [f"{symbol} ({name}) {count}" for (symbol, name), count in counts.most_common(8)]
    return ", ".join(shown) + (", …" if len(counts) > 8 else "")
