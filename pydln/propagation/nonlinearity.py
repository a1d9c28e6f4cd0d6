"""Any φ: one of the package's nonlinearities by name, or an `Activation` of the caller's own."""

from __future__ import annotations

from pydln.activations import Activation, activation

__all__ = ["nonlinearity"]


def nonlinearity(given: str | Activation) -> Activation:
    """The `Activation` that `given` is or names.

    Raises
    ------
    ValueError
        There is none of that name, or `given` is neither.
    """
    return given if isinstance(given, Activation) else activation(given)
