"""Results of a check: one-line verdict, JSON report, figures of a model card."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import __version__
from ..analysis.contacts import ChargeRange, widest
from ..analysis.minimisation import Minimisation
from ..describe import counted
from ..simulation.trial import DynamicsRun
from .forces import RELATIVE_TOLERANCE, TOLERANCE, ForceCheck
from .options import CheckOptions
from .scans import PairScan

#: One of this many may fail: minimisations up to 0.2 Å, minimisations beyond, runs above 400 K.
SMALL_DISPLACEMENT, ONE_IN_SMALL, ONE_IN_LARGE = 0.2, 30, 10
MODERATE_TEMPERATURE, ONE_IN_HOT = 400.0, 10


@dataclass(frozen=True)
class StabilityReport:
    """Results of the check of a model.

    Parameters
    ----------
    model, data : str
        Names of the model and of the data.
    options : CheckOptions
    structures : tuple of int
        Indices of the structures used.
    failures : tuple of str
        Structures that the model could not evaluate, with the reason.
    forces : ForceCheck
    minimisations : dict of float to tuple of Minimisation
        Minimisations by displacement, Å.
    dynamics : dict of float to tuple of DynamicsRun
        Runs by temperature, K.
    scans : tuple of PairScan
    reference, allowed : mapping of str to (float, float), e
        Known range of the charges of each element, and the allowed range, which is wider; empty for
        models without charges.
    """

    model: str
    data: str
    options: CheckOptions
    structures: tuple[int, ...]
    failures: tuple[str, ...]
    forces: ForceCheck
    minimisations: dict[float, tuple[Minimisation, ...]]
    dynamics: dict[float, tuple[DynamicsRun, ...]]
    scans: tuple[PairScan, ...]
    reference: ChargeRange
    allowed: ChargeRange

    @property
    def problems(self) -> tuple[str, ...]:
        """Short descriptions of all problems that make the model unfit."""
        found = [*self.failures[:1], self.forces.problem]
        for displacement, ends in self.minimisations.items():
            falls = [end.message for end in ends if end.fallen]
            if len(falls) > allowed_falls(displacement, len(ends)):
                what = f"{len(falls)} of {len(ends)} minimisations from {displacement:g} Å"
                found.append(f"{what} collapsed ({falls[0]})")
        for temperature, runs in self.dynamics.items():
            failed = [run for run in runs if run.failed_at is not None]
            if len(failed) > allowed_failures(temperature, len(runs)):
                first = min(failed, key=lambda run: run.failed_at or 0.0)
                what = f"{len(failed)} of {len(runs)} runs at {temperature:g} K failed"
                found.append(f"{what} ({first.message} after {first.failed_at:.2f} ps)")
        outside = self.charges_outside
        if outside:
            found.append(
                f"charges leave their range in {counted(len(outside), 'run')} ({outside[0]})"
            )
        unsound = [scan.problem for scan in self.scans if scan.problem]
        if unsound:
            what = f"{len(unsound)} of {counted(len(self.scans), 'pair scan')} unsound"
            found.append(f"{what} ({unsound[0]})")
        return tuple(problem for problem in found if problem)

    @property
    def charges_outside(self) -> list[str]:
        """The first charge out of range of each stable minimisation and run that has one."""
        held = [end for end in _all(self.minimisations) if not end.fallen]
        whole = [run for run in _all(self.dynamics) if run.failed_at is None]
        return [each.charges.outside for each in (*held, *whole) if each.charges.outside]

    @property
    def fit(self) -> bool:
        """Whether the model is fit for dynamics."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One line: fit for dynamics, or not fit with the reasons."""
        if self.fit:
            return "fit for dynamics"
        return "not fit for dynamics: " + "; ".join(self.problems)

    def seen_charges(self, part: str) -> ChargeRange:
        """Range of the charges of each element, e, in ``"minimisations"`` or ``"dynamics"``."""
        seen: dict[str, tuple[float, float]] = {}
        for each in _all(getattr(self, part)):
            for element, limits in each.charges.seen.items():
                seen[element] = widest(limits, seen.get(element))
        return seen

    def figures(self) -> dict[str, Any]:
        """Figures for a model card, as plain values."""
        return {
            "fit": self.fit,
            "verdict": self.verdict,
            "data": self.data,
            "version": __version__,
            "quick": self.options.quick,
            "force_error_meV_per_A": _plain(round(1000.0 * self.forces.largest_error, 4)),
            "minimisations": {
                f"{displacement:g}": [sum(end.fallen for end in ends), len(ends)]
                for displacement, ends in self.minimisations.items()
            },
            "dynamics": {
                f"{temperature:g}": [sum(run.failed_at is None for run in runs), len(runs)]
                for temperature, runs in self.dynamics.items()
            },
            "ps": self.options.ps,
            "pair_scans": [sum(scan.problem is None for scan in self.scans), len(self.scans)],
            "charges_outside": len(self.charges_outside),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything except the curves, as plain values for JSON; NaN and infinity become null."""
        return _plain(
            {
                "fit": self.fit,
                "verdict": self.verdict,
                "problems": self.problems,
                "model": self.model,
                "data": self.data,
                "version": __version__,
                "options": asdict(self.options),
                "structures": self.structures,
                "failures": self.failures,
                "forces": self._forces(),
                "minimisations": [self._minimisations(each) for each in self.minimisations],
                "dynamics": [self._dynamics(each) for each in self.dynamics],
                "pair_scans": [_scan(scan) for scan in self.scans],
                "charges": self._charges(),
            }
        )

    def _forces(self) -> dict[str, Any]:
        return {
            "components": len(self.forces.forces),
            "largest_error_eV_per_A": self.forces.largest_error,
            "tolerance_eV_per_A": TOLERANCE,
            "relative_tolerance": RELATIVE_TOLERANCE,
        }

    def _minimisations(self, displacement: float) -> dict[str, Any]:
        ends = self.minimisations[displacement]
        return {
            "displacement_A": displacement,
            "runs": len(ends),
            "fallen": sum(end.fallen for end in ends),
            "allowed": allowed_falls(displacement, len(ends)),
            "outcomes": dict(Counter(end.outcome for end in ends)),
            "falls": [end.message for end in ends if end.fallen],
            "lowest_energies_eV_per_atom": [min(end.energies, default=math.nan) for end in ends],
            "closest_ratios": [end.closest.ratio for end in ends],
        }

    def _dynamics(self, temperature: float) -> dict[str, Any]:
        runs = self.dynamics[temperature]
        failed = [run for run in runs if run.failed_at is not None]
        return {
            "temperature_K": temperature,
            "runs": len(runs),
            "survived": len(runs) - len(failed),
            "allowed_failures": allowed_failures(temperature, len(runs)),
            "failures": [{"ps": run.failed_at, "what": run.message} for run in failed],
        }

    def _charges(self) -> dict[str, Any]:
        parts = {"minimisations": self.seen_charges("minimisations")}
        parts["dynamics"] = self.seen_charges("dynamics")
        ranges = {"reference": self.reference, "allowed": self.allowed, **parts}
        return {
            "elements": {
                element: {name: of.get(element) for name, of in ranges.items()}
                for element in self.reference
            },
            "outside": self.charges_outside,
        }


def allowed_falls(displacement: float, count: int) -> int:
    """Number of minimisations that may collapse: 1 in 30, or 1 in 10 for displacements > 0.2 Å."""
    return count // (ONE_IN_SMALL if displacement <= SMALL_DISPLACEMENT else ONE_IN_LARGE)


def allowed_failures(temperature: float, count: int) -> int:
    """Number of runs that may fail: none, or 1 in 10 above 400 K."""
    return 0 if temperature <= MODERATE_TEMPERATURE else count // ONE_IN_HOT


def _scan(scan: PairScan) -> dict[str, Any]:
    jump, where = scan.largest_jump
    return {
        "pair": scan.pair,
        "repulsive_to_A": scan.repulsive_to,
        "expected_A": scan.wall,
        "lowest_energy_eV": scan.lowest,
        "excess_of_largest_jump_eV": jump,
        "largest_jump_at_A": where,
        "problem": scan.problem,
    }


def _all(groups: dict[float, tuple]) -> Iterable[Any]:
    return (each for group in groups.values() for each in group)


def _plain(value: Any) -> Any:
    """Convert to values that JSON supports."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
