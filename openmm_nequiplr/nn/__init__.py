"""The NequIP building blocks, on e3nn."""

from .convolution import ConvNetLayer, InteractionBlock
from .encoding import add_scalars, charge_encoding, one_hot
from .fused import fused_loops
from .radial import BesselBasis, PolynomialCutoff, RadialBasis, polynomial_envelope
from .readout import ScalarReadout, saturate
from .repulsion import DistanceFloor, ZBLRepulsion
from .tensor_product import EdgeTensorProduct, channel_last

__all__ = [
    "BesselBasis",
    "ConvNetLayer",
    "DistanceFloor",
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
    "polynomial_envelope",
    "saturate",
]
