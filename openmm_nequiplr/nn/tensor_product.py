"""The tensor product of NequIP's convolution: neighbour features times spherical harmonics."""

from __future__ import annotations

import torch
from e3nn import o3


def channel_last(features: torch.Tensor, irreps: o3.Irreps, back: bool = False) -> torch.Tensor:
    """Swap multiplicity and component within every irrep of features of shape (N, irreps.dim).

    Parameters
    ----------
    features : torch.Tensor, shape (N, irreps.dim)
        In e3nn's order (multiplicity first), or channel-last when ``back``.
    irreps : e3nn.o3.Irreps
    back : bool
        From channel-last to e3nn's order.
    """
    if all(ir.dim == 1 or mul == 1 for mul, ir in irreps):
        return features
    pieces = features.split([mul * ir.dim for mul, ir in irreps], dim=1)
    swapped = []
    for piece, (mul, ir) in zip(pieces, irreps, strict=True):
        shape = (ir.dim, mul) if back else (mul, ir.dim)
        swapped.append(piece.view(-1, *shape).transpose(1, 2).flatten(1))
    return torch.cat(swapped, dim=1)


class EdgeTensorProduct(torch.nn.Module):
    """Weighted tensor product of features with one copy of each spherical harmonic, per edge.

    The same arithmetic as ``e3nn.o3.TensorProduct`` with instructions ``"uvu"``, component
    normalisation and external weights. For each block of input features the paths share one product
    with a matrix that depends on the edge direction alone. Features are channel-last: within an
    irrep the component comes first and the multiplicity last (see :func:`channel_last`), the other
    way round than in e3nn, so that the inner loops run over channels.

    Parameters
    ----------
    irreps_in : e3nn.o3.Irreps
        Features of the neighbour.
    irreps_edge : e3nn.o3.Irreps
        Spherical harmonics, multiplicity 1.
    irreps_filter : e3nn.o3.Irreps
        Outputs that are kept: paths to any other irrep are left out.

    Attributes
    ----------
    irreps_out : e3nn.o3.Irreps
        One entry a path, sorted; ``irreps_out.simplify()`` is what follows.
    weight_numel : int
        Weights an edge: one for each path and input multiplicity.
    """

    def __init__(
        self, irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_filter: o3.Irreps
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_edge = o3.Irreps(irreps_in), o3.Irreps(irreps_edge)
        kept = {ir for _, ir in o3.Irreps(irreps_filter)}
        paths = [
            (block, edge, mul, ir_out)
            for block, (mul, ir_in) in enumerate(self.irreps_in)
            for edge, (_, ir_edge) in enumerate(self.irreps_edge)
            for ir_out in ir_in * ir_edge
            if ir_out in kept
        ]
        middle = o3.Irreps([(mul, ir) for _, _, mul, ir in paths])
        self.irreps_out, position, _ = middle.sort()
        self.weight_numel = sum(mul for _, _, mul, _ in paths)
        self.paths = [(b, e, ir) for b, e, _, ir in paths]
        self._position = list(position)
        self._widths = [mul * ir.dim for mul, ir in self.irreps_in]
        self._weight_widths = [mul for _, _, mul, _ in paths]
        self._blocks: list[tuple[int, int, list[int]]] = []
        self._exact: dict[str, torch.Tensor] = {}
        self._build_blocks(paths)

    def _build_blocks(self, paths: list[tuple[int, int, int, o3.Irrep]]) -> None:
        """Coefficients of all paths that leave one block, as one matrix over the harmonics."""
        for block, (mul, ir_in) in enumerate(self.irreps_in):
            own = [k for k, path in enumerate(paths) if path[0] == block]
            self._blocks.append((mul, ir_in.dim, own))
            if not own:
                continue
            columns = []
            for k in own:
                _, edge, _, ir_out = paths[k]
                ir_edge = self.irreps_edge[edge].ir
                coupling = o3.wigner_3j(ir_in.l, ir_edge.l, ir_out.l, dtype=torch.float64)
                coupling = coupling * ir_out.dim**0.5
                full = coupling.new_zeros(ir_in.dim, self.irreps_edge.dim, ir_out.dim)
                full[:, self.irreps_edge.slices()[edge]] = coupling
                columns.append(full)
            matrix = torch.cat(columns, dim=-1).permute(1, 2, 0).flatten(1)
            self._exact[f"coupling_{block}"] = matrix
            self.register_buffer(f"coupling_{block}", matrix, persistent=False)

    def _apply(self, fn, recurse=True):
        """Cast the couplings from float64 each time, so that ``.float().double()`` is exact."""
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            setattr(self, name, exact.to(getattr(self, name)))
        return self

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Evaluate the product on every edge.

        Parameters
        ----------
        features : torch.Tensor, shape (E, irreps_in.dim)
            Channel-last.
        harmonics : torch.Tensor, shape (E, irreps_edge.dim)
        weights : torch.Tensor, shape (E, weight_numel)
            Path-major, then multiplicity, as in e3nn.

        Returns
        -------
        torch.Tensor, shape (E, irreps_out.dim)
            Channel-last.
        """
        edges = features.shape[0]
        outputs: list[torch.Tensor] = [features] * len(self._position)
        parts = features.split(self._widths, dim=1)
        path_weights = weights.split(self._weight_widths, dim=1)
        used = 0
        for block, (mul, dim, own) in enumerate(self._blocks):
            if not own:
                continue
            x = parts[block].view(edges, dim, mul)
            sizes = [self.paths[k][2].dim for k in own]
            direction = harmonics @ getattr(self, f"coupling_{block}")
            direction = direction.view(edges, sum(sizes), dim)
            product = direction * x if dim == 1 else torch.bmm(direction, x)
            for k, piece in zip(own, product.split(sizes, dim=1), strict=True):
                weighted = piece * path_weights[used].unsqueeze(1)
                outputs[self._position[k]] = weighted.flatten(1)
                used += 1
        return torch.cat(outputs, dim=1) if outputs else features.new_zeros(edges, 0)
