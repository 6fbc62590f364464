"""Range of the charges of each element in a training set, for the model card."""

from __future__ import annotations

import torch

from ..data.dataset import GraphDataset
from ..model.potential import NequIPLRPotential


@torch.no_grad()
def charge_ranges(
    model: NequIPLRPotential, data: GraphDataset, batch_size: int
) -> dict[str, tuple[float, float]]:
    """Smallest and largest charge predicted for the atoms of each element, e.

    Parameters
    ----------
    model : NequIPLRPotential
        For a model without charges, the result is empty.
    data : GraphDataset
        Training structures, including harmonic copies.
    batch_size : int
    """
    if not model.config.equilibration:
        return {}
    ranges: dict[str, tuple[float, float]] = {}
    for batch in data.batches(batch_size):
        charges = model(batch.graph, compute_forces=False).charges
        for index, name in enumerate(model.config.type_names):
            own = charges[batch.graph.types == index]
            if own.numel():
                lowest, highest = ranges.get(name, (torch.inf, -torch.inf))
                ranges[name] = (min(lowest, float(own.min())), max(highest, float(own.max())))
    return ranges
