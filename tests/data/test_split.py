"""Random division of data."""

from __future__ import annotations

import pytest

from openmm_nequiplr.data import random_split
from openmm_nequiplr.errors import InputError


def test_parts_are_disjoint_and_complete():
    split = random_split(50, validation=5, test=0.1, seed=3)
    assert (len(split.validation), len(split.test), len(split.train)) == (5, 5, 40)
    assert sorted(split.train + split.validation + split.test) == list(range(50))


def test_seed_decides():
    splits = [random_split(50, validation=10, seed=s) for s in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_smaller_training_set_keeps_the_same_validation():
    """Learning curves over set sizes need one validation set."""
    small, large = (random_split(50, validation=10, train=n) for n in (5, 40))
    assert small.validation == large.validation
    assert set(small.train) < set(large.train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "split.validation: expected at least one"),
        ({"validation": 10}, "split.train: expected at least one"),
        ({"validation": 5, "train": 6}, "split: expected at most 10 in all"),
        ({"validation": 1.5}, "split.validation: expected an integer, or a fraction"),
        ({"validation": -1}, "split.validation: expected a number"),
    ],
)
def test_impossible_sizes(options, message):
    with pytest.raises(InputError, match=message):
        random_split(10, **options)


def test_no_validation_only_when_allowed():
    assert random_split(3, validation=0, allow_no_validation=True).train == (0, 1, 2)
