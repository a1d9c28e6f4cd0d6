"""Threads: how many, forks, the GIL, several callers at once, Ctrl-C, progress."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ensembles import RECORDS, descend, same_bits, some_task, starts

import pydln as dln
from pydln._base import backend

ENDLESS = 10**12  # steps: no run gets there
SHORT_WAIT = 60  # seconds after which something that takes a fraction of one has failed

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def small_problem():
    return some_task(6, 4, whiten=False), starts((6, 8, 8, 4), 12)


def threaded_run(**more):
    """More than enough work to be spread over threads: 12 members, 3 x 10^7 flops."""
    task, weights = small_problem()
    assert backend.core.step_flops(weights.widths, False) * 12 * 900 > 5e6
    return descend(task, weights, **{"lr": 0.02, "steps": 900, "n_threads": 2, "record": RECORDS, **more})


# ---- how many ---------------------------------------------------------------------------------------------------


def test_the_default_number_of_threads(monkeypatch) -> None:
    monkeypatch.delenv("PYDLN_NUM_THREADS", raising=False)
    if hasattr(os, "sched_getaffinity"):
        assert backend.default_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("PYDLN_NUM_THREADS", "3")
    assert backend.default_threads() == 3
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("PYDLN_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match=f"PYDLN_NUM_THREADS: expected an integer >= 1, got '{wrong}'"):
            descend(*small_problem(), lr=0.1, steps=1)


def settled_threads() -> int:
    """Threads of this process; those joined stay listed for a moment."""
    count, since = len(os.listdir("/proc/self/task")), time.monotonic()
    while time.monotonic() < since + 0.1:
        time.sleep(0.01)
        now = len(os.listdir("/proc/self/task"))
        if now != count:
            count, since = now, time.monotonic()
    return count


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize(("n_threads", "workers"), [(1, 1), (2, 2), (5, 5), (1000, 12)])
def test_that_many_threads_run(n_threads, workers, monkeypatch) -> None:
    """One worker for every thread asked for, never more than there are members; in the row layout one member each."""

    class EnoughError(Exception):
        pass

    def count(done, total):
        seen.append(len(os.listdir("/proc/self/task")))
        if len(seen) == 4:
            raise EnoughError

    task, weights = small_problem()
    before = settled_threads()
    for by_environment in (False, True):
        seen = []
        if by_environment:
            monkeypatch.setenv("PYDLN_NUM_THREADS", str(n_threads))
        asked = None if by_environment else n_threads
        with backend.forced(layout="rows"), pytest.raises(EnoughError):
            descend(task, weights, lr=0.01, steps=ENDLESS, n_threads=asked, progress=count)
        assert seen[0] - before == workers
        assert settled_threads() == before  # none outlives its call


LIMITED = """
import os, resource
import numpy as np
import pydln as dln
task = dln.Task.from_spectrum([2.0, 1.0], 6, 4)
weights = dln.init.gaussian((6, 8, 8, 4), batch=12, scale=0.5)
alone = dln.gradient_descent(task, weights, lr=0.02, steps=2000, n_threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20, used + 700 * 2**20))  # one stack of 512 MB, not two
most = []
def watch(done, total):
    most.append(len(os.listdir("/proc/self/task")))
several = dln.gradient_descent(task, weights, lr=0.02, steps=2000, n_threads=4, progress=watch)
assert np.array_equal(alone.loss, several.loss) and (several.status == 0).all()
print("granted", max(most) - 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's shadow needs the address space"
)
def test_fewer_threads_than_asked_for_do_the_same_work() -> None:
    """Where the system grants no more threads the calling thread works instead."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -s 524288 && exec "$0" -c "$1"', sys.executable, LIMITED],
        capture_output=True,
        text=True,
        timeout=SHORT_WAIT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if "cannot modify limit" in done.stderr or "limit exceeded" in done.stderr.lower():
        pytest.skip("stacks may not grow here")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) < 4


# ---- the GIL and other callers ----------------------------------------------------------------------------------


def test_other_threads_go_on_during_a_run() -> None:
    """With the GIL held, the ticking thread would stand still for as long as the run takes."""
    task, weights = small_problem()
    start = time.perf_counter()
    descend(task, weights, lr=0.01, steps=5000, n_threads=1, record=())
    steps = int(5000 * 0.6 / (time.perf_counter() - start))  # some 0.6 s
    ticks, finished = [], threading.Event()

    def tick():
        while not finished.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        begin = time.perf_counter()
        descend(task, weights, lr=0.01, steps=steps, n_threads=1, record=())
        end = time.perf_counter()
    finally:
        finished.set()
        ticking.join()
    during = [t for t in ticks if begin < t < end]
    assert len(during) > 20
    assert max(np.diff([begin, *during, end])) < 0.5 * (end - begin)


def test_several_threads_may_call_at_once() -> None:
    problems = [(some_task(5, 3, whiten=i % 2 == 0, seed=i), starts((5, 7, 3), 9, seed=i)) for i in range(6)]

    def solve(problem):
        return descend(*problem, lr=0.03, steps=1500, n_threads=2, record=RECORDS)

    expected = [solve(problem) for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(expected * 3, pool.map(solve, problems * 3), strict=True):
            same_bits(a, b)


def test_one_ensemble_may_be_shared_by_several_callers() -> None:
    expected = threaded_run()
    task, weights = small_problem()
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(descend, task, weights, lr=0.02, steps=900, n_threads=2, record=RECORDS) for _ in range(8)]
        for run in runs:
            same_bits(expected, run.result())


def test_a_forced_layout_is_that_threads_own() -> None:
    with backend.forced(layout="rows"), ThreadPoolExecutor(1) as pool:
        assert backend.layout() == "rows"
        assert pool.submit(backend.layout).result() == "auto"


# ---- fork -------------------------------------------------------------------------------------------------------


def _in_child(work) -> None:
    """Run `work` in a forked child; it must end by itself, and well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads about
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + SHORT_WAIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the forked child hangs")


@needs_fork
def test_a_fork_after_a_run() -> None:
    expected = threaded_run()
    _in_child(lambda: same_bits(expected, threaded_run()))


@needs_fork
def test_a_fork_during_a_run_of_another_thread() -> None:
    expected = threaded_run()
    stop, running = threading.Event(), threading.Event()

    class EnoughError(Exception):
        pass

    def until_stopped(done, total):
        running.set()
        if stop.is_set():
            raise EnoughError

    def endless():
        with pytest.raises(EnoughError):
            threaded_run(steps=ENDLESS, progress=until_stopped, record=())

    background = threading.Thread(target=endless)
    background.start()
    try:
        assert running.wait(SHORT_WAIT)
        for _ in range(3):
            _in_child(lambda: same_bits(expected, threaded_run()))
    finally:
        stop.set()
        background.join(SHORT_WAIT)
    assert not background.is_alive()
    same_bits(expected, threaded_run())


def _loss_of(seed):
    run = descend(
        some_task(4, 4, whiten=True, seed=seed), starts((4, 9, 4), 16, seed=seed), lr=0.02, steps=1500, n_threads=2
    )
    return run.loss


@needs_fork
def test_a_forking_pool_of_processes() -> None:
    expected = [_loss_of(seed) for seed in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            got = pool.map_async(_loss_of, range(4)).get(SHORT_WAIT)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- interrupts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["interleaved", "rows"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_interrupt_keeps_what_was_computed(layout, n_threads) -> None:
    """Some members stop soon, some are under way, some have not begun."""
    task, weights = some_task(3, 2, whiten=True), starts((3, 4, 2), 40)
    soon = np.arange(40) % 4 == 0
    stop = dln.Stop(loss=np.where(soon, 1.01, 0.0) * task.floor)
    arguments = {"lr": 0.05, "stop": stop, "record": "loss", "record_every": ENDLESS // 100, "n_threads": n_threads}

    def interrupt(done, total):
        if time.monotonic() > began + 0.2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with backend.forced(layout=layout), pytest.raises(dln.Interrupted) as caught:
        descend(task, weights, steps=ENDLESS, progress=interrupt, **arguments)
    assert isinstance(caught.value, KeyboardInterrupt)
    run = caught.value.trajectory
    done = int((run.status != dln.Status.INTERRUPTED).sum())
    assert str(caught.value) == f"interrupted: {done} of 40 members are complete; see .trajectory"
    assert (run.status[~soon] == dln.Status.INTERRUPTED).all()
    assert run.status[0] == dln.Status.REACHED_LOSS
    begun = run.stopped_step > 0
    assert begun.any()
    assert not begun.all()
    for a, b in zip(run.final.layers, weights.layers, strict=True):
        np.testing.assert_array_equal(a[~begun], b[~begun])
        assert (a[begun] != b[begun]).any()
        assert np.isfinite(a).all()
    np.testing.assert_array_equal(np.isnan(run.loss[:, 0]), ~begun)
    assert np.isnan(run.loss[:, 1:]).all()


def test_an_interrupted_member_is_where_an_uninterrupted_one_was_at_that_step() -> None:
    task, weights = some_task(3, 2, whiten=False), starts((3, 4, 2), 5)
    # As many threads as members: all begin, however few of them a vector holds.
    arguments = {"lr": 0.01, "momentum": 0.5, "record": RECORDS, "n_threads": 5}
    polls = []

    def interrupt(done, total):
        polls.append(done)
        if len(polls) == 4:  # each thread has had its turn, on few processors too
            raise KeyboardInterrupt

    with pytest.raises(dln.Interrupted) as caught:
        descend(task, weights, steps=ENDLESS, at=[0, 10, 1000, ENDLESS], progress=interrupt, **arguments)
    run = caught.value.trajectory
    assert (run.status == dln.Status.INTERRUPTED).all()
    assert (run.stopped_step > 1000).all()
    for i in range(5):
        end = int(run.stopped_step[i])
        same = descend(task, weights[i], steps=end, at=[0, 10, 1000], **arguments)
        for a, b in zip(run.final.layers, same.final.layers, strict=True):
            np.testing.assert_array_equal(a[i], b[0])
        np.testing.assert_array_equal(run.loss[i, :3], same.loss[0])
        np.testing.assert_array_equal(run.weights[0][i, :3], same.weights[0][0])
        assert np.isnan(run.loss[i, 3])
        assert np.isnan(run.weights[1][i, 3]).all()


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("after", [0.02, 0.1, 0.3, 0.6])
def test_an_interrupt_within_a_long_step_leaves_the_weights_of_a_whole_step(momentum, after) -> None:
    """A step of 10^10 flops takes a good part of a second, and the drift of its wide layers as long again."""
    n = 800
    task, weights = dln.Task.from_spectrum([2.0, 1.0], n, n), starts((n, n, n, n), 1, seed=3)
    arguments = {"lr": 0.01, "momentum": momentum, "record": ("loss", "drift", "strengths")}
    assert backend.core.step_flops(weights.widths, True) > 2e9  # long enough for the kernel to break it off

    def interrupt(done, total):
        if time.monotonic() > began + after:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(dln.Interrupted) as caught:
        descend(task, weights, steps=ENDLESS, at=[0, 1, 2, ENDLESS], progress=interrupt, **arguments)
    run = caught.value.trajectory
    assert run.status[0] == dln.Status.INTERRUPTED
    end = int(run.stopped_step[0])
    same = descend(task, weights, steps=end, at=range(min(end, 2) + 1), **arguments)
    for a, b in zip(run.final.layers, same.final.layers, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in arguments["record"]:
        ours, theirs = getattr(run, name)[0], getattr(same, name)[0]
        for k in range(min(end, 2) + 1):
            known = ~np.isnan(ours[k])
            np.testing.assert_array_equal(ours[k][known], theirs[k][known])
            assert known.all() or k == end  # what was being recorded may be missing, never wrong
        assert np.isnan(ours[min(end, 2) + 1 :]).all()


CTRL_C = """
import json, sys, time
import numpy as np
import pydln as dln
widths, batch = {widths}, {batch}
task = dln.Task.from_spectrum([2.0, 1.0], widths[0], widths[-1])
weights = dln.init.gaussian(widths, batch=batch, scale=0.3)
print("ready", flush=True)
try:
    dln.gradient_descent(task, weights, lr=1e-9, steps=10**12, record="loss", at=[0, 10**12], n_threads={n_threads})
except KeyboardInterrupt as error:
    ended = time.time()
    run = error.trajectory
    result = dict(kind=type(error).__name__, ended=ended, status=run.status.tolist(), step=int(run.stopped_step.max()))
    print(json.dumps(result))
"""


@pytest.mark.parametrize(
    ("widths", "batch", "n_threads"),
    [((4, 4, 4), 64, 2), ((4, 4, 4), 64, 1), ((400,) * 4, 1, 1), ((1600,) * 4, 1, 1)],
    ids=["many small", "one thread", "one large", "seconds a step"],
)
def test_ctrl_c(widths, batch, n_threads, record_property) -> None:
    """A signal from outside, as the terminal sends it: the run ends soon and hands over what it has."""
    script = CTRL_C.format(widths=widths, batch=batch, n_threads=n_threads)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "ready\n", child.stderr.read()
            time.sleep(0.5)
            sent = time.time()
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=SHORT_WAIT)
        finally:
            child.kill()
    assert child.returncode == 0, err
    result = json.loads(out)
    assert result["kind"] == "Interrupted"
    assert set(result["status"]) == {int(dln.Status.INTERRUPTED)}
    assert result["step"] > 0 or widths[0] >= 400
    latency = result["ended"] - sent
    record_property("seconds from signal to exception", latency)
    print(f"Ctrl-C, widths {widths}: {latency:.3f} s")
    assert latency < 5  # 0.1 s of work; a busy machine may be slow to schedule it


class AlarmedError(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_what_a_signal_handler_raises_goes_its_way() -> None:
    def handler(number, frame):
        raise AlarmedError("time is up")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(AlarmedError, match="time is up"):
            threaded_run(steps=ENDLESS, record=(), record_every=ENDLESS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    threaded_run()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_a_signal_handler_that_raises_nothing_does_not_disturb() -> None:
    heard = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(time.monotonic()))
    steps = 20_000
    while not heard and steps < 10_000_000:  # until a run is long enough, whatever the processor, to meet a signal
        steps *= 2
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            run = threaded_run(steps=steps)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    expected = threaded_run(steps=steps)
    same_bits(expected, run)
    assert heard


# ---- progress ---------------------------------------------------------------------------------------------------


def test_progress_counts_the_steps_of_all_members() -> None:
    seen = []
    run = threaded_run(steps=30_000, progress=lambda done, total: seen.append((done, total)), record=())
    done = [d for d, _ in seen]
    assert {total for _, total in seen} == {12 * 30_000}
    assert done == sorted(done)
    assert done[-1] == 12 * 30_000
    assert (run.status == dln.Status.COMPLETED).all()


def test_steps_that_are_not_needed_count_as_done() -> None:
    task, weights = small_problem()
    seen = []
    run = descend(
        task,
        weights,
        lr=0.02,
        steps=100_000,
        stop=dln.Stop(loss=1.2 * task.floor),
        progress=lambda *both: seen.append(both),
    )
    assert (run.status == dln.Status.REACHED_LOSS).all()
    assert seen[-1] == (1_200_000, 1_200_000)


def test_what_progress_raises_goes_its_way() -> None:
    class TroubleError(Exception):
        pass

    calls = []

    def trouble(done, total):
        calls.append(done)
        raise TroubleError("in the callback")

    with pytest.raises(TroubleError, match="in the callback"):
        threaded_run(steps=ENDLESS, record=(), record_every=ENDLESS, progress=trouble)
    assert len(calls) == 1
    threaded_run()


def test_a_progress_bar(capsys) -> None:
    pytest.importorskip("tqdm")
    expected = threaded_run(steps=20_000)
    same_bits(expected, threaded_run(steps=20_000, progress=True))
    assert "gradient descent" in capsys.readouterr().err
