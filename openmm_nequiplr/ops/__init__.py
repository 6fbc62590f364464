"""Operators of the hot loops, each with a plain torch reference and compiled kernels.

:mod:`.choice` selects the implementation by device and dtype.
"""

from .activation import silu_along
from .choice import compiled, references
from .convolution import Channels, Convolution, Path
from .convolution_operators import RadialTable, SortedEdges, sort_edges

__all__ = [
    "Channels",
    "Convolution",
    "Path",
    "RadialTable",
    "SortedEdges",
    "compiled",
    "references",
    "silu_along",
    "sort_edges",
]
