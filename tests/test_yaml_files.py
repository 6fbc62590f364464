"""YAML files: what is no plain file of settings is refused, whatever it would grow to."""

from __future__ import annotations

import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.yaml_files import parse_yaml, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 1000000 values after expansion of all aliases"),
        ("model: {r_max: 3}\nseed: 1\nseed: 2\n", "seed twice"),
        ("data:\n  train: a\n  train: b\n", "train twice in line 2"),
        ("a: &a [1, *a]\n", "contains itself"),
        ("a: [1\n", "expected ',' or '\\]'"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("{" * 100_000, ""),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        (b"a: \xff\xfe\n", "utf-8"),
        ("a: \0\n", "special characters are not allowed"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"config: expected valid YAML.*{message}"):
        read_yaml(path, "config")


def test_aliases_and_merged_keys_are_values():
    text = "base: &base {a: 1, b: [1.5, x]}\nother: {<<: *base, a: 2}\nagain: *base\n"
    values = parse_yaml(text)
    assert values["other"] == {"a": 2, "b": [1.5, "x"]}
    assert values["again"] == values["base"]
    assert parse_yaml("") is None
    assert parse_yaml("[1, no, null]") == [1, False, None]


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="config: expected an existing YAML file"):
        read_yaml(tmp_path, "config")
