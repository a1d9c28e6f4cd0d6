"""Nonlinearities against mpmath, derivatives by its differentiation."""

from __future__ import annotations

import pickle

import mpmath
import numpy as np
import pytest

from pydln.activations import ACTIVATIONS, activation

POINTS = np.array([-30.0, -4.2, -1.0, -1e-3, -1e-12, 1e-12, 1e-3, 0.7, 3.0, 25.0])

EXACT = {
    "linear": lambda x: x,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else x * mpmath.mpf(0.01),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}


def test_every_one_is_here() -> None:
    assert set(EXACT) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative(name: str) -> None:
    phi = activation(name)
    with mpmath.workdps(60):
        value = [float(EXACT[name](mpmath.mpf(x))) for x in POINTS]
        slope = [float(mpmath.diff(EXACT[name], mpmath.mpf(x), h=mpmath.mpf(10) ** -25)) for x in POINTS]
    np.testing.assert_allclose(phi.value(POINTS), value, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(phi.derivative(POINTS), slope, rtol=1e-13, atol=1e-25)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_oddness_and_kinks(name: str) -> None:
    phi = activation(name)
    x = np.linspace(0.1, 3.0, 20)
    assert phi.odd == bool(np.array_equal(phi.value(-x), -phi.value(x)))
    left, right = phi.derivative(np.array([-1e-9, 1e-9]))
    assert bool(phi.kinks) == (abs(left - right) > 1e-3)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="activation: expected one of"):
        activation("swish")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_they_can_be_pickled(name: str) -> None:
    assert pickle.loads(pickle.dumps(activation(name))) is activation(name)
