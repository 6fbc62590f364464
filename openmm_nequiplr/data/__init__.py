"""Reading reference data and preparing it for training."""

from .dataset import GraphDataset, LabelledGraph, Labels
from .extxyz import read_extxyz, structure_from_atoms
from .keys import DataKeys
from .reading import read_structures
from .runner import read_runner
from .split import Split, random_split
from .structure import Structure
from .units import DataUnits

__all__ = [
    "DataKeys",
    "DataUnits",
    "GraphDataset",
    "LabelledGraph",
    "Labels",
    "Split",
    "Structure",
    "random_split",
    "read_extxyz",
    "read_runner",
    "read_structures",
    "structure_from_atoms",
]
