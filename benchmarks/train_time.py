"""Time of a training step, ours and others', interleaved: ``python benchmarks/train_time.py``.

``--side`` starts a worker.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from workers import add_sides, interleaved, ratios, serve

#: Steps before the clock starts.
WARM_UP = 3
#: Epochs that are timed with several processes.
LAST = 3


def model_options(options: dict) -> dict:
    """Entries of ``model`` in a training file."""
    return {
        "electrostatic_energy": "coulomb",
        "r_max": options["cutoff"],
        "l_max": options["l_max"],
        "num_features": options["features"],
        "num_layers": options["layers"] - 1,
        "num_layers_charge": 1,
    }


def our_step(options: dict) -> Callable[[], float]:
    """A step of our training on the first batch of a file: loss, gradients, Adam; the loss."""
    from openmm_nequiplr.data.dataset import LabelledGraph
    from openmm_nequiplr.data.reading import read_structures, unsaid
    from openmm_nequiplr.training.config import parse_config
    from openmm_nequiplr.training.loss import residuals, weighted_loss
    from openmm_nequiplr.training.preparation import divide, prepare

    raw = {"data": {"train": options["data"], "num_validation": 1}, "model": model_options(options)}
    config = parse_config(raw)
    structures = read_structures(options["data"], say=unsaid)[: options["batch"] + 1]
    model, data, _ = prepare(config, divide(config, structures), "training.yaml")
    batch = LabelledGraph.collate(list(data)).to(options["device"])
    model.to(options["device"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step() -> float:
        output = model(batch.graph, compute_forces=True)
        loss = weighted_loss(residuals(output, batch.labels), config.loss)
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        optimizer.step()
        return float(loss)

    return step


def peer_step(options: dict) -> Callable[[], float]:
    """The same of NequIP, on as many frames from the beginning of the file."""
    import ase.io
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from peer import build_model

    frames = ase.io.read(options["data"], f":{options['batch']}")
    names = sorted({symbol for frame in frames for symbol in frame.symbols})
    model = build_model({**options, "type_names": names, "compile": False, "neighbors": 30.0})
    graphs = []
    for frame in frames:
        graph = compute_neighborlist_(from_ase(frame), options["cutoff"])
        graph[AtomicDataDict.ATOM_TYPE_KEY] = torch.tensor([names.index(s) for s in frame.symbols])
        graphs.append(graph)
    place = options["device"]
    batch = AtomicDataDict.to_(AtomicDataDict.batched_from_list(graphs), place)
    energy = torch.zeros(len(frames), 1, dtype=torch.float64, device=place)
    forces = torch.cat([torch.from_numpy(frame.arrays["REF_forces"]) for frame in frames]).to(place)
    model.to(place).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        output = model(dict(batch))
        per_atom = (output[AtomicDataDict.TOTAL_ENERGY_KEY] - energy) * len(frames) / len(forces)
        missed = output[AtomicDataDict.FORCE_KEY] - forces
        loss = per_atom.square().mean() + missed.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def serve_side(side: str) -> None:
    """Time steps of one side."""

    def build(request: dict) -> Callable[[], dict]:
        torch.set_num_threads(request["threads"])
        step = (our_step if side == "ours" else peer_step)(request)
        return lambda: {"loss": step()}

    serve(build)


def measure(arguments: argparse.Namespace) -> dict:
    """Seconds of interleaved steps of every side, their ratios, and the losses."""
    names = ("threads", "device", "cutoff", "l_max", "features", "layers", "batch")
    options = {name: getattr(arguments, name) for name in names}
    options |= {"data": str(arguments.data.resolve())}
    scripts = {side: ("train_time.py", "--side", side) for side in ("ours", "peer")}
    answers = interleaved(arguments, scripts, options, dict.fromkeys(scripts, WARM_UP))
    return {
        "milliseconds": {
            name: 1e3 * statistics.median(a["seconds"] for a in own) / arguments.batch
            for name, own in answers.items()
        },
        "losses": {name: [a["loss"] for a in own] for name, own in answers.items()},
        "ratios": ratios(answers),
    }


def processes(arguments: argparse.Namespace) -> dict:
    """Frames a second of one and of two processes, a thread each, in the last epochs.

    Each process meets other frames in each epoch, and has made the graphs of nearly all by then.
    """
    import subprocess

    import yaml

    rates = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            config = {
                "data": {
                    "train": str(arguments.data.resolve()),
                    "num_train": 80,
                    "num_validation": 2,
                },
                "model": model_options(vars(arguments)),
                "output": folder + "/out",
                "batch_size": arguments.batch,
                "max_epochs": 10,
                "num_threads": 1,
                "refit_energy_shifts": False,
                "trainer": {"devices": count, "strategy": "ddp" if count > 1 else "auto"},
            }
            path = Path(folder) / "training.yaml"
            path.write_text(yaml.safe_dump(config))
            command = [sys.executable, "-m", "openmm_nequiplr", "train", str(path), "--no-check"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            lines = (Path(folder) / "out" / "metrics.csv").read_text().splitlines()
        column = lines[0].split(",").index("minutes")
        minutes = [float(line.split(",")[column]) for line in lines[1:]]
        rates[count] = 80 * LAST / (60.0 * (minutes[-1] - minutes[-1 - LAST]))
    return {"frames a second": rates, "ratio": rates[2] / rates[1]}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="extended XYZ file with REF_forces")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    add_sides(parser)
    parser.add_argument("--processes", action="store_true", help="one process against two instead")
    parser.add_argument("--batch", type=int, default=2, help="frames of a step")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of both sides")
    parser.add_argument("--cutoff", type=float, default=4.5, help="Å")
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.side:
        serve_side(arguments.side)
        return
    result = (processes if arguments.processes else measure)(arguments)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
