"""Source code of the Triton kernels of a convolution, generated from the tables of its product.

One program processes all edges of one atom and vectorises over channels. Nothing is stored per
edge, and no two programs write to the same address. The product is unrolled. The tables are
defined in :class:`~openmm_nequiplr.ops.convolution.Convolution`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

_COMMON = """
    i = tl.program_id(0).to(tl.int64)
    u = tl.arange(0, BLOCK)
    live = u < MUL"""
_EDGE = """
    for s in range(tl.load(start + i), tl.load(start + i + 1)):
        e = tl.load(order + s)
        j = tl.load(other + e)"""
_CONSTANTS = ", ".join(
    f"{name}: tl.constexpr"
    for name in ("ORIGIN", "INVERSE", "ROWS", "IN", "OUT", "NH", "NW", "MUL", "BLOCK")
)
# Weights vanish beyond the last interval and are NaN before the first.
_LOOK_UP = """
        x = (tl.load(radial + e).to(tl.float64) - ORIGIN) * INVERSE
        beyond = x >= ROWS
        row = tl.minimum(tl.maximum(x, 0.0), ROWS - 1).to(tl.int32)
        t = tl.where(x >= 0.0, x - row - 0.5, float("nan")).to(table.dtype.element_ty)
        line = table + row.to(tl.int64) * (6 * NW)"""


class ProductSource:
    """Generator of the kernels of one product.

    Parameters
    ----------
    tables : str
        Tables of the product.
    tabulated : bool
        If true, the argument ``radial`` of the kernels contains lengths, and the weights are
        interpolated from ``table``. Otherwise it contains the weights.
    num_harmonics : int
    """

    def __init__(self, tables: str, tabulated: bool, num_harmonics: int) -> None:
        self.entries, terms, factors = json.loads(tables)
        self.tabulated, self.num_harmonics = tabulated, num_harmonics
        self.kind = "tabulated" if tabulated else "weighted"
        #: Harmonics in the linear combination of each entry, with their factors.
        self.terms: list[list[tuple[int, float]]] = [[] for _ in self.entries]
        for (n, m), factor in zip(terms, factors, strict=True):
            self.terms[n].append((m, factor))
        self.weights = sorted({w for w, _, _ in self.entries})
        self.harmonics = sorted({m for m, _ in (pair for each in self.terms for pair in each)})

    def source(self) -> str:
        """Source code of ``..._sums``, ``..._transposed`` and ``..._slopes``."""
        head = "import triton\nimport triton.language as tl\n"
        return "\n\n".join([head, self._sums(False), self._sums(True), self._slopes()])

    def _sums(self, transposed: bool) -> str:
        """Kernel for row i of the result: the sum over its edges of products with ``source``.

        Transposed, with a and b of the entries swapped, edges sorted by neighbour, and the centres
        as ``other``, the result is the gradient of the features.
        """
        sides = [(b, a) if transposed else (a, b) for _, a, b in self.entries]
        name = f"{self.kind}_{'transposed' if transposed else 'sums'}"
        outputs = sorted({b for _, b in sides})
        body = [
            f"@triton.jit\ndef {name}(start, order, other, source, harmonics, radial, table, out, "
            f"{_CONSTANTS}):" + _COMMON
        ]
        body += [f"    y{b} = tl.full((BLOCK,), 0.0, source.dtype.element_ty)" for b in outputs]
        body += [_EDGE[1:], *self._edge(slopes=False)]
        body += _loads("x", "source + j * IN", {a for a, _ in sides}, "        ")
        for (w, _, _), (a, b), terms in zip(self.entries, sides, self.terms, strict=True):
            body.append(f"        y{b} += ({_combination(terms)}) * (w{w} * x{a})")
        body += [f"    tl.store(out + i * OUT + {b} + u, y{b}, mask=live)" for b in outputs]
        return "\n".join(body)

    def _slopes(self) -> str:
        """Kernel for gradients of harmonics and lengths, or weights, of the edges of centre i."""
        body = [
            f"@triton.jit\ndef {self.kind}_slopes(start, order, other, features, gradient, "
            f"harmonics, radial, table, of_harmonics, of_radial, {_CONSTANTS}):" + _COMMON
        ]
        body += _loads("g", "gradient + i * OUT", {b for *_, b in self.entries}, "    ")
        body += [_EDGE[1:], *self._edge(slopes=self.tabulated)]
        body += _loads("x", "features + j * IN", {a for _, a, _ in self.entries}, "        ")
        sums: dict[str, list[str]] = {}
        for n, ((w, a, b), terms) in enumerate(zip(self.entries, self.terms, strict=True)):
            body.append(f"        p{n} = x{a} * g{b}")
            radial = f"({_combination(terms)}) * p{n}"
            if self.tabulated:
                sums.setdefault("r", []).append(f"d{w} * ({radial})")
            else:
                sums.setdefault(f"r{w}", []).append(radial)
            for m, factor in terms:
                sums.setdefault(f"a{m}", []).append(f"{factor!r} * (w{w} * p{n})")
        body += [f"        {name} = {' + '.join(parts)}" for name, parts in sums.items()]
        for m in range(self.num_harmonics):
            total = f"tl.sum(a{m})" if m in self.harmonics else "0.0"
            body.append(f"        tl.store(of_harmonics + e * NH + {m}, {total})")
        if self.tabulated:
            body.append("        tl.store(of_radial + e, tl.sum(r))")
        else:
            at = "of_radial + e * NW"
            body += [f"        tl.store({at} + {w} + u, r{w}, mask=live)" for w in self.weights]
        return "\n".join(body)

    def _edge(self, slopes: bool) -> list[str]:
        """Code that loads harmonics and weights of edge e, and derivatives of weights by length."""
        lines = [f"        h{m} = tl.load(harmonics + e * NH + {m})" for m in self.harmonics]
        if not self.tabulated:
            return lines + _loads("w", "radial + e * NW", self.weights, "        ")
        lines.append(_LOOK_UP[1:])
        for w in self.weights:
            for power in range(6):
                at = f"line + {power} * NW + {w} + u"
                lines.append(f"        c{power} = tl.load({at}, mask=live, other=0.0)")
            value = "c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))))"
            lines.append(f"        w{w} = tl.where(beyond, 0.0, {value})")
            if slopes:
                slope = "c1 + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * (5.0 * c5))))"
                lines.append(f"        d{w} = tl.where(beyond, 0.0, INVERSE * ({slope}))")
        return lines


def _loads(name: str, row: str, columns: Iterable[int], indent: str) -> list[str]:
    return [
        f"{indent}{name}{k} = tl.load({row} + {k} + u, mask=live, other=0.0)"
        for k in sorted(columns)
    ]


def _combination(terms: Sequence[tuple[int, float]]) -> str:
    return " + ".join(f"{factor!r} * h{m}" for m, factor in terms)
