"""Starts: the laws they are drawn from, what they conserve, and that a member never depends on its batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pydln import init
from pydln._base import validate
from pydln.exact import solve
from pydln.task.task import Task
from pydln.weights import Weights

DRAWN = [init.gaussian, init.uniform, init.orthogonal]
TASK = Task.from_spectrum([3.0, 2.0, 1.0], n_in=5, n_out=3, seed=1)


def imbalance(w: Weights) -> float:
    """max |W_{l+1}ᵀW_{l+1} - W_l W_lᵀ| over members and layers."""
    return max(
        (float(np.abs(b.transpose(0, 2, 1) @ b - a @ a.transpose(0, 2, 1)).max()) for a, b in pairwise(w.layers)),
        default=0.0,
    )


def assert_same_bits(one: Weights, other: Weights) -> None:
    for a, b in zip(one.layers, other.layers, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def starts(batch: int, first: int, dtype: Any) -> list[Weights]:
    """Every start that draws anything, its parameters those of members first … first + batch - 1 of one ensemble."""
    members = slice(first, first + batch)
    scale = np.linspace(0.5, 2.0, 12)[members]
    strength = np.linspace(-0.3, 0.7, 36).reshape(12, 3)[members]
    tasks = Task.stack([Task.from_spectrum([3.0, 2.0, 1.0], n_in=17, n_out=3, seed=k) for k in range(12)])
    products = np.random.default_rng(5).normal(size=(12, 3, 17))[members]
    keys: dict[str, Any] = {"seed": 9, "first": first, "dtype": dtype}
    picked: Any = [tasks[k] for k in range(first, first + batch)]
    return [
        *(draw((17, 33, 8, 3), batch=batch, scale=scale, **keys) for draw in DRAWN),
        init.aligned(TASK, depth=3, width=[7, 9], strength=strength, **keys),
        init.aligned(Task.stack(picked), depth=3, width=[20, 33], strength=strength, **keys),
        init.balanced(products, depth=3, width=40, **keys),
    ]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_member_is_the_same_whatever_its_batch(dtype: Any) -> None:
    whole = starts(12, 0, dtype)
    for first, batch in [(0, 1), (3, 1), (11, 1), (2, 5), (6, 6)]:
        for all_members, few in zip(whole, starts(batch, first, dtype), strict=True):
            assert_same_bits(all_members[first : first + batch], few)


def test_an_unbatched_task_gives_the_bits_of_a_batched_one() -> None:
    tasks = Task.stack([Task.from_spectrum([3.0, 1.0], n_in=40, n_out=2, seed=k) for k in range(4)])
    whole = init.aligned(tasks, depth=3, width=35, strength=0.1)
    assert_same_bits(whole[2], init.aligned(tasks[2], depth=3, width=35, strength=0.1, first=2))


def test_dtype_only_rounds() -> None:
    for double, single in zip(starts(3, 2, np.float64), starts(3, 2, np.float32), strict=True):
        assert (double.dtype.name, single.dtype.name) == ("float64", "float32")
        assert_same_bits(double.astype(np.float32), single)


@pytest.mark.parametrize("draw", DRAWN)
def test_seeds_members_and_layers_differ(draw: Callable[..., Weights]) -> None:
    w = draw((6, 6, 6), batch=3, seed=4)
    other = draw((6, 6, 6), batch=3, seed=5)
    seen = {layer[i].tobytes() for source in (w, other) for layer in source.layers for i in range(3)}
    assert len(seen) == 12
    assert_same_bits(w, draw((6, 6, 6), batch=3, seed=4))


def test_the_streams_are_the_documented_ones() -> None:
    w = init.gaussian((4, 4, 4), batch=3, seed=11, first=6)
    for member in range(3):
        for layer in (1, 2):
            bits = np.random.Philox(key=[11, 6 + member], counter=[0, 0, 0, layer])
            expected = np.random.Generator(bits).standard_normal((4, 4)) * (1 / np.sqrt(4))
            assert w.layers[layer - 1][member].tobytes() == expected.tobytes()


def test_largest_keys() -> None:
    assert init.gaussian((2, 2), seed=2**64 - 1, first=2**64 - 1).batch == 1


def test_gaussian_law() -> None:
    widths, scale = (20, 50, 8), np.array([0.5, 3.0])
    for member, g in enumerate(scale):
        w = init.gaussian(widths, batch=2, scale=scale, seed=1)
        for layer, n_in in zip(w.layers, widths[:-1], strict=True):
            assert stats.kstest(layer[member].ravel() * np.sqrt(n_in) / g, "norm").pvalue > 1e-3
    many = init.gaussian((4, 2, 3), batch=4000, scale=2.0, seed=2)
    flat = np.concatenate([layer.reshape(4000, -1) for layer in many.layers], axis=1)
    covariance = np.cov(flat.T)
    expected = np.diag([4 / 4] * 8 + [4 / 2] * 6)  # entries, layers and members independent
    np.testing.assert_allclose(covariance, expected, atol=6 * 2 / np.sqrt(4000))


def test_uniform_law() -> None:
    widths, scale = (20, 50, 8), 1.5
    w = init.uniform(widths, batch=4, scale=scale, seed=1)
    for layer, (n_in, n_out) in zip(w.layers, pairwise(widths), strict=True):
        bound = scale * np.sqrt(6 / (n_in + n_out))
        assert np.abs(layer).max() <= bound
        assert stats.kstest(layer.ravel(), "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_orthogonal_is_semi_orthogonal(scale: float) -> None:
    w = init.orthogonal((9, 30, 30, 4), batch=5, scale=scale, seed=3)
    for layer in w.layers:
        gram = (
            layer @ layer.transpose(0, 2, 1) if layer.shape[1] <= layer.shape[2] else layer.transpose(0, 2, 1) @ layer
        )
        np.testing.assert_allclose(gram, np.broadcast_to(scale**2 * np.eye(gram.shape[1]), gram.shape), atol=1e-14)
        assert layer.flags.c_contiguous


def test_orthogonal_is_haar() -> None:
    """Of Haar matrices the trace has mean 0 and variance 1, and so has the trace of any fixed rotation of them."""
    n, batch = 5, 6000
    q = init.orthogonal((n, n), batch=batch, seed=8).layers[0]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    error = 5 / np.sqrt(batch)
    for turned in (q, q @ rotation, rotation @ q):
        trace = np.trace(turned, axis1=1, axis2=2)
        assert abs(trace.mean()) < error
        assert abs((trace**2).mean() - 1) < np.sqrt(2) * error
        np.testing.assert_allclose(turned.mean(axis=0), 0, atol=error / np.sqrt(n))  # raw QR has E[Q_11] < 0
        np.testing.assert_allclose((turned**2).mean(axis=0), 1 / n, atol=error * np.sqrt(2) / n)
    assert abs(np.linalg.det(q).mean()) < error  # rotations and reflections alike
    # A column of a tall frame is a uniform point on the sphere: its square entries are Beta(1/2, (n-1)/2).
    tall = init.orthogonal((2, n), batch=batch, seed=8).layers[0]
    assert stats.kstest(tall[:, 0, 1] ** 2, "beta", args=(0.5, (n - 1) / 2)).pvalue > 1e-3


def test_identity() -> None:
    w = init.identity((3, 5, 2), batch=2, scale=[1.0, 0.5], dtype=np.float32)
    for member, g in enumerate((1.0, 0.5)):
        np.testing.assert_array_equal(w.layers[0][member], g * np.eye(5, 3))
        np.testing.assert_array_equal(w.layers[1][member], g * np.eye(2, 5))
    assert w.dtype == np.float32
    np.testing.assert_array_equal(init.identity((4, 4, 4)).product()[0], np.eye(4))


@pytest.mark.parametrize("draw", [*DRAWN, init.identity])
def test_scale_is_per_member_and_sets_the_batch(draw: Callable[..., Weights]) -> None:
    scale = np.array([0.0, 1.0, 2.5])
    w = draw((3, 4, 2), scale=scale)
    assert w.batch == 3
    one = draw((3, 4, 2), batch=3)
    for a, b in zip(w.layers, one.layers, strict=True):
        np.testing.assert_allclose(a, scale[:, None, None] * b, rtol=1e-15)
    assert draw((3, 4)).batch == 1
    assert draw((3, 4), batch=4, scale=[2.0]).batch == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 4), st.data())
def test_aligned_is_balanced_and_has_its_strengths(depth: int, extra: int, data: Any) -> None:
    u = np.array([[data.draw(st.floats(-2, 2)) for _ in range(3)] for _ in range(2)])
    w = init.aligned(TASK, depth=depth, width=3 + extra, strength=u, seed=7)
    U, _, V = TASK.modes
    assert (w.depth, w.batch) == (depth, 2)
    np.testing.assert_allclose(U.T @ w.product() @ V, np.apply_along_axis(np.diag, 1, u), atol=1e-13)
    assert imbalance(w) < 1e-13


def test_aligned_modes_learn_one_by_one() -> None:
    """Gradient descent from an aligned start, balanced or not, is D scalars per mode (theory: decoupled starts)."""
    depth, lr = 3, 0.03
    a = np.random.default_rng(2).normal(size=(2, depth, 3))
    w = init.aligned(TASK, depth=depth, width=6, layer_strengths=a)
    U, s, V = TASK.modes
    layers = [layer.copy() for layer in w.layers]
    for _ in range(60):
        w3, w2, w1 = layers[::-1]
        error = TASK.sigma_yx - w3 @ w2 @ w1
        t1, t2, t3 = (layer.transpose(0, 2, 1) for layer in layers)
        gradients = [t2 @ t3 @ error, t3 @ error @ t1, error @ t1 @ t2]
        layers = [layer + lr * g for layer, g in zip(layers, gradients, strict=True)]
        u = a.prod(axis=1, keepdims=True)
        others = np.stack([np.delete(a, place, axis=1).prod(axis=1) for place in range(depth)], axis=1)
        a = a + lr * others * (s - u)
    product = U.T @ (layers[2] @ layers[1] @ layers[0]) @ V
    np.testing.assert_allclose(product, np.stack([np.diag(u) for u in a.prod(axis=1)]), atol=1e-12)


def test_aligned_layer_strengths() -> None:
    a = np.array([[0.5, -1.0, 2.0], [1.0, 1.0, -3.0], [-2.0, 0.1, 0.0]])
    w = init.aligned(TASK, depth=3, layer_strengths=a, width=6, batch=2)
    U, _, V = TASK.modes
    np.testing.assert_allclose(U.T @ w.product() @ V, np.broadcast_to(np.diag(a.prod(axis=0)), (2, 3, 3)), atol=1e-14)
    for layer, each in zip(w.layers, a, strict=True):
        singular = np.linalg.svd(layer, compute_uv=False)[:, :3]
        np.testing.assert_allclose(singular, np.broadcast_to(np.sort(np.abs(each))[::-1], (2, 3)), atol=1e-14)
    per_layer = init.aligned(TASK, depth=3, layer_strengths=[0.5, 1.0, 2.0])
    np.testing.assert_allclose(U.T @ per_layer.product()[0] @ V, np.eye(3), atol=1e-14)
    batch = init.aligned(TASK, depth=3, layer_strengths=np.stack([a, 2 * a]), width=6)
    assert_same_bits(batch[0], w[0])
    assert batch.batch == 2


def test_aligned_shapes_of_strength() -> None:
    U, _, V = TASK.modes

    def strengths(w: Weights) -> Any:
        return np.einsum("oa,boi,ia->ba", U, w.product(), V)

    np.testing.assert_allclose(strengths(init.aligned(TASK, depth=2, strength=0.1)), [[0.1] * 3], atol=1e-15)
    each = init.aligned(TASK, depth=2, strength=[0.1, 0.2])
    np.testing.assert_allclose(strengths(each), [[0.1] * 3, [0.2] * 3], atol=1e-15)
    shared = init.aligned(TASK, depth=2, strength=[[0.1, 0.2, 0.3]], batch=4)
    np.testing.assert_allclose(strengths(shared), [[0.1, 0.2, 0.3]] * 4, atol=1e-15)
    assert shared.widths == (5, 3, 3)
    assert len({shared.layers[0][k].tobytes() for k in range(4)}) == 4


def test_aligned_takes_member_i_of_a_batched_task() -> None:
    tasks = [Task.from_spectrum([3.0, 2.0], n_in=4, n_out=2, seed=k) for k in range(3)]
    w = init.aligned(Task.stack(tasks), depth=3, width=5, strength=0.5)
    assert w.batch == 3
    for member, task in enumerate(tasks):
        U, _, V = task.modes
        np.testing.assert_allclose(U.T @ w.product()[member] @ V, 0.5 * np.eye(2), atol=1e-14)


def test_aligned_strength_zero_is_the_saddle() -> None:
    w = init.aligned(TASK, depth=3, strength=0.0)
    assert all(np.all(layer == 0) for layer in w.layers)


def test_float32_couples_aligned_modes_as_documented() -> None:
    task = Task.from_spectrum([3.0, 2.0], n_in=30, n_out=2, seed=0)
    U, _, V = task.modes
    for dtype, least, most in ((np.float64, 0.0, 1e-15), (np.float32, 1e-9, 1e-7)):
        w = init.aligned(task, depth=3, strength=[[1.0, 1e-9]], width=30, dtype=dtype)
        exact_product = Weights([layer.astype(np.float64) for layer in w.layers]).product()[0]
        assert least <= abs(U[:, 0] @ exact_product @ V[:, 1]) < most


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 1000))
def test_balanced_reproduces_any_product(depth: int, n_in: int, n_out: int, extra: int, seed: int) -> None:
    product = np.random.default_rng(seed).normal(size=(3, n_out, n_in))
    w = init.balanced(product, depth=depth, width=min(n_in, n_out) + extra, seed=seed)
    np.testing.assert_allclose(w.product(), product, atol=1e-13)
    assert imbalance(w) < 1e-13


def test_balanced_fits_low_rank_through_narrow_layers() -> None:
    rng = np.random.default_rng(0)
    product = rng.normal(size=(2, 6, 2)) @ rng.normal(size=(2, 2, 5))
    w = init.balanced(product, depth=4, width=[2, 3, 2])
    assert w.widths == (5, 2, 3, 2, 6)
    np.testing.assert_allclose(w.product(), product, atol=1e-13)
    assert imbalance(w) < 1e-13
    with pytest.raises(ValueError, match="width: expected at least 2, the rank of product, got 1"):
        init.balanced(product, depth=2, width=1)
    assert init.balanced(product[0], depth=2).widths == (5, 5, 6)
    zero = init.balanced(np.zeros((2, 3)), depth=3)
    assert np.all(zero.product() == 0)


COMMON: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"widths": "abc"}, TypeError, "widths: expected a sequence of integers, input first, got 'abc'"),
    ({"widths": 3}, TypeError, "widths: expected a sequence of integers, input first, got 3"),
    ({"widths": (3,)}, ValueError, "widths: expected at least two, input and output, got 1"),
    ({"widths": (3, 0, 2)}, ValueError, r"widths\[1\]: expected an integer >= 1, got 0"),
    ({"widths": (3, 2.5)}, TypeError, r"widths\[1\]: expected an integer, got 2.5"),
    ({"widths": (3, "4")}, TypeError, r"widths\[1\]: expected an integer, got '4'"),
    ({"batch": 0}, ValueError, "batch: expected an integer >= 1, got 0"),
    ({"batch": True}, TypeError, "batch: expected an integer, got True"),
    ({"scale": -1.0}, ValueError, "scale: expected a number >= 0, got -1.0"),
    ({"scale": "big"}, TypeError, "scale: expected real numbers, got 'big'"),
    ({"scale": np.nan}, ValueError, "scale: expected a finite number, got nan"),
    (
        {"scale": np.ones((2, 2))},
        ValueError,
        r"scale: expected a number, \(batch,\) or \(batch, 1\), got an array of shape \(2, 2\)",
    ),
    (
        {"batch": 3, "scale": [1.0, 2.0]},
        ValueError,
        "scale: expected 1 or 3 members to go with batch, got 2",
    ),
    ({"dtype": np.int32}, TypeError, "dtype: expected float32 or float64, got int32"),
    ({"dtype": "text"}, TypeError, "dtype: expected float32 or float64, got 'text'"),
]
KEYED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
    ({"seed": 1.5}, TypeError, "seed: expected an integer, got 1.5"),
    ({"seed": 2**64}, ValueError, f"seed: expected an integer <= {2**64 - 1}"),
    ({"first": -1}, ValueError, "first: expected an integer >= 0, got -1"),
    ({"first": 2**64}, ValueError, f"first: expected an integer <= {2**64 - 1}"),
]


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize(("changes", "error", "message"), COMMON + KEYED)
def test_wrong_arguments_of_draws(
    draw: Callable[..., Weights], changes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        draw(**({"widths": (3, 2)} | changes))


@pytest.mark.parametrize(("changes", "error", "message"), COMMON)
def test_wrong_arguments_of_identity(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.identity(**({"widths": (3, 2)} | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth: expected an integer >= 1, got 0"),
        ({"depth": 2.0}, TypeError, "depth: expected an integer, got 2.0"),
        ({"width": 2}, ValueError, "width: expected at least 3, the number of modes, got 2"),
        ({"width": [4, 2]}, ValueError, "width: expected at least 3, the number of modes, got 2"),
        ({"width": [4]}, ValueError, "width: expected 2 hidden widths for depth 3, got 1"),
        ({"width": "wide"}, TypeError, "width: expected an integer, got 'wide'"),
        ({"width": [4, 0]}, ValueError, r"width\[1\]: expected an integer >= 1, got 0"),
        ({"strength": None}, ValueError, "strength: expected either strength or layer_strengths, got neither"),
        ({"layer_strengths": [1, 1, 1]}, ValueError, "strength: expected either strength or layer_strengths, got both"),
        (
            {"strength": np.ones((2, 4))},
            ValueError,
            r"strength: expected a number, \(batch,\) or \(batch, 3\), got \(2, 4\)",
        ),
        ({"strength": []}, ValueError, r"strength: expected a number, \(batch,\) or \(batch, 3\), got \(0,\)"),
        ({"strength": "x"}, TypeError, "strength: expected real numbers, got 'x'"),
        ({"strength": [1.0, np.inf]}, ValueError, "strength: expected finite numbers, got 1 that are not"),
        (
            {"strength": None, "layer_strengths": np.ones((2, 3))},
            ValueError,
            r"layer_strengths: expected \(3,\), \(3, 3\) or \(batch, 3, 3\), got \(2, 3\)",
        ),
        (
            {"strength": None, "layer_strengths": [1.0, 2.0]},
            ValueError,
            r"layer_strengths: expected \(3,\), \(3, 3\) or \(batch, 3, 3\), got \(2,\)",
        ),
        ({"batch": 3, "strength": [0.1, 0.2]}, ValueError, "strength: expected 1 or 3 members to go with batch, got 2"),
        ({"batch": 0}, ValueError, "batch: expected an integer >= 1, got 0"),
        ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64, got float16"),
        *KEYED,
    ],
)
def test_wrong_arguments_of_aligned(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.aligned(TASK, **({"depth": 3, "strength": 0.1} | changes))


def test_aligned_batches_that_disagree() -> None:
    tasks = Task.stack([TASK, TASK])
    with pytest.raises(ValueError, match="task: expected 1 or 3 members to go with batch, got 2"):
        init.aligned(tasks, depth=2, strength=0.1, batch=3)
    with pytest.raises(ValueError, match="strength: expected 1 or 2 members to go with task, got 3"):
        init.aligned(tasks, depth=2, strength=[0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"product": np.ones(3)},
            ValueError,
            r"product: expected \(n_out, n_in\) or \(batch, n_out, n_in\), got \(3,\)",
        ),
        ({"product": np.ones((0, 2))}, ValueError, r"product: expected .* got \(0, 2\)"),
        ({"product": "x"}, TypeError, "product: expected real numbers, got 'x'"),
        ({"product": [[np.nan]]}, ValueError, "product: expected finite numbers"),
        ({"depth": 0}, ValueError, "depth: expected an integer >= 1, got 0"),
        ({"width": 1}, ValueError, "width: expected at least 2, the rank of product, got 1"),
        ({"dtype": "float16"}, TypeError, "dtype: expected float32 or float64, got float16"),
        *KEYED,
    ],
)
def test_wrong_arguments_of_balanced(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.balanced(**({"product": np.eye(2), "depth": 3} | changes))


def test_balanced_makes_no_strength_of_rounding() -> None:
    task = Task.from_spectrum([2.0, 1.0], 6, 5)
    weights = init.balanced(0.01 * task.sigma_yx, depth=4)
    for layer in weights.layers:
        assert np.linalg.svd(layer[0], compute_uv=False)[2] < 1e-15
    run = solve(task, weights).evaluate([0.0])
    np.testing.assert_allclose(run.strengths[0, 0], [0.02, 0.01], rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: init.gaussian([10, 100, 10], batch=10),
        lambda: init.uniform([10, 100, 10], batch=10),
        lambda: init.orthogonal([10, 100, 10], batch=10),
        lambda: init.identity([10, 100, 10], batch=10),
        lambda: init.aligned(Task.from_spectrum([1.0], 10, 10), depth=2, width=100, strength=0.1, batch=10),
        lambda: init.balanced(np.ones((10, 10, 10)), depth=2, width=100),
    ],
)
def test_weights_that_no_memory_is_free_for(make: Callable[[], Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 160_000)
    make()
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 159_999)
    with pytest.raises(ValueError, match=r"widths: an ensemble of 10 with 20000 weights of float64 needs 160 kB and"):
        make()


def test_aligned_wants_a_task() -> None:
    with pytest.raises(TypeError, match=r"^task: expected a pydln\.Task, got int$"):
        init.aligned(5, depth=2, strength=0.1)  # type: ignore[arg-type]
