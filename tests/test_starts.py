"""What every start conserves, and which exact solution it admits: the statements of `pydln.init`, one row each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
import pytest

import pydln as dln
from pydln import init
from pydln.init.draws import draws
from pydln.weights import Weights

WHITE = dln.Task.from_spectrum([3.0, 2.0, 1.0], n_in=5, n_out=3, seed=1)
AXES = dln.Task.from_covariances(None, np.diag([3.0, 2.0, 1.0]), 14.0)
PRODUCT = np.random.default_rng(3).normal(size=(3, 5))
A = np.array([[0.5, 1.0, 0.2], [1.5, 0.3, 0.7], [0.4, 0.4, 2.0]])


def conserved(w: Weights) -> list[Any]:
    """W_{l+1}ᵀW_{l+1} - W_l W_lᵀ at every hidden layer."""
    return [b.transpose(0, 2, 1) @ b - a @ a.transpose(0, 2, 1) for a, b in pairwise(w.layers)]


def eyes(*gains_and_sizes: tuple[float, int]) -> Callable[[Weights], list[Any]]:
    return lambda _: [g * np.eye(n) for g, n in gains_and_sizes]


def of_identity(*widths: int) -> Callable[[Weights], list[Any]]:
    def ones(n: int, k: int) -> Any:
        return np.diag(np.arange(n) < k).astype(float)

    return lambda _: [
        ones(n, min(n, after)) - ones(n, min(n, before))
        for before, n, after in zip(widths, widths[1:], widths[2:], strict=False)
    ]


def of_residual(w: Weights) -> list[Any]:
    a = [layer - np.eye(*layer.shape[1:]) for layer in w.layers]
    t = [one.transpose(0, 2, 1) for one in a]
    return [a[k + 1] + t[k + 1] - a[k] - t[k] + t[k + 1] @ a[k + 1] - a[k] @ t[k] for k in range(len(a) - 1)]


def of_aligned(w: Weights) -> list[Any]:
    """R diag(a_{l+1}² - a_l²) Rᵀ with the R found from the weights."""
    R, found = WHITE.modes.V, []
    for k, layer in enumerate(w.layers[:-1]):
        R = layer[0] @ R / A[k]
        found.append((R * (A[k + 1] ** 2 - A[k] ** 2)) @ R.T)
    return found


class Row(NamedTuple):
    make: Callable[[], Weights]
    task: dln.Task
    conserved: Callable[[Weights], list[Any]] | None  # None: random, see the tests of means
    solution: str | None  # None: NotApplicable


TABLE: dict[str, Row] = {
    "gaussian": Row(lambda: init.gaussian((5, 4, 3), seed=1), WHITE, None, None),
    "gaussian, one layer": Row(lambda: init.gaussian((5, 3), seed=1), WHITE, eyes(), "one layer"),
    "gaussian, one hidden unit": Row(lambda: init.gaussian((5, 1, 3)), WHITE, None, "balanced, two layers"),
    "gaussian, deep": Row(lambda: init.gaussian((5, 4, 4, 3), seed=1), WHITE, None, None),
    "uniform": Row(lambda: init.uniform((5, 4, 3), seed=1), WHITE, None, None),
    "uniform, one hidden unit": Row(lambda: init.uniform((5, 1, 3)), WHITE, None, "balanced, two layers"),
    "orthogonal, two layers": Row(
        lambda: init.orthogonal((5, 3, 3), scale=[[0.5, 1.5]]), WHITE, eyes((2.0, 3)), "balanced, two layers"
    ),
    "orthogonal, wide": Row(lambda: init.orthogonal((5, 4, 3), seed=2), WHITE, None, None),
    "orthogonal, deep": Row(lambda: init.orthogonal((5, 3, 3, 3), seed=2), WHITE, eyes((0, 3), (0, 3)), None),
    "identity": Row(lambda: init.identity((5, 3, 3)), WHITE, of_identity(5, 3, 3), "balanced, two layers"),
    "identity, wide": Row(lambda: init.identity((5, 7, 3)), WHITE, of_identity(5, 7, 3), None),
    "identity, along the modes": Row(
        lambda: init.identity((3, 5, 4, 3)), AXES, of_identity(3, 5, 4, 3), "aligned and balanced"
    ),
    "identity, deep": Row(lambda: init.identity((5, 5, 5, 3)), WHITE, of_identity(5, 5, 5, 3), None),
    "residual": Row(lambda: init.residual((3, 3, 3, 3), scale=0.1), AXES, of_residual, None),
    "residual of nothing": Row(
        lambda: init.residual((3, 3, 3, 3), scale=0.0), AXES, of_residual, "aligned and balanced"
    ),
    "aligned": Row(
        lambda: init.aligned(WHITE, depth=2, width=6, layer_strengths=A[:2]), WHITE, of_aligned, "aligned, two layers"
    ),
    "aligned, deep": Row(lambda: init.aligned(WHITE, depth=3, layer_strengths=A), WHITE, of_aligned, None),
    "aligned and balanced": Row(
        lambda: init.aligned(WHITE, depth=3, strength=0.1), WHITE, eyes((0, 3), (0, 3)), "aligned and balanced"
    ),
    "balanced, one layer": Row(lambda: init.balanced(PRODUCT, depth=1), WHITE, eyes(), "one layer"),
    "balanced, two layers": Row(
        lambda: init.balanced(PRODUCT, depth=2, width=4), WHITE, eyes((0, 4)), "balanced, two layers"
    ),
    "balanced, deep": Row(lambda: init.balanced(PRODUCT, depth=3), WHITE, eyes((0, 3), (0, 3)), None),
    "balanced, deep, in the modes": Row(
        lambda: init.balanced(0.1 * WHITE.sigma_yx, depth=3), WHITE, eyes((0, 3), (0, 3)), "aligned and balanced"
    ),
    "lambda_balanced, rich": Row(
        lambda: init.lambda_balanced(PRODUCT, imbalance=0.0, width=7), WHITE, eyes((0, 7)), "balanced, two layers"
    ),
    "lambda_balanced, lazy": Row(
        lambda: init.lambda_balanced(PRODUCT, imbalance=-9.0, width=5), WHITE, eyes((-9, 5)), "balanced, two layers"
    ),
    "lambda_balanced, the other way": Row(
        lambda: init.lambda_balanced(PRODUCT, imbalance=4.0), WHITE, eyes((4, 3)), "balanced, two layers"
    ),
    "product_scaled": Row(lambda: init.product_scaled(init.gaussian((5, 4, 3), seed=1), norm=1e-4), WHITE, None, None),
    "product_scaled, of a solvable one": Row(
        lambda: init.product_scaled(init.lambda_balanced(PRODUCT, imbalance=4.0), norm=np.linalg.norm(PRODUCT) / 4),
        WHITE,
        eyes((1, 3)),
        "balanced, two layers",
    ),
    "mup": Row(lambda: init.mup((5, 4, 3), seed=1), WHITE, None, None),
    "mup, one hidden unit": Row(lambda: init.mup((5, 1, 3)), WHITE, None, "balanced, two layers"),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_start_has_what_it_states_and_keeps_it(name: str) -> None:
    row = TABLE[name]
    weights = row.make()
    own = conserved(weights)
    if row.conserved is not None:
        wanted = row.conserved(weights)
        assert len(own) == len(wanted) == weights.depth - 1
        for found, one in zip(own, wanted, strict=True):
            np.testing.assert_allclose(found, np.broadcast_to(one, found.shape), atol=1e-13)
    run = dln.gradient_flow(row.task, weights, [0.0, 0.5, 2.0], rtol=1e-11, record="weights", method="dop853")
    for place in (1, 2):
        later = conserved(Weights([layer[:, place] for layer in run.weights]))
        for before, after in zip(own, later, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_a_start_admits_the_solution_it_names(name: str) -> None:
    row = TABLE[name]
    weights = row.make()
    if row.solution is None:
        with pytest.raises(dln.NotApplicable):
            dln.exact.solve(row.task, weights)
        return
    solution = dln.exact.solve(row.task, weights)
    assert solution.name == row.solution
    t = [0.0, 0.3, 1.0, 3.0]
    run = dln.gradient_flow(row.task, weights, t, rtol=1e-11, method="dop853")
    np.testing.assert_allclose(solution.evaluate(t).strengths, run.strengths, atol=1e-8)


def test_every_start_has_a_row() -> None:
    starts = {name for name in init.__all__ if name not in ("MupScaling", "mup_scaling")}
    assert starts == {name.split(",")[0].split(" ")[0] for name in TABLE}


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (init.gaussian, lambda g, n: [g[k + 1] ** 2 * n[k + 2] / n[k + 1] - g[k] ** 2 for k in range(2)]),
        (
            init.uniform,
            lambda g, n: [
                2 * (g[k + 1] ** 2 * n[k + 2] / (n[k + 1] + n[k + 2]) - g[k] ** 2 * n[k] / (n[k] + n[k + 1]))
                for k in range(2)
            ],
        ),
    ],
)
def test_mean_of_what_random_starts_conserve(draw: Any, mean: Any) -> None:
    widths, gains, batch = (5, 4, 6, 3), [0.5, 1.0, 2.0], 4000
    weights = draw(widths, batch=batch, scale=[gains], seed=2)
    for found, wanted in zip(conserved(weights), mean(gains, widths), strict=True):
        error = 5 * found.std(axis=0).max() / np.sqrt(batch)
        np.testing.assert_allclose(found.mean(axis=0), wanted * np.eye(found.shape[1]), atol=error)


def test_mean_of_what_mup_conserves() -> None:
    n, batch = 40, 4000
    weights = init.mup((5, n, 3), batch=batch, scale=[[0.5, 2.0]])
    (found,) = conserved(weights)
    wanted = (2.0**2 * 3 - 0.5**2) / n
    diagonal = np.diagonal(found, axis1=1, axis2=2)
    assert abs(diagonal.mean() - wanted) < 5 * diagonal.std() / np.sqrt(diagonal.size)


@pytest.mark.parametrize("draw", [init.gaussian, init.uniform, init.orthogonal, init.identity, init.mup])
def test_gains_by_layer(draw: Any) -> None:
    gains = np.array([[0.0, 1.0, 2.5], [3.0, 0.5, 1.0]])
    weights, one = draw((3, 4, 5, 2), scale=gains), draw((3, 4, 5, 2), batch=2)
    for k, (a, b) in enumerate(zip(weights.layers, one.layers, strict=True)):
        np.testing.assert_allclose(a, gains[:, k, None, None] * b, rtol=1e-15)
    shared = draw((3, 4, 5, 2), batch=3, scale=gains[:1])
    assert shared.batch == 3
    assert shared.layers[2][0].tobytes() == weights.layers[2][0].tobytes()
    with pytest.raises(ValueError, match=r"^scale: expected a number, \(batch,\) or \(batch, 3\), got an array of"):
        draw((3, 4, 5, 2), scale=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="scale: expected 1 or 3 members to go with batch, got 2"):
        draw((3, 4, 5, 2), batch=3, scale=gains)


def test_residual_is_the_identity_plus_the_gaussian_of_its_key() -> None:
    weights = init.residual((3, 5, 2), batch=2, scale=[[0.1, 0.3]], seed=4, first=7, dtype=np.float32)
    for k, (layer, g) in enumerate(zip(weights.layers, (0.1, 0.3), strict=True)):
        n, m = layer.shape[1:]
        wanted = np.eye(n, m) + g / np.sqrt(m) * draws(n, m, 2, (4, 7), k + 1, "normal")
        np.testing.assert_array_equal(layer, wanted.astype(np.float32))


def test_residual_networks_have_no_plateau() -> None:
    """u_0 = 1 (S13 eq. 15): the time to learn shrinks with depth, where that of small starts has a plateau."""
    task = dln.Task.from_covariances(None, 2.0 * np.eye(6), 24.0)
    for depth in (2, 8, 32):
        weights = init.residual((6,) * (depth + 1), scale=0.05 / depth, batch=2)
        wanted = float(dln.exact.time_to_reach(1.0, 1.9, 2.0, depth=depth))
        run = dln.gradient_flow(task, weights, np.linspace(0, 2 * wanted, 81))
        reached = dln.analysis.learning_times(run, 0.5 * 6 * 0.1**2)
        np.testing.assert_allclose(reached, wanted, rtol=0.1)


@pytest.mark.parametrize("lam", [0.0, 1e-3, -1.0, 7.0, -1e8, 1e12])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_lambda_balanced_has_product_and_imbalance(lam: float, shape: tuple[int, int]) -> None:
    product = np.random.default_rng(1).normal(size=(2, *shape))
    weights = init.lambda_balanced(product, imbalance=lam, seed=3)
    heavy = max(1.0, abs(lam))
    np.testing.assert_allclose(weights.product(), product, atol=1e-14 * heavy**0.5 * 10)
    found = conserved(weights)[0] / heavy
    np.testing.assert_allclose(found, np.broadcast_to(lam / heavy * np.eye(found.shape[1]), found.shape), atol=1e-14)


@pytest.mark.parametrize("lam", [1e-8, 3.0, 1e8, -1e8, 1e16])
def test_lambda_balanced_keeps_its_digits(lam: float) -> None:
    """The smaller strength by the root of a difference would lose them all: 4σ², not 4σ, and σ over the larger."""
    sigma = 0.3
    weights = init.lambda_balanced([[sigma]], imbalance=lam)
    with mp.workdps(60):
        root = mp.sqrt(mp.mpf(lam) ** 2 + 4 * mp.mpf(sigma) ** 2)
        wanted = [float(mp.sqrt((root - lam) / 2)), float(mp.sqrt((root + lam) / 2))]
    found = [abs(float(layer[0, 0, 0])) for layer in weights.layers]
    np.testing.assert_allclose(found, wanted, rtol=1e-15)


def test_lambda_balanced_wide_and_of_low_rank() -> None:
    product = np.outer([1.0, 2.0, 0.5], [1.0, 0.0, 1.0, 3.0])
    for lam, width, n in ((2.0, None, 3), (-2.0, 4, 4), (0.0, 9, 9), (1.0, 1, 1)):
        weights = init.lambda_balanced(product, imbalance=lam, width=width)
        assert weights.widths == (4, n, 3)
        np.testing.assert_allclose(weights.product()[0], product, atol=1e-13)
        np.testing.assert_allclose(conserved(weights)[0][0], lam * np.eye(n), atol=1e-13)


def test_lambda_balanced_batches() -> None:
    each = init.lambda_balanced(PRODUCT, imbalance=[-1.0, 0.0, 1.0], seed=5)
    assert each.batch == 3
    alone = init.lambda_balanced(PRODUCT, imbalance=0.0, seed=5, first=1)
    for a, b in zip(each[1].layers, alone.layers, strict=True):
        assert a.tobytes() == b.tobytes()
    many = init.lambda_balanced(PRODUCT, imbalance=1.0, batch=4, dtype=np.float32)
    assert (many.batch, many.dtype) == (4, np.float32)
    assert len({w.tobytes() for w in many.layers[0]}) == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"imbalance": "x"}, TypeError, "imbalance: expected real numbers, got 'x'"),
        ({"imbalance": np.inf}, ValueError, "imbalance: expected a finite number, got inf"),
        ({"imbalance": [1.0, 2.0], "batch": 3}, ValueError, "imbalance: expected 1 or 3 members to go with batch"),
        ({"width": 2}, ValueError, "width: expected at least 3, the rank of product, got 2"),
        ({"width": 4}, ValueError, "width: expected at most n_2 = 3 where imbalance is 1: .* needs a layer of rank"),
        ({"width": 6, "imbalance": -2.0}, ValueError, "width: expected at most n_0 = 5 where imbalance is -2"),
        ({"product": 3.0}, ValueError, r"product: expected \(n_out, n_in\) or \(batch, n_out, n_in\), got \(\)"),
        ({"dtype": int}, TypeError, "dtype: expected float32 or float64"),
    ],
)
def test_wrong_arguments_of_lambda_balanced(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.lambda_balanced(**({"product": PRODUCT, "imbalance": 1.0} | changes))


@pytest.mark.parametrize("depth", [1, 2, 5, 900])
@pytest.mark.parametrize("ends", [(5, 3), (3, 5)])
def test_product_scaled_to_a_norm(depth: int, ends: tuple[int, int]) -> None:
    base = init.gaussian((ends[0], *(4,) * (depth - 1), ends[1]), batch=2, seed=1, scale=3.0)
    weights = init.product_scaled(base, norm=[1e-6, 2.0])
    np.testing.assert_allclose(np.linalg.norm(weights.product(), axis=(1, 2)), [1e-6, 2.0], rtol=1e-9)
    ratio = [(b / a)[:, 0, 0] for a, b in zip(base.layers, weights.layers, strict=True)]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], (depth, 2)), rtol=1e-12)


def test_product_scaled_to_strengths() -> None:
    base = init.gaussian((5, 4, 3), batch=3, seed=1)
    weights = init.product_scaled(base, strength=1e-6, task=WHITE)
    U, _, V = WHITE.modes
    strengths = np.einsum("oa,boi,ia->ba", U, weights.product(), V)
    np.testing.assert_allclose(np.sqrt((strengths**2).mean(axis=1)), 1e-6, rtol=1e-12)
    single = init.product_scaled(base.astype(np.float32), strength=[0.1, 0.2, 0.3], task=WHITE)
    assert single.dtype == np.float32
    many = init.product_scaled(base, strength=1e-6, task=dln.Task.stack([WHITE] * 3))
    np.testing.assert_array_equal(many.layers[0], weights.layers[0])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"norm": None}, ValueError, "norm: expected either norm or strength, got neither"),
        ({"strength": 1.0, "task": WHITE}, ValueError, "norm: expected either norm or strength, got both"),
        ({"norm": None, "strength": 1.0}, ValueError, "task: expected a task with strength and only then, got none"),
        ({"task": WHITE}, ValueError, "task: expected a task with strength and only then, got one"),
        ({"norm": 0.0}, ValueError, "norm: expected a number > 0, got 0.0"),
        ({"norm": [1.0, 2.0, 3.0]}, ValueError, "norm: expected 1 or 2 members to go with weights, got 3"),
        ({"weights": 3}, TypeError, r"weights: expected a pydln\.Weights, got int"),
        (
            {"norm": None, "strength": 1.0, "task": AXES},
            ValueError,
            "task: expected 5 inputs and 3 outputs like weights, got 3 and 3",
        ),
        (
            {"weights": init.gaussian((5, 2, 3), scale=[1.0, 0.0])},
            ValueError,
            r"weights: expected a product that can be scaled to a norm, got one of 0 \(member 1\)",
        ),
        (
            {"weights": init.gaussian((5, 3), dtype=np.float32), "norm": 1e40},
            ValueError,
            "norm: expected a size that layers of float32 can have, got 1e[+]40",
        ),
    ],
)
def test_wrong_arguments_of_product_scaled(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        init.product_scaled(**({"weights": init.gaussian((5, 2, 3), batch=2), "norm": 1.0} | changes))


def test_mup_trains_as_its_own_rates_do() -> None:
    """The w_l at one rate take the steps of W_l = m_l w_l at rates η r_l, W_1 ~ 1/n_0, W_D ~ 1/n_{D-1}²."""
    widths, lr = (5, 9, 6, 4, 3), 0.02
    scaling = init.mup_scaling(widths)
    assert np.prod(scaling.multipliers) == pytest.approx(1.0, rel=1e-14)
    weights = init.mup(widths, scale=0.7, seed=3)
    W = [m * w[0] for m, w in zip(scaling.multipliers, weights.layers, strict=True)]
    n = widths
    spread = [1 / n[0] ** 0.5, 1 / n[1] ** 0.5, 1 / n[2] ** 0.5, 1 / n[3]]
    for k, layer in enumerate(W):
        np.testing.assert_allclose(layer, 0.7 * spread[k] * draws(n[k + 1], n[k], 1, (3, 0), k + 1, "normal")[0])
    rates = lr * np.array([n[1], 1.0, 1.0, 1 / n[3]])
    run = dln.gradient_descent(WHITE, weights, lr=lr * scaling.rate, steps=40, record="product", reduce="none")
    for _ in range(40):
        error = WHITE.sigma_yx - W[3] @ W[2] @ W[1] @ W[0]
        gradients = [
            (W[3] @ W[2] @ W[1]).T @ error,
            (W[3] @ W[2]).T @ error @ W[0].T,
            W[3].T @ error @ (W[1] @ W[0]).T,
            error @ (W[2] @ W[1] @ W[0]).T,
        ]
        W = [w + r * g for w, r, g in zip(W, rates, gradients, strict=True)]
    np.testing.assert_allclose(run.product[0, -1], W[3] @ W[2] @ W[1] @ W[0], rtol=1e-11, atol=1e-13)


def test_features_of_mup_move_alike_at_every_width() -> None:
    """Coordinate sizes: W_2 W_1 x moves by order one, the loss alike, at any width; standard starts become lazy."""
    widths = np.array([64, 256, 1024])

    def moved(start: Callable[..., Weights], rate: Callable[[int], float]) -> tuple[Any, Any]:
        sizes, losses = [], []
        for n in widths:
            weights = start((5, int(n), int(n), 3), batch=4, seed=1)
            run = dln.gradient_descent(WHITE, weights, lr=rate(int(n)), steps=40, record="loss")
            m = init.mup_scaling((5, int(n), int(n), 3)).multipliers[:2].prod() if start is init.mup else 1.0
            before, after = (m * (w.layers[1] @ w.layers[0]) for w in (weights, run.final))
            sizes.append(np.sqrt(((after - before) ** 2).sum(axis=2).mean()))
            losses.append(run.loss.mean(axis=0))
        return np.array(sizes), np.array(losses)

    def slope(y: Any) -> float:
        return float(np.polyfit(np.log(widths), np.log(y), 1)[0])

    sizes, losses = moved(init.mup, lambda _: 0.02)
    assert sizes[0] > 0.3
    assert abs(slope(sizes)) < 0.05
    # The product starts at random, of order 1/√n: so far apart are the curves.
    assert np.abs(losses[1] - losses[2]).max() < losses[2][0] / np.sqrt(widths[1])
    # The rate at which standard starts are stable falls as 1/n, and these features then move by 1/√n.
    lazy, _ = moved(init.gaussian, lambda n: 2.0 / n)
    assert slope(lazy) == pytest.approx(-0.5, abs=0.1)


def test_the_scaling_of_mup_is_numbers_alone() -> None:
    """No width is too large for it: nothing of that size is made."""
    scaling = init.mup_scaling((10, 10**9, 4 * 10**9, 10))
    np.testing.assert_allclose(scaling.multipliers.prod(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(scaling.rate, 4.0 ** (-1 / 3), rtol=1e-14)
    with pytest.raises(ValueError, match=r"widths: an ensemble of 1 with .* weights of float64 needs"):
        init.mup((10, 10**9, 4 * 10**9, 10))
    with pytest.raises(ValueError, match=r"widths\[1\]: expected an integer <= 2\^256"):
        init.mup_scaling((10, 10**400, 10**400, 10))


def test_mup_wants_a_hidden_layer() -> None:
    with pytest.raises(ValueError, match="widths: expected a hidden layer, at least three widths, got two"):
        init.mup((3, 2))
    with pytest.raises(ValueError, match="widths: expected a hidden layer"):
        init.mup_scaling((3, 2))


TINY = dln.Task.from_spectrum([1.0], n_in=2, n_out=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: init.gaussian((4, 4), scale=1e300, dtype=np.float32),
        lambda: init.uniform((4, 4), scale=1e300, dtype=np.float32),
        lambda: init.orthogonal((4, 4), scale=1e300, dtype=np.float32),
        lambda: init.residual((4, 4), scale=1e300, dtype=np.float32),
        lambda: init.identity((4, 4), scale=1e300, dtype=np.float32),
        lambda: init.balanced(1e300 * np.eye(3), depth=2, dtype=np.float32),
        lambda: init.balanced(1e300 * np.eye(3), depth=1, dtype=np.float32),
        lambda: init.aligned(TINY, depth=2, strength=1e100, dtype=np.float32),
        lambda: init.mup((4, 4, 4), scale=1e300, dtype=np.float32),
        lambda: init.lambda_balanced(np.eye(3), imbalance=1e300, dtype=np.float32),
        lambda: init.product_scaled(init.gaussian((4, 5, 3)).astype(np.float32), norm=1e-100),
    ],
)
def test_sizes_that_float32_cannot_hold_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"expected a size that (weights|layers) of float32 can have"):
        make()
