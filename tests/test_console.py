"""Output on consoles that do not know every letter."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import warnings

import pytest

from openmm_nequiplr import cli
from openmm_nequiplr.console import duration, say, silent_libraries, spell
from openmm_nequiplr.errors import InputError, NequIPLRWarning, notify


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("11.3 × 11.3 Å ± 2 °", "11.3 x 11.3 A +- 2  deg"),
        ("σ χ Δ µ", "sigma chi Delta u"),
        ("Läufe – ½ …", "Laufe - 12 ..."),
        ("漢\ud800", "??"),
    ],
)
def test_letters_are_spelled(text, plain):
    assert spell(text) == plain


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "5 A, sigma, ?"),
        ("latin-1", "5 Å, sigma, ?"),
        ("cp1252", "5 Å, sigma, ?"),
        ("utf-8", "5 Å, σ, 漢"),
    ],
)
def test_what_can_be_encoded_stays(encoding, expected):
    file = stream(encoding)
    say("5 Å, σ, 漢", file=file)
    assert file.buffer.getvalue().decode(encoding) == expected + "\n"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_the_command_line_in_any_encoding(encoding, monkeypatch):
    """Help, description, and an error that repeats what it was given."""
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for command in ("train", "analyze", "md"):
        with pytest.raises(SystemExit, match="^0$"):
            cli.main([command, "--help"])
    assert cli.main(["info", "carbon-chain"]) == 0
    assert cli.main(["info", "Läufe σ"]) == 2
    for file in (out, err):
        file.flush()
    assert "width sigma (" in out.buffer.getvalue().decode(encoding)
    assert "ufe sigma" in err.buffer.getvalue().decode(encoding)


def test_warnings_become_lines(monkeypatch, capsys):
    def call(arguments):
        for _ in range(2):
            notify("charge: 0 is\nassumed")
        notify("frame: the last one")
        raise InputError("and then an error")

    table = {**cli._COMMANDS, "info": (cli.models.info_arguments, call, "warns")}
    monkeypatch.setattr(cli, "_COMMANDS", table)
    assert cli.main(["info", "m"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "nequiplr: note: charge: 0 is assumed",
        "nequiplr: note: frame: the last one",
        "nequiplr: error: and then an error",
    ]


def test_warnings_point_to_the_caller():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        notify("here")
    assert said[0].category is NequIPLRWarning
    assert said[0].filename == __file__


@pytest.mark.skipif(os.name == "nt", reason="the C library has another name")
def test_libraries_in_c_can_be_silenced(capfd):
    library = ctypes.CDLL(None)
    library.puts(b"before")
    with silent_libraries():
        library.puts(b"meanwhile")
    library.puts(b"after")
    library.fflush(None)
    print("python")
    assert capfd.readouterr().out.split() == ["before", "after", "python"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (59.6, "1:00"),
        (3725.0, "1:02:05"),
        (36 * 3600.0, "36:00:00"),
        (60 * 3600.0, "2.5 days"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
