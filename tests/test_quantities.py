"""Every quantity is its definition, whoever records it: entering one in `QUANTITIES` tests it here."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from ensembles import KERNELS, some_task, starts

import pydln as dln
from pydln import exact
from pydln._base import backend
from pydln.quantities import QUANTITIES, Sizes, State

LAYERED = tuple(QUANTITIES)
MAPPED = tuple(name for name, one in QUANTITIES.items() if one.of == "map")
ANY_NETWORK = tuple(name for name, one in QUANTITIES.items() if one.any_network)
TIMES = np.array([0.0, 0.4, 1.5])
MAP = 0.4 * np.random.default_rng(2).normal(size=(3, 4))


def arrays(value):
    return list(value) if isinstance(value, list | tuple) else [value]


def member(task: dln.Task, i: int) -> dln.Task:
    return task if task.batch is None else task[i if task.batch > 1 else 0]


def assert_is_the_definition(run: dln.Trajectory, task: dln.Task, name: str, tol: float) -> None:
    """What `run` recorded under `name` is the definition on the weights that it recorded, member by member."""
    for i in range(run.batch):
        for k in range(run.t.shape[-1]):
            state = State(
                member(task, i),
                np.zeros(1, dtype=np.int64),
                layers=[w[i, k][None].astype(np.float64) for w in run.weights],
                start=[w[i, 0][None].astype(np.float64) for w in run.weights],
            )
            for got, wanted in zip(arrays(getattr(run, name)), arrays(QUANTITIES[name].define(state)), strict=True):
                assert got.shape[2:] == wanted.shape[1:], name
                scale = max(1.0, np.abs(wanted).max(initial=0.0))
                np.testing.assert_allclose(got[i, k], wanted[0], rtol=0, atol=tol * scale, err_msg=f"{name} {i} {k}")


def tolerance(dtype) -> float:
    return 1e-9 if dtype == np.float64 else 2e-3


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("widths", [(4, 5, 3), (3, 4), (4, 3, 6, 2)], ids=str)
def test_definitions(widths, name) -> None:
    """The definitions themselves, against plain NumPy for one network."""
    for whiten in (True, False):
        task = some_task(widths[0], widths[-1], whiten=whiten)
        now, start = (starts(widths, 3, seed=seed, scale=0.7) for seed in (0, 1))
        state = State(task, np.arange(3), layers=list(now.layers), start=list(start.layers))
        found = QUANTITIES[name].define(state)
        for i in range(3):
            wanted = reference.quantity(name, [w[i] for w in now.layers], [w[i] for w in start.layers], task)
            for a, b in zip(arrays(found), wanted if name == "weights" else [wanted], strict=True):
                b = np.reshape(b, a[i].shape)
                np.testing.assert_allclose(a[i], b, rtol=1e-8, atol=1e-8 if name == "sharpness" else 1e-10)
        for shape, a in zip(QUANTITIES[name].shapes(Sizes(widths, task.modes.s.size)), arrays(found), strict=True):
            assert a.shape[1:] == shape
            assert name == "weights" or len(QUANTITIES[name].axes) == len(shape)


CASES = {  # reduction: start
    "none": lambda task, dtype: starts((6, 7, 5, 4), 2, dtype=dtype, scale=0.6),
    "inputs": lambda task, dtype: starts((6, 7, 5, 4), 2, dtype=dtype, scale=0.6),
    "width": lambda task, dtype: dln.init.orthogonal((6, 20, 20, 4), scale=0.7, seed=1, batch=2, dtype=dtype),
    "decoupled": lambda task, dtype: dln.init.aligned(task, depth=3, width=9, strength=0.2, batch=2, dtype=dtype),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("reduce", CASES)
@pytest.mark.parametrize("verb", ["descent", "flow"])
def test_of_reduced_networks(verb, reduce, dtype) -> None:
    white = reduce == "decoupled"
    task = some_task(6, 4, whiten=white)
    weights = CASES[reduce](task, dtype)
    names = [name for name in LAYERED if not (QUANTITIES[name].unreduced and reduce != "none")]
    for isa, layout in KERNELS if reduce == "none" else [(None, None)]:
        with backend.forced(**({} if isa is None else {"isa": isa, "layout": layout})):
            if verb == "descent":
                run = dln.gradient_descent(task, weights, lr=0.05, steps=24, at=[0, 7, 24], record=names, reduce=reduce)
            else:
                run = dln.gradient_flow(task, weights, TIMES, record=names, reduce=reduce)
        assert run.reduced == ((() if reduce == "none" else (reduce,)),) * 2
        for name in names:
            assert_is_the_definition(run, task, name, tolerance(dtype))


def test_alone_or_in_parts_no_bit_is_another(monkeypatch) -> None:
    from pydln.simulate.loop import Loop

    task = some_task(5, 3, whiten=False)
    weights = starts((5, 6, 3), 40, scale=0.6)
    names = [name for name in LAYERED if name not in ("sharpness",)]
    whole = dln.gradient_descent(task, weights, lr=0.05, steps=20, record_every=10, record=names, n_threads=2)
    monkeypatch.setattr(Loop, "temporary", 1)
    for name in names:
        parts = dln.gradient_descent(task, weights, lr=0.05, steps=20, record_every=10, record=name, n_threads=1)
        alone = dln.gradient_descent(task, weights[7], lr=0.05, steps=20, record_every=10, record=name)
        for a, b, c in zip(*(arrays(getattr(run, name)) for run in (whole, parts, alone)), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
            np.testing.assert_array_equal(a[7], c[0], err_msg=name)


SOLUTIONS = {
    "one layer": lambda: (some_task(4, 3, whiten=False), starts((4, 3), 2, scale=0.5)),
    "aligned, two layers": lambda: (
        task := some_task(4, 3, whiten=True),
        dln.init.aligned(task, depth=2, width=5, layer_strengths=[0.3, 0.5]),
    ),
    "balanced, two layers": lambda: (
        some_task(4, 3, whiten=True),
        dln.init.lambda_balanced(MAP, imbalance=0.0, width=3),
    ),
    "aligned and balanced": lambda: (
        task := some_task(4, 3, whiten=True),
        dln.init.aligned(task, depth=4, width=5, strength=[[0.1, 0.2, 0.3]]),
    ),
}


@pytest.mark.parametrize("which", SOLUTIONS)
def test_of_exact_solutions(which) -> None:
    task, weights = SOLUTIONS[which]()
    solution = exact.solve(task, weights)
    assert solution.name == which
    run = solution.evaluate(TIMES, record=LAYERED)
    for name in LAYERED:
        assert_is_the_definition(run, task, name, 1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_of_networks_with_a_nonlinearity(dtype) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    weights = starts((4, 6, 5, 3), 2, dtype=dtype, scale=0.7)
    run = dln.train_nonlinear(x, y, weights, lr=0.05, steps=12, at=[0, 12], record=ANY_NETWORK)
    for name in ANY_NETWORK:
        assert_is_the_definition(run, dln.Task.from_data(x, y), name, tolerance(dtype))
    for name in set(LAYERED) - {*ANY_NETWORK, "loss", "test_loss", "strengths"}:
        with pytest.raises(ValueError, match=f"got {name}, which is defined for linear networks"):
            dln.train_nonlinear(x, y, weights, lr=0.05, steps=12, record=name)


@pytest.mark.parametrize("depth", [1, 2, 3.5])
def test_of_the_map_alone(depth) -> None:
    task = some_task(4, 3, whiten=False)
    omega = 0.3 * np.random.default_rng(0).normal(size=(2, 3, 4))
    run = dln.end_to_end_flow(task, omega, TIMES, depth=depth, record=MAPPED)
    for name in MAPPED:
        for i in range(2):
            state = State(task, np.zeros(len(TIMES), dtype=np.int64), omega=run.product[i])
            np.testing.assert_allclose(getattr(run, name)[i], QUANTITIES[name].define(state), rtol=1e-12, atol=1e-14)
    for name in set(LAYERED) - set(MAPPED):
        with pytest.raises(ValueError, match=f"got {name}, which belongs to layers"):
            dln.end_to_end_flow(task, omega, TIMES, depth=depth, record=name)


def test_known_values() -> None:
    """On an aligned, balanced network that has learned its task: σ = s, aligned, and the sharpness D s^(2 - 2/D)."""
    s = np.array([3.0, 2.0, 1.0])
    task = dln.Task.from_spectrum(s, 5, 4, seed=0)
    for depth in (2, 3, 4):
        weights = dln.init.aligned(task, depth=depth, width=6, strength=[s])
        run = exact.solve(task, weights).evaluate([0.0], record=LAYERED[:1] + LAYERED[2:])
        np.testing.assert_allclose(run.singular_values[0, 0], [*s, 0.0], atol=1e-12)
        np.testing.assert_allclose(run.alignment[0, 0], 1.0, rtol=1e-12)
        np.testing.assert_allclose(run.balance, 0.0, atol=1e-12)
        assert run.sharpness[0, 0] == pytest.approx(depth * s[0] ** (2 - 2 / depth), rel=1e-10)
        p = s / s.sum()
        assert run.effective_rank[0, 0] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)
    nothing = dln.gradient_flow(
        task, dln.Weights([np.zeros((6, 5)), np.zeros((4, 6))]), [0.0], record=LAYERED[:1] + LAYERED[2:]
    )
    for name in ("singular_values", "effective_rank", "alignment", "kernel_alignment"):
        assert (getattr(nothing, name) == 0).all(), name
    assert nothing.sharpness[0, 0] == pytest.approx(s[0], rel=1e-9)  # of [[0, s], [s, 0]]


# ---- functions of the user's own -----------------------------------------------------------------------
def overlap(weights: dln.Weights, task: dln.Task):
    """Something for every member, of two numbers."""
    omega = weights.product()
    target = task.sigma_yx
    return np.stack([(omega * target).sum(axis=(1, 2)), weights.layers[0].sum(axis=(1, 2))], axis=-1)


@pytest.mark.parametrize("own_tasks", [False, True])
def test_a_function_of_ones_own_in_every_verb(own_tasks) -> None:
    task = (
        dln.Task.stack([some_task(4, 3, whiten=True, seed=i) for i in range(3)])
        if own_tasks
        else some_task(4, 3, whiten=True)
    )
    weights = starts((4, 6, 3), 3, scale=0.4)
    record = ["weights", {"overlap": overlap}]
    runs = [
        dln.gradient_descent(task, weights, lr=0.1, steps=9, record_every=3, record=record),
        dln.gradient_flow(task, weights, TIMES, record=record),
        exact.solve(task, dln.init.lambda_balanced(MAP, imbalance=0.0, batch=3)).evaluate(TIMES, record=record),
    ]
    for run in runs:
        assert run.names == ("weights", "overlap")
        assert run.overlap.shape == (3, len(run.t), 2)
        for i in range(3):
            for k in range(len(run.t)):
                wanted = overlap(dln.Weights([w[i, k] for w in run.weights]), member(task, i))
                np.testing.assert_allclose(run.overlap[i, k], wanted[0], rtol=1e-12, atol=1e-13)
    alone = dln.gradient_descent(task, weights, lr=0.1, steps=9, record_every=3, record={"overlap": overlap})
    np.testing.assert_array_equal(alone.overlap, runs[0].overlap)
    assert alone.names == ("overlap",)


def test_functions_survive_files_and_picking(tmp_path) -> None:
    task = some_task(4, 3, whiten=True)
    run = dln.gradient_descent(task, starts((4, 3), 2), lr=0.1, steps=2, record=["loss", {"mine": overlap}])
    back = dln.Trajectory.load(run.save(tmp_path / "run"))
    np.testing.assert_array_equal(back.mine, run.mine)
    np.testing.assert_array_equal(run[1].mine[0], run.mine[1])
    pytest.importorskip("xarray")
    assert run.to_xarray().mine.dims == ("batch", "t", "mine_1")


@pytest.mark.parametrize(
    ("record", "kind", "message"),
    [
        ({"loss": overlap}, ValueError, "record: expected names that nothing else has for functions, got 'loss'"),
        ({"batch": overlap}, ValueError, "got 'batch'"),
        ({"a b": overlap}, ValueError, "got 'a b'"),
        ({"_x": overlap}, ValueError, "got '_x'"),
        ({1: overlap}, ValueError, "got 1"),
        ({"x": 3}, TypeError, r"record\['x'\]: expected a function of \(weights, task\), got 3"),
        ({"x": lambda w, t: "text"}, TypeError, r"record\['x'\]: expected a function that gives numbers"),
        ({"x": lambda w, t: 1.0}, ValueError, r"record\['x'\]: expected a function that gives \(1, ...\)"),
        ({"x": lambda w, t: np.zeros(2)}, ValueError, r"gives \(1, ...\) for 1 member, got \(2,\)"),
        (3, TypeError, "record: expected names out of"),
        (["loss", 3], ValueError, "record: expected one of"),
    ],
)
def test_mistakes_are_named_before_any_work(record, kind, message, monkeypatch) -> None:
    monkeypatch.setattr(backend.core, "descent_f64", lambda **_: pytest.fail("work was done"))
    with pytest.raises(kind, match=message):
        dln.gradient_descent(some_task(4, 3, whiten=True), starts((4, 3), 2), lr=0.1, steps=2, record=record)


def test_a_function_that_depends_on_company_is_found_out() -> None:
    def first(weights, task):
        return np.zeros((1, 2)) if weights.batch == 1 else np.zeros(weights.batch)

    with pytest.raises(
        ValueError, match=r"record\['x'\]: expected a function that gives \(2, 2\) for 2 members, got \(2,\)"
    ):
        dln.gradient_descent(some_task(4, 3, whiten=True), starts((4, 3), 2), lr=0.1, steps=2, record={"x": first})


def test_members_that_diverge_have_no_number_there() -> None:
    task = some_task(4, 3, whiten=True)
    run = dln.gradient_descent(
        task,
        starts((4, 6, 3), 2),
        lr=[0.05, 30.0],
        steps=40,
        record_every=1,
        record=["singular_values", {"mine": overlap}],
        throw=False,
    )
    assert run.status.tolist() == [dln.Status.COMPLETED, dln.Status.DIVERGED]
    assert np.isfinite(run.singular_values[0]).all()
    assert np.isnan(run.singular_values[1, -1]).all()
    assert np.isnan(run.mine[1, -1]).all()


@pytest.mark.parametrize(
    ("verb", "names"),
    [(dln.gradient_descent, LAYERED), (dln.train_nonlinear, ANY_NETWORK), (dln.end_to_end_flow, MAPPED)],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_every_quantity_is_in_the_docstring_of_the_verb(verb, names) -> None:
    assert [name for name in names if f"``{name}``" not in verb.__doc__] == []
