"""Stability check of a model: runs all parts and writes the results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.contacts import ChargeRange, ChargeWatch, known_charges, widened, widest
from ..analysis.minimisation import Minimisation, minimise_displaced, to_ase
from ..calculator import NequIPLRCalculator
from ..console import say
from ..data import DataKeys, Structure, read_structures
from ..data.checking import Say
from ..data.reading import unsaid
from ..data.units import DataUnits
from ..errors import ConvergenceError, InputError, describe, first_line
from ..model import NequIPLRPotential, load_model, save_model
from ..model.building import type_indices
from ..simulation.platforms import limited_platform
from ..simulation.trial import DynamicsRun, run_dynamics
from ..writing import replace_file
from .forces import check_forces
from .options import QUICK, CheckOptions
from .picture import plot_report
from .report import StabilityReport
from .scans import scan_pairs

#: Files in the output directory of a check, and its entry in a model card.
REPORT, PICTURE, CARD_ENTRY = "check.json", "check.png", "check"
_FORCE_FRAMES, _FORCE_ATOMS = 5, 3


def to_stderr(text: str) -> None:
    """Print a line of progress to standard error."""
    say(f"check: {text}", file=sys.stderr)


def check_model(
    model: NequIPLRPotential | str | Path,
    structures: Sequence[Structure],
    *,
    quick: bool = False,
    progress: Say = unsaid,
    model_name: str | None = None,
    data_name: str = "structures",
    **options: Any,
) -> StabilityReport:
    """Check whether a model is fit for dynamics of structures like the given ones.

    The check compares forces with finite differences, minimises randomly displaced structures, runs
    short Langevin dynamics, and scans the energy of each pair of elements. Charges must stay near
    those of the structures (or of the training data, if the model card has a ``charge_range``). The
    result is reproducible for a given seed.

    Parameters
    ----------
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.
    structures : sequence of Structure
        See :func:`openmm_nequiplr.data.read_structures`. Labels are not used.
    quick : bool
        Use fewer structures, minimisations and runs.
    progress : callable
        Called with a line of text before each part.
    model_name, data_name : str
        Names for the report.
    **options
        Fields of :class:`CheckOptions`.

    Raises
    ------
    InputError
        If there are no structures, an element is unknown to the model, the model cannot be used
        for a structure, or an option is invalid.
    """
    settings = CheckOptions(quick=quick, **{**(QUICK if quick else {}), **options})
    name = model_name or (str(model) if isinstance(model, str | Path) else "model")
    if not isinstance(model, NequIPLRPotential):
        model = load_model(model)
    if not structures:
        raise InputError(describe("structures", "none", "at least one structure"))
    if model.config.isolated:
        structures = [structure.in_free_space() for structure in structures]
    type_indices(model.config, sorted({s for each in structures for s in each.symbols}))
    with limited_platform(settings.threads):
        check = _Check(model, structures, settings, progress)
        return check.run(name, data_name)


class _Check:
    """The parts of a check, each with a separate random number generator."""

    def __init__(
        self,
        model: NequIPLRPotential,
        structures: Sequence[Structure],
        options: CheckOptions,
        progress: Say,
    ) -> None:
        self.model, self.options, self.say = model, options, progress
        count = min(options.frames, len(structures))
        chosen = self._rng(0).permutation(len(structures))[:count]
        self.indices = [int(k) for k in chosen]
        self.structures = [structures[k] for k in chosen]
        self.calculator = NequIPLRCalculator(model)
        self.failures: list[str] = []

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.options.seed, *key])

    def run(self, model_name: str, data_name: str) -> StabilityReport:
        """Run all parts."""
        reference = self._known_charges()
        allowed = {element: widened(*limits) for element, limits in reference.items()}
        self.say("forces against finite differences")
        some = [to_ase(structure) for structure in self.structures[:_FORCE_FRAMES]]
        return StabilityReport(
            model=model_name,
            data=data_name,
            options=self.options,
            structures=tuple(self.indices),
            failures=tuple(self.failures),
            forces=check_forces(self.model, some, _FORCE_ATOMS, self._rng(1)),
            scans=scan_pairs(self.model, self.say),
            minimisations={d: self._minimise(d, allowed) for d in self.options.displacements},
            dynamics=self._dynamics(allowed),
            reference=reference,
            allowed=allowed,
        )

    def _known_charges(self) -> ChargeRange:
        """Charges of each element, e; structures that cannot be evaluated are left out."""
        self.say(f"charges of {len(self.structures)} structures")
        known: dict[str, tuple[float, float]] = {}
        good = []
        for k, structure in enumerate(self.structures):
            try:
                charges = self.calculator.get_property("charges", to_ase(structure))
                if not np.isfinite(self.calculator.results["energy"]):
                    raise ConvergenceError("energy: expected a number, got NaN")
            except (ConvergenceError, RuntimeError) as error:
                why = first_line(error) or type(error).__name__
                self.failures.append(f"structure {self.indices[k]} cannot be evaluated ({why})")
                continue
            good.append(k)
            watch = ChargeWatch(structure.symbols)
            watch.look(charges)
            for element, limits in watch.seen.items():
                known[element] = widest(limits, known.get(element))
        self.indices = [self.indices[k] for k in good]
        self.structures = [self.structures[k] for k in good]
        if not self.model.config.equilibration:
            return {}
        return {**known, **recorded_range(self.model)}

    def _minimise(self, displacement: float, allowed: ChargeRange) -> tuple[Minimisation, ...]:
        count = self.options.minimisations if self.structures else 0
        ends = []
        for number in range(count):
            end = minimise_displaced(
                self.structures[number % len(self.structures)],
                self.calculator,
                displacement,
                self._rng(2, round(1e6 * displacement), number),
                steps=self.options.steps,
                charges=allowed,
            )
            ends.append(end)
            fate = end.message if end.fallen else f"stable, {len(end.energies) - 1} steps"
            self.say(f"minimisation {number + 1} of {count} from {displacement:g} Å: {fate}")
        return tuple(ends)

    def _dynamics(self, allowed: ChargeRange) -> dict[float, tuple[DynamicsRun, ...]]:
        everything = range(len(self.structures))
        given = self.options.temperatures
        plan = {temperature: list(everything) for temperature in given or (300.0,)}
        if given is None:
            plan[600.0] = [k for k in everything if not self.structures[k].pbc]
        results = {}
        for temperature, eligible in plan.items():
            if eligible:
                results[temperature] = self._runs(temperature, eligible, allowed)
        return results

    def _runs(
        self, temperature: float, eligible: list[int], allowed: ChargeRange
    ) -> tuple[DynamicsRun, ...]:
        options, runs = self.options, []
        for number in range(options.runs):
            seed = int(self._rng(3, round(1e3 * temperature), number).integers(1, 2**31 - 1))
            run = run_dynamics(
                self.model,
                self.structures[eligible[number % len(eligible)]],
                temperature,
                ps=options.ps,
                fs=options.fs,
                seed=seed,
                charges=allowed,
            )
            runs.append(run)
            fate = "stable" if run.failed_at is None else f"{run.message} at {run.failed_at:.2f} ps"
            self.say(f"run {number + 1} of {options.runs} at {temperature:g} K: {fate}")
        return tuple(runs)


def recorded_range(model: NequIPLRPotential) -> ChargeRange:
    """Charge range of each element in the training data, e, from the model card; empty if absent.

    Raises
    ------
    ModelFileError
        If the entry is invalid.
    """
    found = known_charges(model.metadata)
    return {element: found[element] for element in model.config.type_names if element in found}


def check_file(
    model: str | Path,
    data: str | Path,
    *,
    output: str | Path | None = None,
    record: bool = False,
    format: str | None = None,
    length_unit: str | None = None,
    total_charge_key: str | None = None,
    progress: Say = to_stderr,
    **options: Any,
) -> StabilityReport:
    """Check a model file with the structures of a data file, and write the results.

    Parameters
    ----------
    model : path or str
        A model file, or the name of a shipped or downloaded model.
    data : path
        See :func:`openmm_nequiplr.data.read_structures`, also for ``format``.
    output : path, optional
        Directory for ``check.json`` and ``check.png``.
    length_unit : str, optional
        Unit of length in the data, see :class:`openmm_nequiplr.data.units.DataUnits`.
    total_charge_key : str, optional
        Name of the total charge in extended XYZ.
    record : bool
        Also write the figures to the card of the model file.
    progress : callable
        Called with a line of text before each part, and with notes on the data.
    **options
        ``quick`` and fields of :class:`CheckOptions`.

    Raises
    ------
    FileNotFoundError, InputError
        If the model, the data or an option is invalid.
    """
    if record and not Path(model).is_file():
        raise InputError(describe("record", str(model), "a model file of your own"))
    potential = load_model(model)
    keys = DataKeys() if total_charge_key is None else DataKeys(total_charge=total_charge_key)
    structures = read_structures(data, keys, format, DataUnits(length_unit), progress)
    report = check_model(
        potential,
        structures,
        progress=progress,
        model_name=str(model),
        data_name=Path(data).name,
        **options,
    )
    if output is not None:
        write_report(report, output)
    if record:
        record_check(report, model)
    return report


def check_trained(
    paths: Sequence[Path], structures: Sequence[Structure], progress: Say = to_stderr
) -> list[StabilityReport]:
    """Run the quick check of newly trained models; write results to their directories and cards.

    Parameters
    ----------
    paths : sequence of path
        Model files.
    structures : sequence of Structure
        Structures that were not used in training.
    progress : callable
        Called with a line of text before each part.
    """
    reports = []
    for path in paths:
        report = check_model(
            path,
            structures,
            quick=True,
            progress=progress,
            data_name="the validation structures",
        )
        write_report(report, path.parent)
        record_check(report, path)
        reports.append(report)
    return reports


def write_report(report: StabilityReport, output: str | Path) -> None:
    """Write ``check.json`` and ``check.png`` to a directory, which is created if needed."""
    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(directory / REPORT, text + "\n")
    plot_report(report, directory / PICTURE)


def record_check(report: StabilityReport, path: str | Path) -> None:
    """Write the figures of a report to the card of a model file, which is replaced atomically."""
    figures: Mapping[str, Any] = report.figures()
    model = load_model(path)
    save_model(model, path, {CARD_ENTRY: json.dumps(figures, ensure_ascii=False)})
