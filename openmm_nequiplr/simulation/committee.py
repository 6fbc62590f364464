"""Committee uncertainty along a trajectory: one model drives, the others estimate its error.

The forces are those of the first model alone, so energy is conserved. The other models are
evaluated only at report steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase import Atoms
from openmm import app, unit

from ..checks import check_choice, check_positive
from ..errors import InputError, UncertaintyError, describe
from ..files.ase_frames import ase_frames
from ..model import NequIPLRPotential, load_model
from ..model.building import type_indices
from ..model.committee import Spread, check_alike, member_sources
from ..model.evaluation import Evaluation
from ..model.io import serialize_model
from ..units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
from ..writing import replace_file
from .computation import Computation
from .computation_settings import Conditions
from .reporters import RecordFile, RecordReporter, load_records
from .serialization import load_embedded

_FORCE = unit.kilojoule_per_mole / unit.nanometer
# Entry in the comments of saved frames.
_SPREAD = "largest_force_spread"
#: Actions when the spread exceeds the threshold.
ON_SPREAD = ("save", "stop")


def spread_dtype(num_atoms: int) -> np.dtype:
    """Record of one frame: ``step``, ``time`` (ps), and the spreads of ``energy`` (eV), ``forces``
    (eV/Å) and ``charges`` (e).
    """
    return np.dtype(
        [
            ("step", "<i8"),
            ("time", "<f8"),
            ("energy", "<f8"),
            ("forces", "<f8", (num_atoms,)),
            ("charges", "<f8", (num_atoms,)),
        ]
    )


@dataclass(frozen=True)
class SpreadTrajectory:
    """Committee standard deviations along a trajectory of F frames and N atoms.

    Parameters
    ----------
    steps : numpy.ndarray, int64, shape (F,)
    times : numpy.ndarray, shape (F,), ps
    energy : numpy.ndarray, shape (F,), eV
    forces : numpy.ndarray, shape (F, N), eV/Å
    charges : numpy.ndarray, shape (F, N), e
    """

    steps: np.ndarray
    times: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    charges: np.ndarray


def load_spread(file: str | Path) -> SpreadTrajectory:
    """Read a file that a :class:`CommitteeReporter` wrote.

    Raises
    ------
    InputError
        If it is another file.
    """
    return SpreadTrajectory(*load_records(file, "CommitteeReporter", spread_dtype(1)))


class CommitteeReporter(RecordReporter):
    """Writes the spread of a committee of models in every reported frame.

    The model of the System, which drives the simulation, is the first member. The spread is the
    root mean square deviation from the mean over all members; for forces it is one length per atom.
    The file is a NumPy ``.npy`` array of records (:func:`spread_dtype`). Each frame appends one
    record and leaves the file complete; :func:`load_spread` reads it.

    Parameters
    ----------
    file : str or path
    reportInterval : int
        Steps between frames.
    models : sequence of NequIPLRPotential, path or str
        The other members: models, model files, names of models, or directories of committees.
    threshold : float or Quantity, optional, eV/Å
        Largest committee standard deviation of a force allowed.
    action : {"save", "stop"}
        Action when it is exceeded: save the frame, or save it and raise :class:`UncertaintyError`.
        The Context then stays at that frame, which is completely written.
    frames : str or path, optional
        Extended XYZ file for saved frames; by default ``file`` with the suffix ``.extxyz``. An
        existing file with other contents is refused.
    append : bool
        Continue existing files, after dropping frames later than the current step, with a notice.
        Otherwise existing files are overwritten.

    Attributes
    ----------
    largest : float
        Largest spread of the force on an atom so far, eV/Å.
    saved : int
        Number of frames saved so far.

    Raises
    ------
    InputError
        If an argument is invalid, the models are not of the same kind, or the existing file does
        not fit.
    """

    def __init__(
        self,
        file: str | Path,
        reportInterval: int,
        models: Sequence[NequIPLRPotential | str | os.PathLike],
        threshold: Any = None,
        action: str = "save",
        frames: str | Path | None = None,
        append: bool = False,
    ) -> None:
        super().__init__(file, reportInterval, append)
        if unit.is_quantity(threshold) and threshold.unit.is_compatible(_FORCE):
            threshold = threshold.value_in_unit(_FORCE) / (EV_TO_KJ_PER_MOL * ANGSTROM_PER_NM)
        if threshold is not None:
            check_positive("threshold", threshold, " in eV/Å")
        check_choice("action", action, ON_SPREAD)
        self.threshold, self.action = threshold, action
        self.largest, self.saved = 0.0, 0
        self._models = load_others(models)
        self._frames = self._path.with_suffix(".extxyz") if frames is None else Path(frames)
        self._members: list[Computation] = []

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one frame.

        Raises
        ------
        UncertaintyError
            If the threshold is exceeded and the action is ``"stop"``.
        """
        file = self._open(simulation)
        driver = self._members[0]
        positions, cell = driver.geometry(state)
        conditions = driver.conditions(state)
        results = [member.evaluate(positions, cell, conditions) for member in self._members]
        spread = Spread.of(results)
        frame = self._frame(file, simulation, state)
        frame["energy"] = spread.energy
        frame["forces"] = spread.forces
        frame["charges"] = spread.charges
        file.write(frame)
        self.largest = max(self.largest, spread.largest_force)
        if self.threshold is not None and spread.largest_force > self.threshold:
            self._save(simulation, positions, cell, conditions, results[0], spread)
            if self.action == "stop":
                raise UncertaintyError(_message(driver, simulation, spread, self.threshold))

    def _open(self, simulation: app.Simulation) -> RecordFile:
        if self._file is None:
            if self.threshold is not None:
                check_frames(self._frames)
            super()._open(simulation)
            if self.threshold is not None and self._append:
                self.saved = cut_frames(self._frames, simulation.currentStep)
            elif self.threshold is not None:
                self._frames.unlink(missing_ok=True)
        return super()._open(simulation)

    def _dtype(self, simulation: app.Simulation) -> np.dtype:
        own = self._own(simulation)
        if not self._members or self._members[0] is not own:
            self._members = _computations(own, self._models)
            if self.threshold is not None and self._members[0].settings.replicas > 1:
                expected = "None with replicas, whose frames are no structures to be saved"
                raise InputError(describe("threshold", self.threshold, expected))
        return spread_dtype(self._members[0].num_atoms)

    def _save(
        self,
        simulation: app.Simulation,
        positions: np.ndarray,
        cell: np.ndarray | None,
        conditions: Conditions,
        result: Evaluation,
        spread: Spread,
    ) -> None:
        """Append a frame without forces, to be labelled by a reference method.

        External charges and their positions are stored in the comment line. Their potential and
        field at the atoms are stored in columns, as in training data.
        """
        settings = self._members[0].settings
        own = positions[: len(settings.symbols)]
        atoms = Atoms(settings.symbols, own, cell=cell, pbc=settings.pbc)
        atoms.set_initial_charges(result.charges)
        atoms.info["total_charge"] = conditions.total_charge
        if settings.outside is not None:
            atoms.info["outside_charges"] = np.array(settings.outside_charges)
            atoms.info["outside_positions"] = positions[len(settings.symbols) :]
            potential, field = self._members[0].outside_columns(positions, cell)
            atoms.arrays |= {"outside_potential": potential, "outside_field": field}
        now = replace(
            settings.charge_conditions,
            electric_field=conditions.field,
            electrode_voltage=conditions.voltage,
        )
        now.tell(atoms)
        atoms.info["step"] = simulation.currentStep
        atoms.info["energy_spread"] = spread.energy
        atoms.info[_SPREAD] = spread.largest_force
        atoms.arrays["force_spread"] = spread.forces
        atoms.arrays["charge_spread"] = spread.charges
        atoms.write(str(self._frames), format="extxyz", append=True)
        self.saved += 1


def load_others(
    models: Sequence[NequIPLRPotential | str | os.PathLike],
    driver: str | os.PathLike | None = None,
) -> list[NequIPLRPotential]:
    """Load the other members; the driving model is skipped in a directory that contains it.

    Raises
    ------
    InputError
        If no other member is left.
    ModelFileError
        If a model cannot be read.
    """
    if isinstance(models, NequIPLRPotential | str | os.PathLike):
        raise InputError(describe("models", models, "a list of models"))
    own = Path(driver).resolve() if driver is not None else None
    loaded = []
    for source in member_sources(models):
        if isinstance(source, NequIPLRPotential):
            loaded.append(source)
        elif own is None or Path(source).resolve() != own:
            loaded.append(load_model(source))
    if not loaded:
        expected = "one model or more, beside the one that drives the simulation"
        raise InputError(describe("models", "none", expected))
    return loaded


def check_frames(path: Path) -> None:
    """Check that a file to be overwritten or continued holds saved frames.

    Raises
    ------
    InputError
        If it holds something else, such as training data.
    """
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as handle:
        beginning = handle.readline() + handle.readline()
    torn = not beginning.endswith("\n")  # a killed run left half of the first frame
    if beginning and not torn and _SPREAD not in beginning:
        expected = "a new file, or one with the frames that a CommitteeReporter saved"
        raise InputError(describe("frames", str(path), expected))


def cut_frames(path: Path, step: int) -> int:
    """Drop saved frames later than a step; return the number of frames kept."""
    if not path.is_file():
        return 0
    from ase.io import write

    kept: list[Atoms] = []
    dropped = False
    try:
        for atoms in ase_frames(path, "extxyz"):
            if atoms.info["step"] > step:
                dropped = True
                break
            kept.append(atoms)
    except (ValueError, KeyError, OSError, IndexError):
        dropped = True  # the killed run left it incomplete; it is reported again
    if not dropped:
        return len(kept)
    text = StringIO()
    write(text, kept, format="extxyz")
    replace_file(path, text.getvalue())
    return len(kept)


def _computations(driver: Computation, models: Sequence[NequIPLRPotential]) -> list[Computation]:
    """The driver's computation, and one with equal settings for each other model."""
    settings = driver.settings
    check_alike([load_embedded(settings.model), *models])
    members = [driver]
    for model in models:
        type_indices(model.config, settings.symbols)
        sums = settings.long_range if model.config.has_coulomb_sum(settings.periodic) else "graph"
        members.append(
            Computation(replace(settings, model=serialize_model(model), long_range=sums))
        )
    return members


def _message(
    driver: Computation, simulation: app.Simulation, spread: Spread, threshold: float
) -> str:
    worst, indices = int(spread.forces.argmax()), driver.settings.atoms
    symbol = driver.settings.symbols[worst]
    worst = worst if indices is None else indices[worst]
    return (
        f"committee: expected forces spread by at most {threshold:g} eV/Å, got "
        f"{spread.largest_force:.3g} eV/Å on atom {worst} ({symbol}) at step "
        f"{simulation.currentStep}; the models do not know this structure: add it to the training "
        "data, or raise the threshold"
    )
