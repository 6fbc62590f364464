"""The course of the learning rate."""

from __future__ import annotations

import pytest

from openmm_nequiplr.training.config import ScheduleConfig
from openmm_nequiplr.training.schedule import LearningRate


def _rate(max_time: float | None = None, **options) -> LearningRate:
    return LearningRate(ScheduleConfig(**options), steps_per_epoch=10, max_epochs=20,
                        max_time=max_time)  # fmt: skip


def test_cosine_from_one_to_the_end():
    rate = _rate(name="cosine", final_factor=0.01)
    assert rate.factor(0) == 1.0
    assert rate.factor(100) == pytest.approx(0.505)
    assert rate.factor(200) == pytest.approx(0.01)
    assert rate.factor(500) == pytest.approx(0.01)


def test_exponential_falls_by_equal_factors():
    rate = _rate(name="exponential", final_factor=0.01)
    assert rate.factor(100) == pytest.approx(0.1)
    assert rate.factor(150) / rate.factor(100) == pytest.approx(rate.factor(50))


def test_warmup_rises_linearly_and_never_starts_at_zero():
    rate = _rate(name="constant", warmup_epochs=2)
    factors = [rate.factor(step) for step in range(25)]
    assert 0 < factors[0] < 0.1
    assert factors[9] == pytest.approx(10 * factors[0])
    assert factors[20:] == [1.0] * 5


def test_time_runs_the_schedule_down_when_it_is_ahead():
    rate = _rate(max_time=60.0, name="cosine", final_factor=0.01)
    rate.end_epoch(None, minutes=30.0)
    assert rate.factor(10) == pytest.approx(0.505)
    assert rate.factor(190) < 0.02
    rate.end_epoch(None, minutes=61.0)
    assert rate.factor(20) == pytest.approx(0.01)


def test_plateau_waits_then_falls_to_its_floor():
    rate = _rate(name="plateau", patience=2, factor=0.5, final_factor=0.3)
    seen = []
    for loss in [1.0, 0.9, 0.9, 0.95, 0.91, 0.8, 1, 1, 1, 1, 1, 1]:
        rate.end_epoch(loss, 0.0)
        seen.append(rate.factor(0))
    assert seen == [1.0] * 4 + [0.5] * 4 + [0.3] * 4


def test_epochs_without_validation_do_not_count():
    rate = _rate(name="plateau", patience=1)
    rate.end_epoch(1.0, 0.0)
    for _ in range(5):
        rate.end_epoch(None, 0.0)
    assert rate.factor(0) == 1.0


def test_state_is_restored():
    first, second = (_rate(10.0, name="plateau", patience=1, factor=0.5) for _ in range(2))
    for loss in (1.0, 2.0, 2.0, 2.0):
        first.end_epoch(loss, 3.0)
    second.load_state_dict(first.state_dict())
    for rate in (first, second):
        rate.end_epoch(3.0, 4.0)
    assert first.factor(7) == second.factor(7) == 0.25
