"""Refit of the energy shifts of a trained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..data.dataset import GraphDataset, LabelledGraph
from ..data.sequences import chosen
from ..data.structure import Structure
from ..model import NequIPLRPotential
from .statistics import fit_energy_shifts, spread_over_compositions

#: Structures whose energies a refit takes in.
MOST = 1000


def refit_energy_shifts(
    model: NequIPLRPotential,
    data: GraphDataset,
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
    data : GraphDataset
        That of the training; structures without an energy or weight, and synthetic ones, are passed
        over.
    batch_size : int
        Structures evaluated at a time.
    most : int
        Structures evaluated, see :func:`.statistics.spread_over_compositions`.

    Returns
    -------
    array, float64, shape [T]
        What was added to the shifts, eV; zeros if no structure has an energy.
    """

    def usable(structure: Structure) -> bool:
        return structure.energy is not None and structure.weight > 0 and not structure.synthetic

    places = spread_over_compositions(data.structures, most, usable)
    shifts = dict(model.named_buffers())["energy_shifts"]
    if not places:
        return np.zeros(len(shifts))
    energies: list[float] = []
    with torch.no_grad():
        for start in range(0, len(places), batch_size):
            batch = LabelledGraph.collate([data[k] for k in places[start : start + batch_size]])
            output = model(batch.graph.to(model.device), compute_forces=False)
            energies.extend(output.energy.tolist())
    rest = [
        replace(structure, energy=(structure.energy or 0.0) - energy)
        for structure, energy in zip(chosen(data.structures, places), energies, strict=True)
    ]
    change = fit_energy_shifts(rest, model.config.type_names)
    shifts += torch.from_numpy(change).to(shifts)
    return change
