"""Theorems about gradient descent of deep linear networks, held against the kernels; what bits may depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
from ensembles import DTYPES, KERNELS, RECORDS, descend, same_bits, some_task, starts
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.stats import ortho_group

import pydln as dln
from pydln._base import backend

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple)
KERNEL = st.sampled_from(KERNELS)

# Below this many floating-point operations a call stays on the calling thread (csrc/cpu/descent.cpp).
INLINE_FLOPS = 5e6


# ---- a member's bits are its own --------------------------------------------------------------------------------


@st.composite
def ensembles(draw):
    """Members that stop, diverge or run to the end, each in its own time, so that lanes of a vector are refilled."""
    widths = draw(WIDTHS)
    batch = draw(st.integers(2, 21))
    rng = np.random.default_rng(draw(SEEDS))
    dtype, whiten, per_member = draw(st.sampled_from(DTYPES)), draw(st.booleans()), draw(st.booleans())
    tasks = [some_task(widths[0], widths[-1], whiten=whiten, seed=i % 3) for i in range(batch)]
    lr = rng.choice([0.01, 0.03, 0.1, 30.0], size=batch, p=[0.3, 0.3, 0.3, 0.1])
    arguments = {"lr": lr, "steps": draw(st.integers(0, 90)), "record": RECORDS, "throw": False}
    if draw(st.booleans()):
        arguments["momentum"] = rng.choice([0.0, 0.5, 0.9], size=batch)
        arguments["weight_decay"] = rng.choice([0.0, 0.1], size=batch)
    stop = {}
    if draw(st.booleans()):
        stop["loss"] = np.array(
            [t.loss(np.zeros((widths[-1], widths[0]))) * f for t, f in zip(tasks, rng.random(batch), strict=False)]
        )
    if draw(st.booleans()):
        stop["steady"] = 10.0 ** rng.uniform(-4, 0, size=batch)
    if draw(st.booleans()):
        stop["strengths"] = rng.uniform(0.05, 1.5, size=(batch, min(widths[0], widths[-1])))
    if stop:
        arguments["stop"] = dln.Stop(**stop)
    weights = starts(widths, batch, seed=draw(st.integers(0, 99)), dtype=dtype, scale=draw(st.sampled_from([0.3, 1.0])))
    return (dln.Task.stack(tasks) if per_member else tasks[0]), weights, arguments


def members(task, weights, arguments, chosen):
    """The same run of some members, in any order."""
    chosen = np.asarray(chosen)
    picked = {k: v[chosen] if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    if "stop" in picked:
        limits = {n: getattr(picked["stop"], n) for n in ("loss", "strengths", "steady")}
        picked["stop"] = dln.Stop(**{n: v[chosen] for n, v in limits.items() if v is not None})
    part = task if task.batch is None else dln.Task.stack([task[int(i)] for i in chosen])
    return descend(part, weights[chosen], **picked)


@settings(max_examples=60, deadline=None)
@given(ensembles(), st.data())
def test_bits_do_not_depend_on_split_order_or_layout(ensemble, data) -> None:
    task, weights, _ = ensemble
    batch = weights.batch
    order = np.array(data.draw(st.permutations(range(batch))))
    cut = data.draw(st.integers(1, batch - 1))
    isa = data.draw(st.sampled_from(backend.available_isas()))
    with np.errstate(all="ignore"):
        for layout in ("interleaved", "rows"):
            with backend.forced(isa=isa, layout=layout):
                whole = members(*ensemble, np.arange(batch))
                if layout == "interleaved":
                    first = whole
                same_bits(first, whole)
                same_bits(whole[order], members(*ensemble, order))
                same_bits(whole[:cut], members(*ensemble, np.arange(cut)))
                same_bits(whole[cut:], members(*ensemble, np.arange(cut, batch)))
                alone = data.draw(st.integers(0, batch - 1))
                same_bits(whole[alone], members(*ensemble, [alone]))
    assert task.batch in (None, batch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_bits_do_not_depend_on_threads(dtype, whiten) -> None:
    """Long enough to be spread over threads; lanes end at all times."""
    widths, batch, steps = (4, 9, 5, 3), 45, 160
    assert backend.core.step_flops(widths, whiten) * batch * steps > INLINE_FLOPS
    task, weights = some_task(4, 3, whiten=whiten), starts(widths, batch, dtype=dtype)
    arguments = {
        "lr": np.where(np.arange(batch) % 7 == 3, 50.0, np.linspace(0.01, 0.1, batch)),
        "stop": dln.Stop(loss=np.resize([2.0, 1.1, 0.0], batch) * task.floor),
    }
    arguments |= {"steps": steps, "record": RECORDS, "throw": False, "momentum": 0.3}
    polled = []
    for isa in backend.available_isas():
        runs = []
        for layout in ("interleaved", "rows", "auto"):
            with backend.forced(isa=isa, layout=layout):
                for n_threads in (1, 2, 3, 8, 1000):
                    call = {"n_threads": n_threads, "progress": lambda done, total: polled.append(done / total)}
                    runs.append(descend(task, weights, **arguments, **call))
        assert {dln.Status.DIVERGED, dln.Status.REACHED_LOSS, dln.Status.COMPLETED} == set(runs[0].status)
        for run in runs[1:]:
            same_bits(runs[0], run)
    assert len(polled) >= 15 * len(backend.available_isas())  # workers ran: nobody asks the calling thread otherwise


def test_a_diverging_neighbour_is_not_felt() -> None:
    task, weights = some_task(5, 3, whiten=False), starts((5, 7, 4, 3), 16)
    lr = np.full(16, 0.05)
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            healthy = descend(task, weights, lr=lr, steps=200, record=RECORDS)
            for bad in (0, 5, 15):
                wild = np.where(np.arange(16) == bad, 1e3, lr)
                run = descend(task, weights, lr=wild, steps=200, record=RECORDS, throw=False)
                assert run.status[bad] == dln.Status.DIVERGED
                same_bits(run[np.arange(16) != bad], healthy[np.arange(16) != bad])


@settings(max_examples=25, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, dtype=st.sampled_from(DTYPES), kernel=KERNEL)
def test_the_transposed_problem_has_the_transposed_bits(widths, seed, dtype, kernel) -> None:
    """W_D^T, ..., W_1^T learns Sigma_yx^T; what one carries along its inputs the other carries along its outputs."""
    along_output, along_input = reference.inner_work(widths)
    assume(along_output != along_input or len(widths) == 2)  # in a tie both are carried along their outputs
    task, weights = some_task(widths[0], widths[-1], whiten=True, seed=seed), starts(widths, 3, seed=seed, dtype=dtype)
    mirror = dln.Task.from_covariances(None, task.sigma_yx.T, task.trace_yy)
    turned = dln.Weights([np.swapaxes(w, 1, 2) for w in weights.layers[::-1]])
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.05, steps=20, record="product")
        other = descend(mirror, turned, lr=0.05, steps=20, record="product")
    np.testing.assert_array_equal(run.product, np.swapaxes(other.product, 2, 3))
    for a, b in zip(run.final.layers, other.final.layers[::-1], strict=True):
        np.testing.assert_array_equal(a, np.swapaxes(b, 1, 2))


# ---- symmetries -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, whiten=st.booleans(), dtype=st.sampled_from(DTYPES), kernel=KERNEL)
def test_signs_of_hidden_units_change_no_bit(widths, seed, whiten, dtype, kernel) -> None:
    """Multiplying the weights into and out of a unit by -1 is a rotation that has no rounding."""
    rng = np.random.default_rng(seed)
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 2, seed=seed, dtype=dtype)
    signs = [np.ones(widths[0]), *(rng.choice([-1.0, 1.0], size=n) for n in widths[1:-1]), np.ones(widths[-1])]

    def turn(layers):
        return [
            w * (after[:, None] * before).astype(w.dtype)
            for w, before, after in zip(layers, signs, signs[1:], strict=False)
        ]

    quantities = {"record": ("loss", "strengths", "layer_norms", "drift", "product"), "momentum": 0.5}
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.05, steps=20, **quantities)
        turned = descend(task, dln.Weights(turn(weights.layers)), lr=0.05, steps=20, **quantities)
    for name in quantities["record"]:
        np.testing.assert_array_equal(getattr(run, name), getattr(turned, name))
    for a, b in zip(turn(run.final.layers), turned.final.layers, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=20, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, whiten=st.booleans(), kernel=KERNEL, permute=st.booleans())
def test_rotations_and_permutations(widths, seed, whiten, kernel, permute) -> None:
    """W_l -> R_{l+1} W_l R_l^T, Sigma_yx -> R_{D+1} Sigma_yx R_1^T, Sigma_xx -> R_1 Sigma_xx R_1^T turn the run."""
    rng = np.random.default_rng(seed)

    def orthogonal(n):
        if permute:
            return np.eye(n)[rng.permutation(n)]
        return ortho_group.rvs(n, random_state=rng) if n > 1 else np.array([[-1.0]])

    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 2, seed=seed)
    R = [orthogonal(n) for n in widths]
    sigma_xx = None if whiten else R[0] @ task.sigma_xx @ R[0].T
    turned_task = dln.Task.from_covariances(sigma_xx, R[-1] @ task.sigma_yx @ R[0].T, task.trace_yy)
    turned = [b @ w @ a.T for w, a, b in zip(weights.layers, R, R[1:], strict=False)]
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.02, steps=30, record=RECORDS[:1] + RECORDS[2:])
        other = descend(turned_task, dln.Weights(turned), lr=0.02, steps=30, record=RECORDS[:1] + RECORDS[2:])
    # 30 contracting steps on numbers of size 1: some hundred roundings of 1e-16.
    near = {"rtol": 0, "atol": 1e-12}
    for name in ("loss", "layer_norms", "drift"):
        np.testing.assert_allclose(getattr(other, name), getattr(run, name), **near)
    np.testing.assert_allclose(other.product, R[-1] @ run.product @ R[0].T, **near)
    for w, v, a, b in zip(run.weights, other.weights, R, R[1:], strict=False):
        np.testing.assert_allclose(v, b @ w @ a.T, **near)


@settings(max_examples=20, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, whiten=st.booleans(), dtype=st.sampled_from(DTYPES), kernel=KERNEL)
def test_hidden_rotations_are_not_seen(widths, seed, whiten, dtype, kernel) -> None:
    rng = np.random.default_rng(seed)
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 2, seed=seed, dtype=dtype)
    R = [
        np.eye(n) if i in (0, len(widths) - 1) else np.linalg.qr(rng.normal(size=(n, n)))[0]
        for i, n in enumerate(widths)
    ]
    turned = dln.Weights([(b @ w @ a.T).astype(dtype) for w, a, b in zip(weights.layers, R, R[1:], strict=False)])
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.02, steps=30, record=("loss", "strengths", "test_loss"))
        other = descend(task, turned, lr=0.02, steps=30, record=("loss", "strengths", "test_loss"))
    for name in ("loss", "strengths", "test_loss"):
        # Some hundred roundings, as above.
        np.testing.assert_allclose(getattr(other, name), getattr(run, name), rtol=0, atol=5000 * np.finfo(dtype).eps)


# ---- units of time and of the loss ------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, dtype=st.sampled_from(DTYPES), kernel=KERNEL, power=st.integers(-2, 2))
def test_stronger_tasks_run_faster_by_a_power_of_their_strength(widths, seed, dtype, kernel, power) -> None:
    """W = c W', Sigma_yx = c^D Sigma_yx': time in units of c^(2 - 2D). Powers of 2 have no rounding: equal in bits."""
    depth = len(widths) - 1
    c = 2.0**power
    plain = some_task(widths[0], widths[-1], whiten=True, seed=seed)
    strong = dln.Task.from_covariances(None, c**depth * plain.sigma_yx, c ** (2 * depth) * plain.trace_yy)
    weights = starts(widths, 3, seed=seed, dtype=dtype)
    grown = dln.Weights([(c * w).astype(dtype) for w in weights.layers])
    lr = 0.0625
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(plain, weights, lr=lr, steps=25, record=("product", "weights"), momentum=0.5)
        scaled = descend(
            strong, grown, lr=lr * c ** (2 - 2 * depth), steps=25, record=("product", "weights"), momentum=0.5
        )
    np.testing.assert_array_equal(scaled.product, c**depth * run.product)
    for a, b in zip(scaled.weights, run.weights, strict=True):
        np.testing.assert_array_equal(a, c * b)
    np.testing.assert_array_equal(scaled.t, c ** (2 - 2 * depth) * run.t)


@settings(max_examples=20, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, dtype=st.sampled_from(DTYPES), kernel=KERNEL)
def test_sums_are_averages_with_a_smaller_rate(widths, seed, dtype, kernel) -> None:
    """2^k samples: the loss is 2^k times as large, the rate 2^-k, and every other number the same in bits."""
    rng = np.random.default_rng(seed)
    count = 64
    x, y = rng.normal(size=(count, widths[0])), rng.normal(size=(count, widths[-1]))
    mean, total = (dln.Task.from_data(x, y, normalize=how) for how in ("mean", "sum"))
    weights = starts(widths, 3, seed=seed, dtype=dtype)
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        a = descend(mean, weights, lr=0.05, steps=25, record=("loss", "weights", "strengths"))
        b = descend(total, weights, lr=0.05 / count, steps=25, record=("loss", "weights", "strengths"))
    near = {"rtol": 100 * np.finfo(dtype).eps, "atol": 2000 * np.finfo(dtype).eps}
    np.testing.assert_allclose(b.loss, count * a.loss, rtol=near["rtol"], atol=count * near["atol"])
    np.testing.assert_allclose(np.abs(b.strengths), np.abs(a.strengths), **near)
    for v, w in zip(b.weights, a.weights, strict=True):
        np.testing.assert_array_equal(v, w)
    assert b.settings["normalize"] == "sum"


# ---- what the flow conserves, descent nearly does ---------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 7), min_size=3, max_size=5).map(tuple),
    seed=SEEDS,
    whiten=st.booleans(),
    kernel=KERNEL,
)
def test_the_drift_is_the_second_order_term_of_the_steps(widths, seed, whiten, kernel) -> None:
    """W_{l+1}^T G_{l+1} = G_l W_l^T, so a step changes C_l by exactly dW_{l+1}^T dW_{l+1} - dW_l dW_l^T."""
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 2, seed=seed)
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.05, steps=25, record=("drift", "weights"), record_every=1)
    moves = [np.diff(w, axis=1) for w in run.weights]
    for place, (below, above) in enumerate(itertools.pairwise(moves)):
        change = np.swapaxes(above, 2, 3) @ above - below @ np.swapaxes(below, 2, 3)
        expected = np.linalg.norm(np.cumsum(change, axis=1), axis=(2, 3))
        np.testing.assert_allclose(run.drift[:, 1:, place], expected, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(run.drift[:, 0, place], 0)


@pytest.mark.parametrize("widths", [(4, 5, 3), (3, 4, 4, 4, 2)])
def test_the_drift_shrinks_with_the_step(widths) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=False), starts(widths, 3)
    drifts = []
    for halvings in range(4):
        run = descend(
            task, weights, lr=0.02 / 2**halvings, steps=100 * 2**halvings, record="drift", at=[100 * 2**halvings]
        )
        drifts.append(run.drift[:, 0])
    ratios = np.array(drifts[:-1]) / np.array(drifts[1:])
    assert np.abs(ratios[-1] - 2).max() < 0.05
    assert np.abs(ratios[-1] - 2).max() < np.abs(ratios[0] - 2).max()


@pytest.mark.parametrize("widths", [(4, 5, 3), (3, 4, 4, 2)])
@pytest.mark.parametrize("whiten", [True, False], ids=["whitened", "general"])
def test_descent_converges_to_the_flow_at_first_order(widths, whiten) -> None:
    task, weights = some_task(widths[0], widths[-1], whiten=whiten), starts(widths, 1)
    shapes = [w.shape[1:] for w in weights.layers]
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]

    def slope(_, flat):
        layers = [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]
        return -np.concatenate([g.ravel() for g in reference.gradient(layers, task.sigma_xx, task.sigma_yx)])

    start = np.concatenate([w[0].ravel() for w in weights.layers])
    flow = solve_ivp(slope, (0, 2.0), start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    ends = []
    for steps in (50, 100, 200, 400):
        run = descend(task, weights, lr=2.0 / steps, steps=steps)
        assert run.t[-1] == pytest.approx(2.0, rel=1e-14)
        ends.append(np.concatenate([w[0].ravel() for w in run.final.layers]))
    errors = [np.linalg.norm(end - flow) for end in ends]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 2, atol=0.15)
    # And the first-order error is all there is: extrapolated once it falls by 4, twice by 8.
    once = [2 * b - a for a, b in itertools.pairwise(ends)]
    twice = [(4 * b - a) / 3 for a, b in itertools.pairwise(once)]
    assert np.linalg.norm(once[-1] - flow) < 0.1 * errors[-1]
    assert np.linalg.norm(twice[-1] - flow) < 0.1 * np.linalg.norm(once[-1] - flow)


@settings(max_examples=25, deadline=None)
@given(widths=WIDTHS, seed=SEEDS, whiten=st.booleans(), dtype=st.sampled_from(DTYPES), kernel=KERNEL)
def test_the_loss_falls_at_every_small_step(widths, seed, whiten, dtype, kernel) -> None:
    """Descent lemma: below 1 / (largest curvature on the way) no step goes up."""
    task, weights = (
        some_task(widths[0], widths[-1], whiten=whiten, seed=seed),
        starts(widths, 3, seed=seed, dtype=dtype),
    )
    # Layers stay below norm 1.5 and D <= 4: curvature below D 1.5^(2D-2) lambda + D 1.5^(D-2) |E|, some hundreds.
    with backend.forced(isa=kernel[0], layout=kernel[1]):
        run = descend(task, weights, lr=0.002, steps=60, record=("loss", "layer_norms", "weights"), record_every=1)
    assert max(np.linalg.norm(w, 2, axis=(2, 3)).max() for w in run.weights) < 1.5
    rounding = 20 * np.finfo(dtype).eps * run.loss.max()
    assert (np.diff(run.loss, axis=1) <= rounding).all()
    assert (run.loss[:, -1] < run.loss[:, 0]).all()
    assert (run.loss >= task.floor - rounding).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_starts_stay_aligned_and_follow_scalar_modes(dtype) -> None:
    """Section 3: every mode is D numbers of its own; descent of the numbers is descent of the network."""
    task = dln.Task.from_spectrum([3.0, 2.0, 0.5], 5, 4)
    modes = np.array([[0.5, 0.3, 0.7], [0.4, 0.6, 0.2], [0.9, 0.5, 0.8]])  # (layer, mode)
    weights = dln.init.aligned(task, depth=3, layer_strengths=modes, dtype=dtype)
    run = descend(task, weights, lr=0.05, steps=60, record=("strengths", "product"), record_every=1)
    a = modes.copy()
    for k in range(61):
        u = a.prod(axis=0)
        near = {"rtol": 0, "atol": 500 * np.finfo(dtype).eps}
        np.testing.assert_allclose(run.strengths[0, k], u, **near)
        np.testing.assert_allclose(run.product[0, k], task.modes.U * u @ task.modes.V.T, **near)
        a = a + 0.05 * (u / a) * (task.modes.s - u)
