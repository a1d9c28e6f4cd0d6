"""Exact solutions beside the equation they solve and beside simulations; what they need of a start, as a table."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from test_exact import whitened
from test_exact_matrix import balanced_start

import pydln as dln
from pydln.exact import SOLUTIONS, candidates, compare, solve
from pydln.exact.start import Start

TASK = dln.Task.from_spectrum([2.0, 1.0, 0.5], 4, 3, seed=0, trace_yy=9.0)
STARTS = {
    "one layer": dln.init.gaussian((4, 3), seed=1),
    "aligned, two layers": dln.init.aligned(TASK, depth=2, width=3, layer_strengths=[[0.1, 0.5, 0.2], [0.4, 0.1, 0.2]]),
    "balanced, two layers": dln.Weights(balanced_start((4, 2, 3), 0.5, 0.4, 1)),
    "aligned and balanced": dln.init.aligned(TASK, depth=4, width=3, strength=[[0.3, 0.2, 0.1]]),
}


def test_there_is_a_start_for_every_solution() -> None:
    assert set(STARTS) == {solution.name for solution in SOLUTIONS}


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_satisfies_its_equation(name, monkeypatch) -> None:
    solution = solve(TASK, STARTS[name])
    assert solution.name == name
    t = [0.0, 0.3, 1.0, 4.0]
    assert solution.residual(t).shape == (1, 4)
    assert solution.residual(t).max() < 1e-9
    # A solution that runs late by a thousandth is found out.
    right = solution.records
    monkeypatch.setattr(solution, "records", lambda t, names: right(0.999 * t, names))
    assert solution.residual([0.3, 1.0]).max() > 1e-5


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_begins_at_its_start_and_is_the_integrated_flow(name) -> None:
    weights, t = STARTS[name], np.array([0.0, 0.4, 1.5, 5.0])
    record = ("loss", "strengths", "product", "layer_norms", "kernel_distance", "weights")
    exact = solve(TASK, weights).evaluate(t, record=record)
    flow = dln.gradient_flow(TASK, weights, t, record=record, method="dop853", rtol=1e-13, reduce="none")
    for start, w in zip(weights.layers, exact.weights, strict=True):
        np.testing.assert_allclose(w[0, 0], start[0], atol=1e-13)
    for w, integrated in zip(exact.weights, flow.weights, strict=True):
        np.testing.assert_allclose(w, integrated, atol=1e-10)
    for quantity in record[:-1]:
        np.testing.assert_allclose(getattr(exact, quantity), getattr(flow, quantity), atol=1e-10, err_msg=quantity)


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_goes_on_from_where_it_is(name) -> None:
    there = solve(TASK, STARTS[name]).evaluate([0.8, 2.3], record=("weights", "product"))
    onward = solve(TASK, dln.Weights([w[:, 0] for w in there.weights]), tol=1e-9)
    assert onward.name == name
    np.testing.assert_allclose(onward.evaluate([1.5], record="product").product[0, 0], there.product[0, 1], atol=1e-10)


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_turns_with_its_task_and_ignores_turns_of_hidden_layers(name) -> None:
    rng = np.random.default_rng(2)
    weights = STARTS[name]
    R = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in weights.widths]
    turned_task = dln.Task.from_covariances(None, R[-1] @ TASK.sigma_yx @ R[0].T, TASK.trace_yy)
    turned = dln.Weights([b @ w @ a.T for w, a, b in zip(weights.layers, R, R[1:], strict=False)])
    t, record = [0.0, 0.7, 3.0], ("product", "loss", "strengths", "layer_norms", "kernel_distance")
    run = solve(TASK, weights).evaluate(t, record=record)
    other = solve(turned_task, turned).evaluate(t, record=record)
    assert other.source == run.source
    np.testing.assert_allclose(other.product, R[-1] @ run.product @ R[0].T, atol=1e-13)
    for unchanged in ("loss", "strengths", "layer_norms", "kernel_distance"):
        np.testing.assert_allclose(getattr(other, unchanged), getattr(run, unchanged), atol=1e-13)


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_ends_at_a_minimum_it_can_reach(name) -> None:
    last = solve(TASK, STARTS[name]).evaluate([500.0], record=("loss", "strengths"))
    reached = min(*STARTS[name].widths, 3)
    np.testing.assert_allclose(last.strengths[0, 0, :reached], TASK.modes.s[:reached], atol=1e-12)
    assert last.loss[0, 0] == pytest.approx(TASK.floor + 0.5 * np.sum(TASK.modes.s[reached:] ** 2), rel=1e-12)


@pytest.mark.parametrize("name", STARTS)
def test_every_solution_bears_starts_in_float32(name) -> None:
    rounded = dln.Weights([w.astype(np.float32) for w in STARTS[name].layers])
    t = [0.0, 1.0, 5.0]
    run, other = (solve(TASK, w).evaluate(t, record="product") for w in (STARTS[name], rounded))
    assert other.source == run.source
    np.testing.assert_allclose(other.product, run.product, atol=1e-5)


def test_the_residual_of_several_members_and_general_inputs() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4))
    tasks = [dln.Task.from_data(x[:, :], x @ np.random.default_rng(k).normal(size=(4, 3))) for k in range(2)]
    task = dln.Task.from_covariances(
        np.stack([t.sigma_xx for t in tasks]), np.stack([t.sigma_yx for t in tasks]), [t.trace_yy for t in tasks]
    )
    found = solve(task, dln.init.gaussian((4, 3), seed=1)).residual([0.0, 1.0, 2.0])
    assert found.shape == (2, 3)
    assert found.max() < 1e-9


@pytest.mark.parametrize("name", STARTS)
def test_a_simulation_beside_its_solution(name) -> None:
    solution, found = solve(TASK, STARTS[name]), []
    for lr in (2e-3, 1e-3):
        record = ("loss", "strengths", "drift", "weights")
        run = dln.gradient_descent(TASK, STARTS[name], lr=lr, steps=round(3 / lr), record=record)
        one = compare(run, solution)
        assert tuple(one.deviations) == run.names
        assert one.exact.names == run.names
        np.testing.assert_array_equal(
            one.deviations["loss"], np.abs(run.loss - solution.evaluate(run.t).loss).max(axis=1)
        )
        np.testing.assert_allclose(one.gap, one.deviations["strengths"] / 2)
        assert name in str(one)
        found.append([one.gap[0], one.deviations["weights"][0], one.drift[0]])
    coarse, fine = np.array(found)
    several = 2 if name != "one layer" else 1  # one layer conserves nothing
    np.testing.assert_allclose((coarse / np.where(fine == 0, 1, fine))[: several + 1][:2], 2, rtol=0.05)
    if name in ("aligned, two layers", "balanced, two layers"):
        assert coarse[2] / fine[2] == pytest.approx(2, rel=0.1)


def test_comparing_many_members_and_stopped_ones() -> None:
    weights = dln.init.aligned(TASK, depth=2, width=3, strength=[[0.1] * 3, [0.2] * 3, [0.3] * 3])
    run = dln.gradient_descent(TASK, weights, lr=1e-3, steps=9000, stop=dln.Stop(strengths=[1.9, np.nan, np.nan]))
    assert len(set(run.stopped_step.tolist())) == 3
    found = compare(run, solve(TASK, weights))
    assert found.gap.shape == (3,)
    assert (found.gap < 2e-3).all()
    without = dln.gradient_descent(TASK, weights, lr=1e-3, steps=10, record="loss")
    assert compare(without, solve(TASK, weights)).gap is None
    with pytest.raises(ValueError, match="solution: expected 1 or 3 members like the run, got 2"):
        compare(run, solve(TASK, weights[:2]))
    with pytest.raises(TypeError, match=r"run: expected a .*Trajectory"):
        compare(weights, solve(TASK, weights))


def test_the_table_of_candidates() -> None:
    found = candidates(TASK, STARTS["balanced, two layers"])
    assert [c.name for c in found] == [solution.name for solution in SOLUTIONS]
    assert [c.applies for c in found] == [c.name == "balanced, two layers" for c in found]
    for candidate in found:
        assert all(condition.holds for condition in candidate.conditions[:-1])
        assert candidate.conditions[-1].holds == candidate.applies
    needs = {c.name: [condition.needs for condition in c.conditions] for c in found}
    assert needs["one layer"] == ["depth 1"]
    assert needs["balanced, two layers"][-2] == "W_2^T W_2 - W_1 W_1^T = lambda I"
    lines = str(found).splitlines()
    assert lines[0].split() == ["solution", "needs", "holds", "measured", "allowed"]
    assert len(lines) == 1 + sum(len(c.conditions) for c in found)
    with pytest.raises(dln.NotApplicable) as caught:
        solve(TASK, dln.init.gaussian((4, 5, 3), seed=0))
    assert "not lambda-balanced" in caught.value.missed["balanced, two layers"]
    assert "W_2^T W_2 - W_1 W_1^T = lambda I" in caught.value.table
    assert pickle.loads(pickle.dumps(caught.value)).table == caught.value.table


def test_a_tolerance_of_ones_own() -> None:
    first, second = (w.copy() for w in balanced_start((4, 2, 3), 0.5, 0.3, 1))
    first[0, 0] += 1e-6
    bent = dln.Weights([first, second])
    with pytest.raises(dln.NotApplicable):
        solve(TASK, bent)
    solution = solve(TASK, bent, tol=1e-5)
    assert solution.name == "balanced, two layers"
    run = dln.gradient_descent(TASK, bent, lr=1e-4, steps=20_000)
    assert compare(run, solution).gap[0] < 1e-3
    task = whitened(4, 3, [2.0, 1.0])
    nearly = dln.init.aligned(task, depth=3, layer_strengths=np.full((3, 2), 0.3) * [[1], [1 + 1e-9], [1]])
    with pytest.raises(dln.NotApplicable, match="not balanced"):
        solve(task, nearly)
    assert solve(task, nearly, tol=1e-8).name == "aligned and balanced"
    assert Start(task, nearly, 1e-8).tolerance == 1e-8
    with pytest.raises(ValueError, match="tol: expected a number >= 0"):
        solve(task, nearly, tol=-1.0)
