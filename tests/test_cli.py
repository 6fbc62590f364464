"""The command line: what it parses, what it passes on, how it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_nequiplr import __version__, cli, shipped_structure
from openmm_nequiplr.cli.arguments import given
from openmm_nequiplr.cli.environment import check_ranks, settle_environment
from openmm_nequiplr.cli.models import info_arguments
from openmm_nequiplr.cli.training import parse_overrides
from openmm_nequiplr.errors import InputError, NequIPLRError

ROOT = Path(__file__).parents[1]
COMMANDS = ["train", "evaluate", "check", "convert", "md", "analyze", "export", "info"]
COMMANDS += ["models", "doctor"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "openmm_nequiplr", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def parse():
    return lambda *arguments: given(cli.build_parser().parse_args(arguments))


# -------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: nequiplr {command}" in capsys.readouterr().out


def test_variables_of_schedulers_and_of_matplotlib(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_NAME", "SLURM_PROCID"):
        monkeypatch.setenv(name, " ")
    settle_environment()
    check_ranks()
    assert os.environ["MPLBACKEND"] == "agg"
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_NAME"} & os.environ.keys()
    monkeypatch.setenv("SLURM_PROCID", "first")
    with pytest.raises(InputError, match="SLURM_PROCID: expected a whole number, or no"):
        check_ranks()


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split() == ["nequiplr", __version__]


def test_help_runs_as_a_module():
    done = run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_options_that_are_not_given_are_not_passed_on(parse):
    assert parse("md", "au2-mgo") == {"model": "au2-mgo"}
    assert parse("evaluate", "m", "d") == {"model": "m", "data": "d"}


def test_overrides_are_yaml():
    assignments = ["optimizer.lr=5e-3", "max_epochs=10", "data.keys={energy: E}", "output=a=b"]
    assert parse_overrides(assignments) == {
        "optimizer.lr": "5e-3",  # YAML 1.1 calls this text; the configuration converts it
        "max_epochs": 10,
        "data.keys": {"energy": "E"},
        "output": "a=b",
    }


@pytest.mark.parametrize("assignment", ["max_epochs", "=3", "a=[1"])
def test_bad_overrides_are_named(assignment):
    with pytest.raises(InputError, match="--set: expected"):
        parse_overrides([assignment])


def test_periodic_flags_of_convert_exclude_one_another(capsys):
    flags = ["--legacy-periodic", "--corrected-periodic"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", "--config", "c", "w", "-o", "m", *flags])
    assert stop.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


# --------------------------------------------------------------------------------- passing on


def test_md_options_are_those_of_the_library():
    from openmm_nequiplr.simulation.md import MDOptions

    commands = next(a for a in cli.build_parser()._actions if a.dest == "command").choices
    actions = {a.dest: a for a in commands["md"]._actions}
    fields = {field.name: field.default for field in dataclasses.fields(MDOptions)}
    of_python_alone = {"backend", "coulomb_platform"}
    assert set(actions) - {"help", "traceback"} == set(fields) - of_python_alone
    stated = {
        name: re.search(r"\(default: (.*)\)", action.help or "") for name, action in actions.items()
    }
    stated = {name: match[1] for name, match in stated.items() if match and name != "structure"}
    assert len(stated) >= 10
    for name, text in stated.items():
        default = fields[name]
        assert text == (f"{default:g}" if isinstance(default, float) else str(default)), name


def test_evaluate_options_are_those_of_the_library():
    from inspect import signature

    from openmm_nequiplr.data import DataKeys
    from openmm_nequiplr.training.evaluate import data_of, evaluate_model
    from openmm_nequiplr.training.spread import evaluate_committee

    commands = next(a for a in cli.build_parser()._actions if a.dest == "command").choices
    names = {a.dest for a in commands["evaluate"]._actions} - {"help", "json", "traceback"}
    keys = {f"{field.name}_key" for field in dataclasses.fields(DataKeys)}
    of_data = set(signature(data_of).parameters)
    keys.remove("weight_key")  # weights of structures are the training's business
    assert keys <= names
    assert names - keys - {"committee"} <= {*signature(evaluate_model).parameters, *of_data}
    shared = names - keys - {"committee", "model"}
    assert shared <= {*signature(evaluate_committee).parameters, *of_data}


def test_analyze_options_are_those_of_the_library():
    from inspect import signature

    from openmm_nequiplr.analysis import analyze_trajectory
    from openmm_nequiplr.model.options import EvaluationOptions

    commands = next(a for a in cli.build_parser()._actions if a.dest == "command").choices
    names = {a.dest for a in commands["analyze"]._actions} - {"help", "traceback"}
    options = {field.name for field in dataclasses.fields(EvaluationOptions)}
    assert names == set(signature(analyze_trajectory).parameters) - {"options"} | options


def test_md_options_can_be_built(parse):
    from openmm_nequiplr.simulation.md import MDOptions

    options = MDOptions(**parse("md", "au2-mgo", "--ensemble", "npt", "--steps", "7"))
    assert (options.model, options.ensemble, options.steps) == ("au2-mgo", "npt", 7)


def test_train_passes_its_arguments_on(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        "openmm_nequiplr.training.run.train", lambda **options: seen.update(options)
    )
    assert cli.main(["train", "c.yaml", "--resume", "--set", "max_epochs=3", "seed=4"]) == 0
    assert seen == {
        "config_path": Path("c.yaml"),
        "resume": True,
        "overrides": {"max_epochs": 3, "seed": 4},
    }


# --------------------------------------------------------------------------------------- errors


@pytest.fixture
def failing(monkeypatch):
    """Make ``nequiplr info`` raise a given error."""

    def install(error: BaseException) -> None:
        def call(arguments):
            raise error

        table = {**cli._COMMANDS, "info": (info_arguments, call, "fails")}
        monkeypatch.setattr(cli, "_COMMANDS", table)

    return install


@pytest.mark.parametrize(
    "error",
    [
        InputError("temperature: expected a positive number, got -3"),
        NequIPLRError("two\nlines"),
        FileNotFoundError(2, "No such file or directory", "nowhere.xyz"),
    ],
)
def test_errors_are_one_line_and_status_2(failing, capsys, error):
    failing(error)
    assert cli.main(["info", "m"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nequiplr: error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
        (["--verison"], "unknown option '--verison': did you mean '--version'?"),
        # before what is missing
        (["export", "--outptu", "x"], "unknown option '--outptu': did you mean '--output'?"),
        (
            ["md", "au2-mgo", "--tempreature=3"],
            "unknown option '--tempreature': did you mean '--temperature'?",
        ),
        (
            ["md", "au2-mgo", "--ensemble", "nvq"],
            "argument --ensemble: unknown value 'nvq': did you mean 'nvt'?",
        ),
    ],
)
def test_misspelt_names_are_one_line_with_a_suggestion(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_values_and_abbreviations_are_no_unknown_options(parse):
    assert parse("md", "au2-mgo", "--temp", "300")["temperature"] == 300.0
    assert parse("train", "c.yaml", "--set", "a=--b")["overrides"] == ["a=--b"]


def test_traceback_on_request(failing):
    failing(InputError("wrong"))
    with pytest.raises(InputError):
        cli.main(["info", "m", "--traceback"])


def test_errors_of_ours_are_not_hidden(failing):
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", "m"])


def test_interruption(failing, capsys):
    failing(KeyboardInterrupt())
    assert cli.main(["info", "m"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_training_without_lightning_says_what_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "openmm_nequiplr.training.run", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    for name in [n for n in sys.modules if n.startswith(("lightning.", "openmm_nequiplr.train"))]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["train", "c.yaml"]) == 2
    assert "openmm-nequiplr[train]" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- info


def test_info_lists_the_shipped_models(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "au2-mgo" in out
    assert "carbon-chain" in out


def test_info_describes_a_model(make_model, tmp_path, capsys):
    from openmm_nequiplr.model import save_model

    path = tmp_path / "small.safetensors"
    save_model(make_model(), path, metadata={"data": "made up"})
    assert cli.main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    for piece in ("Na", "3.5", "made up", "eV"):
        assert piece in out, piece


# ------------------------------------------------------------------------ converted, end to end

REFERENCE = ROOT.parent / "shared" / "reference"
FIXTURES = sorted(REFERENCE.glob("*.json")) if REFERENCE.is_dir() else []


def _convert(fixture: Path, output: Path, *flags: str) -> int:
    weights = fixture.with_suffix(".pth")
    return cli.main(["convert", "--config", str(fixture), str(weights), "-o", str(output), *flags])


@pytest.mark.skipif(not FIXTURES, reason="no reference data beside the repository")
def test_periodic_checkpoints_need_a_word(tmp_path, capsys):
    from openmm_nequiplr.model import load_model

    contents = {f: json.loads(f.read_text(encoding="utf-8")) for f in FIXTURES}
    assert any(content["config"]["pbc"] for content in contents.values())
    for fixture, content in contents.items():
        model = tmp_path / f"{fixture.stem}.safetensors"
        periodic, flags = content["config"]["pbc"], []
        if periodic:
            flags = ["--legacy-periodic" if content["legacy_periodic"] else "--corrected-periodic"]
            assert _convert(fixture, model) == 2
            assert "--legacy-periodic" in capsys.readouterr().err
            assert not model.exists()
        assert _convert(fixture, model, *flags) == 0
        assert load_model(model).config.legacy_periodic == ("--legacy-periodic" in flags)


def test_export(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    structure = str(shipped_structure("carbon-chain"))
    output = tmp_path / "chain.pt"
    assert cli.main(["export", "carbon-chain", structure, "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == f"wrote {output}"
    assert "total_charge" in torch.jit.load(str(output)).notes
