"""The fast path of inference on the processor.

A layer in its plain form (:class:`~openmm_nequiplr.nn.ConvNetLayer`) makes a message of every edge.
Here one compiled loop gathers, multiplies and accumulates them (``kernels``), the radial network is
a table (``table``), and what remains are plain matrix products (``dense``). Equal to the plain form
to round-off, which stays the reference, the form that is trained, and the one for other devices.
"""

from .switch import fused_convolutions, fused_inference

__all__ = ["fused_convolutions", "fused_inference"]
