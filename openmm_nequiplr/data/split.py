"""Random split of a data set."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..errors import InputError, describe


@dataclass(frozen=True)
class Split:
    """Sorted indices of the structures of each part."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def random_split(
    total: int,
    validation: int | float,
    test: int | float = 0,
    train: int | float | None = None,
    seed: int = 0,
    allow_no_validation: bool = False,
) -> Split:
    """Split `total` structures at random.

    Parameters
    ----------
    total : int
        Number of structures.
    validation, test, train : int or float
        Number of structures (int) or fraction of all structures (float below 1). By default `train`
        gets the remaining structures.
    seed : int
        A seed gives the same split on every machine.
    allow_no_validation : bool
        Whether the validation part may be empty.

    Raises
    ------
    InputError
        If there are too few structures, or none remains for training or validation.
    """
    sizes = {
        "validation": _count("validation", validation, total),
        "test": _count("test", test, total),
    }
    left = total - sizes["validation"] - sizes["test"]
    sizes["train"] = left if train is None else _count("train", train, total)
    if sizes["train"] > left:
        raise InputError(
            describe("split", f"{sizes} of {total} structures", f"at most {total} in all")
        )
    for name in ("train",) if allow_no_validation else ("train", "validation"):
        if sizes[name] < 1:
            raise InputError(
                describe(f"split.{name}", f"{sizes[name]} of {total}", "at least one structure")
            )
    order = list(range(total))
    random.Random(seed).shuffle(order)
    first, second = sizes["validation"], sizes["validation"] + sizes["test"]
    return Split(
        train=tuple(sorted(order[second : second + sizes["train"]])),
        validation=tuple(sorted(order[:first])),
        test=tuple(sorted(order[first:second])),
    )


def _count(name: str, size: int | float, total: int) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, float)) or size < 0:
        raise InputError(describe(f"split.{name}", size, "a number of structures or a fraction"))
    if isinstance(size, int):
        return size
    if size >= 1:
        raise InputError(describe(f"split.{name}", size, "an integer, or a fraction below 1"))
    return round(size * total)
