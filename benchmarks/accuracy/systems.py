"""The systems and variants of the accuracy benchmark, and how their data are divided."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import yaml
from ase import Atoms

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VARIANTS = {
    "lr": "NequIP-LR",
    "separate": "NequIP-LR, stages that share charges alone, as in the paper",
    "short_range": "short-range, equivariant (no equilibration)",
    "invariant": "long-range, invariant (l_max 0)",
}
#: Entries of ``model`` that only a model with charges has.
_OF_CHARGES = (
    "shared_features", "charge_min", "charge_max", "num_charge_basis", "electrostatic_energy",
    "effective_charges", "coulomb_constant", "gaussian_widths", "hardness_min",
)  # fmt: skip
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class System:
    """One data set with the settings of its example.

    Parameters
    ----------
    data : str
        Name of the file in the data directory.
    config : str
        Configuration in ``examples`` from which all variants start.
    cutoffs : tuple of float, Å
        Of all layers.
    layers : tuple of two int
        Before and after the charges; a model without charges has their sum.
    budget : float
        Minutes of training of every model.
    divide : callable
        ``divide(frames, kept_apart)`` makes the parts; it shuffles by itself.
    """

    data: str
    config: str
    cutoffs: tuple[float, ...]
    layers: tuple[int, int]
    budget: float
    divide: Callable[[list[Atoms], list[Atoms]], dict[str, list[Atoms]]]

    def receptive_field(self, cutoff: float) -> float:
        """How far the network sees, Å."""
        return sum(self.layers) * cutoff


def at_random(validation: int, test: int) -> Callable:
    """Parts of a fixed random order; kept-apart frames take the place of the test part."""

    def divide(frames: list[Atoms], kept_apart: list[Atoms]) -> dict[str, list[Atoms]]:
        order = list(range(len(frames)))
        random.Random(0).shuffle(order)
        held = 0 if kept_apart else test
        return {
            "validation": [frames[i] for i in order[:validation]],
            "test": kept_apart or [frames[i] for i in order[validation : validation + held]],
            "train": [frames[i] for i in sorted(order[validation + held :])],
        }

    return divide


def by_separation(test: int) -> Callable:
    """Trained on the near, judged on the far; one in the middle for validation."""

    def divide(frames: list[Atoms], kept_apart: list[Atoms]) -> dict[str, list[Atoms]]:
        near = sorted(frames, key=lambda atoms: atoms.info["separation"])
        far = sorted(kept_apart, key=lambda atoms: atoms.info.get("separation", 0.0))
        if not far:
            near, far = near[:-test], near[-test:]
        middle = len(near) // 2
        return {
            "validation": [near[middle]],
            "test": far,
            "train": near[:middle] + near[middle + 1 :],
        }

    return divide


SYSTEMS = {
    "carbon_chain": System(
        data="carbon_chain.extxyz",
        config="carbon_chain.yaml",
        cutoffs=(3.0, 4.0),
        layers=(1, 2),
        budget=20.0,
        divide=at_random(validation=6, test=12),
    ),
    # 10.95 Å at most: the nearest dopant is 11.1 Å from the gold
    "au2_mgo": System(
        data="au2_mgo.extxyz",
        config="au2_mgo_start.yaml",
        cutoffs=(3.0, 3.65),
        layers=(2, 1),
        budget=30.0,
        divide=at_random(validation=5, test=8),
    ),
    "charged_dimer": System(
        data="charged_dimer_train.extxyz",
        config="charged_dimer.yaml",
        cutoffs=(3.0, 4.0),
        layers=(2, 1),
        budget=10.0,
        divide=by_separation(test=2),
    ),
    "dipeptides": System(
        data="dipeptides_train.extxyz",
        config="dipeptides.yaml",
        cutoffs=(3.0, 4.0),
        layers=(3, 1),
        budget=30.0,
        divide=at_random(validation=25, test=25),
    ),
    "nacl_water": System(
        data="nacl_water.extxyz",
        config="nacl_water_start.yaml",
        cutoffs=(3.0, 4.0),
        layers=(2, 1),
        budget=60.0,
        divide=at_random(validation=85, test=85),
    ),
}


def write_parts(
    system: System, data: Path, kept_apart: Path | None, directory: Path
) -> dict[str, Path]:
    """Write the parts of a data set once; all variants and seeds read the same files."""
    paths = {part: directory / f"{part}.extxyz" for part in PARTS}
    if all(path.is_file() for path in paths.values()):
        return paths
    frames = ase.io.read(data / system.data, ":", format="extxyz")
    others = [] if kept_apart is None else ase.io.read(kept_apart, ":", format="extxyz")
    directory.mkdir(parents=True, exist_ok=True)
    for part, chosen in system.divide(frames, others).items():
        ase.io.write(paths[part], chosen, format="extxyz")
    return paths


def configuration(
    system: System,
    variant: str,
    cutoff: float,
    seed: int,
    parts: dict[str, Path],
    output: Path,
    limits: dict[str, float],
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """The training configuration of one run.

    Parameters
    ----------
    limits : dict
        ``max_time`` (minutes) or ``max_epochs``.
    overrides : sequence of str
        ``KEY=VALUE`` with dotted keys, for all runs.
    """
    config = copy.deepcopy(yaml.safe_load((EXAMPLES / system.config).read_text(encoding="utf-8")))
    config["output"], config["seed"] = str(output), seed
    config["data"] = {
        **{name: value for name, value in config["data"].items() if name == "keys"},
        **{part: str(parts[part].resolve()) for part in PARTS},
    }
    for name in ("max_time", "start_from"):  # every variant starts from random weights
        config.pop(name, None)
    config.update(limits)
    model = config["model"]
    model["r_max"] = cutoff
    model.pop("r_max_charge", None)
    model["num_layers"], model["num_layers_charge"] = system.layers
    for assignment in overrides:
        key, _, value = assignment.partition("=")
        _put(config, key, yaml.safe_load(value))
    if variant == "separate":
        model["shared_features"] = False
    elif variant == "invariant":
        model["l_max"] = 0
    elif variant == "short_range":
        model["equilibration"] = False
        for name in _OF_CHARGES:
            model.pop(name, None)
        config.pop("equilibration", None)
        for name in ("charges", "dipole"):
            config["loss"].pop(name, None)
            config["loss"].get("final", {}).pop(name, None)
    return config


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
    config[name] = value
