"""Proposal of a training file for a data set, with a comment on the reason of each choice."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ..data.dataset import LINEARIZED_ATOMS
from ..data.quantities import OF_CHARGES
from ..describe import counted
from .inspection import DataSummary

#: Possible cutoffs (Å), the largest first, and the largest mean number of neighbours of an atom.
_CUTOFFS, _MOST_NEIGHBORS = (5.0, 4.5, 4.0, 3.5), 30.0
#: Number of atoms in a batch, and of optimiser steps in a training.
_BATCH_ATOMS, _STEPS = 200, 30_000
#: Ratio of the largest to the smallest structure above which ``batch_atoms`` is used.
_MIXED = 2.0
#: Weights of the loss. Errors of 2 meV/atom, 50 meV/Å, 10 me, 50 me Å, 1 meV/Å³, 50 me and
#: 20 me Å²/V then contribute about equally.
_WEIGHTS = {"energy": 100.0, "forces": 1.0, "charges": 30.0, "dipole": 1.0, "stress": 1000.0,
            "born_charges": 1.0, "polarizability": 5.0}  # fmt: skip
#: Root mean square force (eV/Å) below which structures are near minima; at 300 K it is about 1.
_SMALL_FORCES = 0.3
#: Hardness (eV/e²) of atoms that exchange charge, and of ions in a crystal or liquid that keep it.
_SOFT, _HARD = 20.0, 500.0
#: Initial charges of ions, e, for data without charges.
_FORMAL = {
    **dict.fromkeys(("Li", "Na", "K", "Rb", "Cs"), 1.0),
    **dict.fromkeys(("Mg", "Ca", "Sr", "Ba", "Zn"), 2.0),
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1.0),
    "Al": 3.0, "Ti": 4.0, "Zr": 4.0, "H": 0.4, "O": -0.8, "S": -0.8, "N": -0.6, "Si": 1.6,
}  # fmt: skip

Entries = dict[str, tuple[Any, str]]

#: Network for the inner steps of multiple time steps: stiff forces of the nearest neighbours.
_INNER_MODEL: Entries = {
    "equilibration": (False, "no charges: what is slow is left to the whole model"),
    "r_max": (3.0, "Å"),
    "num_layers": (0, ""),
    "num_layers_charge": (1, "one layer in all"),
    "l_max": (0, "distances alone"),
    "pseudotensors": (False, ""),
    "num_features": (8, ""),
    "invariant_layers": (1, ""),
    "invariant_neurons": (16, ""),
}
_INNER_LOSS: Entries = {
    "energy_per_atom": (1.0, "per (eV/atom)²; forces are what counts"),
    "forces": (1.0, "per (eV/Å)²"),
}


def propose(
    summary: DataSummary,
    data: Mapping[str, Any],
    output: str,
    max_time: float,
    heading: str,
    teacher: str | None = None,
) -> str:
    """Text of a training file with comments.

    Parameters
    ----------
    summary : DataSummary
    data : mapping
        Entries of ``data`` that specify the files, keys, format and units.
    output : str
        Output directory of the training.
    max_time : float, min
    heading : str
        Lines at the top of the file, without ``#``.
    teacher : str, optional
        Model whose forces are learned by a cheap inner potential.

    Returns
    -------
    str
        YAML.
    """
    split = _split(summary, data)
    num_train = len(summary.structures)
    num_train -= sum(split[key][0] for key in ("num_validation", "num_test") if key in split)
    sections: dict[str, Entries] = {
        "data": {**{key: (value, "") for key, value in data.items()}, **split},
        "model": _model(summary) if teacher is None else dict(_INNER_MODEL),
        "equilibration": _equilibration(summary, num_train) if teacher is None else {},
        "loss": _loss(summary) if teacher is None else dict(_INNER_LOSS),
        "optimizer": {"name": ("adamw", ""), "lr": (0.01, ""), "weight_decay": (0.01, "")},
        "schedule": {"name": ("cosine", "falls to its end within max_epochs or max_time"),
                     "warmup_epochs": (1, "")},
    }  # fmt: skip
    top: Entries = {"output": (output, "directory for the results"), "seed": (0, "")}
    if teacher is not None:
        top["distill_from"] = (teacher, "its energies and forces are learned")
    parts = ["\n".join(_comments(heading)), _block(top)]
    parts += [f"{name}:\n{_block(own, 2)}" for name, own in sections.items() if own]
    if teacher is None:
        if not sections["equilibration"]:
            parts.append(_stand_ins(summary))
        parts += [_copies(summary), _large(summary)]
    parts.append(_block(_run(summary, num_train, max_time)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _comments(text: str) -> list[str]:
    """Comment lines; long lines are wrapped."""
    wrapped: list[str] = []
    for line in text.splitlines():
        name = re.match(r"[a-z ]+: +", line)
        indent = " " * len(name[0] if name else "  ")
        wrapped += textwrap.wrap(line, 96, subsequent_indent=indent) or [""]
    return [f"# {line}".rstrip() for line in wrapped]


def _split(summary: DataSummary, data: Mapping[str, Any]) -> Entries:
    """Entries for the sizes of the validation and test sets."""
    count = len(summary.structures)
    if count == 1:
        note = "one structure only: errors are those of the training itself"
        return {"validation": (data["train"], note)}
    aside = max(1, min(100, round(0.1 * count)))
    entries: Entries = {"num_validation": (aside, "structures set aside, drawn at random")}
    if count >= 20:
        entries["num_test"] = (aside, "the finished model is evaluated on these")
    return entries


def _model(summary: DataSummary) -> Entries:
    counts = {cutoff: summary.num_neighbors(cutoff) for cutoff in _CUTOFFS}
    fitting = [cutoff for cutoff, number in counts.items() if number <= _MOST_NEIGHBORS]
    cutoff = fitting[0] if fitting else _CUTOFFS[-1]
    many = len(summary.structures)
    features = 16 if many < 100 else 24 if many < 2000 else 32
    large = summary.num_atoms > 60_000
    entries: Entries = {
        "r_max": (cutoff, f"Å; {counts[cutoff]:.3g} neighbours, the cost grows with them"),
        "num_layers": (2, "for the electronegativities: they decide how good charges are"),
        "num_layers_charge": (1, "for the energy, which sees the charges"),
        "shared_features": (True, "the energy uses the layers of both"),
        "l_max": (1 if large else 2, "2 learns from fewer structures and is slower"),
        "pseudotensors": (False, ""),
        "num_features": (features, "16 to 32"),
        "invariant_neurons": (32, ""),
        "electrostatic_energy": ("coulomb", "the Coulomb part alone; qeq has χ·Q + ½JQ² as well"),
    }
    if any(value == _HARD for value in _hardness(summary).values()):
        entries["effective_charges"] = (True, "ions feel a field with more than these charges")
    if summary.num_periodic and len(summary.open_axes) == 3:
        entries["isolated"] = (False, "true if the data were computed without periodic images")
    return entries


def _hardness(summary: DataSummary) -> dict[str, float]:
    """Hardness of each element, eV/e²; empty if neither charges nor dipoles are learned.

    Ions of periodic structures whose charges hardly vary are hard, because they keep their charges
    in a field. With hardnesses of a few eV/e² they would screen like a metal.
    """
    if not set(OF_CHARGES) & set(summary.labels):
        return {}
    found = dict.fromkeys(summary.elements, _SOFT)
    if summary.num_periodic == len(summary.structures):
        for name, own in summary.charges.items():
            if abs(own.mean()) > 0.25 and own.std() < 0.15 * abs(own.mean()):
                found[name] = _HARD
    return found


def _equilibration(summary: DataSummary, num_train: int) -> Entries:
    hardness = _hardness(summary)
    if not hardness:
        return {}
    entries: Entries = {
        "hardness": (hardness, "eV/e²; hundreds for ions that keep their charge"),
    }
    if "charges" in summary.labels:
        epochs = int(min(100, max(5, round(4000 / num_train))))
        entries["fit_electronegativity"] = (True, "start from the charges of the data")
        entries["charge_epochs"] = (epochs, "of charges alone, before the training")
    return entries


def _stand_ins(summary: DataSummary) -> str:
    """Section ``equilibration`` for data without charges, as a comment."""
    charges = {name: _FORMAL.get(name, 0.0) for name in summary.elements}
    if len(summary.elements) < 2 or not any(charges.values()):
        return ""
    return "\n".join(
        (
            "# The data have no charges, and a training that starts near zero charge tends to stay",
            "# there. If ions matter, start from charges of your own (these are a guess, in e):",
            "# equilibration:",
            "#   fit_electronegativity: true",
            f"#   charges: {_text(charges)}",
            f"#   hardness: {_text(dict.fromkeys(charges, _HARD))}",
        )
    )


def _copies(summary: DataSummary) -> str:
    """Section ``harmonic`` for structures near minima, as a comment."""
    if "forces" not in summary.labels or summary.rms_force > _SMALL_FORCES:
        return ""
    return "\n".join(
        (
            "# Forces are small: structures near minima, while dynamics goes farther. Better than",
            "# copies with forces of springs are structures from dynamics in the data:",
            "# harmonic: {copies: 1, displacement: 0.1, weight: 0.1}",
        )
    )


def _large(summary: DataSummary) -> str:
    """Comment on structures for which the charge equilibration takes most of the time."""
    most = max(structure.num_atoms for structure in summary.structures)
    if most <= LINEARIZED_ATOMS:
        return ""
    return "\n".join(
        (
            f"# Structures of up to {most} atoms: trainings solve for charges with dense matrices,",
            "# whose time grows with the third power of the atoms. Smaller cells teach as much,",
            "# and the model runs in large ones, with iterative charges.",
        )
    )


def _loss(summary: DataSummary) -> Entries:
    units = {"energy": "(eV/atom)²", "forces": "(eV/Å)²", "charges": "e²", "dipole": "(e Å)²",
             "stress": "(eV/Å³)²", "born_charges": "e²",
             "polarizability": "(e Å²/V)²"}  # fmt: skip
    entries: Entries = {}
    for name, weight in _WEIGHTS.items():
        key = "energy_per_atom" if name == "energy" else name
        count = summary.labels.get(name, 0)
        if count:
            partly = "" if count == len(summary.structures) else f"; in {count} structures"
            entries[key] = (weight, f"per {units[name]}{partly}")
        elif name in ("energy", "forces"):
            entries[key] = (0.0, "not in the data")
    return entries


def _run(summary: DataSummary, num_train: int, max_time: float) -> Entries:
    per_structure = summary.num_atoms / len(summary.structures)
    size = int(min(16, max(1, round(_BATCH_ATOMS / per_structure)), max(1, num_train // 20)))
    in_batch, sizes = size, [structure.num_atoms for structure in summary.structures]
    batch: Entries = {"batch_size": (size, "structures in an optimiser step")}
    if max(sizes) > _MIXED * min(sizes):
        atoms = int(float(f"{max(size * per_structure, max(sizes)):.1e}"))
        batch = {"batch_atoms": (atoms, "atoms in an optimiser step: structures of mixed sizes")}
        in_batch = max(1, round(atoms / per_structure))
    steps = -(-num_train // in_batch)
    epochs = int(min(5000, max(50, _STEPS / steps)))
    return {
        **batch,
        "gradient_clip": (20.0, ""),
        "ema_decay": (0.995, "average of the weights, which is what is kept"),
        "max_epochs": (int(float(f"{epochs:.1e}")), f"of {counted(steps, 'step')}"),
        "max_time": (max_time, "minutes; the training ends with whichever comes first"),
    }


def _block(entries: Entries, indent: int = 0) -> str:
    """Lines ``key: value  # comment`` with aligned comments."""
    rows = [
        (f"{' ' * indent}{key}: {_text(value)}", note) for key, (value, note) in entries.items()
    ]
    width = max((len(row) for row, note in rows if note and len(row) < 40), default=0)
    return "\n".join(f"{row:{width}}  # {note}" if note else row for row, note in rows)


def _text(value: Any) -> str:
    """Value as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", value) and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Iterable):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
