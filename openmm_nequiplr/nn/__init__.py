"""The NequIP building blocks, on e3nn."""

from .convolution import ConvNetLayer, InteractionBlock
from .encoding import add_scalars, charge_encoding, one_hot
from .fused import fused_loops
from .radial import BesselBasis, PolynomialCutoff, RadialBasis
from .readout import ScalarReadout
from .repulsion import ZBLRepulsion
from .tensor_product import EdgeTensorProduct, channel_last

__all__ = [
    "BesselBasis",
    "ConvNetLayer",
    "EdgeTensorProduct",
    "InteractionBlock",
    "PolynomialCutoff",
    "RadialBasis",
    "ScalarReadout",
    "ZBLRepulsion",
    "add_scalars",
    "channel_last",
    "charge_encoding",
    "fused_loops",
    "one_hot",
]
