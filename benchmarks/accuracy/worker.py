"""One run of the accuracy benchmark: trains (or goes on training), then judges the model.

    python worker.py RUN_DIRECTORY

reads ``benchmark.yaml`` there and ends by writing ``result.json`` and ``predictions.npz``.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from openmm_nequiplr import load_model
from openmm_nequiplr.data import Structure, read_structures
from openmm_nequiplr.model import Evaluation, Evaluator
from openmm_nequiplr.training.run import train

CONFIG, RESULT, PREDICTIONS = "benchmark.yaml", "result.json", "predictions.npz"


def main() -> int:
    """Train and judge; 130 after an interruption."""
    directory = Path(sys.argv[1])
    config = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if not (directory / "metrics.json").is_file():
        begun = (directory / "last.ckpt").is_file()
        if train(directory / CONFIG, resume=begun) is None:
            return 130
    structures = read_structures(config["data"]["test"])
    result = judge(directory, structures)
    part = directory / (RESULT + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(part, directory / RESULT)
    return 0


def judge(directory: Path, structures: list[Structure]) -> dict:
    """Errors on the test structures, and times."""
    model = load_model(directory / "model.safetensors")
    evaluator = Evaluator(model)
    pairs: dict[str, list[np.ndarray]] = {}
    seconds = []
    for number, structure in enumerate((structures[0], *structures)):  # the first one compiles
        begin = time.perf_counter()
        graph = model.build_graph(
            structure.symbols,
            structure.positions,
            structure.cell,
            structure.pbc,
            structure.total_charge,
        )
        output = evaluator(graph)
        seconds.append(time.perf_counter() - begin)
        if number:
            shift = float(dict(model.named_buffers())["energy_shifts"][graph.types].sum())
            for name, pair in compared(structure, output, shift).items():
                if model.config.equilibration or name not in ("charges", "dipole"):
                    pairs.setdefault(name, []).append(np.array(pair).reshape(2, -1))
    joined = {name: np.concatenate(values, axis=1) for name, values in pairs.items()}
    np.savez_compressed(directory / PREDICTIONS, **joined)
    with open(directory / "metrics.csv", newline="", encoding="utf-8") as handle:
        last = list(csv.DictReader(handle))[-1]
    return {
        "rmse": {  # meV per structure, meV/atom, meV/Å, me, me Å
            name: 1e3 * float(np.sqrt(np.mean((values[1] - values[0]) ** 2)))
            for name, values in joined.items()
        },
        "training_minutes": float(last["minutes"]),
        "epochs": int(last["epoch"]) + 1,
        "milliseconds_per_frame": 1e3 * statistics.median(seconds[1:]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "receptive_field": model.config.receptive_field,
        "num_test": len(structures),
    }


def compared(structure: Structure, output: Evaluation, shift: float) -> dict[str, tuple]:
    """Reference and prediction of everything that has a label; energies less the shifts."""
    pairs = {}
    if structure.energy is not None:
        both = (structure.energy - shift, output.energy - shift)
        pairs["energy"] = both
        pairs["energy_per_atom"] = tuple(value / structure.num_atoms for value in both)
    pairs["forces"] = (structure.forces, output.forces)
    pairs["charges"] = (structure.charges, output.charges)
    pairs["dipole"] = (None if structure.pbc else structure.dipole, output.dipole)
    return {name: pair for name, pair in pairs.items() if pair[0] is not None}


if __name__ == "__main__":
    sys.exit(main())
