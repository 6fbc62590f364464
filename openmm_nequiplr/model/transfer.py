"""Extension of a trained model to more elements, for further training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import InputError, describe
from ..nn.dense import Mixing
from .config import ModelConfig
from .potential import NequIPLRPotential


def with_elements(
    model: NequIPLRPotential,
    symbols: Sequence[str],
    shortest_distances: Sequence[Sequence[float]] | None = None,
) -> NequIPLRPotential:
    """Copy of a model with additional elements.

    The energies of structures of the old elements are unchanged. The weights of a new element are
    random; its hardness, scales and shifts are the means over the old elements.

    Parameters
    ----------
    model : NequIPLRPotential
    symbols : sequence of str
        New elements (M).
    shortest_distances : table of float, optional, shape (T + M, T + M), Å
        Table for all elements, the old ones first; required if the model has such a table.

    Raises
    ------
    InputError
        If an element is invalid or already in the model, the table is missing, or the model was
        converted from the published code.
    """
    old = model.config
    if old.legacy_periodic or old.legacy_nonperiodic or old.legacy_ewald_cutoff:
        raise InputError(describe("model", "a converted one", "one trained by this package"))
    config = _extended(old, symbols, shortest_distances)
    new = NequIPLRPotential(config).to(dtype=model.dtype)
    before, count = len(old.type_names), len(config.type_names)
    charges = old.num_charge_basis if old.equilibration else 0
    theirs, taken = dict(model.named_modules()), set[str]()
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    with torch.no_grad():
        for name, module in new.named_modules():
            if not isinstance(module, Mixing):
                continue
            same = theirs[name].weight.shape == module.weight.shape
            # attributes are the elements, followed in the energy stage by the encoded charges
            encoded = charges if name.startswith("energy_stage.") else 0
            known = [*range(before), *range(count, count + encoded)]
            module.take_over(theirs[name], None if same else (known, count + encoded))
            taken.add(f"{name}.weight")
        for name, value in [*new.named_parameters(), *new.named_buffers()]:
            own = tensors.get(name)
            if own is None or name in taken:
                continue
            if own.shape == value.shape:
                value.copy_(own)
            elif own.shape == (before,) and value.shape == (count,) and name != "widths":
                value.copy_(torch.cat([own, own.mean().expand(count - before)]))
    new.metadata = dict(model.metadata)
    return new


def _extended(
    config: ModelConfig, symbols: Sequence[str], table: Sequence[Sequence[float]] | None
) -> ModelConfig:
    """Configuration with additional elements, whose Gaussian widths are their covalent radii."""
    names = (*config.type_names, *symbols)
    widths = config.gaussian_widths
    if widths is not None:
        widths = (*widths, *ModelConfig(type_names=tuple(symbols), r_max=config.r_max).widths)
    if config.shortest_distances is not None and table is None:
        expected = f"a table of the {len(names)} elements, because the model has one"
        raise InputError(describe("shortest_distances", None, expected))
    rows = None if config.shortest_distances is None else tuple(map(tuple, table or ()))
    return replace(config, type_names=names, gaussian_widths=widths, shortest_distances=rows)
