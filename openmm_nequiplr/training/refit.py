"""Refit of the energy shifts of a model after training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..data.dataset import GraphDataset, LabelledGraph
from ..data.sequences import chosen
from ..data.structure import Structure
from ..model import NequIPLRPotential
from .statistics import fit_energy_shifts, spread_over_compositions

#: Largest number of structures in a refit.
MOST = 1000


def refit_energy_shifts(
    model: NequIPLRPotential,
    data: GraphDataset,
    batch_size: int = 8,
    most: int = MOST,
) -> np.ndarray:
    """Correct the energy shifts by a fit to the mean energy errors of the compositions.

    During training, the mean energies of compositions fluctuate more than the energy differences
    between structures of one composition. A least-squares fit of one shift per element corrects
    this. Forces, stresses and charges do not change.

    Parameters
    ----------
    model : NequIPLRPotential
        Its ``energy_shifts`` are changed in place.
    data : GraphDataset
        Training data. Structures without energy or weight, and synthetic ones, are ignored.
    batch_size : int
        Structures evaluated at a time.
    most : int
        Number of structures to evaluate, see :func:`.statistics.spread_over_compositions`.

    Returns
    -------
    array, float64, shape (T,), eV
        Change of the shifts; zeros if no structure has an energy.
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
