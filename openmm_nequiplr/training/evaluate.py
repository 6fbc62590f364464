"""Errors of a model on reference data, as figures, a table and parity plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
    """Errors of a model on a data set; a quantity without labels is None.

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
        """The errors of structures out of their sums, beside the spread of the reference values.

        That of the energies is about the model's atomic reference energies.

        Raises
        ------
        InputError
            If there are none.
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
        """The quantities that had labels."""
        found = {name: getattr(self, name) for name in QUANTITIES}
        return {name: errors for name, errors in found.items() if errors is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
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
        May be left out with ``split``, see `data_of`.
    output : path, optional
        Directory that receives ``parity_*.png``, ``metrics.json`` and ``metrics.csv``.
    batch_size : int
        Structures evaluated at a time.
    device : str or torch.device, optional
        Where the network runs; where the model is when not given.
    precision : {"single", "double"}, optional
        Of the network; as it is when not given.
    verbose : bool
        Print the table, and remarks on the data file.
    **reading
        Options of `data_of`.

    Returns
    -------
    Metrics

    Raises
    ------
    InputError
        If nothing in the data can be compared.
    """
    graphs = data if isinstance(data, GraphDataset) else None
    known = data.structures if isinstance(data, GraphDataset) else data
    data = data_of(known, batch_size, verbose, model, **reading)
    model = prepared(model, device, precision)
    for charge in sorted({structure.total_charge for structure in data}):
        check_trained(model.metadata, charge)
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
    """The errors as a table in plain text."""
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
    """The structures to evaluate.

    Parameters
    ----------
    data : path or sequence of Structure, optional
    batch_size : int
        Checked here.
    verbose : bool
        Print remarks on a data file.
    model : path, optional
        Model file in the output directory of its training; for `split`.
    split : {"train", "validation", "test"}, optional
        Only the structures that the training of `model` used for this. Its data file, and how it
        was read, are those of the training unless they are given.
    keys : DataKeys, optional
        Key names of the data file.
    format : str, optional
        Format of the data file.
    length_unit, energy_unit : str, optional
        Of the data file, see `DataUnits`.
    **key_names : str
        ``energy_key``, ``forces_key``, … instead of `keys`.

    Raises
    ------
    InputError
        If the file cannot be read, or an option makes no sense.
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
    """A model for evaluation, loaded, moved and cast as asked for."""
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
    """The labels of a quantity in one row, eV and Å units; NaN where one is missing."""
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
    """Keep reference and predicted values, shape (2, values).

    Energies are counted from the model's `shifts` (eV, shape (B,)): the differences between
    elements, and even between compositions, would hide everything else.
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
