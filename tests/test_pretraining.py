"""Greedy pretraining and its consistency condition: what theory says the encoders become, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pydln as dln
from pydln import consistency, fine_tune, init, pretrain

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)) * np.array([2.0, 1.5, 1.2, 0.9, 0.7, 0.5]) @ np.linalg.qr(RNG.normal(size=(6, 6)))[0]
TASK = dln.Task.from_data(X, X @ RNG.normal(size=(6, 3)))
D, Q = (a[..., ::-1] for a in np.linalg.eigh(TASK.sigma_xx))


def consistent_task(s: Any, d: Any, seed: int = 0, n_out: int = 3) -> dln.Task:
    """Σ_xx = V diag(d) Vᵀ with the task's own V."""
    rng = np.random.default_rng(seed)
    V = np.linalg.qr(rng.normal(size=(len(d), len(d))))[0]
    U = np.linalg.qr(rng.normal(size=(n_out, n_out)))[0]
    return dln.Task.from_covariances((V * d) @ V.T, (U * s) @ V[:, : len(s)].T, 40.0)


# --- consistency -----------------------------------------------------------------------------------------------------


def test_a_consistent_task_scores_one() -> None:
    task = consistent_task([2.0, 1.0, 0.5], [3.0, 0.4, 1.5, 0.8, 2.0])
    found = consistency(task)
    np.testing.assert_allclose(found.matrix, np.diag([3.0, 0.4, 1.5]), atol=1e-13)
    assert found.score == pytest.approx(1.0, abs=1e-14)
    assert found.inside == pytest.approx(1.0, abs=1e-14)
    assert isinstance(found.score, float)
    white = consistency(dln.Task.from_spectrum([3.0, 1.0], 5, 4))
    assert (white.score, white.inside, white.null) == pytest.approx((1.0, 1.0, 1.0), abs=1e-13)


def test_an_inconsistent_task_by_hand() -> None:
    sigma_xx = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    task = dln.Task.from_covariances(sigma_xx, np.array([[2.0, 0, 0], [0, 1.0, 0]]), 40.0)
    found = consistency(task)
    np.testing.assert_allclose(np.abs(found.matrix), [[3.0, 1.0], [1.0, 2.0]])
    assert found.score == pytest.approx(13 / 15)
    assert found.inside == pytest.approx(15 / 15.25)
    with pytest.raises(dln.NotApplicable, match="correlated between the modes"):
        dln.exact.solve(task, init.aligned(task, depth=3, strength=0.1))


def test_the_null_is_that_of_random_directions() -> None:
    d = np.array([9.0, 4.0, 2.0, 1.0, 0.5, 0.5, 0.1, 0.1])
    r, n = 4, len(d)
    squares = np.zeros((r, r))
    draws = 4000
    for frame in init.orthogonal((n, r), batch=draws, seed=1).layers[0]:
        squares += ((frame * d) @ frame.T) ** 2
    measured = np.trace(squares) / squares.sum()
    task = consistent_task([4.0, 3.0, 2.0, 1.0], d, n_out=4)
    assert consistency(task).null == pytest.approx(measured, rel=0.02)


def test_modes_of_no_strength_do_not_count() -> None:
    sigma_xx = np.array([[3.0, 0.0, 0.5], [0.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    task = dln.Task.from_covariances(sigma_xx, np.array([[0, 1.0, 0], [0, 0, 0]]), 40.0)
    assert consistency(task).score == 1.0
    assert consistency(task).null == 1.0


def test_a_batch_of_tasks() -> None:
    tasks = [dln.Task.from_covariances(TASK.sigma_xx, RNG.normal(size=(2, 6)), 99.0) for _ in range(3)]
    found = consistency(dln.Task.stack(tasks))
    for k, task in enumerate(tasks):
        alone = consistency(task)
        np.testing.assert_allclose(found.matrix[k], alone.matrix)
        for name in ("score", "null", "inside"):
            assert getattr(found, name)[k] == pytest.approx(getattr(alone, name))
    with pytest.raises(TypeError, match=r"^task: expected a pydln\.Task, got int$"):
        consistency(3)  # type: ignore[arg-type]


def test_mnist_is_consistent() -> None:
    """S13 fig. 5: far more than random directions are."""
    for center in (False, True):
        found = consistency(dln.Task.mnist(center=center))
        assert isinstance(found.score, float)
        assert found.score > 0.98
        assert isinstance(found.null, float)
        assert found.null < 0.9 * found.score
        assert isinstance(found.inside, float)
        assert found.inside > 0.95


# --- pretraining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(6, 6, 6, 3), (6, 9, 9, 9, 3), (6, 4, 4, 3), (6, 9, 4, 3)])
def test_encoders_become_rotations_of_the_strongest_eigenvectors(widths: tuple[int, ...]) -> None:
    """W_1 = R_2 M^{1/2} Qᵀ and M → 1 (S13 section 3): on the n strongest variances the hidden layer is an isometry."""
    made = pretrain(TASK, widths, t=400.0, seed=1)
    n = min(widths[:-1])
    encoded = np.eye(6)
    for layer in made.weights.layers[:-1]:
        encoded = layer[0] @ encoded
    kept = Q[:, :n]
    np.testing.assert_allclose(encoded.T @ encoded, kept @ kept.T, atol=0.02)
    for k, run in enumerate(made.runs):
        np.testing.assert_allclose(run.loss[0, -1], made.floors[0, k], atol=1e-6)
    assert made.floors[0, 0] == pytest.approx(0.5 * D[widths[1] :].sum(), abs=1e-14)


def test_aligned_autoencoders_are_solved_exactly() -> None:
    widths, size, t = (6, 6, 8, 5, 3), 0.2, 1.3
    made = pretrain(TASK, widths, t=t, start="aligned", scale=size, seed=2)
    assert made.exact == (True, True, True)
    assert made.steps is None
    np.testing.assert_array_equal(made.time, [[t, t, t]])
    # The same by numbers: a mode of variance d is one of strength d learned to 1, and passes on a² d.
    strength, d = np.ones(6), D.copy()
    for n in widths[1:4]:
        u = dln.exact.balanced_mode(size**2, 1.0, t * d, depth=2)
        order = np.argsort(-d, kind="stable")
        u[order[n:]] = 0.0
        strength, d = strength * u, d * u
    encoded = np.linalg.multi_dot([layer[0] for layer in made.weights.layers[2::-1]])
    np.testing.assert_allclose(encoded.T @ encoded, (Q * strength) @ Q.T, atol=1e-12)


@pytest.mark.parametrize("task", [TASK, dln.Task.from_spectrum([2.0, 1.0], 6, 3)])
def test_the_exact_flow_is_the_integrated_one(task: dln.Task) -> None:
    options: dict[str, Any] = {"start": "aligned", "scale": 0.3, "seed": 2, "batch": 2}
    made, begun = (pretrain(task, (6, 5, 7, 3), t=t, **options) for t in (2.0, 1e-13))
    assert all(made.exact)
    autoencoder = dln.Task.from_covariances(task.sigma_xx, task.sigma_xx, np.trace(task.sigma_xx))
    exact, start = made.runs[0], begun.runs[0].final
    assert start is not None
    flow = dln.gradient_flow(autoencoder, start, exact.t, record="loss", rtol=1e-11, method="dop853")
    np.testing.assert_allclose(exact.loss, flow.loss, atol=1e-8)
    np.testing.assert_allclose(made.losses[:, 0], flow.loss[:, -1], atol=1e-8)
    for a, b in zip(exact.final.layers, flow.final.layers, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_aligned_autoencoders_are_solved_in_float32_too() -> None:
    options: dict[str, Any] = {"t": 2.0, "start": "aligned", "scale": 0.3, "seed": 2}
    single, double = (pretrain(TASK, (6, 5, 7, 3), dtype=dtype, **options) for dtype in (np.float32, np.float64))
    assert all(single.exact)
    for a, b in zip(single.weights.layers, double.weights.layers, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_descent_becomes_the_flow() -> None:
    widths, t = (6, 5, 3), 3.0
    exact = pretrain(TASK, widths, t=t, start="aligned", seed=3).weights.layers[0]
    errors = []
    for steps in (600, 1200):
        made = pretrain(TASK, widths, lr=t / steps, steps=steps, start="aligned", seed=3)
        assert made.exact == (False,)
        np.testing.assert_array_equal(made.steps, [[steps]])
        np.testing.assert_allclose(made.time, [[t]])
        errors.append(np.abs(made.weights.layers[0] - exact).max())
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


def test_a_layer_ends_when_it_has_learned() -> None:
    made = pretrain(TASK, (6, 4, 5, 3), lr=0.1, steps=5000, tol=0.01, seed=1, batch=3)
    assert made.steps is not None
    assert made.steps.shape == made.time.shape == made.floors.shape == (3, 2)
    assert (made.steps < 5000).all()
    np.testing.assert_allclose(made.time, 0.1 * made.steps)
    for k, run in enumerate(made.runs):
        assert (run.status == dln.Status.REACHED_LOSS).all()
        left = (made.losses[:, k] - made.floors[:, k]) / (run.loss[:, 0] - made.floors[:, k])
        assert (left <= 0.01).all()
        assert (left > 0.005).all()
    each = pretrain(TASK, (6, 4, 5, 3), lr=[0.1, 0.05], steps=5000, tol=0.01, seed=1)
    np.testing.assert_allclose(each.time, [[0.1, 0.05]] * each.steps)


@pytest.mark.parametrize("start", ["gaussian", "aligned"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_members_do_not_depend_on_their_batch(dtype: Any, start: str) -> None:
    wide = dln.Task.from_data(RNG.normal(size=(90, 40)), RNG.normal(size=(90, 3)))
    options: dict[str, Any] = {"lr": 0.1, "steps": 30, "seed": 4, "dtype": dtype, "start": start}
    many = pretrain(wide, (40, 50, 37, 3), batch=3, **options)
    for member in range(3):
        one = pretrain(wide, (40, 50, 37, 3), first=member, **options)
        for a, b in zip(many.weights[member].layers, one.weights.layers, strict=True):
            assert a.dtype == dtype
            assert a.tobytes() == b.tobytes()
    assert len({w.tobytes() for layer in many.weights.layers for w in layer}) == 9


def test_a_batch_of_tasks_is_pretrained_on_its_own_inputs() -> None:
    tasks = [consistent_task([2.0, 1.0, 0.5], np.array([3.0, 0.4, 1.5, 0.8, 2.0]) + k, seed=k) for k in range(2)]
    made = pretrain(dln.Task.stack(tasks), (5, 4, 5, 3), t=5.0, start="aligned", seed=1)
    assert all(made.exact)
    for k, task in enumerate(tasks):
        alone = pretrain(task, (5, 4, 5, 3), t=5.0, start="aligned", seed=1, first=k)
        for a, b in zip(made.weights[k].layers, alone.weights.layers, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_the_last_layer_is_semi_orthogonal() -> None:
    made = pretrain(TASK, (6, 5, 3), t=1.0, last_scale=0.3)
    last = made.weights.layers[-1][0]
    np.testing.assert_allclose(last @ last.T, 0.09 * np.eye(3), atol=1e-14)
    assert not pretrain(TASK, (6, 5, 3), t=1.0, last_scale=0.0).weights.layers[-1].any()


def test_fine_tuning_counts_the_time_of_pretraining() -> None:
    made = pretrain(TASK, (6, 6, 6, 3), lr=0.1, steps=2000, tol=1e-3, seed=1, batch=2)
    run = fine_tune(TASK, made, lr=0.05, steps=400, record=("loss", "strengths"))
    plain = dln.gradient_descent(TASK, made.weights, lr=0.05, steps=400)
    np.testing.assert_array_equal(run.loss, plain.loss)
    np.testing.assert_allclose(run.t, made.time.sum(axis=1)[:, None] + plain.t)
    np.testing.assert_array_equal(run.steps, plain.steps)
    assert run.reduced == plain.reduced
    assert run.loss[:, -1] == pytest.approx(TASK.floor, abs=1e-3 * TASK.trace_yy)


def test_pretraining_spares_the_plateau() -> None:
    """Depth-independent learning after pretraining, where small random starts take longer the deeper they are."""
    task = consistent_task([1.2, 0.9, 0.7], [1.6, 1.4, 1.2, 1.0, 0.8])
    level = task.floor + 0.01 * (task.trace_yy / 2 - task.floor)
    took: dict[str, list[float]] = {"pretrained": [], "random": []}
    t = np.linspace(0.0, 400.0, 4001)
    for depth in (2, 4, 6):
        widths = (5, *(10,) * (depth - 1), 3)
        made = pretrain(task, widths, t=60.0, seed=1, batch=8)
        small = init.gaussian(widths, scale=0.4, seed=1, batch=8)
        for name, weights in (("pretrained", made.weights), ("random", small)):
            run = dln.gradient_flow(task, weights, t, record="loss")
            took[name].append(float(np.median(dln.analysis.learning_times(run, level))))
    assert took["pretrained"][2] < 1.5 * took["pretrained"][0]
    assert took["random"][2] > 10 * took["random"][0]


def test_progress_and_notes() -> None:
    calls: list[tuple[int, int]] = []
    pretrain(TASK, (6, 5, 5, 3), t=1.0, progress=lambda *a: calls.append(a))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(dln.IntegrationError) as caught:
        pretrain(TASK, (6, 5, 5, 3), lr=50.0, steps=500)
    assert caught.value.__notes__ == ["while the autoencoder of layer 1 was trained"]


@pytest.mark.parametrize("how", [{"lr": 50.0, "steps": 500}, {"t": 1.0, "scale": 1e160}])
def test_what_a_failed_pretraining_advises_exists(how: Any) -> None:
    with pytest.raises(dln.IntegrationError, match=r"\.trajectory holds this layer of all members") as caught:
        pretrain(TASK, (6, 5, 5, 3), **how)
    assert not any(word in str(caught.value) for word in ("throw", "allow more", "max_steps"))
    assert caught.value.trajectory.status.size == 1


def test_a_bar_counts_layers(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    pretrain(TASK, (6, 5, 5, 3), t=1.0, progress=True)
    shown = capsys.readouterr().err
    assert "pretraining: 100%" in shown
    assert "2.00/2.00" in shown
    dln.gradient_flow(TASK, init.gaussian((6, 5, 3), scale=0.1), [0.5, 1.0], progress=True)
    assert "gradient flow: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"widths": (6, 3)}, ValueError, "widths: expected a hidden layer to pretrain, at least three widths, got two"),
        ({"widths": (5, 4, 3)}, ValueError, "widths: expected 6 inputs and 3 outputs like the task, got 5 and 3"),
        ({"widths": 6}, TypeError, "widths: expected a sequence of integers, input first, got 6"),
        ({"t": None}, ValueError, "t: expected either t, or lr and steps, got neither"),
        ({"lr": 0.1}, ValueError, "t: expected either t, or lr and steps, got both"),
        ({"t": 0.0}, ValueError, "t: expected a number > 0, got 0.0"),
        ({"tol": 0.1}, ValueError, "tol: expected 0 with t, which says how long a layer is trained"),
        ({"tol": 1.0}, ValueError, "tol: expected a number >= 0 and < 1, got 1.0"),
        ({"t": None, "lr": 0.1}, ValueError, "steps: expected lr and steps together, got no steps"),
        ({"t": None, "steps": 3}, ValueError, "steps: expected lr and steps together, got no lr"),
        ({"t": None, "lr": [0.1], "steps": 3}, ValueError, r"lr: expected a number or \(2,\), one for each pretrained"),
        ({"t": None, "lr": -0.1, "steps": 3}, ValueError, "lr: expected a number > 0, got -0.1"),
        ({"t": None, "lr": 0.1, "steps": 0}, ValueError, "steps: expected an integer >= 1, got 0"),
        ({"start": "small"}, ValueError, "start: expected one of 'gaussian', 'aligned', got 'small'"),
        ({"scale": 0.0}, ValueError, "scale: expected a number > 0, got 0.0"),
        ({"last_scale": -1.0}, ValueError, "last_scale: expected a number >= 0, got -1.0"),
        ({"last_scale": [1.0, 2.0]}, ValueError, "last_scale: expected a number, got"),
        ({"batch": 0}, ValueError, "batch: expected an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ({"progress": 3}, TypeError, "progress: expected True, False or a callable, got int"),
        ({"task": 3}, TypeError, r"task: expected a pydln\.Task, got int"),
        (
            {"task": dln.Task.stack([TASK, TASK]), "batch": 3},
            ValueError,
            "task: expected 1 or 3 members to go with batch, got 2",
        ),
    ],
)
def test_wrong_arguments_of_pretrain(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pretrain(**({"task": TASK, "widths": (6, 5, 4, 3), "t": 1.0} | changes))


def test_wrong_arguments_of_fine_tune() -> None:
    with pytest.raises(TypeError, match=r"^pretrained: expected a pydln\.Pretrained, got Weights$"):
        fine_tune(TASK, init.gaussian((6, 3)), lr=0.1, steps=3)  # type: ignore[arg-type]


def test_the_time_of_pretraining_is_counted_in_what_a_failed_run_leaves() -> None:
    task = dln.Task.from_spectrum([2.0, 1.0], n_in=6, n_out=4)
    pretrained = dln.pretrain(task, (6, 5, 4), lr=0.05, steps=100)
    with pytest.raises(dln.IntegrationError) as caught:
        dln.fine_tune(task, pretrained, lr=1e4, steps=1000)
    run = caught.value.trajectory
    np.testing.assert_allclose(run.t[:, 0], pretrained.time.sum(axis=1))
    assert "pretraining_time" in run.settings


def test_a_task_without_modes_has_no_consistency() -> None:
    found = dln.consistency(dln.Task.from_covariances(None, np.zeros((3, 6)), 1.0))
    assert np.isnan([found.score, found.null, found.inside]).all()
