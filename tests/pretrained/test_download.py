"""Models by name: registries, a server, the cache, and every door that takes a name."""

from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import openmm_nequiplr
from openmm_nequiplr import (
    NequIPLRCalculator,
    cli,
    costs,
    create_system,
    load_model,
    shipped_models,
)
from openmm_nequiplr.errors import ModelFileError
from openmm_nequiplr.pretrained import (
    cache_directory,
    download_model,
    downloaded_models,
    known_models,
    list_models,
    model_path,
    named_models,
    read_header,
    registry,
    shipped_entries,
)


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that notes what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *values):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEQUIPLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEQUIPLR_MODELS_URL", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "models"


@pytest.fixture
def model_bytes():
    return shipped_models()["carbon-chain"].read_bytes()


@pytest.fixture
def server(tmp_path, model_bytes, cache):
    """URL of a directory with one model and a registry of it."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "chain.safetensors").write_bytes(model_bytes)
    entry = {
        "name": "my-chain",
        "version": "3",
        "sha256": hashlib.sha256(model_bytes).hexdigest(),
        "size": len(model_bytes),
        "urls": ["absent.safetensors", "chain.safetensors"],
        "title": "a chain of the house",
    }
    (folder / "registry.json").write_text(json.dumps({"models": [entry]}))
    Quiet.asked = []
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


# ----------------------------------------------------------------------------- what is shipped


def test_registry_of_the_package_is_that_of_its_files():
    entries, files = shipped_entries(), shipped_models()
    assert set(entries) == set(files)
    for name, path in files.items():
        data = path.read_bytes()
        assert entries[name].sha256 == hashlib.sha256(data).hexdigest(), name
        assert entries[name].size == len(data)
        assert entries[name].title == read_header(path)["metadata"]["title"]


def test_nothing_is_fetched_of_a_shipped_model(cache):
    assert download_model("au2-mgo") == shipped_models()["au2-mgo"]
    assert not cache.exists()
    with pytest.raises(ModelFileError, match="one that no shipped model has"):
        download_model("au2-mgo", "http://127.0.0.1:1/x")


# --------------------------------------------------------------------------------- the mirror


def test_a_model_of_a_mirror_has_its_name_in_every_door(server, cache, monkeypatch, capsys):
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", server)
    assert cli.main(["models", "download", "my-chain"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == cache / "my-chain.safetensors"
    assert Quiet.asked == ["/registry.json", "/absent.safetensors", "/chain.safetensors"]
    assert [each.name for each in cache.iterdir() if each.suffix == ".part"] == []

    monkeypatch.setenv("NEQUIPLR_MODELS_URL", "http://127.0.0.1:1")  # offline from now on
    assert model_path("my-chain") == path
    assert load_model("my-chain").config == load_model("carbon-chain").config
    atoms = Atoms("CH", [[0.0, 0.0, 0.0], [1.1, 0.0, 0.0]], info={"charge": 0})
    energies = [NequIPLRCalculator(m).get_potential_energy(atoms) for m in ("my-chain", path)]
    assert energies[0] == energies[1]
    start = openmm_nequiplr.simulation.read_structure(
        openmm_nequiplr.shipped_structure("carbon-chain")
    )
    system = create_system(start.topology, "my-chain", total_charge=1, embed_model=False)
    found = openmm_nequiplr.simulation.get_computation(system)
    assert found.settings.model.source == "my-chain"
    assert np.isfinite(found.evaluate(10.0 * start.positions).energy)
    assert cli.main(["info", "my-chain"]) == 0
    assert str(path) in capsys.readouterr().out
    assert cli.main(["models", "list"]) == 0
    assert any(
        line.split()[:3] == ["my-chain", "3", "downloaded"]
        for line in capsys.readouterr().out.splitlines()
    )
    openmm_ml = pytest.importorskip("openmmml")
    potential = openmm_ml.MLPotential("nequiplr", modelPath="my-chain")
    assert potential.createSystem(start.topology, totalCharge=1).getNumForces() > 0


def test_registry_of_the_mirror_is_kept(server, cache, monkeypatch):
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", server + "/")
    download_model("my-chain")
    (cache / "my-chain.safetensors").unlink()
    monkeypatch.delenv("NEQUIPLR_MODELS_URL")
    assert known_models()["my-chain"].urls[1] == f"{server}/chain.safetensors"
    assert "not local" in list_models()
    assert download_model("my-chain").is_file()


def test_a_model_that_is_there_is_not_fetched_again(server, cache, monkeypatch):
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", server)
    path = download_model("my-chain")
    Quiet.asked.clear()
    download_model("my-chain")
    assert Quiet.asked == ["/registry.json"]
    path.write_bytes(b"damaged")
    assert "downloaded, other" in list_models()
    download_model("my-chain")
    assert "/chain.safetensors" in Quiet.asked
    assert path.stat().st_size > 1000
    Quiet.asked.clear()
    download_model("my-chain", again=True)
    assert "/chain.safetensors" in Quiet.asked


# ------------------------------------------------------------------------------------ a URL


def test_a_url_needs_a_digest(server, cache, model_bytes):
    url, digest = f"{server}/chain.safetensors", hashlib.sha256(model_bytes).hexdigest()
    with pytest.raises(ModelFileError, match="sha256: expected the SHA-256 of the file"):
        download_model("other", url)
    with pytest.raises(ModelFileError, match=f"SHA-256 {digest}, not {'0' * 64}"):
        download_model("other", url, sha256="0" * 64)
    with pytest.raises(ModelFileError, match="64 hexadecimal digits"):
        download_model("other", url, sha256="abc")
    assert downloaded_models() == {}
    assert download_model("other", url, sha256=digest.upper()).read_bytes() == model_bytes


def test_what_is_no_model_is_not_kept(server, cache, tmp_path):
    text = b"not a model at all"
    path = tmp_path / "served" / "text"
    path.write_bytes(text)
    with pytest.raises(ModelFileError, match="not a readable model file"):
        download_model("other", path.as_uri(), sha256=hashlib.sha256(text).hexdigest())
    assert downloaded_models() == {}


def test_a_longer_file_than_expected_is_left(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", server)
    path = tmp_path / "served" / "chain.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelFileError, match=r"longer than the \d+ bytes expected"):
        download_model("my-chain")
    assert downloaded_models() == {}


@pytest.mark.parametrize(
    ("name", "url", "message"),
    [
        ("no-such", None, "name: expected a model of a registry"),
        ("../../etc/x", None, "name: expected letters"),
        (".hidden", None, "name: expected letters"),
        ("other", "ftp://127.0.0.1/x", "begins with https, http, file"),
        ("other", "http://127.0.0.1:1/x", "http://127.0.0.1:1/x: "),
    ],
)
def test_wrong_names_and_urls(cache, name, url, message):
    with pytest.raises(ModelFileError, match=message):
        download_model(name, url, sha256="0" * 64 if url else None)


def test_an_unreachable_mirror_is_named(cache, monkeypatch):
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", "http://127.0.0.1:1/models")
    with pytest.raises(ModelFileError, match="127.0.0.1:1/models/registry.json"):
        download_model("x")


def test_the_package_decides_on_its_own_names(server, cache, tmp_path, monkeypatch):
    """A mirror cannot put another file behind the name of a shipped model."""
    text = (tmp_path / "served" / "registry.json").read_text().replace("my-chain", "au2-mgo")
    (tmp_path / "served" / "registry.json").write_text(text)
    monkeypatch.setenv("NEQUIPLR_MODELS_URL", server)
    assert download_model("au2-mgo") == shipped_models()["au2-mgo"]
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "au2-mgo.safetensors").write_bytes(b"")
    assert model_path("au2-mgo") == shipped_models()["au2-mgo"]


def test_close_names_are_proposed(cache):
    with pytest.raises(ModelFileError, match="no model 'au2-mg0': did you mean 'au2-mgo'"):
        load_model("au2-mg0")


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"models": [{"name": "a"}]}', '{"models": {"a": 1}}', "[" * 100_000],
)
def test_damaged_registries_are_named(text):
    with pytest.raises(ModelFileError, match="registry here: expected JSON"):
        registry.parse_registry(text, "here")


def test_entries_that_stand_twice_or_make_no_sense():
    entry = {"name": "a", "version": 1, "sha256": "0" * 64, "size": 3}
    assert registry.parse_registry(json.dumps({"models": [entry]}), "here")["a"].version == "1"
    with pytest.raises(ModelFileError, match="a occurs twice"):
        registry.parse_registry(json.dumps({"models": [entry, entry]}), "here")
    for name, value in {"name": "a/b", "sha256": "0", "size": 0}.items():
        with pytest.raises(ModelFileError, match=f"registry here: {name}: expected"):
            registry.parse_registry(json.dumps({"models": [{**entry, name: value}]}), "here")


def test_caches_are_where_the_system_keeps_them(monkeypatch, tmp_path):
    monkeypatch.delenv("NEQUIPLR_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "openmm-nequiplr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "openmm-nequiplr"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_directory() == tmp_path / "Library" / "Caches" / "openmm-nequiplr"


def test_users_without_a_home(monkeypatch):
    """As in a container under a number that no user has: nothing is downloaded, all else works."""
    pwd = pytest.importorskip("pwd")
    for name in ("HOME", "NEQUIPLR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    assert not cache_directory().exists()
    assert "au2-mgo" in named_models()
    assert costs.crossings() == costs.Crossings()


def test_the_command_refuses_what_makes_no_sense(cache, capsys):
    assert cli.main(["models", "download"]) == 2
    assert "NAME: expected the name" in capsys.readouterr().err
    assert cli.main(["models", "list", "x"]) == 2
    assert "no further argument" in capsys.readouterr().err
