"""Building blocks of the NequIP network, based on e3nn; features are channel-last throughout."""

from .convolution import ConvNetLayer, Edges, InteractionBlock, edges_of
from .dense import Gate, Linear, SelfConnection, join_features, shapes, split_features
from .encoding import charge_encoding, one_hot
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
    "channels",
    "charge_encoding",
    "edges_of",
    "join_features",
    "one_hot",
    "polynomial_envelope",
    "saturate",
    "shapes",
    "split_features",
]
