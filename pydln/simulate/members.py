"""How many members a run has, and how its arguments share them out."""

from __future__ import annotations

import numpy as np

__all__ = ["agree", "agree_with_rates"]


def agree(sizes: dict[str, int]) -> int:
    """The one number of members that all arguments have, those of size 1 going along.

    Parameters
    ----------
    sizes : dict
        Argument to its number of members.

    Raises
    ------
    ValueError
        Two of them differ.
    """
    batch, first = 1, ""
    for name, size in sizes.items():
        if size == 1 or size == batch:
            continue
        if batch > 1:
            raise ValueError(f"{name}: expected 1 or {batch} members like {first}, got {size}")
        batch, first = size, name
    return batch


def agree_with_rates(sizes: dict[str, int], steps: int) -> int:
    """`agree`, but for rates ``lr`` that could as well be meant one for each step."""
    batch = agree(sizes)
    if (
        batch > 1
        and isinstance(steps, int | np.integer)
        and batch == steps
        and agree({name: n for name, n in sizes.items() if name != "lr"}) == 1
    ):
        raise ValueError(
            f"lr: expected a number, or a rate for each member of a batch, got {batch} of them for {steps} steps of "
            f"one start: rates that change from step to step are not known here; for {batch} members repeat the start, "
            f"weights[[0] * {batch}]"
        )
    return batch
