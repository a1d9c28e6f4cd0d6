"""Decoupled modes, one scalar equation each: against the specification, exact solutions, whole networks, theorems."""

from __future__ import annotations

from functools import cache

import mpmath as mp
import numpy as np
import pytest
import reference
from interrupts import press_after_members
from scipy.integrate import solve_ivp

import pydln as dln
from pydln._base import backend
from pydln.simulate.methods import METHODS, method

ADAPTIVE = [name for name in METHODS if len(method(name).error)]
SIGNS = {"one sign": 1.0, "mixed signs": -1.0}


def split(a):
    """The smallest layer, the others' sign, and the others' a_l² - a_m²."""
    m = np.abs(a).argmin()
    others = np.delete(a, m)
    return a[m], np.prod(np.sign(others)), (np.abs(others) - abs(a[m])) * (np.abs(others) + abs(a[m]))


def others(z, sign, gaps):
    return sign * np.prod(np.sqrt(z * z + gaps))


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("name", METHODS)
def test_takes_the_steps_of_the_reference(name, depth):
    rng = np.random.default_rng(depth)
    s, d = rng.uniform(-2, 3, 40), rng.uniform(0.2, 2, 40)
    a = rng.uniform(0.1, 1.3, (40, depth)) * rng.choice([-1, 1], (40, depth))
    t = np.array([0.0, 0.05, 0.1, 0.3, 0.31, 0.7])
    how = {"method": name, "step": 0.02 if name == "rk4" else 0.4, "rtol": 1e-7}
    rejected = 0
    for i in range(40):
        z, sign, gaps = split(a[i])

        def slope(y, s=s[i], d=d[i], sign=sign, gaps=gaps):
            p = others(y[0][0], sign, gaps)
            return [np.array([p * (s - d * y[0][0] * p)])]

        slow = reference.runge_kutta(slope, [np.array([z])], method(name), t, rtol=1e-7, step=how["step"])
        run = dln.mode_flow(s[i : i + 1], a[i], t, variances=d[i], **how)
        wanted = np.array([y[0][0] * others(y[0][0], sign, gaps) for y in slow.at])
        if name != "rk4" and np.abs(s[i] - d[i] * wanted[-1]) < 1e-3 * np.abs(d[i] * wanted[-1]):
            continue  # so close to rest that the kernel goes there in closed form
        assert run.integrator_steps[0] == slow.accepted
        np.testing.assert_allclose(run.strengths[0, :, 0], wanted, rtol=1e-9, atol=1e-12)
        rejected += slow.rejected
    assert rejected > 0 or name == "rk4"


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 12])
def test_a_mode_is_a_network_of_one_unit_a_layer(depth):
    """The equations of all layers, integrated without use of what they conserve."""
    rng = np.random.default_rng(depth)
    s, d = rng.uniform(-1, 3, (30, 2)), rng.uniform(0.2, 2, (30, 2))
    a = rng.uniform(-1.3, 1.3, (30, 2, depth))
    t = np.linspace(0, 6, 13)
    modes = dln.mode_flow(s, a, t, variances=d, method="dop853", rtol=1e-12, max_step=0.5)
    for i in range(30):
        for k in range(2):
            task = dln.Task.from_covariances([[d[i, k]]], [[s[i, k]]], s[i, k] ** 2 / d[i, k])
            weights = dln.Weights([np.full((1, 1, 1), x) for x in a[i, k]])
            finely = {"method": "dop853", "rtol": 1e-12, "max_step": 0.5}
            whole = dln.gradient_flow(task, weights, t, record="product", **finely)
            np.testing.assert_allclose(modes.strengths[i, :, k], whole.product[0, :, 0, 0], atol=3e-10)


# ---- starts of any scale ---------------------------------------------------------------------------------------------
@cache
def exactly(s, a, targets):
    """Times at which z reaches `targets`, and the strengths there: t = ∫ dz / f, by mpmath, in ln |z| or arsinh."""
    mp.mp.dps = 40
    m = int(np.abs(a).argmin())
    z0, rest = mp.mpf(a[m]), [mp.mpf(x) for j, x in enumerate(a) if j != m]
    gaps = [x * x - z0 * z0 for x in rest]
    sign = mp.sign(mp.fprod(rest))
    p = lambda z: sign * mp.fprod(mp.sqrt(z * z + c) for c in gaps)  # noqa: E731
    f = lambda z: p(z) * (s - z * p(z))  # noqa: E731
    root = mp.sqrt(min(c for c in gaps))
    if root:
        to, of, speed = lambda z: mp.asinh(z / root), lambda v: root * mp.sinh(v), lambda v: root * mp.cosh(v)
    else:
        side = mp.sign(z0)
        to, of, speed = lambda z: mp.log(abs(z)), lambda v: side * mp.exp(v), lambda v: side * mp.exp(v)
    v, t, times, strengths = to(z0), mp.mpf(0), [], []
    for target in targets:
        end = to(mp.mpf(target))
        pieces = mp.linspace(v, end, int(abs(end - v)) + 2)
        t += mp.quad(lambda v: speed(v) / f(of(v)), pieces)
        v = end
        times.append(float(t))
        strengths.append(float(mp.mpf(target) * p(mp.mpf(target))))
    return np.array(times), np.array(strengths)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    ("shape", "end", "scale"),
    [
        (*of, scale)
        for of in (
            # The first grows exponentially for 69 and 230 e-folds, or through zero first, and then on the other side.
            ((1, 2), 0.9),
            ((1, 2, 1e30), 0.5),
            ((1, 2, 1e30, 1.2e30, 0.9e30), 0.5),
            # All layers are small: the plateau takes a^-(D - 2); what follows is too short for a double to tell when.
            ((1, 2, 3), None),
            ((1, 1, 1), None),
            ((1, 2, 2.5, 3, 4), None),
        )
        for scale in (1e-30, 1e-100)
        if of[0][-1] != 4 or scale == 1e-30  # 1e-100: a plateau of 1e300
    ],
)
def test_starts_of_any_scale_are_followed_through_their_plateaus(shape, end, scale, sign, name):
    large = np.array(shape) >= 1e29
    a = np.where(large, np.array(shape) / 1e30, scale * np.array(shape))
    a[-1] *= SIGNS[sign]
    if end is None:
        if sign == "mixed signs" and shape == (1, 1, 1):
            targets = scale * np.array([0.9, 0.3, 0.01])  # at -1, 1, 1 they decay to the saddle, all alike
        else:
            targets = scale * np.array([1.5, 3.0, 6.0]) * (SIGNS[sign] if len(set(shape)) > 1 else 1.0)
    else:
        targets = SIGNS[sign] * np.array([10 * scale, 1e-20 if scale < 1e-20 else 1, 1e-5, end])
    times, wanted = exactly(1.5, tuple(a), tuple(targets))
    rtol = 1e-10 if name == "dop853" else 1e-9
    run = dln.mode_flow([1.5], a, times, method=name, rtol=rtol)
    np.testing.assert_allclose(run.strengths[0, :, 0], wanted, rtol=300 * rtol)
    assert run.integrator_steps[0] < {"tsit5": 7000, "dopri5": 7000, "dop853": 1500}[name]


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("scale", [1e-10, 1e-30, 1e-100])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 1, 1), (1, 2, 1e99), (-1, 2, 1e99), (1, 1, 1, 1, 1), (1, 2, 3)])
def test_the_plateau_costs_few_steps_and_ends(shape, scale, name):
    """Also where it takes so long, 1e100, that the time at its end cannot tell the steps that follow."""
    a = np.array([scale * x if abs(x) < 1e90 else 1.0 for x in shape])
    long = scale ** (2 - len(a)) if max(shape) < 1e90 else 1.0
    if not np.isfinite(4 * long):
        return
    run = dln.mode_flow([1.5], a, [4 * long + 3 * np.log(1 / scale) + 20], method=name, rtol=1e-8)
    assert run.strengths[0, 0, 0] == pytest.approx(1.5, rel=1e-12)
    closed = len(set(np.abs(shape))) == 1 or len(shape) == 2
    crossing = 3 * np.log10(1 / scale) if 1e99 in shape else 0
    assert run.integrator_steps[0] < (200 + crossing if closed else 100 + 45 * np.log10(1 / scale))


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, -1), (1, 1, 1, 1)])
def test_the_plateau_is_exact_whatever_the_tolerance(shape, name):
    a = 1e-30 * np.array(shape)
    targets = (2e-30, 1e-29) if len(shape) > 2 else (2e-30, 1e-28, 1e-24, 1e-20)
    times, wanted = exactly(1.5, tuple(a), targets)
    run = dln.mode_flow([1.5], a, times, method=name, rtol=1e-3)
    np.testing.assert_allclose(run.strengths[0, :, 0], wanted, rtol=1e-12)
    assert run.integrator_steps[0] == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-100])
def test_small_starts_of_depth_two_against_the_closed_form(scale):
    s, t = 1.5, np.linspace(0, 2.2 * np.log(1 / scale) / 1.5, 200)
    balanced = dln.mode_flow([s], scale * np.ones(2), t, method="dop853", rtol=1e-11)
    wanted = s / (1 + (s / scale**2 - 1) * np.exp(-2 * s * t)) if scale > 1e-50 else None
    if wanted is not None:
        np.testing.assert_allclose(balanced.strengths[0, :, 0], wanted, rtol=1e-8)
    assert balanced.strengths[0, -1, 0] == pytest.approx(s, rel=1e-12)
    # It goes down the stable manifold of the saddle, and gets into none of the rounding that would throw it off.
    t = np.linspace(0, 700, 200)
    saddle = dln.mode_flow([s], [0.3, -0.3], t, method="dop853", rtol=1e-11)
    np.testing.assert_allclose(
        saddle.strengths[0, :, 0],
        -s / ((1 + s / 0.09) * np.exp(np.minimum(2 * s * t, 700)) - 1),
        rtol=1e-8,
        atol=1e-290,
    )


# ---- the end of the way ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_the_way_to_rest_is_followed_to_rounding(depth, name):
    rng = np.random.default_rng(depth)
    s, d = rng.uniform(0.5, 3, (50, 1)), rng.uniform(0.5, 2, (50, 1))
    a = rng.uniform(0.5, 1.3, (50, 1, depth))
    a[:25] = a[:25, :, :1]  # balanced
    t = np.linspace(0, 80, 400)
    best = dln.mode_flow(s, a, t, variances=d, method="dop853", rtol=1e-13, max_step=0.02).strengths
    for rtol in (1e-5, 1e-8):
        run = dln.mode_flow(s, a, t, variances=d, method=name, rtol=rtol)
        late = np.abs(best / (s / d)[:, None] - 1) < np.sqrt(0.1 * rtol)
        errors = np.abs(run.strengths / best - 1)
        assert errors[late].max() < 2 * depth * max(rtol, errors[~late].max())
        np.testing.assert_allclose(run.strengths[:, -1, 0], (s / d)[:, 0], rtol=1e-14)
        assert run.integrator_steps.max() < 200, "steps do not grow with the length of the run"
        gaps = np.abs(s[:, None] - d[:, None] * run.strengths)[late]
        exact = np.abs(s[:, None] - d[:, None] * best)[late]
        seen = exact > 1e-10
        np.testing.assert_allclose(gaps[seen], exact[seen], rtol=0.2)


# ---- theorems --------------------------------------------------------------------------------------------------------
def many(count=300, depth=4):
    rng = np.random.default_rng(7)
    s, d = rng.uniform(-1, 3, (count, 3)), rng.uniform(0, 2, (count, 3))
    a = rng.uniform(-1.2, 1.2, (count, 3, depth))
    a[::7] *= 1e-25  # some whose squares are not multiplied as they are
    return s, a, d


@pytest.mark.parametrize("name", METHODS)
def test_same_bits_whatever_the_company(name):
    s, a, d = many()
    t = np.linspace(0, 1.5, 70)
    how = {"method": name, "rtol": 1e-6, "step": 0.03 if name == "rk4" else None, "throw": False}
    firsts, part = {}, slice(5, 48)
    for isa in backend.available_isas():
        with backend.forced(isa=isa):
            alone = dln.mode_flow(s, a, t, variances=d, n_threads=1, **how)
            whole = dln.mode_flow(s, a, t, variances=d, n_threads=2, **how)
            some = dln.mode_flow(s[part], a[part], t, variances=d[part], **how)
            one = dln.mode_flow(s[17, :1], a[17, :1], t, variances=d[17, :1], **how)
        np.testing.assert_array_equal(whole.strengths[part], some.strengths)
        np.testing.assert_array_equal(whole.integrator_steps[part], some.integrator_steps)
        np.testing.assert_array_equal(whole.strengths[17, :, 0], one.strengths[0, :, 0])
        fused = isa != "baseline"  # x86's has no fused multiply-adds: bits of its own
        np.testing.assert_array_equal(whole.strengths, firsts.setdefault(fused, alone).strengths)


def test_times_do_not_change_each_other():
    s, a, d = many()
    t = np.linspace(0, 1.5, 70)
    whole = dln.mode_flow(s, a, t, variances=d, throw=False)
    few = dln.mode_flow(s, a, t[[3, 40, 69]], variances=d, throw=False)
    np.testing.assert_array_equal(few.strengths, whole.strengths[:, [3, 40, 69]])


def test_order_of_layers_signs_and_scales_do_not_matter():
    s, a, d = many()
    t = np.linspace(0, 1.5, 7)
    run = dln.mode_flow(s, a, t, variances=d, throw=False)
    turned = dln.mode_flow(s, a[..., ::-1], t, variances=d, throw=False)
    np.testing.assert_allclose(turned.strengths, run.strengths, rtol=1e-12, atol=1e-300)
    flipped = dln.mode_flow(s, a * np.array([-1, 1, -1, 1]), t, variances=d, throw=False)
    np.testing.assert_array_equal(flipped.strengths, run.strengths)
    # a -> c a, s -> s c^(2 - D)... : u -> c^D u with t fixed
    scaled = dln.mode_flow(s / 4, 2 * a, t, variances=d / 4 / 16, throw=False)
    np.testing.assert_allclose(scaled.strengths, 16 * run.strengths, rtol=1e-12, atol=1e-300)


def test_loss_falls():
    s, a, d = many()
    run = dln.mode_flow(s, a, np.linspace(0, 5, 50), variances=d + 0.1, rtol=1e-9)
    assert (np.diff(run.loss, axis=1) <= 1e-12).all()


# ---- ends ------------------------------------------------------------------------------------------------------------
def test_modes_that_are_done_before_they_begin():
    s, a, _ = many(count=500)
    start = dln.mode_flow(s, a, [0.0])
    np.testing.assert_allclose(start.strengths[:, 0], a.prod(axis=-1), rtol=1e-14, atol=0)
    assert set(start.status) == {dln.Status.COMPLETED}
    assert not start.integrator_steps.any()
    flat = dln.mode_flow(s, 1e-30 * np.sign(a[..., :2]), [0.0, 0.1], n_threads=1)
    growth = np.exp(0.2 * s * np.sign(a[..., :2].prod(axis=-1)))
    np.testing.assert_allclose(flat.strengths[:, 1], 1e-60 * np.sign(a[..., :2].prod(axis=-1)) * growth, rtol=1e-12)


def test_at_rest_at_zero_and_at_the_start():
    t = [0.0, 1.0, 7.0]
    np.testing.assert_array_equal(dln.mode_flow([2.0], np.zeros(3), t).strengths[0, :, 0], np.zeros(3))
    np.testing.assert_array_equal(dln.mode_flow([1.0], np.ones(4), t).strengths[0, :, 0], np.ones(3))
    np.testing.assert_array_equal(dln.mode_flow([0.0], [0.0, 1.0], t).strengths[0, :, 0], np.zeros(3))
    one_zero = dln.mode_flow([2.0], [0.0, 0.5], t, rtol=1e-11)
    both = dln.mode_flow([2.0], [1e-14, 0.5], t, rtol=1e-11)
    np.testing.assert_allclose(one_zero.strengths, both.strengths, atol=1e-9)
    still = dln.mode_flow([1.5], [1e-120, 1e-110, 1e-100, 1e-100], [0.5, 1e9])  # u = 1e-430 is no number
    assert not still.strengths.any()
    frozen = dln.mode_flow([1.5], [1e-100, 1e-40, 1e-40, 2e-40], [0.5, 1e4])
    np.testing.assert_allclose(frozen.strengths[0, :, 0], 2e-220, rtol=1e-14)
    start = dln.mode_flow([2.0], [0.3, 0.5], [0.0])
    assert start.strengths[0, 0, 0] == pytest.approx(0.15, rel=1e-15)
    line = dln.mode_flow([2.0], [0.5], t, variances=0.0)
    np.testing.assert_allclose(line.strengths[0, :, 0], 0.5 + 2 * np.array(t), rtol=1e-12)


def test_modes_that_do_not_get_there_do_not_spoil_the_others():
    s, a, d = np.ones((9, 2)), np.full((9, 2, 3), 0.8), np.ones((9, 2))
    t = np.linspace(0, 3, 5)
    free = dln.mode_flow(s, a, t, variances=d)
    d[4, 1] = 0  # blows up: z' = z² in finite time
    with pytest.raises(dln.IntegrationError, match="1 of 9 members did not reach the end") as caught:
        dln.mode_flow(s, a, t, variances=d)
    run = caught.value.trajectory
    assert run.status[4] in (dln.Status.DIVERGED, dln.Status.STIFF)
    assert np.isnan(run.strengths[4, -1, 1])
    assert not np.isnan(run.strengths[4, 0, 1])
    np.testing.assert_array_equal(np.delete(run.strengths, 4, axis=0), np.delete(free.strengths, 4, axis=0))
    np.testing.assert_array_equal(run.strengths[4, :, 0], free.strengths[4, :, 0])
    short = dln.mode_flow(s, a, t, max_steps=3, throw=False)
    assert set(short.status) == {dln.Status.STEP_LIMIT}
    assert np.isnan(short.strengths[:, -1]).all()
    held = dln.mode_flow([100.0], [[1e-3, 30.0]], [0.0, 50.0], rtol=1e-14, max_steps=300, throw=False)
    assert held.status[0] in (dln.Status.STIFF, dln.Status.STEP_LIMIT)
    lost = dln.mode_flow([1.0], [[1e160, 1e160]], [5.0], step=1.0, method="rk4", throw=False)
    assert lost.status[0] == dln.Status.DIVERGED


def test_ctrl_c_keeps_what_there_is():
    s, a, d = many(count=60000)

    with pytest.raises(dln.Interrupted, match="members are complete") as caught:
        dln.mode_flow(s, a, np.linspace(0, 1, 30), variances=d, rtol=1e-13, n_threads=1, progress=press_after_members)
    run = caught.value.trajectory
    complete = run.status == dln.Status.COMPLETED
    assert 0 < np.count_nonzero(complete) < len(s)
    assert np.isfinite(run.strengths[complete]).all()
    assert np.isnan(run.strengths[run.status == dln.Status.INTERRUPTED, -1]).any(axis=1).all()


def test_progress_comes_to_its_end():
    s, a, d = many(count=2000)
    seen = []
    dln.mode_flow(s, a, [0.5, 1.0], variances=d, progress=lambda done, total: seen.append((done, total)))
    assert all(total == 2000 * 3 * 2 for _, total in seen)
    assert not seen or seen[-1][0] == 2000 * 3 * 2


def test_the_border_of_the_extension_checks_what_it_is_given():
    count = {name: np.zeros(4, dtype=np.int64) for name in ("status", "accepted", "rejected")}
    sound = {
        "layer_strengths": np.full((4, 3), 0.5),
        "s": np.ones(4),
        "variances": np.ones(4),
        "method": method("tsit5").kernel(),
        "rtol": 1e-6,
        "atol": 0.0,
        "step": 0.0,
        "max_step": 0.0,
        "max_steps": 100,
        "record_at": np.array([0.0, 1.0]),
        "strengths": np.empty((2, 2, 2)),
        **count,
        "stopped_at": np.zeros(4),
        "threads": 1,
        "memory": lambda: None,
        "isa": backend.isa(),
        "tick": None,
    }
    assert not backend.core.modes_f64(**sound)
    wrong = [
        (ValueError, "modes: expected layer_strengths", {"layer_strengths": np.ones(4)}),
        (ValueError, "modes: expected networks of", {"strengths": np.empty((2, 2, 3))}),
        (ValueError, "layer_strengths: expected at least one", {"layer_strengths": np.ones((4, 0))}),
        (ValueError, "s: expected shape", {"s": np.ones(3)}),
        (ValueError, "strengths: expected shape", {"strengths": np.empty((2, 3, 2))}),
        (ValueError, "accepted: expected an array, got None", {"accepted": None}),
        (ValueError, "status: expected an array, got None", {"status": None}),
        (TypeError, "s: expected a C-contiguous array", {"s": np.ones(8)[::2]}),
    ]
    for error, message, change in wrong:
        with pytest.raises(error, match=message):
            backend.core.modes_f64(**sound | change)


# --- stop ------------------------------------------------------------------------------------------------------------
S = np.array([2.0, 1.2, 0.7])
D3 = np.random.default_rng(5).uniform(0.05, 0.4, size=(6, 3, 3))
TIMES = np.linspace(0.0, 30.0, 7)


def loss_of(u):
    return 0.5 * ((S - u) ** 2).sum(axis=-1)


@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_stops_at_the_loss_asked_for(method):
    limits = np.geomspace(2.0, 1e-6, 6)
    run = dln.mode_flow(S, D3, TIMES, stop=dln.Stop(loss=limits), rtol=1e-11, method=method)
    assert (run.status == dln.Status.REACHED_LOSS).all()
    for i, when in enumerate(run.stopped_time):
        u = dln.mode_flow(S, D3[i], [when], rtol=1e-12).strengths[0, 0]
        assert loss_of(u) == pytest.approx(limits[i], rel=1e-7)
        np.testing.assert_array_equal(np.isnan(run.loss[i]), when < TIMES)
        np.testing.assert_array_equal(np.isnan(run.strengths[i]).all(axis=-1), when < TIMES)
    alone = dln.mode_flow(S, D3[2], TIMES, stop=dln.Stop(loss=limits[2]), rtol=1e-11, method=method)
    assert alone.stopped_time[0] == run.stopped_time[2]


def test_stops_at_the_strengths_asked_for():
    run = dln.mode_flow(S, D3, TIMES, stop=dln.Stop(strengths=[1.0, np.nan, 0.35]), rtol=1e-11)
    assert (run.status == dln.Status.REACHED_STRENGTH).all()
    for i, when in enumerate(run.stopped_time):
        u = dln.mode_flow(S, D3[i], [when], rtol=1e-12).strengths[0, 0]
        assert min(u[0] - 1.0, u[2] - 0.35) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("d", [1.0, 0.6])
def test_stops_when_nothing_moves(depth, d):
    start = np.random.default_rng(depth).uniform(0.3, 0.9, size=(4, 3, depth))
    run = dln.mode_flow(S, start, TIMES, variances=d, stop=dln.Stop(steady=1e-3), rtol=1e-11)
    assert (run.status == dln.Status.STEADY).all()
    for i, when in enumerate(run.stopped_time):
        h = 1e-3

        def layers(t, i=i):
            path = solve_ivp(
                lambda _, a: (np.prod(a.reshape(3, depth), axis=1)[:, None] / a.reshape(3, depth)
                              * (S - d * np.prod(a.reshape(3, depth), axis=1))[:, None]).ravel(),
                (0, t), start[i].ravel(), method="DOP853", rtol=1e-12, atol=1e-14,
            )  # fmt: skip
            return path.y[:, -1]

        speed = np.abs(layers(when + h) - layers(when - h)).max() / (2 * h)
        assert speed == pytest.approx(1e-3, rel=1e-5)


def test_conditions_of_gradient_flow_are_those_of_the_modes():
    task = dln.Task.from_spectrum(S, n_in=5, n_out=4, seed=3)
    weights = dln.init.aligned(task, depth=3, width=4, layer_strengths=D3.transpose(0, 2, 1))
    for stop in (dln.Stop(loss=0.3), dln.Stop(strengths=0.5), dln.Stop(loss=0.05, strengths=0.6)):
        network = dln.gradient_flow(task, weights, TIMES, stop=stop, rtol=1e-11, reduce="none")
        modes = dln.mode_flow(S, D3, TIMES, stop=stop, rtol=1e-11)
        np.testing.assert_array_equal(modes.status, network.status)
        np.testing.assert_allclose(modes.stopped_time, network.stopped_time, rtol=1e-8)


def test_stops_before_it_begins_or_never():
    at_once = dln.mode_flow(S, D3, TIMES, stop=dln.Stop(loss=100.0))
    assert (at_once.stopped_time == 0).all()
    assert np.isnan(at_once.loss[:, 1:]).all()
    assert (at_once.status == dln.Status.REACHED_LOSS).all()
    saddle = dln.mode_flow(S, np.zeros((3, 3)), TIMES, stop=dln.Stop(steady=1e-9))
    assert saddle.status[0] == dln.Status.STEADY
    nothing = dln.mode_flow(S, D3, TIMES, stop=dln.Stop())
    assert (nothing.status == dln.Status.COMPLETED).all()
    never = dln.mode_flow(S, D3, TIMES, stop=dln.Stop(strengths=5.0))
    assert (never.status == dln.Status.COMPLETED).all()
    assert (never.stopped_time == 30.0).all()
    assert np.isfinite(never.loss).all()
    many = dln.mode_flow(S, D3[0], TIMES, stop=dln.Stop(loss=np.geomspace(1.0, 1e-3, 50)))
    assert (np.diff(many.stopped_time) > 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stop": 0.3}, "stop: expected pydln.Stop"),
        ({"stop": dln.Stop(loss=np.ones(5))}, "stop.loss: expected 1 or 6 members"),
        (
            {"stop": dln.Stop(loss=0.1), "method": "rk4", "step": 0.1},
            "method that chooses its steps, got rk4",
        ),
    ],
)
def test_mistakes_about_stopping(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        dln.mode_flow(S, D3, TIMES, **wrong)
