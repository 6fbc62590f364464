"""The kernel seam: hot operations, each with a plain torch reference and compiled kernels.

Which of them runs is chosen in :mod:`.choice`, by device and dtype, and nowhere else.
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
