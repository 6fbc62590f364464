"""Options of a run that make no sense are refused in one line, wherever they come from."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation.options import MDOptions

NUMBERS = ("timestep", "temperature", "friction", "pressure", "ewald_tolerance")
WHOLE = ("steps", "report_interval", "checkpoint_interval", "barostat_interval", "threads", "seed")


@pytest.mark.parametrize("name", [*NUMBERS, *WHOLE, "max_iterations", "charge_tolerance"])
def test_numbers_that_are_none(name):
    values = [math.nan, math.inf, -math.inf, 1e30, 10**400, "3", [], True, 1j]
    for value in [*values, np.array([1.0, 2.0])]:
        with pytest.raises(InputError, match=f"{name}: expected"):
            MDOptions(model="carbon-chain", **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestep", 0.0), ("timestep", -1.0), ("timestep", 20.5), ("friction", 0.0),
        ("temperature", 0.0), ("temperature", -300.0),
        ("steps", -1), ("report_interval", 0), ("checkpoint_interval", 0),
        ("barostat_interval", 0), ("threads", 0), ("threads", 1000000), ("threads", -1),
        ("seed", 2**31), ("seed", -1), ("barostat_axes", "zzz"), ("barostat_axes", ""),
        ("barostat_axes", "xyza"), ("ewald_tolerance", -1.0), ("ewald_tolerance", math.nan),
        ("total_charge", math.nan), ("total_charge", "one"), ("on_unstable", "hope"),
        ("ensemble", "nvt "), ("barostat", "cubic"), ("ensemble", None), ("max_iterations", 0),
    ],
)  # fmt: skip
def test_values_out_of_range(name, value):
    with pytest.raises(InputError, match=f"{name}: expected"):
        MDOptions(model="carbon-chain", **{name: value})


def test_options_without_effect_are_told():
    idle = MDOptions(model="m", ensemble="nve", friction=2.0, pressure=5.0, barostat_axes="xy")
    short = MDOptions(model="m", ensemble="npt", steps=8, report_interval=9, pressure=-1.0)
    for options, told in (
        (idle, ("friction: 2.0 has", "pressure: 5.0 has", "barostat_axes: xy has no effect")),
        (short, ("report_interval: 9 is more than", "barostat_interval: 25 is", "is tension")),
    ):
        with pytest.warns(NequIPLRWarning) as said:
            options.say_idle()
        assert len(said) == 3
        assert all(any(each in str(one.message) for one in said) for each in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MDOptions(model="m").say_idle()
        MDOptions(model="m", ensemble="npt", barostat="anisotropic", barostat_axes="x").say_idle()


def test_values_at_the_limits_are_taken():
    options = MDOptions(
        model="carbon-chain",
        seed=2**31 - 1,
        steps=np.int64(5),
        threads=1,
        pressure=-1.0,
        barostat_axes="zx",
        temperature=np.float32(0.5),
    )
    assert options.steps == 5
