"""Descriptions of models in words."""

from __future__ import annotations

import re

from openmm_nequiplr.model import save_model
from openmm_nequiplr.model.info import describe_model
from openmm_nequiplr.pretrained import list_shipped_models


def test_description_of_a_model(make_model):
    model = make_model(r_max_charge=4.5)
    text = describe_model(model)
    count = sum(p.numel() for p in model.parameters())
    assert f"{count} (double precision)" in text
    assert "11.5 Å = 2 × 3.5 Å + 1 × 4.5 Å" in text
    assert re.search(r"Cl .* -3\.000000", text)
    for name, value in model.config.to_dict().items():
        if value is not None and name not in {"type_names", "gaussian_widths"}:
            assert re.search(rf"^  {name} ", text, re.MULTILINE), name


def test_shortest_distances_are_told_by_pair(make_model):
    table = ((1.2, 2.4, 3.0), (2.4, 3.0, 2.7), (3.0, 2.7, 3.2))
    text = describe_model(make_model(shortest_distances=table))
    expected = "O-O 1.20, O-Na 2.40, O-Cl 3.00, Na-Na 3.00, Na-Cl 2.70, Cl-Cl 3.20 Å"
    assert re.search(rf"^  shortest_distances +{re.escape(expected)}$", text, re.MULTILINE)


def test_description_of_a_file_holds_its_card(make_model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(make_model(), path, metadata={"training data": "word " * 60})
    lines = describe_model(path).splitlines()
    assert str(path) in lines[0]
    assert any(line.strip().startswith("training data: word") for line in lines)
    assert max(len(line) for line in lines[5:]) <= 100


def test_shipped_models_are_listed():
    text = list_shipped_models()
    assert "au2-mgo" in text
    assert "carbon-chain" in text
