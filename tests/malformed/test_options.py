"""Wrong values for every option: each is refused by a typed error that names it, or is right.

A door is a function with options. Every option has a rule that tells good values from bad ones, and
is given a pool of values of all kinds: good ones have to pass, all others have to be refused. To
extend the suite, add an option with its rule, or a value to the pool.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from openmm_nequiplr.errors import NequIPLRError

Rule = Callable[[Any], bool]

POOL: list[Any] = [
    None, True, False, 0, 1, 2, -1, 0.0, 0.5, 1.5, -0.5, 1e-15, 1e-5, 1e6, 1e30, 1e300, -1e300,
    10**400, 10**9, 100_000, math.nan, math.inf, -math.inf, 1j, "", "text", "1", "auto", b"bytes",
    [], [1], [1, 2], [math.nan], ["H"], ["Xx"], [["H"]], {}, {"a": 1}, (), object(),
    np.float64(0.25), np.int64(3), "\0",
]  # fmt: skip


def _whole(least: int, most: float = math.inf) -> Rule:
    return lambda x: (
        isinstance(x, int | np.integer) and not isinstance(x, bool) and least <= x <= most
    )


def _real(least: float, most: float) -> Rule:
    """Numbers from ``least`` (excluded) to ``most``; -inf and inf leave all finite ones."""

    def good(x: Any) -> bool:
        if isinstance(x, bool) or not isinstance(x, int | float | np.number):
            return False
        return abs(x) < 1e308 and math.isfinite(x) and least < x <= most

    return good


def _or_none(rule: Rule) -> Rule:
    return lambda x: x is None or rule(x)


def _text(*choices: str) -> Rule:
    return lambda x: isinstance(x, str) and x in choices


def _lists(*choices: list[Any]) -> Rule:
    return lambda x: isinstance(x, list) and x in choices


def _flag(x: Any) -> bool:
    return isinstance(x, bool)


def values(good: list[Any]) -> list[Any]:
    """The pool and some good values, and seeded numbers of all sizes."""
    draw = random.Random(18)
    sizes = [draw.choice((-1, 1)) * 10 ** draw.uniform(-20, 20) for _ in range(6)]
    return [*good, *POOL, *sizes]


def check(name: str, good: Rule, value: Any, call: Callable[[Any], Any]) -> str | None:
    """What is wrong with how a door takes a value; ``None`` if nothing is."""
    shown = repr(value)[:60]
    try:
        call(value)
    except NequIPLRError as error:
        if good(value):
            return f"{name}={shown}: refused ({error})"
        message = str(error)
        if name.split(".")[-1] not in message or len(message) > 3000:
            return f"{name}={shown}: the message does not name it: {message[:300]}"
        return None
    except Exception as error:
        return f"{name}={shown}: {type(error).__name__}: {str(error)[:200]}"
    return None if good(value) else f"{name}={shown}: accepted"


def check_all(rules: dict[str, Rule], call: Callable[[str, Any], Any], good: list[Any]) -> int:
    """Check all options with all values; the number of checks."""
    tasks = [(name, value) for name in rules for value in values(good)]
    found = [check(name, rules[name], v, lambda x, n=name: call(n, x)) for name, v in tasks]
    wrong = [text for text in found if text is not None]
    assert not wrong, f"{len(wrong)} of {len(tasks)}:\n" + "\n".join(wrong)
    return len(tasks)


# ------------------------------------------------------------------------------- configuration

_SYMBOLS = ("H", "O")
_COUNT = {"num_layers": 0, "num_layers_charge": 0, "l_max": 0, "num_features": 1, "num_bessels": 1,
          "invariant_layers": 0, "invariant_neurons": 1, "num_charge_basis": 1}  # fmt: skip
_MOST = {"num_layers": 20, "num_layers_charge": 20, "l_max": 6, "num_features": 2048,
         "num_bessels": 256, "invariant_layers": 10, "invariant_neurons": 4096,
         "num_charge_basis": 1024}  # fmt: skip
_FLAGS = ("parity", "bessel_trainable", "equilibration", "effective_charges", "shared_features",
          "zbl", "pseudotensors", "isolated", "use_sc", "resnet", "scalar_last_layer",
          "legacy_periodic",
          "legacy_nonperiodic", "legacy_ewald_cutoff")  # fmt: skip


def _python(rule: Rule) -> Rule:
    """Counts in a configuration come from YAML and JSON: NumPy's whole numbers are refused."""
    return lambda x: not isinstance(x, np.integer) and rule(x)


def configuration_rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {n: _python(_whole(_COUNT[n], _MOST[n])) for n in _COUNT}
    rules |= dict.fromkeys(_FLAGS, _flag)
    length = _real(0.0, 50.0)
    return rules | {
        "r_max": length,
        "r_max_charge": _or_none(length),
        "avg_num_neighbors": _real(0.0, 1e9),
        "coulomb_constant": _real(0.0, 1e9),
        "hardness_min": lambda x: _real(-1.0, 1e9)(x) and x >= 0,
        "polynomial_cutoff_p": lambda x: _real(1.0, 100.0)(x) and x >= 2,
        "charge_min": _real(-1000.1, 0.99),  # charge_max is 1
        "charge_max": _real(-1.0, 1000.0),
        "electrostatic_energy": _text("qeq", "coulomb"),
        "type_names": _lists(["H"], ["H", "O"]),
        "gaussian_widths": _or_none(_lists([1, 2])),
        "nonlinearity_scalars": lambda x: False,
        "nonlinearity_gates": lambda x: False,
    }


def test_configuration():
    from openmm_nequiplr.model import ModelConfig

    def call(name: str, value: Any) -> None:
        ModelConfig(**{"type_names": list(_SYMBOLS), "r_max": 4.0, name: value})

    lists = [["H", "O"], ["H", "H"], ["Unobtainium"], [1.0], [1.0, 0.0], ["silu"], ["silu", "silu"]]
    assert check_all(configuration_rules(), call, lists) > 1000


def test_configurations_that_no_machine_holds():
    from openmm_nequiplr.model import ModelConfig

    large = {"num_features": 2048, "l_max": 6, "num_layers": 20, "invariant_neurons": 4096}
    with pytest.raises(NequIPLRError, match=r"expected at most 3e\+08 weights"):
        ModelConfig(("H",), 5.0, **large)


# --------------------------------------------------------------------------------------- OpenMM


@pytest.fixture(scope="module")
def tiny(make_model):
    return make_model(num_layers=1, num_features=2, invariant_neurons=4)


@pytest.fixture(scope="module")
def salt() -> Atoms:
    return Atoms("NaClNaCl", [[0, 0, 0], [2.6, 0, 0], [2.5, 2.5, 0.2], [0, 2.7, 0]])


FORCE_RULES: dict[str, Rule] = {
    "total_charge": _or_none(_real(-4.1, 4.0)),
    "long_range": _text("auto", "openmm", "graph"),
    "backend": _text("auto", "python"),
    "ewald_tolerance": _real(1e-12, 9.99e-3),
    "device": lambda x: x is None or x == "cpu",
    "precision": lambda x: x is None or x in ("single", "double"),
    "coulomb_platform": lambda x: x is None or x == "Reference",
    "solver": _text("auto", "dense", "iterative"),
    "charge_tolerance": _real(0.99e-12, 1e-2),
    "max_iterations": _whole(1),
    "embed_model": lambda x: x is True,  # the model is not a file here
    "atoms": _or_none(_lists([1], [1, 2])),
}


def test_forces(tiny, salt):
    from openmm_nequiplr.simulation import create_force, from_atoms

    topology = from_atoms(salt).topology
    good = ["openmm", "single", "Reference", "python", "cpu", "dense"]
    check_all(FORCE_RULES, lambda n, v: create_force(topology, tiny, **{n: v}), good)


def test_systems_of_something_else(tiny, salt):
    from openmm_nequiplr.simulation import create_system, from_atoms

    topology = from_atoms(salt).topology
    rules: dict[str, Rule] = {"model": lambda x: False, "topology": lambda x: False}

    def call(name: str, value: Any) -> None:
        create_system(**{"topology": topology, "model": tiny, name: value})

    check_all(rules, call, [])


def test_openmm_ml(tiny, salt):
    pytest.importorskip("openmmml")
    from openmm_nequiplr.openmm_ml import NequIPLRPotentialImplFactory
    from openmm_nequiplr.simulation import from_atoms

    implementation = NequIPLRPotentialImplFactory().createImpl("nequiplr", modelPath=tiny)
    topology = from_atoms(salt).topology

    def call(name: str, value: Any) -> None:
        import openmm

        system = openmm.System()
        implementation.addForces(topology, system, None, 0, **{name: value})

    names = ("precision", "solver", "charge_tolerance", "long_range", "ewald_tolerance")
    rules = {name: FORCE_RULES[name] for name in names}
    check_all(rules, call, ["openmm", "single", "dense"])
    with pytest.raises(NequIPLRError, match="did you mean 'precision'"):
        call("precison", "single")
    rules = {"modelPath": lambda x: False}
    factory = NequIPLRPotentialImplFactory()
    for value in (None, 5, [], "absent"):
        with pytest.raises(NequIPLRError, match="model"):
            factory.createImpl("nequiplr", modelPath=value)


def test_charge_reporters(tmp_path):
    from openmm_nequiplr import ChargeReporter

    def call(name: str, value: Any) -> None:
        ChargeReporter(**{"file": tmp_path / "charges.npy", "reportInterval": 5, name: value})

    path = lambda x: isinstance(x, str)  # noqa: E731
    check_all({"reportInterval": _whole(1), "file": path}, call, [])


# ------------------------------------------------------------------------------------------ ASE


def test_calculators(tiny):
    from openmm_nequiplr import NequIPLRCalculator

    rules = {name: FORCE_RULES[name] for name in ("solver", "charge_tolerance", "max_iterations")}
    rules |= {
        "precision": FORCE_RULES["precision"],
        "device": FORCE_RULES["device"],
        "model": lambda x: x == "au2-mgo",
    }

    def call(name: str, value: Any) -> None:
        NequIPLRCalculator(**{"model": tiny, name: value})

    check_all(rules, call, ["single", "cpu", "dense", "au2-mgo"])


def test_total_charges_of_structures(tiny, salt):
    from openmm_nequiplr import NequIPLRCalculator

    def call(name: str, value: Any) -> None:
        atoms = salt.copy()
        atoms.info[name] = value
        atoms.calc = NequIPLRCalculator(tiny)
        assert math.isfinite(atoms.get_potential_energy())

    for value in ("text", math.nan, math.inf, [1, 2], {}, 1j, object(), 10**400):
        assert (
            check("total_charge", lambda x: False, value, lambda x: call("total_charge", x)) is None
        )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("positions", lambda atoms: atoms.positions.__setitem__((1, 2), math.nan)),
        ("positions", lambda atoms: atoms.positions.__setitem__((0, 0), math.inf)),
        ("elements", lambda atoms: atoms.set_chemical_symbols(["Na", "Cl", "Xe", "Cl"])),
        ("pbc", lambda atoms: (atoms.set_cell([9, 9, 9]), atoms.set_pbc((True, False, False)))),
        ("cell", lambda atoms: (atoms.set_cell([9, 9, 0]), atoms.set_pbc((True, True, False)))),
        ("cell", lambda atoms: atoms.set_pbc(True)),
        ("cell", lambda atoms: (atoms.set_cell([9, 9, 0]), atoms.set_pbc(True))),
        ("positions", lambda atoms: atoms.__delitem__(slice(None))),
    ],
)
def test_structures(tiny, salt, name, change):
    from openmm_nequiplr import NequIPLRCalculator

    atoms = salt.copy()
    change(atoms)
    atoms.calc = NequIPLRCalculator(tiny)
    with pytest.raises(NequIPLRError, match=name):
        atoms.get_potential_energy()
