"""The NequIP-LR model: configuration, networks, evaluation, files."""

from ..pretrained import shipped_models, shipped_structure
from .config import ModelConfig
from .evaluation import Evaluation, Evaluator, Surroundings
from .io import load_model, save_model
from .observables import GroupCharge, GroupDipole, Observation
from .potential import NequIPLRPotential, PotentialOutput

__all__ = [
    "Evaluation",
    "Evaluator",
    "GroupCharge",
    "GroupDipole",
    "ModelConfig",
    "NequIPLRPotential",
    "Observation",
    "PotentialOutput",
    "Surroundings",
    "load_model",
    "save_model",
    "shipped_models",
    "shipped_structure",
]
