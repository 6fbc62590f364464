"""The NequIP building blocks, on e3nn; features are channel-last throughout."""

from .convolution import ConvNetLayer, Edges, InteractionBlock, edges_of
from .dense import Gate, Linear, SelfConnection
from .encoding import add_scalars, charge_encoding, one_hot
from .radial import BesselBasis, PolynomialCutoff, RadialBasis, polynomial_envelope
from .readout import ScalarReadout, saturate
from .repulsion import DistanceFloor, ZBLRepulsion
from .tensor_product import EdgeTensorProduct, channels

__all__ = [
    "BesselBasis",
    "ConvNetLayer",
    "DistanceFloor",
    "EdgeTensorProduct",
    "Edges",
    "Gate",
    "InteractionBlock",
    "Linear",
    "PolynomialCutoff",
    "RadialBasis",
    "ScalarReadout",
    "SelfConnection",
    "ZBLRepulsion",
    "add_scalars",
    "channels",
    "charge_encoding",
    "edges_of",
    "one_hot",
    "polynomial_envelope",
    "saturate",
]
