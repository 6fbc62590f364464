"""What the compiled loops need to know of a tensor product, as flat tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from e3nn import o3

from ..tensor_product import EdgeTensorProduct


class UnsupportedError(Exception):
    """The network has a feature that only the plain path knows."""


def merged(irreps: o3.Irreps) -> dict[o3.Irrep, int]:
    """Multiplicity of every irrep, in the order in which they come first."""
    counts: dict[o3.Irrep, int] = {}
    for mul, ir in irreps:
        counts[ir] = counts.get(ir, 0) + mul
    return counts


def first_channels(irreps: o3.Irreps) -> list[int]:
    """Where the channels of each entry begin among all channels of its irrep."""
    seen: dict[o3.Irrep, int] = {}
    starts = []
    for mul, ir in irreps:
        starts.append(seen.get(ir, 0))
        seen[ir] = starts[-1] + mul
    return starts


def _columns(irreps: o3.Irreps) -> tuple[list[int], list[int]]:
    """Column of component 0, channel 0 of every entry, and the distance between components."""
    counts = merged(irreps)
    begin, column = {}, 0
    for ir, mul in counts.items():
        begin[ir] = column
        column += ir.dim * mul
    firsts = [begin[ir] + c for (_, ir), c in zip(irreps, first_channels(irreps), strict=True)]
    return firsts, [counts[ir] for _, ir in irreps]


@dataclass(frozen=True)
class ProductPlan:
    """An :class:`~openmm_nequiplr.nn.EdgeTensorProduct` as a list of multiply-and-add operations.

    Entry n of an edge adds ``matrix[n] weights[w + u] x[a + u]`` to ``out[b + u]`` for every
    channel u, where ``w, a, b = entries[n]`` and ``matrix[n] = Σ factors[s] harmonics[m]`` over all
    s with ``n, m = terms[s]``. Features are merged (all channels of an irrep together, irreps in
    order of appearance) and channel-last.

    Parameters
    ----------
    entries : numpy.ndarray, int64, shape (M, 3)
    terms : numpy.ndarray, int64, shape (T, 2)
    factors : numpy.ndarray, shape (T,)
    multiplicity : int
        Number of channels.
    width : int
        Columns of the output.
    """

    entries: np.ndarray
    terms: np.ndarray
    factors: np.ndarray
    multiplicity: int
    width: int

    @classmethod
    def of(cls, product: EdgeTensorProduct, dtype: torch.dtype) -> ProductPlan:
        """Tabulate a product.

        Raises
        ------
        UnsupportedError
            If the irreps have different multiplicities.
        """
        multiplicities = {mul for mul, _ in product.irreps_in}
        if len(multiplicities) != 1 or not product.paths:
            raise UnsupportedError("one multiplicity for all irreps")
        (mul,) = multiplicities
        inputs, input_strides = _columns(product.irreps_in)
        outputs, output_strides = _columns(product.irreps_out)
        entries, coupling = [], []
        used = [0] * len(product.irreps_in)
        for k, (block, _, ir) in enumerate(product.paths):
            # rows of the exact coupling: harmonics; columns: (components of all paths, component)
            exact = product._exact[f"coupling_{block}"]
            exact = exact.view(exact.shape[0], -1, product.irreps_in[block].ir.dim)
            position = product._position[k]
            for out in range(ir.dim):
                column = exact[:, used[block] + out]
                for component in torch.nonzero(column.abs().amax(dim=0) > 1e-12).flatten().tolist():
                    a = inputs[block] + component * input_strides[block]
                    b = outputs[position] + out * output_strides[position]
                    entries.append((k * mul, a, b))
                    coupling.append(column[:, component])
            used[block] += ir.dim
        dense = torch.stack(coupling)
        terms = torch.nonzero(dense.abs() > 1e-12)
        factors = dense[terms[:, 0], terms[:, 1]].to(dtype)
        return cls(np.array(entries), terms.numpy(), factors.numpy(), mul, product.irreps_out.dim)

    def transposed(self) -> np.ndarray:
        """Entries from output to input."""
        return np.ascontiguousarray(self.entries[:, [0, 2, 1]])
