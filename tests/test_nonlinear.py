"""Nonlinear networks answer to the reference, in every shape, dtype, layout and instruction set, record and stop."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import reference
import reference_noise
from ensembles import DTYPES, KERNELS, STATUS, same_bits, starts
from interrupts import press_midway

import pydln as dln
from pydln._base import backend
from pydln.activations import ACTIVATIONS, activation

RECORDS = ("loss", "test_loss", "strengths", "layer_norms", "drift", "weights")
SHAPES = [
    (1, 1),
    (1, 1, 1),
    (3, 4),
    (40, 1),
    (1, 40, 1),
    (2, 30, 3),
    (5, 9, 2),
    (17, 9, 33, 6),
    (33, 5, 17),
    (4, 11, 6, 9),
    (5, 33, 9, 17, 4, 3),
    (16, 16, 16, 16),
]
TOLERANCE = {np.float64: 1e-11, np.float32: 3e-4}  # of the largest entry


def data(widths, samples, *, members=None, seed=0):
    """Inputs and targets whose numbers float32 holds, so that one reference serves both precisions."""
    rng = np.random.default_rng((seed, samples, *widths))
    leading = () if members is None else (members,)
    x, y = (rng.normal(size=(*leading, samples, n)).astype(np.float32) for n in (widths[0], widths[-1]))
    return x.astype(np.float64), y.astype(np.float64)


def each_kernel():
    for isa, layout in KERNELS:
        with backend.forced(isa=isa, layout=layout):
            yield isa, layout


def own(a, member, ndim=2):
    a = np.asarray(a)
    return a if a.ndim == ndim else a[member if len(a) > 1 else 0]


def train(x, y, weights, **more):
    return dln.train_nonlinear(
        x, y, weights, **{"lr": 0.05, "steps": 8, "record_every": 1, "record": RECORDS[:1], **more}
    )


def expected(x, y, weights, member, *, name="tanh", lr=0.05, steps=8, normalize="mean", test=None, **more):
    """The reference run of a member."""
    x, y = own(x, member), own(y, member)
    scale = 1 / len(x) if normalize == "mean" else 1.0
    u, _, vt = np.linalg.svd(scale * y.T @ x, full_matrices=False)
    if test is not None:
        test = own(test[0], member), own(test[1], member)
        test = (*test, 1 / len(test[0]) if normalize == "mean" else 1.0)
    return reference.nonlinear(
        [own(w, member) for w in weights.layers],
        x,
        y,
        activation(name),
        scale=scale,
        U=u,
        V=vt.T,
        lr=float(own(lr, member, 0)),
        steps=steps,
        test=test,
        **more,
    )


def close(got, wanted, tolerance, what):
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), err_msg=what)
    finite = np.abs(wanted[np.isfinite(wanted)])
    size = max(1.0, finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * size, err_msg=what)


def conforms(run, member, ref):
    tolerance = TOLERANCE[run.final.dtype.type]
    assert run.status[member] == STATUS[ref.status]
    assert run.stopped_step[member] == ref.stopped_at
    for name in run.names:
        got = [w[member] for w in run.weights] if name == "weights" else [getattr(run, name)[member]]
        wanted = ref.records[name] if name == "weights" else [ref.records[name]]
        for g, w in zip(got, wanted, strict=True):
            close(g, w[run.steps], tolerance, f"member {member}: {name}")
    for g, w in zip(run.final.layers, ref.layers, strict=True):
        close(g[member], w, tolerance, f"member {member}: final")


# ---- against the reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: "-".join(map(str, widths)))
def test_every_record_of_every_shape(widths, name) -> None:
    x, y = data(widths, 7)
    test = data(widths, 5, seed=1)
    weights = starts(widths, 3)
    refs = [expected(x, y, weights, i, name=name, test=test) for i in range(3)]
    assert np.linalg.norm(refs[0].layers[0] - weights.layers[0][0]) > 1e-5  # something is learned
    for dtype in DTYPES:
        bits = {}
        for isa, _ in each_kernel():
            run = train(
                x,
                y,
                weights.astype(dtype),
                activation=name,
                record=RECORDS,
                x_test=test[0],
                y_test=test[1],
            )
            assert {run.loss.dtype, run.weights[0].dtype, run.final.dtype} == {np.dtype(dtype)}
            for i, ref in enumerate(refs):
                conforms(run, i, ref)
            same_bits(bits.setdefault(isa, run), run)  # layouts agree to the bit


# Samples that pass in several blocks, of unequal length, of layers narrow and wider than the tiles of the row layout.
@pytest.mark.parametrize("normalize", ["mean", "sum"])
@pytest.mark.parametrize(
    ("widths", "samples"),
    [((3, 5, 2), 2011), ((6, 17, 4, 5), 1030), ((140, 150, 135, 3), 300), ((5, 4), 3001), ((2, 40, 40, 2), 402)],
)
def test_many_samples(widths, samples, normalize) -> None:
    x, y = data(widths, samples)
    weights = starts(widths, 2)
    more = {"steps": 3, "normalize": normalize, "lr": 0.05 if normalize == "mean" else 0.05 / samples}
    test = data(widths, samples + 9, seed=1)
    refs = [expected(x, y, weights, i, test=test, **more) for i in range(2)]
    for dtype in DTYPES:
        bits = {}
        for isa, _ in each_kernel():
            run = train(x, y, weights.astype(dtype), record=RECORDS, x_test=test[0], y_test=test[1], **more)
            for i, ref in enumerate(refs):
                conforms(run, i, ref)
            same_bits(bits.setdefault(isa, run), run)


@pytest.mark.parametrize("samples", [9, 700])
@pytest.mark.parametrize("given", ["x", "y", "both"])
def test_samples_of_their_own(given, samples) -> None:
    widths, members = (4, 6, 5, 3), 11
    x, y = data(widths, samples, members=members)
    x, y = x if given != "y" else x[0], y if given != "x" else y[0]
    weights, lr = starts(widths, members), np.linspace(0.01, 0.09, members)
    refs = [expected(x, y, weights, i, lr=lr, test=(x, y)) for i in range(members)]
    bits = {}
    for isa, _ in each_kernel():
        run = train(x, y, weights, lr=lr, record=RECORDS, x_test=x, y_test=y)
        for i, ref in enumerate(refs):
            conforms(run, i, ref)
        same_bits(bits.setdefault(isa, run), run)


@pytest.mark.parametrize("replacing", [True, False])
@pytest.mark.parametrize(
    ("widths", "samples", "size"), [((4, 7, 3), 23, 5), ((3, 40, 30, 2), 1600, 801), ((5, 2), 9, 1)]
)
def test_minibatches(widths, samples, size, replacing) -> None:
    x, y = data(widths, samples)
    weights = starts(widths, 5)
    for normalize in ("mean", "sum"):
        scale = (1 if normalize == "mean" else samples) / size
        lr = 0.05 if normalize == "mean" else 0.05 / samples

        def drawn(member, scale=scale):
            def at(step):
                rows = reference_noise.chosen(3, member, step, size, samples, replacing)
                return x[rows], y[rows], scale

            return at

        more = {"steps": 6, "normalize": normalize, "lr": lr}
        refs = [expected(x, y, weights, i, drawn=drawn(i + 2), **more) for i in range(5)]
        bits = {}
        for isa, _ in each_kernel():
            run = train(
                x,
                y,
                weights,
                batch_size=size,
                seed=3,
                replace=replacing,
                first=2,
                record=RECORDS[:1] + RECORDS[2:],
                **more,
            )
            for i, ref in enumerate(refs):
                conforms(run, i, ref)
            same_bits(bits.setdefault(isa, run), run)


def test_a_minibatch_of_all_samples_is_the_full_batch() -> None:
    x, y = data((4, 6, 3), 12)
    weights = starts((4, 6, 3), 3)
    a, b = (train(x, y, weights, steps=40, **more) for more in ({"batch_size": 12, "replace": False}, {}))
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-12)


@pytest.mark.parametrize("minibatch", [None, 6])
@pytest.mark.parametrize("samples", [11, 900])
def test_stopping(samples, minibatch) -> None:
    widths, members = (3, 5, 2), 9
    x, y = data(widths, samples)
    weights, lr = starts(widths, members), np.linspace(0.05, 0.4, members)

    def drawn(member):
        def at(step):
            rows = reference_noise.chosen(0, member, step, minibatch, samples, True)
            return x[rows], y[rows], 1 / minibatch

        return at

    free = [expected(x, y, weights, i, lr=lr, steps=60, drawn=drawn(i) if minibatch else None) for i in range(members)]
    loss = np.array([1.001 * run.records["loss"][25] for run in free])
    strengths = np.array([np.abs(run.records["strengths"][17]) for run in free])
    strengths[:, 1] = np.nan
    reached = set()
    # No threshold is a number of the run itself, so that rounding does not decide.
    for stop, given in (
        (dln.Stop(loss=loss), lambda i: {"stop_loss": loss[i]}),
        (dln.Stop(strengths=0.97 * strengths), lambda i: {"stop_strengths": 0.97 * strengths[i]}),
        (dln.Stop(steady=0.0301234), lambda i: {"stop_steady": 0.0301234}),
    ):
        refs = [
            expected(x, y, weights, i, lr=lr, steps=60, drawn=drawn(i) if minibatch else None, **given(i))
            for i in range(members)
        ]
        bits = {}
        for isa, _ in each_kernel():
            run = train(
                x, y, weights, lr=lr, steps=60, record=RECORDS[:1] + RECORDS[2:], stop=stop, batch_size=minibatch
            )
            for i, ref in enumerate(refs):
                conforms(run, i, ref)
            same_bits(bits.setdefault(isa, run), run)
        reached |= {ref.status for ref in refs}
    assert reached >= {"reached_loss", "reached_strength", "completed"} | ({"steady"} if minibatch is None else set())


# ---- theorems ------------------------------------------------------------------------------------------------------


def test_linear_networks_are_those_of_gradient_descent() -> None:
    """Samples and covariances are two ways to one gradient."""
    x, y = data((6, 8, 5, 4), 30)
    weights = starts((6, 8, 5, 4), 5)
    for normalize, lr in (("mean", 0.05), ("sum", 0.002)):
        task = dln.Task.from_data(x, y, normalize=normalize, whiten=True, keep_samples=True)
        names = ("loss", "strengths", "layer_norms", "drift", "weights")
        a = dln.gradient_descent(task, weights, lr=lr, steps=100, record=names)
        b = dln.train_nonlinear(
            *task.data, weights, activation="linear", lr=lr, steps=100, record=names, normalize=normalize
        )
        for name in names:
            pairs = (
                zip(a.weights, b.weights, strict=True) if name == "weights" else [(getattr(a, name), getattr(b, name))]
            )
            for p, q in pairs:
                np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-12, err_msg=name)
        np.testing.assert_array_equal(a.t, b.t)


def test_the_drift_of_what_gradient_flow_conserves_is_of_the_order_of_the_step() -> None:
    """Linear networks conserve W_{l+1}ᵀW_{l+1} - W_lW_lᵀ, relu and leaky relu its diagonal, tanh neither."""
    widths = (4, 7, 6, 3)
    x, y = data(widths, 25)
    weights = starts(widths)

    def drift(name, lr):
        layers = dln.train_nonlinear(
            x, y, weights, activation=name, lr=lr, steps=round(2 / lr), record=(), at=[0]
        ).final.layers
        change = [
            a - b
            for a, b in zip(
                reference.conserved([w[0] for w in layers]),
                reference.conserved([w[0] for w in weights.layers]),
                strict=True,
            )
        ]
        whole = max(np.abs(c).max() for c in change)
        return whole, max(np.abs(np.diag(c)).max() for c in change)

    for name, conserved in (("linear", (True, True)), ("relu", (False, True)), ("leaky_relu", (False, True))):
        for coarse, fine, holds in zip(drift(name, 0.01), drift(name, 0.001), conserved, strict=True):
            if holds:
                assert fine < 0.15 * coarse
            else:
                assert fine > 0.8 * coarse
    assert drift("tanh", 0.001)[1] > 1e-3


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hidden_units_may_change_places(name) -> None:
    widths = (4, 9, 7, 3)
    x, y = data(widths, 20)
    a, b, c = starts(widths, 4).layers
    p, q = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(7)
    first = train(x, y, dln.Weights([a, b, c]), activation=name, steps=50)
    other = train(x, y, dln.Weights([a[:, p], b[:, q][:, :, p], c[:, :, q]]), activation=name, steps=50)
    np.testing.assert_allclose(first.loss, other.loss, rtol=1e-12)
    np.testing.assert_allclose(first.final.layers[1][:, q][:, :, p], other.final.layers[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_odd_nonlinearities_see_no_sign_of_the_samples(name) -> None:
    x, y = data((4, 6, 3), 10)
    weights = starts((4, 6, 3), 3)
    a, b = train(x, y, weights, activation=name), train(-x, -y, weights, activation=name)
    assert np.array_equal(a.loss, b.loss) == activation(name).odd


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_a_unit_of_relu_may_be_rescaled(name) -> None:
    x, y = data((4, 6, 3), 10)
    a, b = starts((4, 6, 3), 3).layers
    r = np.array([0.5, 2, 4, 0.25, 1, 8])  # exact in binary
    one, other = (
        dln.train_nonlinear(x, y, dln.Weights(w), activation=name, lr=1, steps=0)
        for w in ([a, b], [a * r[:, None], b / r])
    )
    assert np.array_equal(one.loss, other.loss)


def test_small_steps_never_raise_the_loss() -> None:
    x, y = data((4, 8, 8, 3), 15)
    for name in ACTIVATIONS:
        loss = train(x, y, starts((4, 8, 8, 3), 4), activation=name, lr=0.01, steps=300).loss
        assert np.all(np.diff(loss, axis=1) < 0), name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_autograd(name) -> None:
    torch = pytest.importorskip("torch")
    functions = {
        "linear": lambda z: z,
        "tanh": torch.tanh,
        "erf": torch.erf,
        "relu": torch.relu,
        "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.01),
        "gelu": torch.nn.functional.gelu,
        "softplus": torch.nn.functional.softplus,
    }
    widths = (7, 20, 13, 5)
    x, y = data(widths, 40)
    weights = starts(widths, 3)
    run = train(x, y, weights, activation=name, lr=0.1, steps=20)
    layers = [torch.tensor(np.array(w), requires_grad=True) for w in weights.layers]
    for step in range(21):
        h = torch.tensor(x)
        for w in layers[:-1]:
            h = functions[name](h @ w.mT)
        loss = ((torch.tensor(y) - h @ layers[-1].mT) ** 2).sum(dim=(1, 2)) / (2 * len(x))
        np.testing.assert_allclose(run.loss[:, step], loss.detach().numpy(), rtol=1e-10)
        if step < 20:
            for w, g in zip(layers, torch.autograd.grad(loss.sum(), layers), strict=True):
                w.data -= 0.1 * g
    for a, b in zip(run.final.layers, layers, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=1e-10)


# ---- elementary functions -----------------------------------------------------------------------------------------


def normal(x):
    """Its distribution function, where mpmath's has no trouble."""
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2 if abs(x) < 100 else mpmath.mpf(x > 0)


EXACT = {
    "tanh": (mpmath.tanh, lambda x: mpmath.sech(x) ** 2),
    "erf": (mpmath.erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), lambda x: 1 / (1 + mpmath.exp(-x))),
    "gelu": (lambda x: x * normal(x), lambda x: normal(x) + x * mpmath.npdf(x)),
}


def arguments(dtype):
    """Of every size and sign."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    far = 40 if dtype == np.float64 else 15
    sizes = np.concatenate(
        [
            np.geomspace(info.tiny, 1, 200),
            np.linspace(0, 3, 400),
            rng.uniform(0, far, 300),
            10 ** rng.uniform(-6, 1, 400),
            [0, 700, 1e4, info.max],
        ]
    )
    return np.concatenate([sizes, -sizes]).astype(dtype)


def applied(name, x, isa):
    value, slope = np.empty_like(x), np.empty_like(x)
    call = backend.core.activate_f64 if x.dtype == np.float64 else backend.core.activate_f32
    call(ACTIVATIONS.index(name), x, value, slope, isa)
    return value, slope


def units_off(got, exact, sizes, dtype):
    """Error in units of the last place of the size, of the least normal number below that."""
    info = np.finfo(dtype)
    worst = mpmath.mpf(0)
    for g, e, size in zip(got, exact, sizes, strict=True):
        size = max(size, mpmath.mpf(float(info.tiny)))
        unit = mpmath.mpf(2) ** (mpmath.floor(mpmath.log(size, 2)) - info.nmant)
        worst = max(worst, abs(mpmath.mpf(float(g)) - e) / unit)
    return float(worst)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_functions_to_units_of_the_last_place(name, dtype) -> None:
    """Values to two units in the last place, derivatives to five; that of gelu has a zero, where two terms cancel.

    softplus is off by up to three. gelu is a product of four factors where it is small, and off by up to four units,
    six without fused multiply-adds.
    """
    x = arguments(dtype)
    with mpmath.workdps(50):
        points = [mpmath.mpf(float(v)) for v in x]
        value, slope = ([f(v) for v in points] for f in EXACT[name])
        sizes = [abs(v) for v in slope]
        if name == "gelu":  # and e^(-x²/2), which is multiplied by x <= 40, ends where normal numbers do
            least = 40 * mpmath.mpf(float(np.finfo(dtype).tiny))
            sizes = [max(normal(v) + abs(v) * mpmath.npdf(v), least) for v in points]
        for isa in backend.available_isas():
            got = applied(name, x, isa)
            units = {"gelu": 4 if isa in ("avx2", "avx512") else 6, "softplus": 3}.get(name, 2)
            assert units_off(got[0], value, [abs(v) for v in value], dtype) <= units, isa
            assert units_off(got[1], slope, sizes, dtype) <= 5, isa


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no wider numbers to compare with here")
def test_tanh_of_a_million_numbers() -> None:
    """The largest errors lie in narrow ranges: where the points above found 1.9 units, there were 2.2 about 0.2."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(0, 1, 900_000), 10 ** rng.uniform(-4, 1.5, 100_000)])
    exact = np.tanh(x.astype(np.longdouble))
    unit = np.spacing(np.nextafter(exact.astype(float), 0))
    for isa in backend.available_isas():
        value, _ = applied("tanh", x, isa)
        assert np.abs((value - exact) / unit).max() <= (2 if isa in ("avx2", "avx512") else 2.1), isa


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none(name, dtype) -> None:
    x = np.array([np.nan, 1.0], dtype=dtype)
    for isa in backend.available_isas():
        value, _ = applied(name, x, isa)
        assert np.isnan(value[0])
        assert np.isfinite(value[1])


# ---- members by themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("widths", [(4, 7, 3), (9, 70, 40, 2)])
def test_a_member_does_not_depend_on_its_company(widths, size) -> None:
    x, y = data(widths, 60)
    members = 21
    weights, lr = starts(widths, members), np.linspace(0.01, 0.2, members)
    more = {"steps": 45, "record": RECORDS[:1] + RECORDS[2:], "batch_size": size, "record_every": 7}
    whole = train(x, y, weights, lr=lr, n_threads=1, **more)
    for layout in ("interleaved", "rows"):
        with backend.forced(layout=layout):
            same_bits(whole, train(x, y, weights, lr=lr, n_threads=3, **more))
    for members_of in ([0], [20], [3, 4, 5, 11, 12, 13, 14, 15, 16, 17]):
        # Minibatches follow the number of a member, which a slice must name.
        if size and len(members_of) > 1:
            continue
        part = train(x, y, weights[members_of], lr=lr[members_of], first=members_of[0] if size else 0, **more)
        same_bits(whole[members_of], part)


def test_one_member_that_diverges_spoils_no_other() -> None:
    x, y = data((4, 6, 3), 10)
    weights = starts((4, 6, 3), 12)
    lr = np.full(12, 0.05)
    lr[5] = 1e3
    for size in (None, 4):
        more = {"activation": "relu", "steps": 200, "batch_size": size, "record_every": 10}
        with pytest.raises(
            dln.IntegrationError, match=r"1 of 12 members diverged \(member 5; the first at step"
        ) as caught:
            train(x, y, weights, lr=lr, **more)
        run = train(x, y, weights, lr=lr, throw=False, **more)
        same_bits(run, caught.value.trajectory)
        assert run.status[5] == dln.Status.DIVERGED
        assert run.stopped_step[5] < 200
        others = np.arange(12) != 5
        assert np.all(run.status[others] == dln.Status.COMPLETED)
        calm = train(x, y, weights, lr=0.05, **more)
        np.testing.assert_array_equal(run.loss[others], calm.loss[others])


def test_ctrl_c_keeps_what_there_is() -> None:
    x, y = data((8, 16, 16, 4), 50)
    weights = starts((8, 16, 16, 4), 64)

    for layout, size in itertools.product(("interleaved", "rows"), (None, 7)):
        with (
            backend.forced(layout=layout),
            pytest.raises(dln.Interrupted, match="of 64 members are complete") as caught,
        ):
            dln.train_nonlinear(
                x,
                y,
                weights,
                lr=1e-4,
                steps=10**8,
                record="loss",
                at=[0, 10**8],
                batch_size=size,
                n_threads=2,
                progress=press_midway,
            )
        run = caught.value.trajectory
        begun = (run.status == dln.Status.INTERRUPTED) & (run.stopped_step > 0)
        assert begun.any()
        member = int(np.flatnonzero(begun)[0])
        steps = int(run.stopped_step[member])
        again = dln.train_nonlinear(
            x, y, weights[member], lr=1e-4, steps=steps, record=(), batch_size=size, first=member
        )
        for a, b in zip(run.final.layers, again.final.layers, strict=True):
            np.testing.assert_array_equal(a[member], b[0])


def test_progress_counts_the_steps_of_all_members() -> None:
    x, y = data((4, 16, 3), 50)
    seen = []
    train(
        x,
        y,
        starts((4, 16, 3), 9),
        steps=500,
        record_every=500,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (4500, 4500)


# ---- results and mistakes -------------------------------------------------------------------------------------------


def test_what_the_trajectory_says() -> None:
    x, y = data((4, 6, 3), 10)
    run = train(x, y, starts((4, 6, 3), 2), activation="erf", batch_size=5, lr=[0.1, 0.2])
    assert run.source == "train_nonlinear"
    assert run.settings["activation"] == "erf"
    assert (run.settings["batch_size"], run.settings["samples"], run.settings["normalize"]) == (5, 10, "mean")
    np.testing.assert_array_equal(run.t, np.outer([0.1, 0.2], np.arange(9)))
    assert "train_nonlinear" in run.summary()


def test_modes_of_a_task() -> None:
    """Strengths are read in the modes that are given."""
    x, y = data((4, 6, 3), 10)
    task = dln.Task.from_data(x, y)
    turned = dln.Modes(task.modes.U[:, ::-1], task.modes.s[::-1], task.modes.V[:, ::-1])
    a, b, c = (
        train(x, y, starts((4, 6, 3), 2), record="strengths", modes=modes) for modes in (None, task.modes, turned)
    )
    np.testing.assert_allclose(a.strengths, b.strengths, rtol=0, atol=1e-14)
    np.testing.assert_allclose(a.strengths, c.strengths[..., ::-1], rtol=0, atol=1e-14)
    few = dln.Modes(task.modes.U[:, :1], task.modes.s[:1], task.modes.V[:, :1])
    assert train(x, y, starts((4, 6, 3), 2), record="strengths", modes=few).strengths.shape == (2, 9, 1)


def test_no_steps() -> None:
    x, y = data((4, 6, 3), 10)
    weights = starts((4, 6, 3), 2)
    run = dln.train_nonlinear(x, y, weights, lr=0.1, steps=0)
    assert run.loss.shape == (2, 1)
    for a, b in zip(run.final.layers, weights.layers, strict=True):
        np.testing.assert_array_equal(a, b)


X, Y = data((4, 6, 3), 10)
W = starts((4, 6, 3), 2)
MISTAKES = [
    ({"activation": "swish"}, ValueError, "activation: expected one of 'linear', 'tanh', .*, got 'swish'"),
    ({"activation": None}, ValueError, "activation: expected one of"),
    ({"weights": [np.ones((6, 4))]}, TypeError, "weights: expected pydln.Weights, got list"),
    (
        {"x": X[:, :3]},
        ValueError,
        r"x: expected \(samples, 4\) or \(batch, samples, 4\) for the 4 inputs .* got \(10, 3\)",
    ),
    ({"x": X[0]}, ValueError, r"x: expected \(samples, 4\)"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, r"x: expected \(samples, 4\) .* got \(0, 4\)"),
    ({"y": Y[:, :2]}, ValueError, r"y: expected \(samples, 3\) .* 3 outputs"),
    ({"y": Y[:9]}, ValueError, "y: expected 10 samples like x, got 9"),
    ({"x": X * np.nan}, ValueError, "x: expected finite numbers"),
    ({"x": "data"}, TypeError, "x: expected real numbers"),
    ({"x": np.stack([X] * 3)}, ValueError, "x: expected 1 or 2 members like weights, got 3"),
    ({"x": X * 1e300, "weights": W.astype(np.float32)}, ValueError, "x: expected numbers within the range of float32"),
    ({"x": X * 1e200, "y": Y * 1e200}, ValueError, "x, y: expected numbers whose products fit in float64"),
    ({"lr": 0}, ValueError, "lr: expected a number > 0, got 0"),
    ({"lr": [0.1, 0.2, 0.3]}, ValueError, "lr: expected 1 or 2 members like weights, got 3"),
    ({"steps": -1}, ValueError, "steps: expected an integer >= 0, got -1"),
    ({"steps": 1.5}, TypeError, "steps: expected an integer, got 1.5"),
    (
        {"record": "product"},
        ValueError,
        "record: expected names out of loss, .* got product, which is defined for linear",
    ),
    ({"record": "test_loss"}, ValueError, "record: expected x_test and y_test for test_loss, got none"),
    ({"x_test": X}, ValueError, "y_test: expected an array to go with x_test, got None"),
    ({"y_test": Y}, ValueError, "x_test: expected an array to go with y_test, got None"),
    ({"x_test": X, "y_test": Y[:3]}, ValueError, "y_test: expected 10 samples like x_test, got 3"),
    ({"normalize": "average"}, ValueError, "normalize: expected one of 'mean', 'sum', got 'average'"),
    ({"modes": (1, 2, 3)}, TypeError, "modes: expected pydln.Modes, such as those of a task, got tuple"),
    ({"modes": dln.Modes(np.eye(4), np.ones(3), np.eye(4))}, ValueError, r"modes.U: expected \(3, modes\)"),
    ({"modes": dln.Modes(np.eye(3), np.ones(3), np.eye(3))}, ValueError, r"modes.V: expected \(4, modes\)"),
    (
        {"modes": dln.Modes(np.eye(3), np.ones(3), np.eye(4))},
        ValueError,
        "modes.V: expected 3 modes like modes.U, got 4",
    ),
    ({"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0"),
    ({"batch_size": 2.5}, TypeError, "batch_size: expected an integer, got 2.5"),
    (
        {"batch_size": 11, "replace": False},
        ValueError,
        "batch_size: expected at most the 10 samples without replacement, got 11",
    ),
    ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
    ({"seed": 2**64}, ValueError, "seed: expected an integer <= 18446744073709551615"),
    ({"first": 2**32}, ValueError, "first: expected an integer <= 4294967294, got 4294967296"),
    ({"replace": 1}, TypeError, "replace: expected True or False, got 1"),
    ({"stop": 0.1}, TypeError, "stop: expected pydln.Stop"),
    ({"stop": dln.Stop(strengths=[1.0])}, ValueError, r"stop.strengths: expected a number, \(3,\) or \(batch, 3\)"),
    ({"at": [3, 2]}, ValueError, "at: expected increasing whole steps"),
    ({"record_every": 0}, ValueError, "record_every: expected an integer >= 1, got 0"),
    ({"n_threads": 0}, ValueError, "n_threads: expected an integer >= 1, got 0"),
    ({"progress": 1}, TypeError, "progress: expected True, False or a callable, got int"),
    (
        {"steps": 10**12, "record_every": 1},
        ValueError,
        "record: loss, strengths of 2 members at 1000000000001 times needs",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(wrong, kind, message) -> None:
    given = {"x": X, "y": Y, "weights": W, "lr": 0.1, "steps": 3, **wrong}
    with pytest.raises(kind, match=message):
        dln.train_nonlinear(**given)


def test_the_border_of_the_extension_checks_what_it_is_given() -> None:
    core = backend.core
    x = np.zeros(3)
    with pytest.raises(ValueError, match="activation: expected one that the kernel knows"):
        core.activate_f64(7, x, x.copy(), x.copy(), backend.isa())
    with pytest.raises(TypeError, match="value: expected a C-contiguous array of float64"):
        core.activate_f64(1, x, x.astype(np.float32), x.copy(), backend.isa())
