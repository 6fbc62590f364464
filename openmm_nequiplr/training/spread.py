"""Evaluation of a committee: errors of the mean and of each model, spread and calibration."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..console import say
from ..data.dataset import GraphDataset, LabelledGraph, Labels
from ..data.structure import Structure
from ..model import NequIPLRPotential, PotentialOutput
from ..model.committee import deviation, load_members, member_sources
from ..model.geometry_checks import graph_key
from .evaluate import Metrics, data_of, format_table, prepared
from .loss import ErrorSums, residuals
from .report import REPORTED, scaled

#: Quantities whose spread is reported.
SPREAD_QUANTITIES = ("energy_per_atom", "forces", "charges")


@dataclass(frozen=True)
class SpreadFigures:
    """Spread of a committee, and its correlation with the errors of the mean prediction.

    Spread and error have one value for each structure (energy per atom) or for each atom (charges,
    and lengths of force vectors).

    Parameters
    ----------
    rms, largest : float
        Root mean square and maximum of the spread, in thousandths of eV, Å and e units.
    error : float or None
        Root mean square error of the mean prediction, in the same units; None without labels.
    calibration : float or None
        ``error / rms``, the factor by which the spread underestimates the error (overestimates it
        if below 1).
    correlation : float or None
        Spearman rank correlation of spread and error; None with fewer than three values.
    count : int
        Number of values.
    """

    rms: float
    largest: float
    error: float | None
    calibration: float | None
    correlation: float | None
    count: int


@dataclass(frozen=True)
class CommitteeMetrics:
    """Errors and spread of a committee on a data set.

    Parameters
    ----------
    mean : Metrics
        Errors of the mean prediction.
    members : tuple of Metrics
        Errors of each model.
    spread : dict of str to SpreadFigures
        Spread of ``energy_per_atom``, ``forces`` and, for models with charges, ``charges``.
    """

    mean: Metrics
    members: tuple[Metrics, ...]
    spread: dict[str, SpreadFigures]

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return {
            "mean": self.mean.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "spread": {
                name: {**asdict(figures), "unit": REPORTED[name].unit}
                for name, figures in self.spread.items()
            },
        }


def evaluate_committee(
    models: Sequence[NequIPLRPotential | str | os.PathLike],
    data: str | Path | Sequence[Structure] | None = None,
    output: str | Path | None = None,
    batch_size: int = 8,
    *,
    device: str | torch.device | None = None,
    precision: str | None = None,
    verbose: bool = True,
    **reading: Any,
) -> CommitteeMetrics:
    """Compare the mean of several models with reference data, and its error with their spread.

    Parameters
    ----------
    models : sequence of NequIPLRPotential, path or str
        Two or more models, or the directory of a committee.
    data, batch_size, device, precision, **reading
        As in :func:`.evaluate.evaluate_model`.
    output : path, optional
        Directory to which ``committee.json`` and ``spread_*.png`` are written.
    verbose : bool
        Print the tables.

    Raises
    ------
    InputError
        If there are fewer than two models, the models differ in kind, or the data contain no
        labels that they predict.
    ModelFileError
        If a model cannot be read.
    """
    data = data_of(data, batch_size, verbose, member_sources(models)[0], **reading)
    members = [prepared(model, device, precision) for model in load_members(models)]
    sums = [ErrorSums() for _ in range(len(members) + 1)]
    values = _Values()
    stress = any(s.has_label("stress") for s in data)
    for batches in _shared_batches(members, data, batch_size):
        outputs = [
            _on_cpu(model(batch.to(model.device).graph, compute_stress=stress))
            for model, batch in zip(members, batches, strict=True)
        ]
        labels = batches[0].labels
        mean = _mean(outputs)
        for each, result in zip(sums, [mean, *outputs], strict=True):
            each.add(residuals(result, labels))
        values.add(outputs, mean, labels)
    with_charges = members[0].config.equilibration
    pairs = {n: p for n, p in values.joined().items() if with_charges or n != "charges"}
    mean_metrics, *member_metrics = [Metrics.of(each, data, members[0]) for each in sums]
    spread = {name: _figures(*pair) for name, pair in pairs.items()}
    metrics = CommitteeMetrics(mean_metrics, tuple(member_metrics), spread)
    if output is not None:
        _write(Path(output), metrics, pairs)
    if verbose:
        say(format_committee(metrics))
    return metrics


def format_committee(metrics: CommitteeMetrics) -> str:
    """Plain-text tables of the errors of the mean and of each model, and of the spread."""
    count = len(metrics.members)
    names = list(metrics.mean.quantities())
    lines = [f"mean of {count} models", format_table(metrics.mean), "", "RMSE of each model"]
    lines.append(" " * 18 + "".join(f"{f'model {k + 1}':>10}" for k in range(count)))
    for name in names:
        figures = [member.quantities()[name].rmse for member in metrics.members]
        row = "".join(f"{figure:10.3f}" for figure in figures)
        lines.append(f"{REPORTED[name].title:18}{row}  {REPORTED[name].unit}")
    lines += ["", "spread of the models, and the error of their mean"]
    head = ("spread", "largest", "error", "error/spread", "rank correlation")
    lines.append(" " * 18 + "{:>10}{:>10}{:>10}{:>14}{:>18}".format(*head))
    for name, each in metrics.spread.items():
        title, unit, _ = REPORTED[name]
        lines.append(
            f"{title:18}{each.rms:10.3f}{each.largest:10.3f}{_optional(each.error):>10}"
            f"{_optional(each.calibration):>14}{_optional(each.correlation):>18}  {unit}"
        )
    return "\n".join(lines)


def _optional(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _shared_batches(
    members: Sequence[NequIPLRPotential], data: Sequence[Structure], batch_size: int
) -> list[list[LabelledGraph]]:
    """For each batch, the graph for each model; models with equal graphs share them."""
    made: dict[Hashable, list[LabelledGraph]] = {}
    own = []
    for model in members:
        key = graph_key(model.config)
        if key not in made:
            made[key] = [batch.to("cpu") for batch in GraphDataset(data, model).batches(batch_size)]
        own.append(made[key])
    return [list(batches) for batches in zip(*own, strict=True)]


def _on_cpu(output: PotentialOutput) -> PotentialOutput:
    parts = {name: None if v is None else v.detach().cpu() for name, v in vars(output).items()}
    return PotentialOutput(**parts)  # type: ignore[arg-type]


def _mean(outputs: Sequence[PotentialOutput]) -> PotentialOutput:
    first = vars(outputs[0])
    means = {
        name: None if first[name] is None else torch.stack([vars(o)[name] for o in outputs]).mean(0)
        for name in first
    }
    return PotentialOutput(**means)  # type: ignore[arg-type]


class _Values:
    """Spread and error of every structure (energy) or atom, collected batch by batch."""

    def __init__(self) -> None:
        self.parts: dict[str, list[np.ndarray]] = {name: [] for name in SPREAD_QUANTITIES}

    def add(
        self, outputs: Sequence[PotentialOutput], mean: PotentialOutput, labels: Labels
    ) -> None:
        """Add one batch; errors without a label are NaN."""
        atoms = labels.atoms_per_graph.cpu().numpy()
        fields = {"energy_per_atom": "energy", "forces": "forces", "charges": "charges"}
        for name, field in fields.items():
            spread = deviation(
                np.stack([vars(o)[field].numpy() for o in outputs]), vectors=field == "forces"
            )
            reference = getattr(labels, field)
            error = np.full(spread.shape, np.nan)
            if reference is not None:
                error = vars(mean)[field].numpy() - reference.cpu().numpy()
                error = np.linalg.norm(error, axis=-1) if field == "forces" else np.abs(error)
            if field == "energy":
                spread, error = spread / atoms, error / atoms
            self.parts[name].append(np.stack([spread, error]))

    def joined(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Spread and error of every quantity, in units of eV, Å and e."""
        return {
            name: (both[0], both[1])
            for name, both in ((n, np.concatenate(p, axis=1)) for n, p in self.parts.items())
        }


def _figures(spread: np.ndarray, error: np.ndarray) -> SpreadFigures:
    from scipy.stats import spearmanr

    known = np.isfinite(error)
    rms = float(np.sqrt(np.mean(spread**2)))
    off = factor = correlation = None
    if known.any():
        off = float(np.sqrt(np.mean(error[known] ** 2)))
        own = float(np.sqrt(np.mean(spread[known] ** 2)))
        factor = off / own if own > 0 else None
    if known.sum() > 2 and np.ptp(spread[known]) > 0 and np.ptp(error[known]) > 0:
        correlation = float(spearmanr(spread[known], error[known]).statistic)
    return SpreadFigures(
        rms=scaled(rms),
        largest=scaled(float(spread.max())),
        error=None if off is None else scaled(off),
        calibration=factor,
        correlation=correlation,
        count=len(spread),
    )


def _write(
    output: Path,
    metrics: CommitteeMetrics,
    pairs: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    from ..analysis.plots import plot_spread

    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics.to_dict(), indent=1)
    (output / "committee.json").write_text(text + "\n", encoding="utf-8")
    for name, (spread, error) in pairs.items():
        figures = metrics.spread[name]
        if figures.error is None:
            continue
        known = np.isfinite(error)
        plot_spread(
            scaled(1.0) * spread[known],
            scaled(1.0) * error[known],
            output / f"spread_{name}.png",
            title=f"{REPORTED[name].title}: error/spread {_optional(figures.calibration)}, "
            f"rank correlation {_optional(figures.correlation)}",
            unit=REPORTED[name].unit,
        )
