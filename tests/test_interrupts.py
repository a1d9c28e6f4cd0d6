"""Ctrl-C within a tenth of a second of work: no call of a library holds the thread that sees it."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from ensembles import some_task, starts
from interrupts import work_after_press, work_after_tick

import pydln as dln
from pydln import exact, spectra
from pydln._base import patience
from pydln._base.patience import abandonable, interruptible
from pydln.exact import solution as solutions

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")

# Of a promise of a tenth of a second: what a crowded machine's caches and schedulers add to processor time.
MOST = 1.0


def test_work_in_a_thread_is_what_it_is_without() -> None:
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):  # the context goes along
        abandonable(lambda: np.float64(1e300) * np.ones(2) * 1e300, np.inf)
    assert abandonable(lambda: threading.current_thread() is threading.main_thread(), 0)
    assert not abandonable(lambda: threading.current_thread() is threading.main_thread(), np.inf)
    with pytest.raises(ZeroDivisionError):
        abandonable(lambda: 1 / 0, np.inf)


def test_abandoned_work_ends_at_its_next_line() -> None:
    lines, thread = [], []

    def work() -> None:
        thread.append(threading.current_thread())
        while True:
            lines.append(sum(range(10_000)))

    assert work_after_press(lambda: abandonable(work, np.inf), after=0.01) < MOST
    thread[0].join(30)
    assert not thread[0].is_alive()
    assert 0 < len(lines) < 10**7


def test_arguments_that_make_no_sense_are_left_to_the_function() -> None:
    @interruptible(lambda x: x.no_such_thing)
    def function(x: object) -> object:
        return x

    assert function(3) == 3
    assert function.__name__ == "function"
    with pytest.raises(ValueError, match=r"widths: expected at least two"):
        dln.init.orthogonal([3])
    with pytest.raises(TypeError, match=r"widths: expected a sequence"):
        dln.init.gaussian(3)


LIBRARY = ("qr", "svd", "eigh", "eigvals", "solve")


def _calls():
    """Everything public that decomposes matrices, on small ones."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 3))
    task, white = some_task(6, 3, whiten=False), some_task(6, 3, whiten=True)
    one = starts((6, 5, 3), 2)
    omega, wide = rng.standard_normal((3, 6)), starts((6, 40, 3))
    return {
        "orthogonal": lambda: dln.init.orthogonal((6, 5, 3)),
        "aligned": lambda: dln.init.aligned(white, depth=3, strength=0.1),
        "balanced": lambda: dln.init.balanced(omega, depth=3),
        "lambda_balanced": lambda: dln.init.lambda_balanced(omega, imbalance=0.1, width=3),
        "from_data": lambda: dln.Task.from_data(x, y),
        "from_data, whitened": lambda: dln.Task.from_data(x, y, whiten=True),
        "from_covariances": lambda: dln.Task.from_covariances(x.T @ x / 40, y.T @ x / 40, 9.0),
        "from_spectrum": lambda: dln.Task.from_spectrum([2.0, 1.0], 6, 3),
        "teacher": lambda: dln.Task.teacher([2.0, 1.0], 6, 3, samples=30),
        "balanced two layers": lambda: exact.solve(white, dln.init.lambda_balanced(omega, imbalance=0.0)),
        "one layer": lambda: exact.solve(task, dln.Weights([omega])),
        "descent, inputs and width": lambda: dln.gradient_descent(
            task, wide, lr=0.01, steps=5000, reduce=("inputs", "width")
        ),
        "descent, kernel distance": lambda: dln.gradient_descent(task, one, lr=0.01, steps=5, record="kernel_distance"),
        "end_to_end_flow": lambda: dln.end_to_end_flow(task, omega, [0.0], depth=1),
        "singular_rates": lambda: dln.singular_rates(task, omega, depth=3),
        "pretrain": lambda: dln.pretrain(task, (6, 5, 4, 3), lr=0.01, steps=5),
        "singular_values": lambda: spectra.singular_values(rng.standard_normal((2, 70, 70))),
        "product_spectrum": lambda: spectra.product_spectrum([omega[:, :3], omega[:, 3:]], eigenvalues=True),
        "random products": lambda: spectra.random_product_spectrum("orthogonal", 5, 3, eigenvalues=True),
    }


@pytest.mark.parametrize("name", _calls())
def test_no_decomposition_holds_the_main_thread(name, monkeypatch) -> None:
    """However short work may be that is not worth a thread, here nothing is short."""
    call = _calls()[name]
    monkeypatch.setattr(patience, "_SHORT", 0)
    seen = []

    def watched(function):
        def decompose(*args, **kwargs):
            main = threading.current_thread() is threading.main_thread()
            seen.append((function.__name__, main and args[0].size > 0))
            return function(*args, **kwargs)

        return decompose

    for one in LIBRARY:
        monkeypatch.setattr(np.linalg, one, watched(getattr(np.linalg, one)))
    call()
    assert not [one for one, main in seen if main]
    assert seen


@pytest.mark.parametrize("size", [200, 5000, 10**5])
def test_exact_solutions_are_worked_out_in_pieces(size, monkeypatch) -> None:
    """No piece is larger than it may be, but for one member at one time; together they are what one piece would be."""
    rng = np.random.default_rng(size)
    tasks = [some_task(4, 3, whiten=True, seed=k) for k in range(5)]
    batched = dln.Task.stack([dln.Task.from_covariances(None, t.sigma_yx, t.trace_yy) for t in tasks])
    scaled = dln.Task.stack(
        [dln.Task.from_covariances((1 + k) * np.eye(4), t.sigma_yx, 50.0) for k, t in enumerate(tasks)]
    )
    own = np.sort(rng.uniform(0, 9, size=(5, 13)), axis=1)
    cases = [
        (batched, dln.init.aligned(batched, depth=2, strength=0.1), own),
        (batched, dln.init.aligned(batched, depth=3, strength=0.1), own[0]),
        (tasks[0], dln.init.aligned(tasks[0], depth=2, strength=rng.uniform(0.1, 1, (5, 3))), own),
        (scaled, dln.init.aligned(scaled, depth=2, strength=0.1), own),
        (scaled, starts((4, 3), 5), own),
        (batched, dln.init.lambda_balanced(rng.standard_normal((5, 3, 4)), imbalance=0.0), own),
    ]
    record = ("loss", "strengths", "product", "layer_norms", "kernel_distance", "drift")
    for task, weights, t in cases:
        made = exact.solve(task, weights)
        whole = made.evaluate(t, record=record)
        monkeypatch.setattr(solutions, "_AT_ONCE", size)
        pieces = []
        kind = type(made)
        records = kind.records

        def counted(self, times, names, records=records, pieces=pieces):
            found = records(self, times, names)
            pieces.append(
                (max(self.batch, len(times)) * times.shape[1], sum(np.asarray(found[n]).nbytes for n in names))
            )
            return found

        with monkeypatch.context() as patch:
            patch.setattr(kind, "records", counted)
            run = made.evaluate(t, record=record)
        monkeypatch.undo()
        assert all(nbytes <= size or points == 1 for points, nbytes in pieces)
        assert len(pieces) > 1 or size == 10**5
        for name in record:
            np.testing.assert_array_equal(getattr(run, name), getattr(whole, name), err_msg=f"{made.name}: {name}")


REAL = {
    "orthogonal": lambda: dln.init.orthogonal((1200, 1200, 1200)),
    "from_data": lambda: [dln.Task.from_data(np.ones((30000, 700)), np.ones((30000, 5))) for _ in range(9)],
    "evaluate": lambda: [_many().evaluate(np.linspace(0, 9, 100), record=("product", "loss")) for _ in range(30)],
    "singular_values": lambda: spectra.singular_values(np.random.default_rng(0).standard_normal((60, 250, 250))),
}


def _many():
    task = dln.Task.from_spectrum([2.0, 1.0, 0.5], 30, 20)
    return exact.solve(task, dln.init.aligned(task, depth=2, strength=np.geomspace(1e-3, 0.1, 500)))


@pytest.mark.parametrize("name", REAL)
def test_ctrl_c_in_the_middle_of_numpy(name) -> None:
    assert work_after_press(REAL[name]) < MOST


def test_ctrl_c_while_gigabytes_are_recorded() -> None:
    """Every third step of small networks: what takes long is the memory."""
    task, weights = dln.Task.from_spectrum([2.0, 1.0], 4, 4), dln.init.gaussian((4, 4, 4), batch=2000, scale=0.3)
    run = {"lr": 1e-3, "steps": 6000, "record_every": 3, "n_threads": 1, "record": ("loss", "product")}
    assert work_after_press(lambda: dln.gradient_descent(task, weights, **run), after=0.1) < MOST


@pytest.mark.parametrize("after", [0.1, 0.5])
def test_ctrl_c_in_a_mode_of_a_million_layers(after) -> None:
    layers = np.random.default_rng(0).uniform(0.9, 1.1, size=(4, 500_000))

    def call(tick):
        return dln.mode_flow(np.ones(4), layers, np.linspace(0, 0.01, 400), n_threads=1, progress=tick)

    assert work_after_tick(call, after) < MOST
