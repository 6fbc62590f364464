"""Tensor product of the NequIP convolution, and the channel-last layout of features.

Entries of the same irrep are grouped, in order of appearance. Within an irrep the component is the
first index and the channel the last, whereas e3nn puts the channel first. Inner loops then run over
channels, and e3nn's linear maps are plain matrix products.
"""

import torch

from ..ops import Channels, Convolution, Path
from .e3 import o3


def channels(irreps: o3.Irreps) -> list[Channels]:
    """Position of the channels of each entry in channel-last features."""
    totals: dict[o3.Irrep, int] = {}
    offsets = []
    for mul, ir in irreps:
        offsets.append(totals.get(ir, 0))
        totals[ir] = offsets[-1] + mul
    first, column = {}, 0
    for ir, total in totals.items():
        first[ir] = column
        column += ir.dim * total
    return [
        Channels(first[ir], totals[ir], offset, mul, ir.dim)
        for (mul, ir), offset in zip(irreps, offsets, strict=True)
    ]


class EdgeTensorProduct(Convolution):
    """Weighted tensor product of features and spherical harmonics, summed over neighbours.

    On each edge it equals ``e3nn.o3.TensorProduct`` with instructions ``"uvu"``, component
    normalisation and external weights.

    Parameters
    ----------
    irreps_in : e3nn.o3.Irreps
        Features of the neighbour.
    irreps_edge : e3nn.o3.Irreps
        Spherical harmonics, multiplicity 1.
    irreps_filter : e3nn.o3.Irreps
        Irreps to keep; paths to any other irrep are left out.

    Attributes
    ----------
    irreps_out : e3nn.o3.Irreps
        One entry for each path, sorted; the next layer takes ``irreps_out.simplify()``.
    paths : list of (block of the input, harmonic, position in ``irreps_out``)
    """

    def __init__(
        self, irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_filter: o3.Irreps
    ) -> None:
        irreps_in, irreps_edge = o3.Irreps(irreps_in), o3.Irreps(irreps_edge)
        kept = {ir for _, ir in o3.Irreps(irreps_filter)}
        found = [
            (block, harmonic, ir_out)
            for block, (_, ir_in) in enumerate(irreps_in)
            for harmonic, (_, ir_edge) in enumerate(irreps_edge)
            for ir_out in ir_in * ir_edge
            if ir_out in kept
        ]
        middle = o3.Irreps([(irreps_in[block].mul, ir) for block, _, ir in found])
        irreps_out, places, _ = middle.sort()
        outputs = channels(irreps_out)
        paths = []
        for (block, harmonic, ir_out), place in zip(found, places, strict=True):
            ir_in, ir_edge = irreps_in[block].ir, irreps_edge[harmonic].ir
            coupling = o3.wigner_3j(ir_in.l, ir_edge.l, ir_out.l, dtype=torch.float64)
            full = coupling.new_zeros(ir_in.dim, irreps_edge.dim, ir_out.dim)
            full[:, irreps_edge.slices()[harmonic]] = coupling * ir_out.dim**0.5
            paths.append(Path(block, outputs[place], full))
        super().__init__(channels(irreps_in), paths, irreps_edge.dim)
        self.irreps_in, self.irreps_edge, self.irreps_out = irreps_in, irreps_edge, irreps_out
        self.paths = [(b, e, place) for (b, e, _), place in zip(found, places, strict=True)]
