"""Options of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..checks import check_positive, check_timestep
from ..errors import InputError, describe

#: Options of the quick check.
QUICK: dict[str, Any] = {"frames": 8, "minimisations": 4, "runs": 1, "ps": 0.4}


@dataclass(frozen=True)
class CheckOptions:
    """Extent of a check.

    Parameters
    ----------
    quick : bool
        Whether this is the quick check; stored in the report.
    frames : int
        Number of structures drawn from the data. Forces are compared at them, and minimisations
        and dynamics start from them.
    minimisations : int
        Number of minimisations for each displacement.
    displacements : tuple of float, Å
        Standard deviations of the random displacement of each component.
    steps : int
        Largest number of steps of a minimisation.
    runs : int
        Number of dynamics runs at each temperature.
    ps : float, ps
        Length of a run.
    fs : float, fs
        Time step, at most 20.
    temperatures : tuple of float, optional, K
        Temperatures. By default 300 K, and 600 K as well for structures without a cell.
    seed : int
        Seed of all random numbers.
    threads : int
        Threads of torch and of OpenMM's CPU platform.

    Raises
    ------
    InputError
        If a value is invalid.
    """

    quick: bool = False
    frames: int = 50
    minimisations: int = 30
    displacements: tuple[float, ...] = (0.15, 0.3)
    steps: int = 150
    runs: int = 5
    ps: float = 2.0
    fs: float = 0.5
    temperatures: tuple[float, ...] | None = None
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in {
            "frames": 1, "minimisations": 0, "steps": 1, "runs": 0, "seed": 0, "threads": 1,
        }.items():  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(describe(name, value, f"a whole number of at least {least}"))
        check_timestep("fs", self.fs)
        check_positive("ps", self.ps)
        if 1000.0 * self.ps < self.fs:
            raise InputError(describe("ps", self.ps, f"at least one time step of {self.fs:g} fs"))
        for name in ("displacements", "temperatures"):
            values = getattr(self, name)
            if values is None:
                continue
            for value in values:
                check_positive(name, value)
            object.__setattr__(self, name, tuple(dict.fromkeys(map(float, values))))
