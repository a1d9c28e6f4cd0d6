"""End-to-end Jacobians against differences and the complex step, their mean field, batches, memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from pydln import Weights, init
from pydln.activations import ACTIVATIONS, activation
from pydln.propagation import chi, fixed_point, jacobian, jacobian_singular_values, length_map, propagate

SHAPES = [(1, 1), (3, 3, 3), (7, 4, 5, 2), (2, 6, 3, 9), (5, 5), (4,) * 31]


def network(widths: Any, batch: int = 3, seed: int = 0) -> tuple[Weights, Any, list[Any]]:
    rng = np.random.default_rng(seed)
    weights = init.gaussian(widths, batch=batch, scale=1.3, seed=seed)
    biases = [0.3 * rng.standard_normal((batch, n)) for n in widths[1:]]
    return weights, rng.standard_normal((batch, widths[0])), biases


def reference(weights: Weights, x: Any, name: str, gain: float, biases: Any) -> Any:
    """One network at a time, x as it comes: complex for the complex step."""
    out = []
    for member in range(weights.batch):
        state = x[member]
        for layer, bias in zip(weights.layers, biases, strict=True):
            phi = {"tanh": np.tanh, "linear": lambda v: v}.get(name) or activation(name).value
            state = gain * layer[member] @ phi(state) + bias[member]
        out.append(state)
    return np.array(out)


@pytest.mark.parametrize("widths", SHAPES)
def test_against_the_complex_step(widths: tuple[int, ...]) -> None:
    weights, x, biases = network(widths)
    found = jacobian(weights, x, "tanh", gain=0.8, biases=biases)
    assert found.shape == (3, widths[-1], widths[0])
    for column in range(widths[0]):
        shifted = x.astype(complex)
        shifted[:, column] += 1e-30j
        exact = reference(weights, shifted, "tanh", 0.8, biases).imag / 1e-30
        np.testing.assert_allclose(found[:, :, column], exact, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_central_differences(name: str) -> None:
    weights, x, biases = network((6, 5, 7, 4), seed=2)
    found = jacobian(weights, x, name, biases=biases)
    h = 1e-6
    for column in range(6):
        step = h * np.eye(6)[column]
        ends = [propagate(weights, x + sign * step, name, biases=biases).x[:, 0] for sign in (1, -1)]
        np.testing.assert_allclose(found[:, :, column], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)


def test_propagate_against_the_reference() -> None:
    weights, x, biases = network((6, 5, 7, 4), seed=5)
    signal = propagate(weights, x, "gelu", gain=1.1, biases=biases)
    np.testing.assert_allclose(signal.x[:, 0], reference(weights, x, "gelu", 1.1, biases), rtol=1e-13)
    assert signal.q.shape == (3, 4, 1)
    np.testing.assert_allclose(signal.q[:, 0, 0], (x**2).mean(axis=1), rtol=1e-14)
    np.testing.assert_allclose(signal.q[:, -1, 0], (signal.x[:, 0] ** 2).mean(axis=1), rtol=1e-14)
    two = propagate(weights, np.stack([x, -x], axis=1), "tanh")
    np.testing.assert_allclose(two.correlation[:, :, 0, 1], -1, rtol=1e-13)


@pytest.mark.parametrize("kind", ["orthogonal", "gaussian"])
def test_the_mean_squared_singular_value_is_the_product_of_chi(kind: str) -> None:
    """At the fixed point it is χ^D: 20 networks of 100 units, each scattering by about √(D/N) in the logarithm."""
    gain, depth, units, count = 1.3, 6, 100, 20
    q = float(fixed_point("tanh", gain))
    weights = getattr(init, kind)((units,) * (depth + 1), batch=count, seed=7)
    x = np.random.default_rng(8).standard_normal((count, units))
    x *= np.sqrt(q / (x**2).mean(axis=1, keepdims=True))
    values = jacobian_singular_values(weights, x, "tanh", gain=gain)
    mean = np.log((values**2).mean(axis=1)).mean()
    assert mean == pytest.approx(depth * np.log(chi(q, "tanh", gain)), abs=4 * np.sqrt(3 * depth / units / count))
    # Away from it the product follows the length map.
    values = jacobian_singular_values(weights, 2.0 * x, "tanh", gain=gain)
    q, expected = 4 * q, 0.0
    for _ in range(depth):
        expected += np.log(chi(q, "tanh", gain))
        q = float(length_map(q, "tanh", gain))
    mean = np.log((values**2).mean(axis=1)).mean()
    assert mean == pytest.approx(expected, abs=4 * np.sqrt(3 * depth / units / count))


def test_a_linear_orthogonal_network_is_an_isometry_and_a_linear_one_its_product() -> None:
    weights = init.orthogonal((20,) * 31, batch=2, seed=1)
    values = jacobian_singular_values(weights, np.ones(20), "linear", gain=[1.0, 1.1])
    np.testing.assert_allclose(values, np.array([1.0, 1.1**30])[:, None] * np.ones(20), rtol=1e-12)
    thin = init.gaussian((9, 5, 3), batch=2, seed=1)
    np.testing.assert_allclose(jacobian(thin, np.ones(9), "linear"), thin.product(), rtol=1e-13)


@pytest.mark.parametrize("widths", [(6, 5, 4, 6), (9, 5, 4, 2)])
def test_members_do_not_depend_on_the_batch_nor_on_how_layers_come(widths: tuple[int, ...]) -> None:
    weights, x, biases = network(widths, batch=4)
    gain = np.array([0.5, 1.0, 1.5, 2.0])
    together = jacobian(weights, x, "tanh", gain=gain, biases=biases)
    for member in range(4):
        alone = jacobian(weights[member], x[member], "tanh", gain=gain[member], biases=[b[member] for b in biases])
        np.testing.assert_array_equal(alone[0], together[member])
    drawn = jacobian((layer for layer in weights.layers), x, "tanh", gain=gain, biases=biases)
    np.testing.assert_allclose(drawn, together, rtol=1e-12, atol=1e-15)


def test_one_network_serves_many_inputs_and_gains() -> None:
    weights, _, _ = network((6, 5, 4, 6), batch=1)
    x = np.random.default_rng(1).standard_normal((3, 6))
    gain = np.array([0.5, 1.0, 1.5])
    together = jacobian(weights, x, "tanh", gain=gain)
    by_gain = jacobian(weights, x[0], "tanh", gain=gain)
    for member in range(3):
        np.testing.assert_array_equal(jacobian(weights, x[member], "tanh", gain=gain[member])[0], together[member])
        np.testing.assert_array_equal(jacobian(weights, x[0], "tanh", gain=gain[member])[0], by_gain[member])


def test_layers_that_are_drawn_one_at_a_time_are_not_kept() -> None:
    """Forty layers of 300 units are 29 MB; what is held is a layer, its draw and a few matrices."""
    n = 300
    tracemalloc.start()
    jacobian((init.gaussian((n, n), seed=1, first=k).layers[0] for k in range(40)), np.ones(n), "tanh")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 8 * n * n


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"x": np.ones(5)},
            ValueError,
            r"weights\[0\]: expected \(batch, n_out, 5\) to follow 5 units, got \(3, 5, 6\)",
        ),
        ({"x": np.ones((2, 6))}, ValueError, "weights, x: expected batches that agree, got 3, 2"),
        ({"x": np.ones((3, 2, 6))}, ValueError, r"x: expected \(n_0,\) or \(batch, n_0\), got \(3, 2, 6\)"),
        ({"gain": [1.0, 2.0]}, ValueError, "weights, x, gain: expected batches that agree, got 3, 3, 2"),
        ({"gain": -1.0}, ValueError, "gain: expected a number >= 0, got -1.0"),
        ({"biases": [np.ones(5)] * 3}, ValueError, "biases: expected 2, one per layer, got 3"),
        ({"biases": [np.ones(5), 1.0]}, ValueError, r"biases\[1\]: expected \(n,\) or \(batch, n\), got \(\)"),
        ({"biases": [np.ones(5)] * 2}, ValueError, r"biases\[1\]: expected \(4,\) or \(batch, 4\), got \(5,\)"),
        ({"biases": 1.0}, TypeError, "biases: expected a sequence with one array per layer, got float"),
        (
            {"weights": np.ones((2, 3))},
            TypeError,
            "weights: expected Weights or their layers one at a time, got ndarray",
        ),
        ({"weights": []}, ValueError, "weights: expected at least one layer, got none"),
        ({"activation": "swish"}, ValueError, "activation: expected one of"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    weights, x, _ = network((6, 5, 4))
    given = {"weights": weights, "x": x, "activation": "linear"} | change
    with pytest.raises(kind, match=message):
        jacobian(**given)


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (6, 5, 4, 2)])
def test_a_member_that_overflows_does_not_spoil_the_others(widths: tuple[int, ...]) -> None:
    weights, x, _ = network(widths)
    x = np.abs(x)
    for name, gain in (("relu", 1e200), ("linear", 1e200), ("tanh", 1e200)):
        values = jacobian_singular_values(weights, x, name, gain=[1.0, gain, 1.0])
        alone = jacobian_singular_values(weights[[0, 2]], x[[0, 2]], name)
        np.testing.assert_array_equal(values[[0, 2]], alone)
        assert np.isnan(values[1]).all() or name == "tanh"
        signal = propagate(weights, x, name, gain=[1.0, gain, 1.0])
        assert np.isfinite(signal.q[[0, 2]]).all()
        assert not np.isfinite(signal.q[1, -1, 0])


def test_biases_of_an_iterator_and_wrong_inputs_of_propagate() -> None:
    weights, x, biases = network((6, 5, 4))
    with pytest.raises(ValueError, match="biases: expected 2, one per layer, got 3"):
        propagate(iter(weights.layers), x, "tanh", biases=[*biases, np.ones(4)])
    with pytest.raises(ValueError, match="biases: expected one per layer, got 1 for more layers"):
        propagate(iter(weights.layers), x, "tanh", biases=biases[:1])
    with pytest.raises(ValueError, match=r"x: expected \(n_0,\), \(batch, n_0\) or \(batch, samples, n_0\), got \(\)"):
        propagate(weights, 1.0, "tanh")
