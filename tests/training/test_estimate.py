"""Estimates of time and memory, against trainings that are made."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from openmm_nequiplr.training.config import load_config
from openmm_nequiplr.training.estimate import Estimate, duration, estimate
from openmm_nequiplr.training.preparation import prepare, read_parts


@pytest.fixture
def settings(config_file):
    """Configuration and parts of a small training."""

    def load(**overrides):
        config, _ = load_config(config_file, overrides)
        return config, read_parts(config, config_file), config_file

    return load


def test_what_is_counted(settings):
    config, parts, path = settings(batch_size=3)
    found = estimate(config, parts, path, seconds=0.1)
    model = prepare(config, parts, path)[0]
    assert found.weights == sum(parameter.numel() for parameter in model.parameters())
    assert (found.elements, found.receptive_field) == (("O", "Na", "Cl"), 7.0)
    assert (found.num_train, found.num_validation, found.num_test) == (8, 2, 0)
    assert found.batches == 3
    assert found.steps_timed >= 1
    assert found.epoch > found.batches * found.step
    assert 0.05 < found.memory < 50.0


def test_copies_and_epochs_of_charges_count(settings):
    overrides = {"equilibration.charge_epochs": 100_000}
    plain = estimate(*settings(), seconds=0.0)
    more = estimate(*settings(**overrides), seconds=0.0)
    assert plain.steps_timed == 1
    assert more.preparation > plain.preparation + 10.0
    config, parts, path = settings(**{"harmonic.copies": 2, "harmonic.cutoff": 3.0})
    parts = replace(parts, train=[replace(each, total_charge=0.0) for each in parts.train])
    assert estimate(config, parts, path, seconds=0.0).num_train == 24


def test_the_limit_ends_the_timing(settings):
    config, parts, path = settings()
    estimate(config, parts, path, seconds=0.0)  # compiles
    begin = time.perf_counter()
    found = estimate(config, parts, path, seconds=0.05)
    assert time.perf_counter() - begin < 5.0
    assert found.steps_timed <= 20


def test_a_sample_has_the_statistics_of_all(settings):
    config, parts, path = settings()
    torch.manual_seed(0)
    whole, train, validation = prepare(config, parts, path)
    some, few, fewer = prepare(config, parts, path, sample=1)
    assert (len(train), len(validation)) == (8, 2)
    assert (len(few), len(fewer)) == (1, 1)
    assert few[0].labels.charges is not None
    assert some.config == whole.config
    assert torch.equal(some.energy_shifts, whole.energy_shifts)


def test_lines(settings):
    config, _, _ = settings(max_epochs=1000, max_time=10)
    figures = Estimate(
        weights=5, elements=("H", "O"), receptive_field=8.0, neighbors=12.0, num_train=80,
        num_validation=10, num_test=0, batches=20, steps_timed=7, step=0.1, epoch=2.5,
        preparation=90.0, memory=1.26,
    )  # fmt: skip
    structures, model, epoch, training, memory, few = figures.lines(config)
    assert structures == "structures: 80 for training, 10 for validation, 0 for the test"
    assert "5 weights, elements H O" in model
    assert epoch.startswith("epoch: 2.5 s, 20 steps of 100 ms and the validation")
    expected = "max_time ends it after 10 min, about 240 epochs; before it 1.5 min of preparation"
    assert training == f"training: {expected}"
    assert memory == "memory: about 1.3 GB"
    advice = "or a smaller model (num_features, l_max, r_max)"
    assert few == f"few steps, 4800 in all: try more max_time, {advice}"
    config, _, _ = settings(max_epochs=50, max_time=10)
    assert figures.durations(config)[-1].endswith(f"1000 in all: try more max_epochs, {advice}")
    config, _, _ = settings(max_epochs=1000)
    assert "training: 1000 epochs take 41.7 min" in figures.durations(config)[1]
    assert len(figures.durations(config)) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (59.0, "59 s"), (120.0, "2 min"), (7200.0, "2 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
