"""Refit of the energy shifts of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..data.dataset import GraphDataset
from ..data.sequences import chosen
from ..data.structure import Structure
from ..model import NequIPLRPotential
from .statistics import fit_energy_shifts

#: Structures whose energies a refit takes in.
MOST = 1000


def refit_energy_shifts(
    model: NequIPLRPotential,
    structures: Sequence[Structure],
    batch_size: int = 8,
    most: int = MOST,
) -> np.ndarray:
    """Correct the energy shifts so that no composition is too high or too low on the average.

    While weights move, the mean energies of different compositions wander more than energies
    among structures of one composition. Shifts per element take that out without touching
    forces, stresses or charges.

    Parameters
    ----------
    model : NequIPLRPotential
        Its ``energy_shifts`` are changed in place.
    structures : sequence of Structure
        Those of the training; the ones without an energy are passed over.
    batch_size : int
        Structures evaluated at a time.
    most : int
        Structures evaluated; of each composition as many, evenly chosen, and at least one.

    Returns
    -------
    array, float64, shape [T]
        What was added to the shifts, eV; zeros if no structure has an energy.
    """
    labelled = _chosen(structures, most)
    shifts = dict(model.named_buffers())["energy_shifts"]
    if not labelled:
        return np.zeros(len(shifts))
    energies: list[float] = []
    with torch.no_grad():
        for batch in GraphDataset(labelled, model, memory=0).batches(batch_size):
            output = model(batch.graph.to(model.device), compute_forces=False)
            energies.extend(output.energy.tolist())
    rest = [
        replace(structure, energy=(structure.energy or 0.0) - energy)
        for structure, energy in zip(labelled, energies, strict=True)
    ]
    change = fit_energy_shifts(rest, model.config.type_names)
    shifts += torch.from_numpy(change).to(shifts)
    return change


def _chosen(structures: Sequence[Structure], most: int) -> Sequence[Structure]:
    """Structures with energies, no more than ``most`` or one a composition, in their order."""
    places: dict[tuple[str, ...], list[int]] = {}
    for index, structure in enumerate(structures):
        if structure.energy is not None:
            places.setdefault(tuple(sorted(structure.symbols)), []).append(index)
    share = max(1, most // max(len(places), 1))
    if sum(map(len, places.values())) <= most:
        share = most
    kept = [i for own in places.values() for i in own[:: -(-len(own) // share)]]
    return chosen(structures, sorted(kept))
