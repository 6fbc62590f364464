"""Fast paths on the processor.

A layer in its plain form (:class:`~openmm_nequiplr.nn.ConvNetLayer`) makes a message of every edge.
Here one compiled loop gathers, multiplies and accumulates them, and what remains are plain matrix
products (``dense``). In inference the loop takes the radial network from a table (``convolution``,
``table``); in training its weights are computed and it can be differentiated twice (``messages``).
Both equal the plain form to round-off, which stays the reference and the form for other devices.
"""

from .switch import fused_convolutions, fused_loops

__all__ = ["fused_convolutions", "fused_loops"]
