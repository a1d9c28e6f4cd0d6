"""Tasks: the covariances, what follows from them, and every sentence for a mistake."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pydln as dln
from pydln._base import validate
from pydln.task.task import Task

S13_HIERARCHY = [81.043, 55.964, 46.536, 37.558, 28.650, 18.974]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def data(seed: int = 0, samples: int = 40, n_in: int = 6, n_out: int = 4) -> tuple[np.ndarray, np.ndarray]:
    r = rng(seed)
    x = r.standard_normal((samples, n_in)) @ r.standard_normal((n_in, n_in))
    return x, x @ r.standard_normal((n_in, n_out)) + 0.3 * r.standard_normal((samples, n_out))


def direct_loss(omega: np.ndarray, x: np.ndarray, y: np.ndarray, normalize: str = "mean") -> float:
    total = 0.5 * np.sum((y - x @ omega.T) ** 2)
    return float(total / len(x) if normalize == "mean" else total)


def rebuilt(task: Task) -> np.ndarray:
    u, s, v = task.modes
    return (u * s[..., None, :]) @ np.swapaxes(v, -2, -1)


# --- from data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_covariances_of_data(normalize: str) -> None:
    x, y = data()
    count = 40 if normalize == "mean" else 1
    task = Task.from_data(x, y, normalize=normalize)
    np.testing.assert_allclose(task.sigma_xx, np.einsum("ni,nj->ij", x, x) / count, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(task.sigma_yx, np.einsum("ni,nj->ij", y, x) / count, rtol=1e-12, atol=1e-12)
    assert task.trace_yy == pytest.approx(np.sum(y**2) / count, rel=1e-13)
    assert (task.n_in, task.n_out, task.batch, task.samples, task.normalize) == (6, 4, None, 40, normalize)
    assert not task.whitened
    np.testing.assert_allclose(rebuilt(task), task.sigma_yx, atol=1e-12 * count**0)
    np.testing.assert_allclose(task.optimum, np.linalg.lstsq(x, y, rcond=None)[0].T, rtol=1e-10)
    assert task.floor == pytest.approx(direct_loss(task.optimum, x, y, normalize), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    samples=st.integers(1, 12),
    n_in=st.integers(1, 6),
    n_out=st.integers(1, 5),
    normalize=st.sampled_from(["mean", "sum"]),
)
def test_loss_is_the_loss_over_samples(seed: int, samples: int, n_in: int, n_out: int, normalize: str) -> None:
    """The identity with floor and optimum against the definition; also with fewer samples than inputs."""
    r = rng(seed)
    x, y = r.standard_normal((samples, n_in)), r.standard_normal((samples, n_out))
    omega = r.standard_normal((3, n_out, n_in))
    task = Task.from_data(x, y, normalize=normalize)
    want = [direct_loss(o, x, y, normalize) for o in omega]
    np.testing.assert_allclose(task.loss(omega), want, rtol=1e-9)
    count = samples if normalize == "mean" else 1
    by_covariances = Task.from_covariances(x.T @ x / count, y.T @ x / count, np.sum(y * y) / count, normalize=normalize)
    np.testing.assert_allclose(by_covariances.loss(omega), want, rtol=1e-9)
    assert by_covariances.floor >= 0
    assert np.all(np.asarray(want) >= task.floor * (1 - 1e-12))


def test_loss_keeps_its_digits_near_the_optimum() -> None:
    x, _ = data(samples=200)
    teacher = rng(5).standard_normal((4, 6))
    task = Task.from_data(x, x @ teacher.T)
    assert 0 <= task.floor < 1e-28 * task.trace_yy
    step = 1e-9 * rng(6).standard_normal((4, 6))
    assert task.loss(task.optimum + step) == pytest.approx(0.5 * np.mean(np.sum((x @ step.T) ** 2, axis=1)), rel=1e-5)


@pytest.mark.parametrize("condition", [1e1, 1e4])
def test_noise_free_targets_leave_no_floor(condition: float) -> None:
    """Also where Sigma_xx has condition number 1e8, and covariances alone would lose half of the digits."""
    r = rng(1)
    x = r.standard_normal((300, 8)) * np.geomspace(1, 1 / condition, 8)
    y = x @ r.standard_normal((8, 3))
    task = Task.from_data(x, y)
    assert 0 <= task.floor < 1e-28 * task.trace_yy
    assert Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy).floor == 0


@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_whitened_data(normalize: str) -> None:
    x, y = data()
    task = Task.from_data(x, y, normalize=normalize, whiten=True)
    plain = Task.from_data(x, y, normalize=normalize)
    assert task.whitened
    assert np.array_equal(task.sigma_xx, np.eye(6))
    assert np.array_equal(task.optimum, task.sigma_yx)
    assert task.floor == pytest.approx(plain.floor, rel=1e-10)
    assert task.floor == pytest.approx(0.5 * (task.trace_yy - np.sum(task.modes.s**2)), rel=1e-9)
    values, q = np.linalg.eigh(plain.sigma_xx)
    zca = (q / np.sqrt(values)) @ q.T
    np.testing.assert_allclose(task.sigma_yx, plain.sigma_yx @ zca, rtol=1e-9, atol=1e-12)
    omega = rng(2).standard_normal((4, 6))
    assert task.loss(omega) == pytest.approx(direct_loss(omega, x @ zca, y, normalize), rel=1e-9)


def test_whitening_without_variance() -> None:
    """Inputs that do not vary become unit-variance inputs that say nothing; held-out inputs lose that part."""
    x, y = data()
    flat = np.hstack([x, np.zeros((40, 2))])
    noisy_test = np.hstack([x, rng(9).standard_normal((40, 2))])
    task = Task.from_data(flat, y, whiten=True, X_test=noisy_test, Y_test=y)
    full = Task.from_data(x, y, whiten=True)
    assert np.array_equal(task.sigma_xx, np.eye(8))
    np.testing.assert_allclose(task.sigma_yx[:, 6:], 0, atol=1e-12)
    np.testing.assert_allclose(task.modes.s, full.modes.s, rtol=1e-10)
    assert task.floor == pytest.approx(full.floor, rel=1e-10)
    assert task.test is not None
    assert task.test.loss(task.optimum) == pytest.approx(task.floor, rel=1e-10)


def test_rtol_drops_weak_directions() -> None:
    r = rng(3)
    x = r.standard_normal((500, 4)) * [1, 1, 1, 1e-3]
    y = x[:, 3:] * 1e3
    assert Task.from_data(x, y, whiten=True).floor < 1e-10
    dropped = Task.from_data(x, y, whiten=True, rtol=1e-4)
    assert dropped.floor == pytest.approx(0.5 * np.mean(y**2), rel=0.05)


def test_held_out_data() -> None:
    x, y = data()
    x_test, y_test = data(seed=8, samples=15)
    task = Task.from_data(x, y, X_test=x_test, Y_test=y_test)
    assert task.test is not None
    assert task.test.samples == 15
    omega = rng(4).standard_normal((4, 6))
    assert task.test.loss(omega) == pytest.approx(direct_loss(omega, x_test, y_test), rel=1e-10)


def test_integers_and_lists_and_constant_inputs() -> None:
    task = Task.from_data([[1, 0], [0, 1]], [[2], [3]])
    assert task.sigma_yx.tolist() == [[1.0, 1.5]]
    zero = Task.from_data(np.zeros((5, 3)), np.ones((5, 2)))
    assert zero.floor == 1.0
    assert not zero.optimum.any()
    assert not Task.from_data(np.zeros((5, 3)), np.ones((5, 2)), whiten=True).sigma_yx.any()


# --- modes ------------------------------------------------------------------------------------------------------------


def test_modes_have_a_fixed_sign() -> None:
    x, y = data(n_in=7, n_out=3)
    one, two = Task.from_data(x, y).modes, Task.from_data(x, -y).modes
    np.testing.assert_allclose(one.V, two.V, atol=1e-12)
    np.testing.assert_allclose(one.U, -two.U, atol=1e-12)
    assert (one.V[np.argmax(np.abs(one.V), axis=0), range(3)] > 0).all()
    assert one.U.shape == (3, 3)
    assert one.V.shape == (7, 3)


def test_sign_does_not_hang_on_rounding() -> None:
    """The entries of these V are all of size 1/2 up to rounding: the first of them decides."""
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    u = np.linalg.qr(rng(0).standard_normal((5, 4)))[0]
    for seed in range(20):
        jitter = 1 + 1e-14 * rng(seed).standard_normal((5, 4))
        v = Task.from_covariances(None, (u * [4, 3, 2, 1]) @ hadamard.T * jitter, 30.0).modes.V
        np.testing.assert_allclose(v, hadamard * np.sign(hadamard[0]), atol=1e-10)


def test_spectrum() -> None:
    task = Task.from_spectrum([2.0, 6.0, 4.0], n_in=9, n_out=7, seed=3)
    assert task.whitened
    assert task.floor == 0.0
    assert task.modes.s.tolist() == [2.0, 6.0, 4.0]
    for q, n in ((task.modes.U, 7), (task.modes.V, 9)):
        assert q.shape == (n, 3)
        np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rebuilt(task), task.sigma_yx, atol=1e-14)
    assert task.loss(np.zeros((7, 9))) == pytest.approx(28.0, rel=1e-14)
    assert task.loss(task.sigma_yx) == 0.0
    noisy = Task.from_spectrum([2.0, 6.0, 4.0], 9, 7, 3, trace_yy=57.0)
    assert noisy.floor == pytest.approx(0.5, rel=1e-13)
    assert np.array_equal(noisy.sigma_yx, task.sigma_yx)
    assert not np.allclose(Task.from_spectrum([2.0, 6.0, 4.0], 9, 7, 4).sigma_yx, task.sigma_yx)


# --- the hierarchy ----------------------------------------------------------------------------------------------------


def test_hierarchy_spectrum_is_the_papers() -> None:
    s = Task.hierarchy_spectrum()
    assert s.shape == (32,)
    np.testing.assert_allclose(np.unique(s)[::-1], S13_HIERARCHY, atol=5e-4)
    assert [int(np.sum(np.abs(s - value) < 1e-3)) for value in S13_HIERARCHY] == [1, 1, 2, 4, 8, 16]
    assert np.sum(s**2) == pytest.approx(32 * 1000, rel=1e-12)


@pytest.mark.parametrize(("levels", "branching", "flip"), [(5, 2, 0.1), (3, 3, 0.2), (2, 4, 0.05), (1, 5, 0.3)])
def test_hierarchy_population_is_the_spectrum_of_the_tree(levels: int, branching: int, flip: float) -> None:
    """Against the covariance of the items written down pair by pair."""
    items, features = branching**levels, 200
    paths = np.array([np.unravel_index(i, (branching,) * levels) for i in range(items)])
    shared = np.array([[int(np.cumprod(a == b).sum()) for b in paths] for a in paths])
    covariance = (1 - 2 * flip) ** (2.0 * (levels - shared))
    task = Task.hierarchy(levels, branching, flip, features, population=True)
    np.testing.assert_allclose(task.sigma_yx.T @ task.sigma_yx, features * covariance, atol=1e-10 * features * items)
    np.testing.assert_allclose(np.linalg.svd(task.sigma_yx)[1], task.modes.s, rtol=1e-12)
    assert np.array_equal(task.modes.s, Task.hierarchy_spectrum(levels, branching, flip, features))
    np.testing.assert_allclose(rebuilt(task), task.sigma_yx, atol=1e-12)
    assert task.trace_yy == features * items
    assert task.floor == 0.0


def test_hierarchy_sampled() -> None:
    task = Task.hierarchy(seed=7)
    assert (task.n_in, task.n_out, task.samples, task.normalize) == (32, 1000, 32, "sum")
    assert task.whitened
    assert task.floor == 0.0
    assert np.array_equal(np.abs(task.sigma_yx), np.ones((1000, 32)))
    # one level-5 branch on each side of the last common ancestor: the siblings differ with probability 2 p (1 - p)
    differ = np.mean(task.sigma_yx[:, 0::2] != task.sigma_yx[:, 1::2])
    assert differ == pytest.approx(2 * 0.1 * 0.9, abs=4 * np.sqrt(0.18 * 0.82 / 16000))
    large = Task.hierarchy(3, 2, 0.1, 100_000, seed=1)
    np.testing.assert_allclose(large.modes.s, Task.hierarchy_spectrum(3, 2, 0.1, 100_000), rtol=0.015)
    assert not np.array_equal(Task.hierarchy(seed=8).sigma_yx, task.sigma_yx)


@pytest.mark.parametrize("population", [False, True])
def test_hierarchy_in_averages(population: bool) -> None:
    sums = Task.hierarchy(3, 2, 0.1, 50, population=population)
    means = Task.hierarchy(3, 2, 0.1, 50, population=population, normalize="mean")
    assert not means.whitened
    np.testing.assert_allclose(means.sigma_xx, np.eye(8) / 8)
    np.testing.assert_allclose(means.modes.s, sums.modes.s / 8)
    omega = rng(0).standard_normal((50, 8))
    assert means.loss(omega) == pytest.approx(sums.loss(omega) / 8, rel=1e-12)
    assert np.array_equal(means.optimum, sums.optimum)
    np.testing.assert_allclose(
        Task.hierarchy_spectrum(3, 2, 0.1, 50, normalize="mean") * 8, Task.hierarchy_spectrum(3, 2, 0.1, 50)
    )


# --- the noisy teacher ------------------------------------------------------------------------------------------------


def test_teacher_has_lampinen_and_gangulis_spectrum() -> None:
    """LG18: where the singular values lie, the overlap of their vectors with the teacher's, the edges of the bulk."""
    s_bar, n_in, n_out = np.array([4.0, 2.5, 1.5]), 640, 320
    a = n_out / n_in
    task = Task.teacher(s_bar, n_in, n_out, seed=1)
    assert task.test is not None
    s_hat = np.sqrt((1 + s_bar**2) * (a + s_bar**2)) / s_bar
    np.testing.assert_allclose(task.modes.s[:3], s_hat, rtol=0.03)
    assert task.modes.s[3] == pytest.approx(1 + np.sqrt(a), rel=0.03)
    assert task.modes.s[-1] == pytest.approx(1 - np.sqrt(a), rel=0.05)
    overlap = np.sqrt(1 - a * (1 + s_bar**2) / (s_bar**2 * (a + s_bar**2))) * np.sqrt(
        1 - (a + s_bar**2) / (s_bar**2 * (1 + s_bar**2))
    )
    seen = np.sum(task.modes.U[:, :3] * task.test.modes.U, axis=0) * np.sum(
        task.modes.V[:, :3] * task.test.modes.V, axis=0
    )
    np.testing.assert_allclose(seen, overlap, atol=0.05)
    # below the threshold A^(1/4) the teacher is lost in the bulk
    lost = Task.teacher([0.5], n_in, n_out, seed=2)
    assert lost.modes.s[0] == pytest.approx(1 + np.sqrt(a), rel=0.03)


def test_teacher_scales_with_its_noise() -> None:
    one, two = Task.teacher([3.0, 2.0], 40, 20, noise=1.0), Task.teacher([6.0, 4.0], 40, 20, noise=2.0)
    np.testing.assert_allclose(2 * one.sigma_yx, two.sigma_yx, rtol=1e-12)
    none = Task.teacher([3.0, 2.0], 40, 20, noise=0.0)
    assert none.test is not None
    assert np.array_equal(none.sigma_yx, none.test.sigma_yx)


def test_teacher_holds_out_the_truth() -> None:
    task = Task.teacher([3.0, 2.0], 40, 20)
    truth = task.test
    assert truth is not None
    assert truth.whitened
    assert truth.floor == 0.0
    assert task.floor == 0.0
    assert truth.modes.s.tolist() == [3.0, 2.0]
    assert truth.loss(np.zeros((20, 40))) == pytest.approx(6.5, rel=1e-13)
    assert truth.loss(task.optimum) == pytest.approx(0.5 * np.sum((task.sigma_yx - truth.sigma_yx) ** 2), rel=1e-12)


def test_teacher_from_samples() -> None:
    """The noise in Sigma_yx has variance noise²/samples, in the whitened teacher noise²/n_in."""
    n_in, n_out, count = 200, 150, 4000
    task = Task.teacher([3.0, 2.0], n_in, n_out, noise=0.5, samples=count, seed=3)
    assert task.test is not None
    assert not task.whitened
    assert task.samples == count
    noise = task.sigma_yx - task.test.optimum @ task.sigma_xx
    assert np.std(noise) == pytest.approx(0.5 / np.sqrt(count), rel=0.02)
    assert task.floor == pytest.approx(0.5 * n_out * 0.25 * (1 - n_in / count), rel=0.02)
    assert 0 <= Task.teacher([3.0, 2.0], 20, 10, noise=0.0, samples=100).floor < 1e-28
    whitened = Task.teacher([3.0, 2.0], n_in, n_out, noise=0.5)
    assert whitened.test is not None
    assert np.std(whitened.sigma_yx - whitened.test.sigma_yx) == pytest.approx(0.5 / np.sqrt(n_in), rel=0.02)


# --- MNIST ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.mnist()


def test_mnist(digits: Task) -> None:
    assert (digits.n_in, digits.n_out, digits.samples, digits.whitened) == (784, 10, 50000, False)
    assert digits.trace_yy == 1.0
    assert digits.floor == pytest.approx(0.1971, abs=1e-4)
    assert np.trace(digits.sigma_xx) == pytest.approx(784 * (0.3081**2 + 0.1307**2), rel=5e-3)
    assert digits.test is not None
    assert digits.test.samples == 10000
    assert digits.test.loss(np.zeros((10, 784))) == 0.5
    # the last directions, pixels inked in one image or two, fit noise; dropping them would break the identity
    assert digits.test.loss(digits.optimum) == pytest.approx(1.43, abs=0.01)
    np.testing.assert_allclose(digits.optimum @ digits.sigma_xx, digits.sigma_yx, atol=1e-14)
    omega = 0.01 * rng(0).standard_normal((10, 784))
    want = 0.5 * (1 - 2 * np.sum(omega * digits.sigma_yx) + np.sum((omega @ digits.sigma_xx) * omega))
    assert digits.loss(omega) == pytest.approx(want, rel=1e-12)


def test_mnist_whitened(digits: Task) -> None:
    """Correlations: strengths at most the root of the largest class frequency; little is lost, nothing explodes."""
    task = Task.mnist(whiten=True)
    assert task.whitened
    assert np.array_equal(task.sigma_xx, np.eye(784))
    assert 0.1 < task.modes.s.min() < task.modes.s.max() < np.sqrt(0.1136)
    assert digits.floor < task.floor < digits.floor + 4e-4
    assert task.test is not None
    assert 0.19 < task.test.loss(task.optimum) < 0.20
    assert np.linalg.eigvalsh(task.test.sigma_xx)[-1] < 3.4
    loose = Task.mnist(whiten=True, rtol=1e-12)
    assert digits.floor <= loose.floor < digits.floor + 1e-5
    assert loose.test is not None
    assert loose.test.sigma_xx.max() > 30  # pixels that hardly any training image has: why rtol is not so small


def test_mnist_in_sums() -> None:
    task, sums = Task.mnist(samples=60000), Task.mnist(samples=60000, normalize="sum")
    np.testing.assert_allclose(sums.sigma_yx, 60000 * task.sigma_yx, rtol=1e-12)
    assert sums.floor == pytest.approx(60000 * task.floor, rel=1e-9)
    assert sums.trace_yy == 60000
    assert sums.test is not None
    assert sums.test.trace_yy == 10000


def test_mnist_centred(digits: Task) -> None:
    task = Task.mnist(center=True, whiten=True)
    assert task.trace_yy == pytest.approx(1 - np.sum((class_counts() / 50000) ** 2), rel=1e-12)
    # a centred fit is a fit with a bias: it does better, and its targets sum to nothing
    assert task.floor < digits.floor
    np.testing.assert_allclose(task.sigma_yx.sum(0), 0, atol=1e-10)
    assert task.test is not None
    assert 0.18 < task.test.loss(task.optimum) < 0.20


def class_counts() -> np.ndarray:
    from pydln.datasets import mnist_moments

    return mnist_moments("train").counts


# --- covariances, batches, members ------------------------------------------------------------------------------------


def batched(whitened: bool = False) -> tuple[Task, list[Task]]:
    tasks = []
    for seed in range(3):
        x, y = data(seed)
        x_test, y_test = data(seed + 10, samples=9)
        tasks.append(Task.from_data(x, y, whiten=whitened, X_test=x_test, Y_test=y_test))
    return Task.stack(tasks), tasks


@pytest.mark.parametrize("whitened", [False, True])
def test_stack_and_members(whitened: bool) -> None:
    task, members = batched(whitened)
    assert task.batch == 3
    assert task.whitened is whitened
    assert task.sigma_yx.shape == (3, 4, 6)
    assert task.modes.s.shape == (3, 4)
    assert np.shape(task.floor) == np.shape(task.trace_yy) == (3,)
    assert task.test is not None
    assert task.test.batch == 3
    omega = rng(0).standard_normal((3, 5, 4, 6))
    for i, (one, again) in enumerate(zip(members, task, strict=True)):
        assert again.batch is None
        for name in ("sigma_xx", "sigma_yx", "optimum", "floor", "trace_yy", "name", "samples", "whitened"):
            assert np.array_equal(getattr(one, name), getattr(again, name)), name
        assert all(np.array_equal(a, b) for a, b in zip(one.modes, again.modes, strict=True))
        assert isinstance(again.floor, float)
        assert again.test is not None
        assert one.test is not None
        assert np.array_equal(one.test.sigma_xx, again.test.sigma_xx)
        np.testing.assert_allclose(task.loss(omega)[i], one.loss(omega[i]), rtol=1e-13)
        np.testing.assert_allclose(task.loss(omega[:, 0])[i], one.loss(omega[i, 0]), rtol=1e-13)
        np.testing.assert_allclose(task.loss(omega[0, 0])[i], one.loss(omega[0, 0]), rtol=1e-13)
    assert np.array_equal(task[-1].sigma_yx, members[2].sigma_yx)


def test_stack_shares_equal_inputs() -> None:
    x, _ = data()
    targets = [x @ rng(i).standard_normal((6, 4)) for i in range(3)]
    same = Task.stack([Task.from_data(x, y) for y in targets])
    assert same.sigma_xx.shape == (6, 6)
    assert np.array_equal(same[2].sigma_xx, same.sigma_xx)
    mixed = Task.stack([Task.from_data(x, targets[0]), Task.from_data(x, targets[0], whiten=True)])
    assert mixed.sigma_xx.shape == (2, 6, 6)
    assert not mixed.whitened
    assert np.array_equal(mixed[1].sigma_xx, np.eye(6))


def test_batched_covariances() -> None:
    task, members = batched()
    again = Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy, test=task.test)
    np.testing.assert_allclose(again.optimum, task.optimum, rtol=1e-9)
    np.testing.assert_allclose(again.floor, task.floor, rtol=1e-9)
    shared = Task.from_covariances(task.sigma_xx, np.zeros((4, 6)), 2.0, test=members[0].test)
    assert shared.batch == 3
    np.testing.assert_array_equal(shared.floor, [1.0, 1.0, 1.0])
    assert shared[1].test is not None
    traces = Task.from_covariances(None, members[0].sigma_yx, [3000.0, 3100.0])
    assert traces.batch == 2
    assert np.diff(traces.floor) == pytest.approx(50.0)
    assert traces.modes.U.shape == (2, 4, 4)


def test_singular_covariances() -> None:
    task = Task.from_covariances(np.diag([1.0, 0.0]), [[0.5, 0.0]], 1.0)
    assert task.optimum.tolist() == [[0.5, 0.0]]
    assert task.floor == pytest.approx(0.375)
    single = Task.from_covariances(np.float32([[2.0]]), np.float32([[1.0]]), 0.5)
    assert single.floor == 0.0
    assert single.sigma_xx.dtype == np.float64


def test_float32_covariances_are_consistent_enough() -> None:
    x, _ = data(samples=300)
    y = x @ rng(1).standard_normal((6, 4))
    a, b, c = (np.float32(value) for value in (x.T @ x / 300, y.T @ x / 300, np.sum(y * y) / 300))
    assert Task.from_covariances(a, b, c).floor >= 0


def test_tasks_are_immutable_and_own_their_arrays() -> None:
    xx, yx = np.eye(2) * 2, np.ones((1, 2))
    task = Task.from_covariances(xx, yx, 1.0)
    xx[:] = yx[:] = 7
    assert task.sigma_xx.tolist() == [[2, 0], [0, 2]]
    assert task.sigma_yx.tolist() == [[1, 1]]
    whitened = Task.from_covariances(None, np.ones((1, 2)), 3.0)
    for one in (task, whitened, pickle.loads(pickle.dumps(task))):
        for array in (one.sigma_xx, one.sigma_yx, one.optimum, *one.modes):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1.0
    with pytest.raises(FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]


def test_pickle() -> None:
    task, _ = batched()
    again = pickle.loads(pickle.dumps(task))
    assert np.array_equal(again.sigma_xx, task.sigma_xx)
    assert np.array_equal(again.modes.U, task.modes.U)
    assert again.test.samples == 9
    assert repr(again) == repr(task)


def test_repr() -> None:
    task, members = batched()
    assert repr(members[0]).startswith("Task data: 6 inputs -> 4 outputs\n")
    for said in ("averages over 40 samples", "not whitened", "4 modes", "at the optimum", "held out     9 samples"):
        assert said in repr(members[0])
    for said in ("batch of 3", "of member 0", " to "):
        assert said in repr(task)
    population = repr(Task.hierarchy(population=True))
    for said in ("hierarchy (population", "sums", "Sigma_xx = I", "81.04, 55.96, 46.54", "0 at the optimum"):
        assert said in population


# --- mistakes ---------------------------------------------------------------------------------------------------------

X, Y = data()
NAN = np.where(np.arange(240).reshape(40, 6) == 8, np.nan, X)
ONE = Task.from_covariances(None, np.eye(2), 3.0)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: Task.from_data(X, Y[:9]), ValueError, r"^Y: expected \(40, features\) to match X, got \(9, 4\)$"),
        (lambda: Task.from_data(X[0], Y), ValueError, r"^X: expected \(samples, features\), got \(6,\)$"),
        (lambda: Task.from_data(X, Y[:9, 0]), ValueError, r"^Y: expected \(40, features\) to match X, got \(9,\)$"),
        (lambda: Task.from_data(NAN, Y), ValueError, r"^X: expected finite numbers, got 1 .* at \[1, 2\]\)$"),
        (lambda: Task.from_data([["a", "b"]], Y), TypeError, r"^X: expected real numbers, got an array of text$"),
        (lambda: Task.from_data(X, Y * 1j), TypeError, r"^Y: expected real numbers, got an array of complex numbers$"),
        (
            lambda: Task.from_data([[1, 2], [3]], Y),
            ValueError,
            r"^X: expected an array of numbers, got a ragged sequence$",
        ),
        (
            lambda: Task.from_data(X[:0], Y[:0]),
            ValueError,
            r"^X: expected at least one sample and one feature, got \(0, 6\)$",
        ),
        (lambda: Task.from_data(X, Y[:, :0]), ValueError, r"^Y: expected at least one .*, got \(40, 0\)$"),
        (
            lambda: Task.from_data(X * 1e200, Y),
            ValueError,
            r"^X: expected numbers whose products fit in float64, got up to",
        ),
        (
            lambda: Task.from_data(X, Y, normalize="avg"),
            ValueError,
            r"^normalize: expected one of 'mean', 'sum', got 'avg'$",
        ),
        (
            lambda: Task.from_data(X, Y, X_test=X),
            ValueError,
            r"^Y_test: expected an array to go with X_test, got None$",
        ),
        (
            lambda: Task.from_data(X, Y, Y_test=Y),
            ValueError,
            r"^X_test: expected an array to go with Y_test, got None$",
        ),
        (
            lambda: Task.from_data(X, Y, X_test=X[:, :5], Y_test=Y),
            ValueError,
            r"^X_test: expected \(samples, 6\) to match X, got \(40, 5\)$",
        ),
        (
            lambda: Task.from_data(X, Y, X_test=X[:7], Y_test=Y[:8]),
            ValueError,
            r"^Y_test: expected \(7, 4\) to match X_test and Y, got \(8, 4\)$",
        ),
        (lambda: Task.from_data(X, Y, rtol=1.0), ValueError, r"^rtol: expected a number >= 0 and < 1, got 1.0$"),
        (lambda: Task.from_covariances(None, np.ones(3), 1.0), ValueError, r"^sigma_yx: expected \(n_out, n_in\) or"),
        (
            lambda: Task.from_covariances(None, np.ones((0, 3)), 1.0),
            ValueError,
            r"^sigma_yx: expected .*, got \(0, 3\)$",
        ),
        (
            lambda: Task.from_covariances(np.eye(3), np.ones((4, 2)), 1.0),
            ValueError,
            r"^sigma_xx: expected \(2, 2\) or \(batch, 2, 2\) to match sigma_yx \(4, 2\), got \(3, 3\)$",
        ),
        (lambda: Task.from_covariances(1.0, np.ones((4, 2)), 1.0), ValueError, r"^sigma_xx: .*, got a number$"),
        (
            lambda: Task.from_covariances("I", np.ones((4, 2)), 1.0),
            TypeError,
            r"^sigma_xx: expected real numbers, got 'I'$",
        ),
        (
            lambda: Task.from_covariances(None, np.eye(2), -1.0),
            ValueError,
            r"^trace_yy: expected a number >= 0, got -1.0$",
        ),
        (
            lambda: Task.from_covariances(None, np.eye(2), np.nan),
            ValueError,
            r"^trace_yy: expected a finite number, got nan$",
        ),
        (
            lambda: Task.from_covariances(None, np.eye(2), np.eye(2)),
            ValueError,
            r"^trace_yy: expected a number or one number",
        ),
        (
            lambda: Task.from_covariances([[1, 0.5], [0, 1]], np.eye(2), 9.0),
            ValueError,
            r"^sigma_xx: expected a symmetric matrix, got entries that differ by 0.5$",
        ),
        (
            lambda: Task.from_covariances([[1, 2], [2, 1]], np.eye(2), 9.0),
            ValueError,
            r"^sigma_xx: expected a covariance matrix, without negative eigenvalues, got one of -1$",
        ),
        (
            lambda: Task.from_covariances(-np.eye(2), np.eye(2), 9.0),
            ValueError,
            r"^sigma_xx: expected a covariance matrix, without negative eigenvalues, got one of -1$",
        ),
        (
            lambda: Task.from_covariances(np.diag([1.0, 0.0]), [[0.5, 0.25]], 9.0),
            ValueError,
            r"^sigma_yx: expected a matrix in the range of sigma_xx .* got a part of norm 0.25 outside it$",
        ),
        (
            lambda: Task.from_covariances(2 * np.eye(2), 2 * np.eye(2), 3.0),
            ValueError,
            r"^trace_yy: expected at least 4, which sigma_yx and sigma_xx imply, got 3$",
        ),
        (
            lambda: Task.from_covariances(None, np.eye(2), [2.0, 1.5]),
            ValueError,
            r"^trace_yy: expected at least 2, which sigma_yx and sigma_xx imply, got 1.5 for member 1$",
        ),
        (
            lambda: Task.from_covariances(None, np.zeros((3, 2, 2)), [1.0, 1.0]),
            ValueError,
            r"^batch: expected one number of members, got 3 in sigma_yx, 2 in trace_yy$",
        ),
        (lambda: Task.from_covariances(None, np.eye(2), 2, test=X), TypeError, r"^test: expected a Task, got ndarray$"),
        (
            lambda: Task.from_covariances(None, np.zeros((4, 3)), 2, test=ONE),
            ValueError,
            r"^test: expected a task with 3 inputs and 4 outputs, got 2 and 2$",
        ),
        (
            lambda: Task.from_covariances(None, np.zeros((3, 2, 2)), 2, test=Task.stack([ONE, ONE])),
            ValueError,
            r"^test: expected a single task or as many members as the task, got 2 members$",
        ),
        (
            lambda: Task.from_covariances(None, np.eye(2), 2, samples=0),
            ValueError,
            r"^samples: expected an integer >= 1",
        ),
        (
            lambda: Task.from_spectrum([], 4, 3),
            ValueError,
            r"^s: expected from 1 to min\(n_in, n_out\) = 3 strengths, got 0$",
        ),
        (lambda: Task.from_spectrum(np.ones(4), 4, 3), ValueError, r"^s: expected from 1 to .* = 3 strengths, got 4$"),
        (lambda: Task.from_spectrum([1, -1], 4, 3), ValueError, r"^s: expected numbers >= 0, got -1.0 at \[1\]$"),
        (lambda: Task.from_spectrum([1], 4.5, 3), TypeError, r"^n_in: expected an integer, got 4.5$"),
        (lambda: Task.from_spectrum([1], 4, 0), ValueError, r"^n_out: expected an integer >= 1, got 0$"),
        (lambda: Task.from_spectrum([1], 4, 3, -1), ValueError, r"^seed: expected an integer >= 0, got -1$"),
        (
            lambda: Task.from_spectrum([3, 1], 4, 3, trace_yy=9.0),
            ValueError,
            r"^trace_yy: expected a number >= the sum of s\*\*2, 10, got 9$",
        ),
        (lambda: Task.hierarchy(0), ValueError, r"^levels: expected an integer >= 1, got 0$"),
        (lambda: Task.hierarchy(20), ValueError, r"^levels: expected at most 65536 items, got 2\*\*20$"),
        (lambda: Task.hierarchy(branching=1), ValueError, r"^branching: expected an integer >= 2, got 1$"),
        (lambda: Task.hierarchy(flip=0.6), ValueError, r"^flip: expected a number >= 0 and <= 0.5, got 0.6$"),
        (lambda: Task.hierarchy(features=0), ValueError, r"^features: expected an integer >= 1, got 0$"),
        (
            lambda: Task.hierarchy(features=31, population=True),
            ValueError,
            r"^features: expected at least the 32 items for a population task, got 31$",
        ),
        (lambda: Task.hierarchy(normalize=None), ValueError, r"^normalize: expected one of 'mean', 'sum', got None$"),
        (lambda: Task.teacher([1.0], 4, 3, noise=-1), ValueError, r"^noise: expected a number >= 0, got -1$"),
        (lambda: Task.teacher([1.0], 4, 3, samples=0), ValueError, r"^samples: expected an integer >= 1, got 0$"),
        (lambda: Task.teacher(["a"], 4, 3), TypeError, r"^s: expected real numbers, got an array of text$"),
        (lambda: Task.mnist(samples=10), ValueError, r"^samples: expected 50000 or 60000, got 10$"),
        (lambda: Task.mnist(rtol=-1), ValueError, r"^rtol: expected a number >= 0 and < 1, got -1$"),
        (lambda: Task.stack([]), ValueError, r"^tasks: expected at least one task, got none$"),
        (lambda: Task.stack([ONE, 3]), TypeError, r"^tasks\[1\]: expected a Task, got int$"),
        (
            lambda: Task.stack([ONE, Task.from_spectrum([1, 1], 3, 2)]),
            ValueError,
            r"^tasks\[1\]: expected inputs 2 as in tasks\[0\], got 3$",
        ),
        (
            lambda: Task.stack([ONE, Task.from_spectrum([1], 2, 2)]),
            ValueError,
            r"^tasks\[1\]: expected modes 2 as in tasks\[0\], got 1$",
        ),
        (
            lambda: Task.stack([ONE, Task.from_covariances(None, np.eye(2), 3.0, normalize="sum")]),
            ValueError,
            r"^tasks\[1\]: expected normalize mean as in tasks\[0\], got sum$",
        ),
        (
            lambda: Task.stack([Task.stack([ONE])]),
            ValueError,
            r"^tasks\[0\]: expected a single task, got a batch of 1$",
        ),
        (lambda: ONE[0], TypeError, r"^task: expected a batched task to take a member of, got a single one$"),
        (lambda: Task.stack([ONE, ONE])[2], IndexError, r"^member: expected an integer from -2 to 1, got 2$"),
        (lambda: Task.stack([ONE, ONE])["a"], TypeError, r"^member: expected an integer, got 'a'$"),
        (lambda: ONE.loss(np.eye(3)), ValueError, r"^product: expected \(\.\.\., 2, 2\), got \(3, 3\)$"),
        (lambda: ONE.loss([[np.inf, 0], [0, 0]]), ValueError, r"^product: expected finite numbers"),
        (
            lambda: Task.stack([ONE, ONE]).loss(np.zeros((3, 2, 2))),
            ValueError,
            r"^product: expected \(2, \.\.\., 2, 2\), got \(3, 2, 2\)$",
        ),
    ],
)
def test_mistakes_are_one_sentence(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_strengths_whose_loss_overflows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^s: expected numbers whose squares fit in float64, got up to 1e\+200$"):
        Task.from_spectrum([1e200], 4, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Task.from_spectrum([1.0], 100, 100),
        lambda: Task.hierarchy(6, features=100),
        lambda: Task.hierarchy(6, features=100, population=True),
        lambda: Task.teacher([1.0], 100, 100),
        lambda: Task.teacher([1.0], 10, 10, samples=1000),
    ],
)
def test_tasks_that_no_memory_is_free_for(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 1_000_000)
    make()
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 80_000)
    with pytest.raises(ValueError, match=r"a task of \d+ inputs and \d+ outputs needs \d+ kB and 80 kB of memory"):
        make()


def test_stack_wants_a_sequence() -> None:
    with pytest.raises(TypeError, match=r"^tasks: expected a sequence of tasks, got Task$"):
        Task.stack(Task.from_spectrum([1.0], 2, 2))  # type: ignore[arg-type]


def test_years_and_their_squares_have_the_floor_of_least_squares() -> None:
    """Sigma_xx of (1, year, year²) has lost one of its three directions; the samples have not."""
    year = np.arange(1950.0, 2021.0)
    x = np.stack([np.ones_like(year), year, year**2], axis=1)
    r = rng()
    for noise in (0.0, 1e-3, 1.0, 1e3):
        y = x @ [3.0, -2.0, 0.5] + noise * r.standard_normal(len(year))
        task = Task.from_data(x, y)
        unit = (year - 1985) / 35  # the same space, well told apart
        legendre = np.linalg.qr(np.stack([np.ones_like(unit), unit, unit**2], axis=1))[0]
        floor = 0.5 * np.mean((y - legendre @ (legendre.T @ y)) ** 2)
        assert task.floor == pytest.approx(floor, rel=1e-6, abs=1e-17)
        assert 0 <= task.loss(task.optimum) - task.floor <= 1e-17
        for w in r.standard_normal((5, 1, 3)):
            assert task.loss(w) == pytest.approx(direct_loss(w, x, y[:, None]), rel=1e-13)
            run = dln.gradient_descent(task, dln.Weights([w]), lr=1e-14, steps=20, record=("loss", "product"))
            want = [direct_loss(o, x, y[:, None]) for o in run.product[0]]
            np.testing.assert_allclose(run.loss[0], want, rtol=1e-9)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("samples", "n_in"), [(50, 6), (6, 6), (4, 6), (5000, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_columns_of_any_scale(samples: int, n_in: int, whiten: bool, seed: int) -> None:
    """Inputs from 1e-8 to 1e8 beside each other: the floor and the loss of inputs that all have scale 1."""
    rng = np.random.default_rng((samples, n_in, seed))
    x, y = rng.standard_normal((samples, n_in)), rng.standard_normal((samples, 2))
    scale = 10.0 ** rng.uniform(-8, 8, n_in)
    if whiten:  # which drops variances below rtol by what it says
        scale = 10.0 ** rng.uniform(-2, 2, n_in)
    plain, task = Task.from_data(x, y), Task.from_data(x * scale, y, whiten=whiten)
    assert task.floor == pytest.approx(plain.floor, rel=1e-12, abs=1e-25)
    assert 0 <= task.loss(task.optimum) - task.floor <= 1e-26
    if whiten:
        return
    for omega in rng.standard_normal((5, 2, n_in)):
        assert task.loss(omega / scale) == pytest.approx(plain.loss(omega), rel=1e-13)
    by_moments = Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy)
    assert by_moments.loss(omega / scale) == pytest.approx(plain.loss(omega), rel=1e-10)
    if samples >= n_in:
        np.testing.assert_allclose(task.optimum * scale, plain.optimum, rtol=1e-9, atol=1e-9)


def test_one_number_a_sample_is_one_output() -> None:
    x, y = X[:, :3], Y[:, 0]
    flat = Task.from_data(x, y, X_test=x[:7], Y_test=list(y[:7]), keep_samples=True)
    column = Task.from_data(x, y[:, None], X_test=x[:7], Y_test=y[:7, None], keep_samples=True)
    for a, b in zip(
        (flat.sigma_yx, *flat.data, flat.test.sigma_yx),
        (column.sigma_yx, *column.data, column.test.sigma_yx),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"^Y_test: expected \(7, 4\) to match X_test and Y, got \(7,\)$"):
        Task.from_data(x, Y, X_test=x[:7], Y_test=y[:7])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Task.from_data(1e-160 * X, Y), r"^X: expected numbers whose squares fit in float64, got at most"),
        (lambda: Task.from_data(X, 1e-160 * Y), r"^Y: expected numbers whose squares fit in float64, got at most"),
        (lambda: Task.from_data(X, Y, whiten=True, X_test=1e-160 * X, Y_test=Y), r"^X_test: expected numbers whose"),
        (lambda: Task.from_data(X, Y, X_test=X, Y_test=1e-200 * Y), r"^Y_test: expected numbers whose"),
        (lambda: Task.from_data(1e160 * X, Y), r"^X: expected numbers whose products fit in float64, got up to"),
        (lambda: Task.from_covariances(1e-310 * np.eye(2), np.zeros((1, 2)), 1.0), r"^sigma_xx: expected moments of"),
        (lambda: Task.from_covariances(np.eye(2), np.zeros((1, 2)), 1e-310), r"^trace_yy: expected moments of numbers"),
        (lambda: Task.from_spectrum([1e-160], 3, 3), r"^s: expected numbers whose squares fit in float64, got up to"),
        (lambda: Task.teacher([1e-160, 0], 3, 3), r"^s: expected numbers whose squares fit in float64, got up to"),
    ],
)
def test_numbers_whose_squares_are_lost_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("scale", [1e-140, 1e-70, 1e70, 1e140])
def test_data_of_any_size_that_has_squares(scale: float) -> None:
    """The loss scales with the square of the data, inputs and targets both or one of them."""
    plain = Task.from_data(X, Y)
    for a, b in ((scale, scale), (scale, 1.0), (1.0, scale)):
        task = Task.from_data(a * X, b * Y)
        assert task.floor == pytest.approx(b * b * plain.floor, rel=1e-12)
        np.testing.assert_allclose(task.optimum * (a / b), plain.optimum, rtol=1e-12, atol=1e-13)
        assert task.loss(task.optimum / 2) == pytest.approx(b * b * plain.loss(plain.optimum / 2), rel=1e-12)
        again = Task.from_covariances(task.sigma_xx, task.sigma_yx, task.trace_yy)
        assert again.loss(task.optimum / 2) == pytest.approx(b * b * plain.loss(plain.optimum / 2), rel=1e-12)


def test_what_is_the_identity_to_rounding_is_told_as_whitened() -> None:
    white = Task.from_data(X, Y, whiten=True, keep_samples=True)
    again = Task.from_data(*white.data)
    assert not again.whitened
    assert re.search(r"inputs whitened \(Sigma_xx = I to [\d.]+e-1[4-7]\)", repr(again)) or "I to 0" in repr(again)
    for off, told in ((9e-13, "whitened (Sigma_xx = I to 9e-13)"), (2e-12, "not whitened")):
        task = Task.from_covariances(np.eye(3) + np.diag([0, off, 0]), np.ones((2, 3)), 10.0)
        assert f"inputs {told}" in repr(task)


def test_a_float32_record_is_not_below_its_floor() -> None:
    """Floors that float32 would round down."""
    rng = np.random.default_rng(0)
    for seed in range(30):
        x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
        task = Task.from_data(x, y, whiten=seed % 2 == 0)
        weights = dln.Weights([rng.standard_normal((2, 3)).astype(np.float32)])
        run = dln.gradient_descent(task, weights, lr=0.3, steps=3000, at=[3000])
        assert run.loss.dtype == np.float32
        assert task.floor <= float(run.loss[0, -1]) <= task.floor * (1 + 1e-6)
        aligned = dln.init.aligned(task, depth=2, strength=0.1, dtype=np.float32) if task.whitened else weights
        assert float(dln.gradient_descent(task, aligned, lr=0.1, steps=3000, at=[3000]).loss[0, -1]) >= task.floor


@pytest.mark.parametrize("verb", [dln.gradient_descent, dln.gradient_flow])
def test_moments_that_float32_loses_are_refused(verb: Any) -> None:
    """Before any work, and not what float64 holds."""
    how = {"lr": 0.1, "steps": 3} if verb is dln.gradient_descent else {"t": [0.0, 1.0]}
    for a, b in ((1e-20, 1.0), (1.0, 1e-20)):
        task = Task.from_data(a * X, b * Y)
        with pytest.raises(ValueError, match=r"^task: expected moments that float32 holds, 9.9e-32 or more, got"):
            verb(task, dln.Weights([np.ones((4, 6), dtype=np.float32)]), **how)
        run = verb(task, dln.Weights([np.ones((4, 6))]), **how)
        assert run.loss[0, 0] == pytest.approx(task.loss(np.ones((4, 6))), rel=1e-13)
