"""Time of one OpenMM step, ours and others', interleaved: ``python benchmarks/step_time.py``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
from ase import Atoms
from ase.build import bulk
from workers import add_sides, interleaved, ratios

HERE = Path(__file__).parent
SLAB = HERE.parent / "openmm_nequiplr" / "pretrained" / "au2-mgo.extxyz"

#: Parts that a short-range network does not have.
CHARGES = ("Coulomb operator", "equilibration", "adjoint", "Coulomb")
#: Steps before the clock starts: they compile and allocate, fill the history of charges, and are
#: recorded on a GPU.
WARM_UP = {"ours": 20, "peer": 2}


def salt(count: int) -> Atoms:
    """A rattled cube of rock salt with about ``count`` atoms."""
    edge = max(1, round((count / 8) ** (1 / 3)))
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (edge, edge, edge)
    atoms.rattle(0.08, seed=1)
    return atoms


def slab(count: int) -> Atoms:
    """The shipped start structure of au2-mgo, repeated in the plane to about ``count`` atoms."""
    unit = ase.io.read(SLAB)
    edge = max(1, round((count / len(unit)) ** 0.5))
    atoms = unit * (edge, edge, 1)
    atoms.rattle(0.02, seed=1)
    return atoms


def build_options(atoms: Atoms, arguments: argparse.Namespace) -> dict:
    """What a worker is to build."""
    return {
        "threads": arguments.threads,
        "device": arguments.device,
        "network": arguments.network,
        "compile": arguments.compile_peer,
        "cutoff": arguments.cutoff,
        "type_names": sorted(set(atoms.symbols)),
        "layers": 3,
        "l_max": arguments.l_max,
        "features": arguments.features,
        "neighbors": 12.0,
        "positions": atoms.positions.tolist(),
        "cell": np.array(atoms.cell).tolist(),
        "symbols": list(atoms.symbols),
    }


def count(name: str, atoms: Atoms, arguments: argparse.Namespace) -> None:
    """Print what a GPU would do in a step: the medians after a warm-up."""
    from ours import pretended_steps

    steps = WARM_UP["ours"] + arguments.steps
    found = pretended_steps(build_options(atoms, arguments), steps)[WARM_UP["ours"] :]
    medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
    print(
        f"{name:5} {len(atoms):6d} atoms  {medians['kernels']:.0f} kernels, "
        f"{medians['waits']:.0f} synchronisations and {medians['copies']:.0f} copies a step "
        f"({medians['iterations']:.0f} iterations)",
        flush=True,
    )


def measure(atoms: Atoms, arguments: argparse.Namespace) -> dict:
    """Medians over interleaved steps of every worker, for one structure."""
    scripts = {"ours": ("ours.py",), "peer": ("peer.py",)}
    answers = interleaved(arguments, scripts, build_options(atoms, arguments), WARM_UP)
    found = {name: summary(results) for name, results in answers.items()}
    found["ours"]["ratios"] = ratios(answers)
    return found


def summary(answers: list[dict]) -> dict:
    """Median and minimum of the seconds, medians of the parts, and the peak memory."""
    seconds = [a["seconds"] for a in answers]
    parts = {p: statistics.median(a["parts"][p] for a in answers) for p in answers[0]["parts"]}
    if parts:
        parts["everything else"] = max(0.0, statistics.median(seconds) - sum(parts.values()))
    charges = sum(parts.get(name, 0.0) for name in CHARGES)
    found = {}
    if answers[0].get("iterations"):
        found["iterations"] = np.mean([a["iterations"] for a in answers], axis=0).tolist()
    return {
        **found,
        "charges": charges / statistics.median(seconds),
        "median": statistics.median(seconds),
        "least": min(seconds),
        "cpu": min(a["cpu"] for a in answers),
        "parts": parts,
        "memory": answers[-1]["memory"],
    }


def report(name: str, count: int, result: dict) -> None:
    """Print one structure's figures."""
    for side, numbers in result.items():
        print(
            f"{name:5} {count:6d} atoms  {side}: {1e3 * numbers['median']:9.1f} ms a step "
            f"(least {1e3 * numbers['least']:.1f}), peak memory {numbers['memory']:.2f} GB"
        )
        for part, seconds in numbers["parts"].items():
            share = seconds / numbers["median"]
            print(f"        {part:26} {1e3 * seconds:9.1f} ms  {100 * share:3.0f} %")
        if numbers["charges"]:
            print(f"        charges and Coulomb sums together: {100 * numbers['charges']:.0f} %")
        if "iterations" in numbers:
            print(
                "        iterations: {:.1f} for charges, {:.1f} adjoint".format(
                    *numbers["iterations"]
                )
            )
    for other, times in result["ours"]["ratios"].items():
        print(
            f"        ours / {other} = {times['median']:.3f} "
            f"(of the least times {times['least']:.3f})"
        )
    sys.stdout.flush()


def draw(results: dict[str, dict[int, dict]], path: Path) -> None:
    """Step time against the number of atoms, double logarithmic."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    for name, sizes in results.items():
        for side in next(iter(sizes.values())):
            times = [sizes[n][side]["median"] for n in sizes]
            style = "o-" if side == "ours" else "s--"
            axes.loglog(list(sizes), times, style, label=f"{name} {side}")
    axes.set(xlabel="atoms", ylabel="seconds a step")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_sides(parser)
    parser.add_argument("--compile-peer", action="store_true", help="AOTInductor (minutes)")
    parser.add_argument("--network", action="store_true", help="ours without equilibration")
    parser.add_argument(
        "--salt", type=int, nargs="*", default=[216, 512, 1728, 4096, 13824, 32768], metavar="ATOMS"
    )
    parser.add_argument("--slab", type=int, nargs="*", default=[110, 1000, 4000], metavar="ATOMS")
    parser.add_argument(
        "--device", default="cpu", help="of both networks; cuda takes OpenMM's CUDA platform too"
    )
    parser.add_argument(
        "--pretend-cuda", action="store_true", help="count what a GPU would do; no times"
    )
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cutoff", type=float, default=4.0, help="Å")
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--output", type=Path, default=HERE / "step_time", help="stem of results")
    arguments = parser.parse_args()
    results: dict[str, dict[int, dict]] = {}
    for name, make in (("salt", salt), ("slab", slab)):
        for number in getattr(arguments, name):
            atoms = make(number)
            if arguments.pretend_cuda:
                count(name, atoms, arguments)
                continue
            result = measure(atoms, arguments)
            report(name, len(atoms), result)
            results.setdefault(name, {})[len(atoms)] = result
            arguments.output.with_suffix(".json").write_text(json.dumps(results, indent=1))
    if results:
        draw(results, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
