"""The tensor product of NequIP's convolution: neighbour features times spherical harmonics."""

from __future__ import annotations

import torch
from e3nn import o3


class EdgeTensorProduct(torch.nn.Module):
    """Weighted tensor product of features with one copy of each spherical harmonic, per edge.

    The same arithmetic as ``e3nn.o3.TensorProduct`` with instructions ``"uvu"``, component
    normalisation and external weights. For each block of input features the paths share one product
    with a matrix that depends on the edge direction alone.

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
        self._blocks: list[tuple[int, int, int, list[int]]] = []
        self._exact: dict[str, torch.Tensor] = {}
        self._build_blocks(paths)

    def _build_blocks(self, paths: list[tuple[int, int, int, o3.Irrep]]) -> None:
        """Coefficients of all paths that leave one block, as one matrix over the harmonics."""
        for block, (mul, ir_in) in enumerate(self.irreps_in):
            own = [k for k, path in enumerate(paths) if path[0] == block]
            self._blocks.append((mul, ir_in.dim, self.irreps_in.slices()[block].start, own))
            if not own:
                continue
            columns, path_of_column = [], []
            for local, k in enumerate(own):
                _, edge, _, ir_out = paths[k]
                ir_edge = self.irreps_edge[edge].ir
                coupling = o3.wigner_3j(ir_in.l, ir_edge.l, ir_out.l, dtype=torch.float64)
                coupling = coupling * ir_out.dim**0.5
                full = coupling.new_zeros(ir_in.dim, self.irreps_edge.dim, ir_out.dim)
                full[:, self.irreps_edge.slices()[edge]] = coupling
                columns.append(full)
                path_of_column += [local] * ir_out.dim
            matrix = torch.cat(columns, dim=-1).permute(1, 0, 2).flatten(1)
            self._exact[f"coupling_{block}"] = matrix
            self.register_buffer(f"coupling_{block}", matrix, persistent=False)
            index = torch.tensor(path_of_column, dtype=torch.int64)
            self.register_buffer(f"path_{block}", index, persistent=False)

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
        harmonics : torch.Tensor, shape (E, irreps_edge.dim)
        weights : torch.Tensor, shape (E, weight_numel)
            Path-major, then multiplicity, as in e3nn.

        Returns
        -------
        torch.Tensor, shape (E, irreps_out.dim)
        """
        edges = features.shape[0]
        outputs: list[torch.Tensor] = [features] * len(self._position)
        offset = 0
        for block, (mul, dim, start, own) in enumerate(self._blocks):
            if not own:
                continue
            x = features[:, start : start + mul * dim].view(edges, mul, dim)
            direction = (harmonics @ getattr(self, f"coupling_{block}")).view(edges, dim, -1)
            product = x * direction if dim == 1 else torch.bmm(x, direction)
            weight = weights[:, offset : offset + len(own) * mul].view(edges, len(own), mul)
            offset += len(own) * mul
            columns = getattr(self, f"path_{block}")
            product = product * weight.transpose(1, 2).index_select(2, columns)
            column = 0
            for k in own:
                width = self.paths[k][2].dim
                outputs[self._position[k]] = product[:, :, column : column + width].flatten(1)
                column += width
        return torch.cat(outputs, dim=1) if outputs else features.new_zeros(edges, 0)
