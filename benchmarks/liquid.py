"""Stability and structure of a liquid: runs from several frames of a file, then averages.

    python benchmarks/liquid.py nacl-water data.extxyz --atoms 188 --ps 100 --output runs/liquid

Each run starts from another frame with this number of atoms; the frames have one composition and
one cell. A run has failed when its temperature exceeds twice the target after 0.5 ps, when two
atoms are closer than half the sum of their covalent radii, or when an evaluation fails. The output
directory gets the trajectories, ``result.json`` and ``liquid.png``. Runs that are there are not
repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

#: Numbers of a frame that are saved for each atom: position (Å) and charge (e).
FIELDS = 4


def choose(frames: list, atoms: int, copies: int, seed: int) -> list:
    """Frames of the most common composition and cell among those with a number of atoms."""
    kinds: dict[tuple, list] = {}
    for frame in frames:
        if len(frame) == atoms:
            key = (str(frame.symbols), tuple(frame.cell.array.round(6).ravel()))
            kinds.setdefault(key, []).append(frame)
    same = max(kinds.values(), key=len)
    return [same[i] for i in np.random.default_rng(seed).choice(len(same), copies, replace=False)]


def closest(frame, positions: np.ndarray) -> float:
    """Shortest distance in units of the sum of covalent radii; positions (N, 3) in Å."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    moved = frame.copy()
    moved.positions = positions
    i, j, distances = neighbor_list("ijd", moved, 2.5)
    radii = covalent_radii[moved.numbers]
    return float((distances / (radii[i] + radii[j])).min(initial=np.inf))


def simulate(arguments: argparse.Namespace, start, seed: int, path: Path) -> dict:
    """Run from one frame; save positions and charges, float32, shape (F, N, 4); how it ended."""
    from openmm import Context, LangevinMiddleIntegrator, Platform, unit

    from openmm_nequiplr import create_system, current_evaluation
    from openmm_nequiplr.simulation import from_atoms
    from openmm_nequiplr.simulation.system import heavier_structure

    read, step = from_atoms(start), 0.001 * arguments.timestep
    if arguments.hydrogen_mass is not None:
        read = heavier_structure(read, arguments.hydrogen_mass)
    options = {"long_range": arguments.long_range, "device": "cpu"}
    system = create_system(
        read.topology, arguments.model, total_charge=0, masses=read.masses, **options
    )
    integrator = LangevinMiddleIntegrator(arguments.temperature, 1.0, step)
    integrator.setRandomNumberSeed(seed)
    threads = {"Threads": str(arguments.threads)}
    context = Context(system, integrator, Platform.getPlatform("CPU"), threads)
    context.setPositions(read.positions)
    context.setVelocitiesToTemperature(arguments.temperature * unit.kelvin, seed)
    freedom = 3 * (len(start) - 1)
    every = max(1, round(arguments.every / arguments.timestep))
    frames = round(1000 * arguments.ps / (every * arguments.timestep))
    between_checks = max(1, round(50 / (every * arguments.timestep)))
    shape = frames, len(start), FIELDS
    saved = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    begin, heat, shortest = time.time(), [], np.inf
    for frame in range(frames):
        now = (frame + 1) * every * step
        try:
            integrator.step(every)
            state = context.getState(positions=True, energy=True)
        except Exception as error:
            return {"held": False, "ps": now, "why": f"{type(error).__name__}: {error}"}
        positions = 10 * state.getPositions(asNumpy=True)._value
        saved[frame, :, :3] = positions
        saved[frame, :, 3] = current_evaluation(context).charges
        if (frame + 1) % between_checks:
            continue
        heat.append(2 * state.getKineticEnergy()._value / (freedom * 0.00831446))
        shortest = min(shortest, closest(start, positions))
        hot = now > 0.5 and heat[-1] > 2 * arguments.temperature
        if hot or shortest < 0.5:
            return {"held": False, "ps": now, "why": "hot" if hot else "close"}
        if not len(heat) % 100:
            milliseconds = 1e3 * (time.time() - begin) / ((frame + 1) * every)
            print(f"{now:.1f} ps, {np.mean(heat):.1f} K, {milliseconds:.0f} ms a step", flush=True)
    return {
        "held": True,
        "ps": round(frames * every * step, 3),
        "mean temperature, K": round(float(np.mean(heat)), 1),
        "shortest distance": round(shortest, 3),
        "ms a step": round(1e3 * (time.time() - begin) / (frames * every), 1),
    }


def extremum(r: np.ndarray, g: np.ndarray, low: float, high: float, sign: int) -> tuple:
    """Place (Å) and value of the highest (+1) or lowest (-1) point, by a parabola through five."""
    inside = np.flatnonzero((r > low) & (r < high))
    k = inside[np.argmax(sign * g[inside])]
    near = slice(max(0, k - 2), k + 3)
    a, b, c = np.polyfit(r[near] - r[k], g[near], 2)
    move = float(np.clip(-b / (2 * a), -0.05, 0.05)) if a * sign < 0 else 0.0
    return float(r[k] + move), float(a * move**2 + b * move + c)


def analyze(frame, runs: list[np.ndarray], interval: float, infrared: bool) -> tuple:
    """Averages over the runs with their standard errors, and the curves for the picture."""
    import mdtraj

    from openmm_nequiplr.analysis.radial import radial_distributions
    from openmm_nequiplr.analysis.spectra import infrared_spectrum
    from openmm_nequiplr.analysis.transport import diffusion, moving_dipole

    symbols = np.array(frame.get_chemical_symbols())
    topology = mdtraj.Topology()
    residue = topology.add_residue("LIQ", topology.add_chain())
    for symbol in symbols:
        topology.add_atom(symbol, mdtraj.element.Element.getBySymbol(symbol), residue)
    coarse = max(1, round(0.1 / interval))
    lengths, angles = 0.1 * frame.cell.lengths(), frame.cell.angles()
    distributions, spectra, values = [], [], {}

    def note(name: str, value: float) -> None:
        values.setdefault(name, []).append(value)

    for saved in runs:
        positions = np.asarray(saved[..., :3], dtype=np.float64)
        thin = positions[::coarse]
        boxes = np.tile(lengths, (len(thin), 1)), np.tile(angles, (len(thin), 1))
        trajectory = mdtraj.Trajectory(0.1 * thin, topology, None, *boxes)
        g = radial_distributions(
            trajectory, r_max=0.5 * float(min(frame.cell.lengths())), bin_width=0.02
        )
        distributions.append(g)
        masses = frame.get_masses()
        thin = thin - (thin * masses[:, None]).sum(axis=1, keepdims=True) / masses.sum()
        d = diffusion(thin, symbols, coarse * interval)
        for element, coefficient in zip(d.elements, d.coefficients, strict=True):
            note(f"D({element}), 1e-9 m2/s", 10 * float(coefficient))
        if infrared:
            dipoles = moving_dipole(np.asarray(saved[..., 3]), positions)
            spectra.append(infrared_spectrum(dipoles, interval))
        for symbol in sorted(set(symbols)):
            note(f"charge of {symbol}, e", float(saved[:, symbols == symbol, 3].mean()))
    r = distributions[0].r
    pairs = {("O", "O"): (2.4, 3.2), ("Na", "O"): (2.0, 3.0), ("Cl", "O"): (2.7, 3.7)}
    if (symbols == "Na").sum() > 1:
        pairs["Na", "Cl"] = 2.3, 3.4
    curves = {}
    for (center, other), window in pairs.items():
        if not {center, other} <= set(symbols):
            continue
        own = np.array([g.between(center, other) for g in distributions])
        curves[f"{center}–{other}"] = own
        # the mean curve gives places; the runs give the spread of heights and neighbours
        place, _ = extremum(r, own.mean(axis=0), *window, +1)
        dip, _ = extremum(r, own.mean(axis=0), place + 0.2, place + 1.4, -1)
        for g, curve in zip(distributions, own, strict=True):
            peak = extremum(r, curve, *window, +1)
            note(f"g({center}-{other}) peak, A", peak[0])
            note(f"g({center}-{other}) height", peak[1])
            name = f"{other} around {center} to {dip:.2f} A"
            note(name, g.coordination_number(center, other, dip))
    errors = np.sqrt(len(runs))
    summary = {
        name: [round(float(np.mean(v)), 4), round(float(np.std(v, ddof=1) / errors), 4)]
        for name, v in values.items()
    }
    return summary, (r, curves, spectra)


def draw(curves: tuple, path: Path) -> None:
    """Radial distributions and, if there are spectra, the infrared line shape."""
    from matplotlib import pyplot

    r, radial, spectra = curves
    size = {"figsize": (9 if spectra else 5, 3.4), "layout": "constrained"}
    figure, axes = pyplot.subplots(1, 2 if spectra else 1, squeeze=False, **size)
    left, *rest = axes[0]
    for name, own in radial.items():
        left.plot(r, own.mean(axis=0), label=name)
    left.set(xlabel="r (Å)", ylabel="g(r)", xlim=(1.5, r[-1]))
    left.legend(frameon=False)
    for right in rest:
        wavenumbers = spectra[0].wavenumbers
        line, shown = np.mean([s.intensity for s in spectra], axis=0), wavenumbers < 4500
        right.plot(wavenumbers[shown], line[shown] / line[shown].max())
        right.set(xlabel="wavenumber (1/cm)", ylabel="infrared absorption (arb. units)")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--atoms", type=int, required=True, help="of a frame")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ps", type=float, default=100.0)
    parser.add_argument("--discard", type=float, default=10.0, help="ps before the averages")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--hydrogen-mass", type=float, help="Da")
    parser.add_argument("--long-range", default="auto", choices=("auto", "openmm", "graph"))
    parser.add_argument("--every", type=float, default=4.0, help="fs between saved frames")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    import ase.io

    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    report = json.loads(result.read_text()) if result.exists() else {"runs": []}
    starts = choose(
        ase.io.read(arguments.data, ":"), arguments.atoms, arguments.runs, arguments.seed
    )
    for number, start in enumerate(starts):
        if number >= len(report["runs"]):
            path = folder / f"run{number}.npy"
            report["runs"].append(simulate(arguments, start, arguments.seed + number, path))
            result.write_text(json.dumps(report, indent=1) + "\n")
    interval = 0.001 * arguments.every
    skipped = round(arguments.discard / interval)
    if all(run["held"] for run in report["runs"]) and arguments.ps > arguments.discard:
        runs = [
            np.load(folder / f"run{k}.npy", mmap_mode="r")[skipped:] for k in range(len(starts))
        ]
        natural = arguments.hydrogen_mass is None
        report["averages"], curves = analyze(starts[0], runs, interval, infrared=natural)
        draw(curves, folder / "liquid.png")
        result.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
