"""Fast paths on the processor.

A layer in its plain form (:class:`~openmm_nequiplr.nn.ConvNetLayer`) makes a message of every edge.
Here one compiled loop gathers, multiplies and accumulates them (``kernels``). In inference the
radial network is a table (``table``), too, and what remains are plain matrix products (``dense``);
training has the loop alone, as one that can be differentiated twice (``messages``). Both equal the
plain form to round-off, which stays the reference and the form for other devices.
"""

from .messages import message_plan, sum_messages
from .switch import fused_convolutions, fused_loops

__all__ = ["fused_convolutions", "fused_loops", "message_plan", "sum_messages"]
