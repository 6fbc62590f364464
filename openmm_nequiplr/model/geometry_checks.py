"""Checks of the input of graphs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from ..checks import as_numbers
from ..conditions import read_electrodes
from ..errors import InputError, describe
from ..graph import AtomicGraph
from .config import ModelConfig

#: Smallest allowed distance of two atoms, Å.
CLOSEST = 1e-3
# Largest coordinate, Å, that double precision resolves to a thousandth of an Å.
_FARTHEST = 1e12
# Highest known oxidation state, e.
_MOST_CHARGE = 9.0
#: Largest component of a field, V/Å: about the field of a proton at half a bond length.
STRONGEST_FIELD = 50.0


def check_field(
    config: ModelConfig,
    periodic: bool,
    field: Sequence[float] | np.ndarray,
    normal: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Validate a uniform field, shape (3,), V/Å.

    Parameters
    ----------
    config : ModelConfig
    periodic : bool
        Whether charge flows across the faces of a cell: there is a cell, and the charges of groups
        are not constrained.
    field : sequence of 3 float, V/Å
    normal : sequence of 3 float, optional
        Normal of a slab, of any length; no charge crosses the faces of the cell along it.

    Raises
    ------
    InputError
        If the field is invalid, the model has no charges, or the field has a component along a
        periodic direction.
    """
    values = as_numbers("electric_field", field)
    if values.shape != (3,) or not (np.abs(values) <= STRONGEST_FIELD).all():
        expected = f"three finite numbers in V/Å of at most {STRONGEST_FIELD:g}"
        raise InputError(describe("electric_field", field, expected))
    if not config.equilibration:
        expected = "None for a model without charges, on which a field does not act"
        raise InputError(describe("electric_field", values.tolist(), expected))
    across = values
    if normal is not None:
        unit = np.asarray(normal) / np.linalg.norm(normal)
        across = values - (values @ unit) * unit
    if periodic and (np.abs(across) > 1e-9 * np.abs(values).max()).any():
        expected = (
            "None for a periodic structure, unless the charges of groups are constrained and this "
            "is not a TorchScript graph: charge flows across the faces of its cell, and its energy "
            "in a uniform field is undefined"
        )
        if normal is not None:
            expected = (
                "one along the normal of the slab: in its plane charge flows across the faces of "
                "the cell, and its energy in a uniform field is undefined"
            )
        raise InputError(describe("electric_field", values.tolist(), expected))
    return values.copy()


def check_electrodes(config: ModelConfig, count: int, electrodes: Any) -> np.ndarray | None:
    """:func:`.conditions.read_electrodes`, with an error for models without charges."""
    if electrodes is not None and not config.equilibration:
        expected = "None for a model without charges, on which a voltage does not act"
        raise InputError(describe("electrodes", "some", expected))
    return read_electrodes(count, electrodes)


def check_surrounded(config: ModelConfig, periodic: bool, slab: bool) -> None:
    """Check that outside charges can act on a model and a structure.

    Raises
    ------
    InputError
        If the charges of the model do not interact (no equilibration, or the published periodic
        code), or for slabs.
    """
    if not config.has_coulomb_sum(periodic):
        expected = "a model whose charges interact, as outside charges act on these"
        raise InputError(describe("model", "one without", expected))
    if slab:
        expected = "None for a slab, as their sum is over bulk images"
        raise InputError(describe("outside_charges", "some", expected))


def graph_key(config: ModelConfig) -> Hashable:
    """Entries of a configuration that determine its graphs and their Coulomb matrices."""
    return (
        config.type_names,
        max(config.r_max, config.charge_cutoff),
        config.widths,
        config.coulomb_constant,
        config.equilibration,
        config.legacy_periodic,
        config.legacy_nonperiodic,
        config.legacy_ewald_cutoff,
    )


def check_graph(key: Hashable, graph: AtomicGraph) -> None:
    """Check that a graph was built for a model with this :func:`graph_key`.

    Raises
    ------
    InputError
        If other elements, cutoffs or charge widths determine its types, edges and sums.
    """
    if graph.key is not None and graph.key != key:
        expected = "one that build_graph of this model, or of one with equal settings, made"
        raise InputError(describe("graph", "one for another model", expected))


def check_charge(charge: float, numbers: Sequence[int]) -> None:
    """Check that a total charge, e, is possible for atoms of these atomic numbers."""
    if not math.isfinite(charge):
        raise InputError(describe("total_charge", charge, "a finite number"))
    most = min(_MOST_CHARGE * len(numbers), float(sum(numbers)))
    if abs(charge) > most:
        expected = f"at most {most:g} e of either sign for {len(numbers)} atoms"
        raise InputError(describe("total_charge", charge, expected))


def check_positions(count: int, positions: np.ndarray) -> None:
    """Check the shape and the range of positions, Å."""
    if positions.shape != (count, 3) or count == 0:
        expected = f"shape ({count}, 3) with at least one atom"
        raise InputError(describe("positions", positions.shape, expected))
    good = np.abs(positions) < _FARTHEST
    if not good.all():
        row = int(np.argwhere(~good)[0, 0])
        expected = f"finite numbers below {_FARTHEST:g} Å"
        raise InputError(describe("positions", f"{positions[row]} of atom {row}", expected))


def check_distances(
    points: np.ndarray, box: np.ndarray, index: torch.Tensor, shift: torch.Tensor
) -> None:
    """Check that no two atoms overlap."""
    if index.shape[1] == 0:
        return
    sites, vectors = (torch.from_numpy(x).to(index.device) for x in (points, box))
    apart = sites.index_select(0, index[1]) - sites.index_select(0, index[0]) + shift @ vectors
    square, nearest = (apart * apart).sum(dim=-1).min(dim=0)
    if float(square) < CLOSEST * CLOSEST:
        first, second = index[:, nearest].tolist()
        got = f"atoms {first} and {second} at {float(square) ** 0.5:.3g} Å"
        expected = f"atoms at least {CLOSEST:g} Å apart, not on top of one another"
        raise InputError(describe("positions", got, expected))
