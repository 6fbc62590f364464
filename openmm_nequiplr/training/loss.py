"""Losses and errors, from sums over labelled values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..data.dataset import Labels
from .config import LossConfig
from .report import REPORTED

if TYPE_CHECKING:
    from ..model.potential import PotentialOutput

#: Quantities in the loss, in the order in which they are reported.
QUANTITIES = tuple(REPORTED)


def label_of(quantity: str) -> str:
    """Name of the label, and of the output field, from which a quantity is computed."""
    return "energy" if quantity == "energy_per_atom" else quantity


def residuals(output: PotentialOutput, labels: Labels) -> dict[str, torch.Tensor]:
    """Predicted minus reference values of all labelled quantities.

    Parameters
    ----------
    output : PotentialOutput
        Results for a batch of B structures with N atoms in total.
    labels : Labels

    Returns
    -------
    dict of str to tensor
        Quantity to a one-dimensional float64 tensor: energy per atom (eV/atom, one value per
        structure), force components (eV/Å), charges (e), components of dipole (e Å), stress
        (eV/Å³), Born charges (e) and polarisability (e Å²/V). Values without a reference are
        omitted.
    """
    result = {}
    for name in QUANTITIES:
        label = label_of(name)
        reference = getattr(labels, label)
        predicted = None if reference is None else getattr(output, label)
        if predicted is None:
            continue
        difference = predicted.to(reference.dtype) - reference
        if name == "energy_per_atom":
            difference = difference / labels.atoms_per_graph
        known = torch.isfinite(reference)
        result[name] = difference.reshape(-1) if bool(known.all()) else difference[known]
    return {name: value for name, value in result.items() if value.numel() > 0}


def balance_species(
    errors: dict[str, torch.Tensor],
    labels: Labels,
    types: torch.Tensor,
    names: Sequence[str] = ("forces", "charges"),
) -> dict[str, torch.Tensor]:
    """Scale residuals so that each element has the same share in the mean squares.

    Parameters
    ----------
    errors : dict of str to tensor
        Result of `residuals` with `labels`.
    labels : Labels
    types : tensor, int64, shape (N,)
        Element of each atom.
    names : sequence of {"forces", "charges"}
        The quantities to balance.

    Returns
    -------
    dict of str to tensor
        Residuals in which those of `names` are scaled by sqrt(n / (elements × atoms of the
        element)), where n is the number of values.
    """
    result = dict(errors)
    for name, reference in (("forces", labels.forces), ("charges", labels.charges)):
        if name not in names or name not in errors or reference is None:
            continue
        known = torch.isfinite(reference)
        owners = types.view(-1, *[1] * (reference.ndim - 1)).expand_as(reference)[known]
        numbers = torch.bincount(owners)
        share = len(owners) / (torch.count_nonzero(numbers) * numbers[owners])
        result[name] = errors[name] * share.sqrt()
    return result


def weigh_structures(errors: dict[str, torch.Tensor], labels: Labels) -> dict[str, torch.Tensor]:
    """Scale residuals by the square root of the weight of their structure.

    Parameters
    ----------
    errors : dict of str to tensor
        Result of `residuals` with `labels`, or of `balance_species`.
    labels : Labels
    """
    if labels.weight is None or bool((labels.weight == 1.0).all()):
        return errors
    roots = labels.weight.sqrt()
    atoms = roots.repeat_interleave(labels.atoms_per_graph.long())
    result = {}
    for name, values in errors.items():
        reference = getattr(labels, label_of(name))
        own = atoms if name in ("forces", "charges", "born_charges") else roots
        own = own.view(-1, *[1] * (reference.ndim - 1)).expand_as(reference)
        result[name] = values * own[torch.isfinite(reference)]
    return result


def weighted_loss(
    errors: dict[str, torch.Tensor],
    weights: LossConfig,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted sum of the mean squared errors.

    Parameters
    ----------
    errors : dict of str to tensor
        Result of `residuals`.
    weights : LossConfig
    counts : tensor, float64, shape (quantities,), optional
        Divisors of the sums of squares; by default the numbers of values.

    Returns
    -------
    tensor, float64, scalar
    """
    if counts is None:
        counts = _value_counts(errors)
    values = weights.weights()
    terms = [
        values[name] * errors[name].square().sum() / counts[row]
        for row, name in enumerate(QUANTITIES)
        if values[name] > 0 and name in errors
    ]
    if not terms:
        raise ValueError("errors: expected a labelled quantity with a weight, got none")
    return torch.stack(terms).sum()


def label_counts(labels: Labels) -> torch.Tensor:
    """Number of known labels of each quantity, float64, shape (quantities,), on the CPU."""
    known = [getattr(labels, label_of(name)) for name in QUANTITIES]
    counts = [0 if value is None else int(torch.isfinite(value).sum()) for value in known]
    return torch.tensor(counts, dtype=torch.float64)


def _value_counts(errors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Number of values of each quantity, float64, shape (quantities,)."""
    counts = [errors[name].numel() if name in errors else 0 for name in QUANTITIES]
    return torch.tensor(counts, dtype=torch.float64)


@dataclass(frozen=True)
class Errors:
    """Errors of one quantity, in the units of `residuals`.

    Parameters
    ----------
    rmse, mae : float
        Root mean square and mean absolute error.
    count : int
        Number of values.
    data_std : float, optional
        Standard deviation of the reference values, which is the rmse of a constant prediction.
    """

    rmse: float
    mae: float
    count: int
    data_std: float | None = None


class ErrorSums:
    """Sums over batches, from which the errors of a whole data set are computed."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        #: float64, shape (quantities, 3): number of values, sum of squares, sum of absolute values.
        self.sums = torch.zeros(len(QUANTITIES), 3, dtype=torch.float64, device=device)

    def add(self, errors: dict[str, torch.Tensor]) -> None:
        """Add the residuals of one batch."""
        for row, name in enumerate(QUANTITIES):
            if name in errors:
                values = errors[name].detach()
                count = torch.tensor(float(values.numel()), dtype=torch.float64)
                self.sums[row] += torch.stack(
                    [count.to(values.device), values.square().sum(), values.abs().sum()]
                )

    def errors(self) -> dict[str, Errors]:
        """Errors of every quantity with labels."""
        result = {}
        for name, (count, squares, absolute) in zip(QUANTITIES, self.sums.tolist(), strict=True):
            if count > 0:
                result[name] = Errors((squares / count) ** 0.5, absolute / count, int(count))
        return result

    def loss(self, weights: LossConfig) -> float:
        """Weighted loss over all batches that were added."""
        errors = self.errors()
        return sum(
            weight * errors[name].rmse ** 2
            for name, weight in weights.weights().items()
            if name in errors
        )
