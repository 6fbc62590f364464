"""Errors of a model on reference data, as numbers, a table and parity plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..boundaries import say_not_periodic
from ..console import say
from ..data.dataset import GraphDataset, Labels
from ..data.keys import DataKeys, with_names
from ..data.reading import read_structures, unsaid
from ..data.sequences import chained
from ..data.structure import Structure
from ..data.units import DataUnits
from ..errors import InputError, describe
from ..model import NequIPLRPotential, PotentialOutput, load_model
from ..total_charge import check_trained
from .loss import QUANTITIES, Errors, ErrorSums, label_of, residuals
from .report import REPORTED, scaled
from .splits import recorded_part


@dataclass(frozen=True)
class Metrics:
    """Errors of a model on a data set; None for quantities without labels.

    Parameters
    ----------
    num_structures, num_atoms : int
    energy_per_atom : Errors
        meV/atom.
    forces : Errors
        Force components, meV/Å.
    charges : Errors
        me.
    dipole : Errors
        Dipole components, me Å.
    stress : Errors
        Stress components, meV/Å³.
    born_charges : Errors
        Components of Born effective charges, me.
    polarizability : Errors
        Components of the polarisability, me Å²/V.
    """

    num_structures: int
    num_atoms: int
    energy_per_atom: Errors | None = None
    forces: Errors | None = None
    charges: Errors | None = None
    dipole: Errors | None = None
    stress: Errors | None = None
    born_charges: Errors | None = None
    polarizability: Errors | None = None

    @classmethod
    def of(cls, sums: ErrorSums, data: Sequence[Structure], model: NequIPLRPotential) -> Metrics:
        """Errors and the standard deviation of the reference values, from sums over structures.

        The standard deviation of the energies is taken after the energy shifts of the model are
        subtracted.

        Raises
        ------
        InputError
            If there are no labels.
        """
        errors = sums.errors()
        if not errors:
            raise InputError(describe("data", "no labels", "energies, forces or charges"))
        figures = {}
        for name, e in errors.items():
            std = scaled(float(np.nanstd(_reference_values(name, data, model))))
            figures[name] = replace(e, rmse=scaled(e.rmse), mae=scaled(e.mae), data_std=std)
        return cls(len(data), sum(s.num_atoms for s in data), **figures)

    def quantities(self) -> dict[str, Errors]:
        """Errors of the quantities that have labels."""
        found = {name: getattr(self, name) for name in QUANTITIES}
        return {name: errors for name, errors in found.items() if errors is not None}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        result: dict[str, Any] = {
            "num_structures": self.num_structures,
            "num_atoms": self.num_atoms,
        }
        for name, errors in self.quantities().items():
            result[name] = {**vars(errors), "unit": REPORTED[name].unit}
        return result


def evaluate_model(
    model: NequIPLRPotential | str | Path,
    data: str | Path | Sequence[Structure] | GraphDataset | None = None,
    output: str | Path | None = None,
    batch_size: int = 8,
    *,
    device: str | torch.device | None = None,
    precision: str | None = None,
    verbose: bool = True,
    **reading: Any,
) -> Metrics:
    """Compare a model with reference data.

    Parameters
    ----------
    model : NequIPLRPotential, path, or name of a shipped or downloaded model
    data : path, sequence of Structure, or GraphDataset, optional
        May be omitted with ``split``, see `data_of`.
    output : path, optional
        Directory to which ``parity_*.png``, ``metrics.json`` and ``metrics.csv`` are written.
    batch_size : int
        Structures evaluated at a time.
    device : str or torch.device, optional
        Device of the network; by default the current device of the model.
    precision : {"single", "double"}, optional
        Precision of the network; unchanged by default.
    verbose : bool
        Print the table, and notes on the data file.
    **reading
        Options of `data_of`.

    Returns
    -------
    Metrics

    Raises
    ------
    InputError
        If the data contain no labels that the model predicts.
    """
    graphs = data if isinstance(data, GraphDataset) else None
    known = data.structures if isinstance(data, GraphDataset) else data
    data = data_of(known, batch_size, verbose, model, **reading)
    model = prepared(model, device, precision)
    for charge in sorted({structure.total_charge for structure in data}):
        check_trained(model.metadata, charge)
    free = sum(not structure.pbc for structure in data)
    if free:
        say_not_periodic(model.metadata, f"{free} of {len(data)} structures are")
    pairs: dict[str, list[np.ndarray]] = {}
    sums = ErrorSums()
    wants_stress = any(s.has_label("stress") for s in data)
    for batch in (graphs or GraphDataset(data, model, memory=0)).batches(batch_size):
        batch = batch.to(model.device)
        wanted = True, wants_stress, batch.labels.has_response
        result = model(batch.graph, *wanted)
        errors = residuals(result, batch.labels)
        sums.add({name: value.cpu() for name, value in errors.items()})
        if output is not None:
            _collect(pairs, result, batch.labels, model.reference_energy(batch.graph))
    metrics = Metrics.of(sums, data, model)
    if output is not None:
        _write(Path(output), metrics, pairs)
    if verbose:
        say(format_table(metrics))
    return metrics


def format_table(metrics: Metrics) -> str:
    """Table of the errors in plain text."""
    lines = [f"{'':18}{'RMSE':>10}{'MAE':>10}{'data std':>11}  {'unit':<10}{'values':>8}"]
    for name, errors in metrics.quantities().items():
        title, unit, _ = REPORTED[name]
        lines.append(
            f"{title:18}{errors.rmse:10.3f}{errors.mae:10.3f}{errors.data_std:11.3f}  "
            f"{unit:<10}{errors.count:8d}"
        )
    return "\n".join(lines)


def data_of(
    data: str | Path | Sequence[Structure] | None,
    batch_size: int,
    verbose: bool,
    model: object = None,
    split: str | None = None,
    keys: DataKeys | None = None,
    format: str | None = None,
    length_unit: str | None = None,
    energy_unit: str | None = None,
    **key_names: str | None,
) -> Sequence[Structure]:
    """Structures to evaluate.

    Parameters
    ----------
    data : path or sequence of Structure, optional
    batch_size : int
        Only validated here.
    verbose : bool
        Print notes on a data file.
    model : path, optional
        Model file in the output directory of its training, required by `split`.
    split : {"train", "validation", "test"}, optional
        Read only this part of the split of the training of `model`. By default, the data file, its
        keys, format and units are those of the training.
    keys : DataKeys, optional
        Key names of the data file.
    format : str, optional
        Format of the data file.
    length_unit, energy_unit : str, optional
        Units of the data file, see `DataUnits`.
    **key_names : str
        ``energy_key``, ``forces_key``, … instead of `keys`.

    Raises
    ------
    InputError
        If the file cannot be read, or the options are invalid.
    """
    if batch_size < 1:
        raise InputError(describe("batch_size", batch_size, "at least 1"))
    units = DataUnits(length_unit, energy_unit)
    say = print if verbose else unsaid
    if split is None:
        keys = with_names(keys or DataKeys(), key_names)
        if data is None:
            raise InputError("data: expected a data file, or a split of the training, got neither")
        if not isinstance(data, str | Path):
            return data
        return read_structures(data, keys, format, units, say)
    if data is not None and not isinstance(data, str | Path):
        raise InputError(describe("data", "structures", "a file, or nothing, with split"))
    part = recorded_part(model, split, data)
    if part.teacher is not None:
        say(f"labels: those of the data; the training learned from {part.teacher} in their place")
    units = part.data.units if units == DataUnits() else units
    options = format or part.data.format, units, say
    structures = chained(
        [
            read_structures(path, with_names(keys or own, key_names), *options)
            for path, own in zip(part.files, part.keys, strict=True)
        ]
    )
    return structures if part.indices is None else [structures[i] for i in part.indices]


def prepared(
    model: NequIPLRPotential | str | Path,
    device: str | torch.device | None,
    precision: str | None,
) -> NequIPLRPotential:
    """Model for evaluation: loaded if necessary, moved to the device and cast to the precision."""
    if precision not in (None, "single", "double"):
        raise InputError(describe("precision", precision, "'single' or 'double'"))
    if not isinstance(model, NequIPLRPotential):
        model = load_model(model)
    model = model.eval()
    if device is not None:
        model = model.to(device)
    if precision is not None:
        model = model.to(torch.float32 if precision == "single" else torch.float64)
    return model


def _reference_values(name: str, data: Sequence[Structure], model: NequIPLRPotential) -> np.ndarray:
    """Labels of a quantity as a flat array, in units of eV, Å and e; NaN where unknown."""
    if name == "energy_per_atom":
        shifts = dict(model.named_buffers())["energy_shifts"].tolist()
        own = dict(zip(model.config.type_names, shifts, strict=True))
        known = [s for s in data if s.energy is not None]
        return np.array([(s.energy - sum(own[e] for e in s.symbols)) / s.num_atoms for s in known])
    return np.concatenate([np.ravel(getattr(s, name)) for s in data if s.has_label(name)])


def _collect(
    pairs: dict[str, list[np.ndarray]],
    result: PotentialOutput,
    labels: Labels,
    shifts: torch.Tensor,
) -> None:
    """Append reference and predicted values, shape (2, values), to ``pairs``.

    Energies are relative to the `shifts` of the model (eV, shape (B,)). Otherwise the differences
    between elements and compositions would dominate the plots.
    """
    for name in QUANTITIES:
        label = label_of(name)
        reference, predicted = getattr(labels, label), getattr(result, label)
        if reference is None or predicted is None:
            continue
        both = torch.stack([reference, predicted.to(reference.dtype)]).detach()
        if name == "energy_per_atom":
            both = (both - shifts) / labels.atoms_per_graph
        both = both.reshape(2, -1)
        pairs.setdefault(name, []).append(both[:, torch.isfinite(both[0])].cpu().numpy())


def _write(output: Path, metrics: Metrics, pairs: dict[str, list[np.ndarray]]) -> None:
    from ..analysis.plots import plot_parity

    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(
        json.dumps(metrics.to_dict(), indent=1) + "\n", encoding="utf-8"
    )
    with open(output / "metrics.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["quantity", "rmse", "mae", "data_std", "unit", "count"])
        for name, e in metrics.quantities().items():
            writer.writerow([name, e.rmse, e.mae, e.data_std, REPORTED[name].unit, e.count])
    for name, errors in metrics.quantities().items():
        plot_parity(
            np.concatenate(pairs[name], axis=1),
            output / f"parity_{name}.png",
            title=f"{REPORTED[name].title}: RMSE {errors.rmse:.3g} {REPORTED[name].unit}",
            unit=REPORTED[name].unit.replace("m", "", 1),
            error_unit=REPORTED[name].unit,
            error_scale=scaled(1.0),
        )
