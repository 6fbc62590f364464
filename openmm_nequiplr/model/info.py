"""Text description of a model: configuration, units, size, receptive field, model card."""

from __future__ import annotations

import itertools
import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from ..pretrained import named_models
from .io import load_model
from .potential import NequIPLRPotential

_WIDTH = 100
_UNITS = {
    "r_max": "Å",
    "r_max_charge": "Å",
    "charge_min": "e",
    "charge_max": "e",
    "coulomb_constant": "eV Å/e²",
    "hardness_min": "eV/e²",
    "shortest_distances": "Å",
}
# Shown in the table of elements.
_IN_THE_TABLE = ("type_names", "gaussian_widths")


def describe_model(model: NequIPLRPotential | str | os.PathLike[str]) -> str:
    """Describe a model.

    Parameters
    ----------
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.

    Returns
    -------
    str
        Several lines of text.
    """
    title = "model"
    if not isinstance(model, NequIPLRPotential):
        title = str(model)
        model = load_model(model)
    sections = {
        title: _summary(model, title),
        "elements": _elements(model),
        "configuration": _configuration(model),
        "model card": _card(model),
    }
    blocks = ["\n".join([name, *(f"  {line}" for line in sections[name])]) for name in sections]
    return "\n\n".join(blocks)


def _summary(model: NequIPLRPotential, source: str) -> list[str]:
    config = model.config
    count = sum(parameter.numel() for parameter in model.parameters())
    precision = {torch.float32: "single", torch.float64: "double"}.get(model.dtype, "other")
    reach = (
        f"{config.receptive_field:g} Å = {config.num_layers} × {config.r_max:g} Å"
        f" + {config.num_layers_charge} × {config.charge_cutoff:g} Å"
    )
    rows = {
        "parameters": f"{count} ({precision} precision)",
        "receptive field": f"{reach} ({_beyond(config.equilibration)})",
        "units": "Å, eV, e",
    }
    path = named_models().get(source, Path(source))
    if path.is_file():
        rows = {"file": f"{path} ({path.stat().st_size / 1000:.0f} kB)", **rows}
    return _rows(rows)


def _beyond(equilibration: bool) -> str:
    if equilibration:
        return "the electrostatics reaches everywhere"
    return "one short-range network, no charges"


def _elements(model: NequIPLRPotential) -> list[str]:
    types = torch.arange(len(model.config.type_names), device=model.device)
    hardness = model.hardness(types).tolist()
    shifts = model.state_dict()["energy_shifts"].tolist()
    offsets = [0.0] * len(types)
    if model.charge_offset is not None:
        offsets = model.charge_offset.tolist()
    head = ("width σ (Å)", "hardness J (eV/e²)", "offset Z (e)", "shift (eV)")
    lines = [" " * 4 + "{:>14}{:>22}{:>16}{:>18}".format(*head)]
    rows = zip(model.config.type_names, model.config.widths, hardness, offsets, shifts, strict=True)
    for row in rows:
        lines.append("{:<4}{:>14.3f}{:>22.4f}{:>16.4f}{:>18.6f}".format(*row))
    return lines


def _configuration(model: NequIPLRPotential) -> list[str]:
    values = model.config.to_dict()
    rows = {}
    for name, value in values.items():
        if name in _IN_THE_TABLE or value is None:
            continue
        if name == "shortest_distances":
            value = _of_pairs(model.config.type_names, value)
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows[name] = f"{text} {_UNITS.get(name, '')}".rstrip()
    return _rows(rows)


def _of_pairs(names: Sequence[str], table: Sequence[Sequence[float]]) -> list[str]:
    """Pairs of elements with their entries, such as ``H-C 1.01``."""
    pairs = itertools.combinations_with_replacement(range(len(names)), 2)
    return [f"{names[i]}-{names[j]} {table[i][j]:.2f}" for i, j in pairs]


def _card(model: NequIPLRPotential) -> list[str]:
    if not model.metadata:
        return ["(none)"]
    lines = []
    for name, text in model.metadata.items():
        if name == "check":
            text = _check(text)
        head = f"{name}: "
        lines += textwrap.wrap(head + " ".join(text.split()), _WIDTH - 2, subsequent_indent=4 * " ")
    return lines


def _check(text: str) -> str:
    """Summary of the figures of a stability check; the text itself if the format is unknown."""
    try:
        found = json.loads(text)
        kind = "quick check" if found["quick"] else "check"
        falls = [f"{n} of {of} from {d} Å" for d, (n, of) in found["minimisations"].items()]
        held = [f"{n} of {of} at {t} K" for t, (n, of) in found["dynamics"].items()]
        sound, scans = found["pair_scans"]
        parts = [
            f"forces within {found['force_error_meV_per_A']} meV/Å of finite differences",
            f"collapsed minimisations: {', '.join(falls) or 'none run'}",
            f"stable runs of {found['ps']:g} ps: {', '.join(held) or 'none run'}",
            f"{sound} of {scans} pair scans sound",
        ]
        return f"{found['verdict']} ({kind}, {found['data']}): {'; '.join(parts)}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return text


def _rows(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows)) + 2
    return [f"{name:<{width}}{text}" for name, text in rows.items()]
