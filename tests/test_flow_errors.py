"""Every mistake in a call of gradient_descent is one clear sentence, before any work; what a failed run hands over."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ensembles import RECORDS, same_bits, some_task, starts

import pydln as dln
from pydln import Stop
from pydln._base import backend, validate
from pydln.quantities import QUANTITIES

NAN, INF = np.nan, np.inf
TASK = some_task(3, 2, whiten=True)
WEIGHTS = starts((3, 4, 2), 5)
NAMES = ", ".join(f"'{name}'" for name in QUANTITIES)


class WorkedError(Exception):
    """The kernels were called."""


def refused(monkeypatch, kind, message, **arguments) -> None:
    """The call ends in exactly this error without reaching the kernels."""

    def work(**_):
        raise WorkedError

    if "free" in arguments:
        free = arguments.pop("free")
        monkeypatch.setattr(validate, "free_memory", lambda: free)
    monkeypatch.setattr(backend.core, "descent_f64", work)
    monkeypatch.setattr(backend.core, "descent_f32", work)
    call = {"task": TASK, "weights": WEIGHTS, "lr": 0.1, "steps": 10, **arguments}
    with pytest.raises(kind) as caught:
        dln.gradient_descent(call.pop("task"), call.pop("weights"), **call)
    assert caught.type is kind
    assert str(caught.value) == message


def test_a_sound_call_does_reach_the_kernels(monkeypatch) -> None:
    refused(monkeypatch, WorkedError, "")


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (TypeError, "task: expected a pydln.Task, got ndarray", {"task": np.eye(3)}),
        (TypeError, "task: expected a pydln.Task, got NoneType", {"task": None}),
        (TypeError, "task: expected a pydln.Task, got Weights", {"task": WEIGHTS, "weights": TASK}),
        (
            TypeError,
            "weights: expected pydln.Weights, got list: pydln.Weights(layers) makes one",
            {"weights": [np.eye(3)]},
        ),
        (
            TypeError,
            "weights: expected pydln.Weights, got ndarray: pydln.Weights(layers) makes one",
            {"weights": np.ones((2, 3))},
        ),
        (
            ValueError,
            "weights: expected 3 inputs and 2 outputs like the task, got 4 and 2",
            {"weights": starts((4, 4, 2))},
        ),
        (
            ValueError,
            "weights: expected 3 inputs and 2 outputs like the task, got 3 and 3",
            {"weights": starts((3, 3))},
        ),
        (ValueError, "task: expected 1 or 5 members like weights, got 4", {"task": dln.Task.stack([TASK] * 4)}),
        (
            ValueError,
            "lr: expected 1 or 4 members like task, got 5",
            {"task": dln.Task.stack([TASK] * 4), "weights": WEIGHTS[0], "lr": [0.1] * 5},
        ),
    ],
)
def test_task_and_weights(monkeypatch, kind, message, arguments) -> None:
    refused(monkeypatch, kind, message, **arguments)


@pytest.mark.parametrize(
    ("kind", "expected", "value"),
    [
        (ValueError, "a number {bounds}, got {over}", "over"),
        (ValueError, "a number {bounds}, got -0.1", -0.1),
        (ValueError, "a finite number, got nan", NAN),
        (ValueError, "a finite number, got inf", INF),
        (ValueError, "numbers {bounds}, got -1.0 at [2]", [0.1, 0.1, -1, 0.1, 0.1]),
        (ValueError, "finite numbers, got 1 that are not (the first, nan, at [1])", [0.1, NAN, 0.1, 0.1, 0.1]),
        (ValueError, "1 or 5 members like weights, got 2", [0.1, 0.2]),
        (ValueError, "a number or one number per member, got an array of shape (1, 1)", [[0.1]]),
        (ValueError, "a number or one number per member, got an array of shape (0,)", []),
        (ValueError, "an array of numbers, got a ragged sequence", [0.1, [0.2, 0.3]]),
        (TypeError, "real numbers, got 'fast'", "fast"),
        (TypeError, "real numbers, got an array of text", ["a", "b"]),
        (TypeError, "real numbers, got None", None),
        (TypeError, "real numbers, got 1j", 1j),
    ],
)
@pytest.mark.parametrize(
    ("name", "bounds", "over"), [("lr", "> 0", 0), ("momentum", ">= 0 and < 1", 1), ("weight_decay", ">= 0", -2)]
)
def test_rates(monkeypatch, name, bounds, over, kind, expected, value) -> None:
    given = over if isinstance(value, str) and value == "over" else value
    refused(monkeypatch, kind, f"{name}: expected {expected.format(bounds=bounds, over=over)}", **{name: given})


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (ValueError, "steps: expected an integer >= 0, got -1", {"steps": -1}),
        (TypeError, "steps: expected an integer, got 1.5", {"steps": 1.5}),
        (TypeError, "steps: expected an integer, got '10'", {"steps": "10"}),
        (TypeError, "steps: expected an integer, got True", {"steps": True}),
        (TypeError, "steps: expected an integer, got None", {"steps": None}),
        # More member-steps than 64 bits count.
        (ValueError, f"steps: expected an integer <= {2**62 // 5}, got {2**62}", {"steps": 2**62}),
        (ValueError, "n_threads: expected an integer >= 1, got 0", {"n_threads": 0}),
        (TypeError, "n_threads: expected an integer, got 'two'", {"n_threads": "two"}),
        (TypeError, "n_threads: expected an integer, got 1.5", {"n_threads": 1.5}),
        (ValueError, "record_every: expected an integer >= 1, got 0", {"record_every": 0}),
        (TypeError, "record_every: expected an integer, got 2.5", {"record_every": 2.5}),
        (
            ValueError,
            "record_every: expected None when `at` is given, got both",
            {"at": [1], "record_every": 2},
        ),
        (ValueError, "at: expected increasing whole steps, at least one, got []", {"at": []}),
        (ValueError, "at: expected increasing whole steps, at least one, got [3. 1.]", {"at": [3, 1]}),
        (ValueError, "at: expected increasing whole steps, at least one, got [1. 1.]", {"at": [1, 1]}),
        (ValueError, "at: expected increasing whole steps, at least one, got [0.5]", {"at": [0.5]}),
        (ValueError, "at: expected numbers >= 0 and <= 10, got -1.0 at [0]", {"at": [-1, 2]}),
        (ValueError, "at: expected numbers >= 0 and <= 10, got 11.0 at [1]", {"at": [0, 11]}),
        (ValueError, "at: expected finite numbers, got 1 that are not (the first, nan, at [0])", {"at": [NAN]}),
        (ValueError, "at: expected (time,), got (1, 1)", {"at": [[1]]}),
        (ValueError, "at: expected (time,), got the number 5", {"at": 5}),
        (TypeError, "at: expected real numbers, got an array of text", {"at": ["a"]}),
        (ValueError, f"record: expected one of {NAMES}, got 'accuracy'", {"record": "accuracy"}),
        (ValueError, f"record: expected one of {NAMES}, got 'speed'", {"record": ("loss", "speed")}),
        (ValueError, f"record: expected one of {NAMES}, got 1", {"record": [1]}),
        (TypeError, f"record: expected names out of {NAMES.replace(chr(39), '')}, got 3", {"record": 3}),
        (
            ValueError,
            "record: expected a task with held-out covariances for test_loss, got one whose test is None",
            {"record": "test_loss", "task": dln.Task.from_spectrum([1.0], 3, 2)},
        ),
        (TypeError, "progress: expected True, False or a callable, got str", {"progress": "bar"}),
        (TypeError, "progress: expected True, False or a callable, got NoneType", {"progress": None}),
    ],
)
def test_steps_schedules_records_threads_progress(monkeypatch, kind, message, arguments) -> None:
    refused(monkeypatch, kind, message, **arguments)


WANTED = "stop.strengths: expected numbers > 0 (NaN leaves a mode out, but not every mode), got"


@pytest.mark.parametrize(
    ("kind", "message", "stop"),
    [
        (TypeError, "stop: expected pydln.Stop(loss=…, strengths=…, steady=…), got float", 0.1),
        (TypeError, "stop: expected pydln.Stop(loss=…, strengths=…, steady=…), got dict", {"loss": 1}),
        (ValueError, "stop.loss: expected a number >= 0, got -1", Stop(loss=-1)),
        (ValueError, "stop.loss: expected a finite number, got nan", Stop(loss=NAN)),
        (TypeError, "stop.loss: expected real numbers, got 'low'", Stop(loss="low")),
        (ValueError, "stop.loss: expected 1 or 5 members like weights, got 2", Stop(loss=[1, 2])),
        (ValueError, "stop.steady: expected a number >= 0, got -1", Stop(steady=-1)),
        (ValueError, "stop.steady: expected 1 or 5 members like weights, got 2", Stop(steady=[0.1, 0.2])),
        (
            ValueError,
            "stop.steady: expected a number or one number per member, got an array of shape (1, 1)",
            Stop(steady=[[0.1]]),
        ),
        (ValueError, "stop.strengths: expected a number, (2,) or (batch, 2), got (3,)", Stop(strengths=[1, 2, 3])),
        (ValueError, "stop.strengths: expected a number, (2,) or (batch, 2), got (0,)", Stop(strengths=[])),
        (
            ValueError,
            "stop.strengths: expected a number, (2,) or (batch, 2), got (1, 2, 2)",
            Stop(strengths=np.ones((1, 2, 2))),
        ),
        (ValueError, "stop.strengths: expected 1 or 5 members like weights, got 3", Stop(strengths=np.ones((3, 2)))),
        (TypeError, "stop.strengths: expected real numbers, got 'strong'", Stop(strengths="strong")),
        (ValueError, f"{WANTED} 0", Stop(strengths=0)),
        (ValueError, f"{WANTED} -1", Stop(strengths=[1, -1])),
        (ValueError, f"{WANTED} inf", Stop(strengths=INF)),
        (ValueError, f"{WANTED} nothing but NaN", Stop(strengths=NAN)),
        (ValueError, f"{WANTED} nothing but NaN", Stop(strengths=[[NAN, NAN], *[[1, NAN]] * 4])),
    ],
)
def test_stops(monkeypatch, kind, message, stop) -> None:
    refused(monkeypatch, kind, message, stop=stop)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("lr: expected a finite number (in float32), got 1e+40", {"lr": 1e40}),
        ("lr: expected a number > 0 (in float32), got 1e-50", {"lr": 1e-50}),
        ("stop.loss: expected a finite number (in float32), got 1e+39", {"stop": Stop(loss=1e39)}),
        (f"{WANTED} inf", {"stop": Stop(strengths=1e39)}),
        (
            "task: expected moments within the range of float32, got 1e+39",
            {"task": dln.Task.from_covariances(None, 1e39 * np.eye(2, 3), 2e78)},
        ),
    ],
)
def test_what_float32_cannot_hold(monkeypatch, message, arguments) -> None:
    refused(monkeypatch, ValueError, message, weights=WEIGHTS.astype(np.float32), **arguments)


def test_float64_holds_it() -> None:
    dln.gradient_descent(TASK, WEIGHTS, lr=1e-50, steps=1, stop=Stop(loss=1e39))


# ---- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "what", "size"),
    [
        (("loss", "strengths"), "loss, strengths", "128 TB"),  # 5 members x (1 + 2) numbers of 8 bytes, and the steps
        ("weights", "weights", "808 TB"),  # 5 x (12 + 8)
        (("weights", "product"), "weights, product", "1.05 PB"),  # 5 x (12 + 8 + 6)
        ((), "nothing", "8 TB"),  # the steps themselves
    ],
)
def test_a_recording_of_10_to_the_12_is_refused_with_its_size(monkeypatch, record, what, size) -> None:
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 24_400_000_000)
    refused(
        monkeypatch,
        ValueError,
        f"record: {what} of 5 members at 1000000000001 times needs {size} and 24.4 GB of memory are free: "
        "record less often (record_every=, at=), fewer names, or fewer members at once",
        steps=10**12,
        record_every=1,
        record=record,
    )


def test_float32_needs_half(monkeypatch) -> None:
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: 1000)
    weights = WEIGHTS.astype(np.float32)
    # 5 members x 101 times x 3 numbers of 4 bytes, 101 steps of 8, the weights 5 x 20 x 4
    with pytest.raises(
        ValueError, match=r"at 101 times needs 7\.27 kB and 1e\+03 B|at 101 times needs 7\.27 kB and 1 kB"
    ):
        dln.gradient_descent(TASK, weights, lr=0.1, steps=100)


def test_the_refusal_counts_without_making_the_schedule(monkeypatch) -> None:
    """10^17 steps: neither an array of them nor a minute of counting."""
    message = r"^record: loss of 5 members at 100000000000000001 times needs 4\.8 EB and .* of memory are free: "
    with pytest.raises(ValueError, match=message):
        dln.gradient_descent(TASK, WEIGHTS, lr=0.1, steps=10**17, record_every=1, record="loss")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the size of the memory is all that is known")
def test_what_just_fits_is_not_refused(monkeypatch) -> None:
    free = 5 * 20 * 8 + 11 * 8 + 5 * 11 * 8  # weights, steps, losses
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: free)
    dln.gradient_descent(TASK, WEIGHTS, lr=0.1, steps=10, record="loss")
    monkeypatch.setattr(validate, "ALWAYS_FITS", 0)
    monkeypatch.setattr(validate, "free_memory", lambda: free - 1)
    with pytest.raises(ValueError, match="record: loss of 5 members at 11 times"):
        dln.gradient_descent(TASK, WEIGHTS, lr=0.1, steps=10, record="loss")


def test_a_schedule_too_long_to_be_read_is_refused(monkeypatch) -> None:
    refused(
        monkeypatch,
        ValueError,
        "at: a schedule of 1000000000000 times needs 32 TB and 24.4 GB of memory are free: record at fewer times",
        at=range(10**12),
        steps=10**12,
        free=24_400_000_000,
    )


def test_workspaces_that_do_not_fit(monkeypatch) -> None:
    """Refused when not one network can be held; otherwise as many workers run as can be, with the same result."""
    task, weights = dln.Task.from_spectrum([2.0, 1.0], 500, 500), starts((500, 500, 500), 6)
    expected = dln.gradient_descent(task, weights, lr=0.01, steps=1, record="loss", n_threads=1)
    for free, message in (
        (10_000_000, r"^weights: the workspace of a network needs \d\d MB and 10 MB"),
        (60_000_000, None),
    ):
        answers = iter([10**12, free])  # first the recording asks, then the kernel
        monkeypatch.setattr(validate, "free_memory", lambda answers=answers: next(answers))
        call = {"lr": 0.01, "steps": 1, "record": "loss", "n_threads": 6}
        with backend.forced(layout="rows"):
            if message is None:
                same_bits(expected, dln.gradient_descent(task, weights, **call))
            else:
                with pytest.raises(ValueError, match=message):
                    dln.gradient_descent(task, weights, **call)
        assert next(answers, None) is None


# ---- divergence -------------------------------------------------------------------------------------------------


def test_divergence_is_an_error_that_hands_over_the_trajectory() -> None:
    lr = np.array([0.05, 100.0, 0.05, 0.05, 1000.0])
    with pytest.raises(dln.IntegrationError) as caught:
        dln.gradient_descent(TASK, WEIGHTS, lr=lr, steps=300, record=RECORDS)
    run = caught.value.trajectory
    first = int(run.stopped_step[[1, 4]].min())
    assert str(caught.value) == (
        f"2 of 5 members diverged (member 1, 4; the first at step {first}): try a smaller lr, below "
        "2/λ_max with λ_max = D s^(2-2/D) at the solution; throw=False returns the others, as does .trajectory"
    )
    assert isinstance(caught.value, dln.PydlnError)
    np.testing.assert_array_equal(run.status == dln.Status.DIVERGED, lr > 1)
    same_bits(run, dln.gradient_descent(TASK, WEIGHTS, lr=lr, steps=300, record=RECORDS, throw=False))
    healthy = dln.gradient_descent(TASK, WEIGHTS[[0, 2, 3]], lr=lr[[0, 2, 3]], steps=300, record=RECORDS)
    same_bits(run[[0, 2, 3]], healthy)


def test_many_diverged_members_are_counted_not_listed() -> None:
    with pytest.raises(
        dln.IntegrationError, match=r"^9 of 9 members diverged \(member 0, 1, 2, 3, 4, …; the first at step "
    ):
        dln.gradient_descent(TASK, starts((3, 4, 2), 9), lr=1e3, steps=100)


# ---- missing extra, wrong instruction set -----------------------------------------------------------------------


def test_a_progress_bar_without_tqdm(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    refused(
        monkeypatch,
        dln.MissingExtra,
        "progress=True needs tqdm: pip install 'pydln[cli]'",
        progress=True,
    )


def test_forcing_what_there_is_not() -> None:
    isas = ", ".join(repr(isa) for isa in backend.available_isas())
    with pytest.raises(ValueError, match=f"^isa: expected one of {isas}, got 'abacus'$"), backend.forced(isa="abacus"):
        pass
    message = "^layout: expected one of 'auto', 'interleaved', 'rows', got 'columns'$"
    with pytest.raises(ValueError, match=message), backend.forced(layout="columns"):
        pass


def test_the_border_of_the_extension_checks_what_it_is_given() -> None:
    """Its checks guard the package against itself: no wrong shape may become a wild pointer."""
    sound = {
        "weights": [np.ones((2, 3, 4)), np.ones((2, 1, 3))],
        "task": {
            "sigma_xx": None,
            "variances": None,
            "sigma_yx": np.ones((1, 4)),
            "root": None,
            "deviations": None,
            "target": None,
            "floor": np.array(0.0),
            "modes": 1,
            "mode_u": np.ones((1, 1)),
            "mode_v": np.ones((4, 1)),
        },
        "test": None,
        "root": None,
        "lr": np.array(0.01),
        "momentum": None,
        "decay": None,
        "nesterov": False,
        "noise": None,
        "steps": 3,
        "stop": dict.fromkeys(("loss", "strengths", "steady")),
        "record_at": np.array([0, 3]),
        "records": dict.fromkeys(QUANTITIES) | {"loss": np.empty((2, 2))},
        "status": np.zeros(2, dtype=np.int64),
        "stopped_at": np.zeros(2, dtype=np.int64),
        "threads": 1,
        "memory": lambda: None,
        "isa": backend.isa(),
        "layout": "auto",
        "tick": None,
    }
    noise = {
        "kind": 1,
        "seed": 1,
        "size": 2,
        "samples": 3,
        "replace": False,
        "scale": 1.0,
        "number": np.arange(2),
        "x": np.ones((3, 4)),
        "y": np.ones((3, 1)),
        "root": None,
        "labels": None,
        "std": np.array(0.0),
    }
    run = backend.core.descent_f64
    assert run(**sound) is False
    assert run(**sound | {"noise": noise}) is False
    sets = ", ".join(backend.available_isas())
    for kind, message, wrong in (
        (
            ValueError,
            r"weights: expected shape \(2, 1, 3\), got \(1, 1, 3\)",
            {"weights": [np.ones((2, 3, 4)), np.ones((1, 1, 3))]},
        ),
        (ValueError, r"weights: expected shape", {"weights": [np.ones((2, 3, 4)), np.ones((2, 1, 2))]}),
        (ValueError, "at least one layer", {"weights": []}),
        (ValueError, "expected arrays", {"weights": [np.ones((3, 4))]}),
        (
            TypeError,
            "C-contiguous array of float64",
            {"weights": [np.ones((2, 3, 4), dtype=np.float32), np.ones((2, 1, 3))]},
        ),
        (TypeError, "C-contiguous", {"weights": [np.ones((4, 3, 2)).T, np.ones((2, 1, 3))]}),
        (ValueError, "lr: expected shape", {"lr": np.ones(3)}),
        (ValueError, "task.sigma_yx: expected shape", {"task": sound["task"] | {"sigma_yx": np.ones((4, 1))}}),
        (ValueError, "task: incomplete", {"task": sound["task"] | {"sigma_yx": None}}),
        (
            ValueError,
            "test_loss: the task has no test",
            {"records": sound["records"] | {"test_loss": np.empty((2, 2))}},
        ),
        (
            ValueError,
            "kernel_distance: expected the root",
            {
                "records": sound["records"] | {"kernel_distance": np.empty((2, 2))},
                "task": sound["task"] | {"sigma_xx": np.eye(4), "root": np.ones((4, 2)), "target": np.ones((1, 2))},
            },
        ),
        (ValueError, "root: expected shape", {"root": np.eye(3)}),
        (ValueError, "loss: expected shape", {"records": sound["records"] | {"loss": np.empty((2, 3))}}),
        (ValueError, "record_at: expected increasing", {"record_at": np.array([3, 0])}),
        (ValueError, "record_at: expected increasing", {"record_at": np.array([0, 4])}),
        (ValueError, "status: expected shape", {"status": np.zeros(3, dtype=np.int64)}),
        (TypeError, "stopped_at: expected", {"stopped_at": np.zeros(2)}),
        (ValueError, "descent: incomplete", {"lr": None}),
        (ValueError, "status: expected an array, got None", {"status": None}),
        (ValueError, "training: incomplete", {"task": sound["task"] | {"mode_u": None}}),
        (ValueError, "noise.x: expected shape", {"noise": noise | {"samples": 2}}),
        (ValueError, "noise: incomplete", {"noise": noise | {"x": None}}),
        (ValueError, "noise: incomplete", {"noise": noise | {"size": 4}}),
        (ValueError, "noise: incomplete", {"noise": noise | {"size": 0}}),
        (ValueError, "noise: incomplete", {"noise": noise | {"kind": 2}}),
        (ValueError, "noise: incomplete", {"noise": noise | {"kind": 4}}),
        (ValueError, "noise.number: expected shape", {"noise": noise | {"number": np.arange(3)}}),
        (ValueError, f"instruction set: expected one of {sets}, got abacus", {"isa": "abacus"}),
        (ValueError, "layout: expected auto, interleaved or rows, got columns", {"layout": "columns"}),
    ):
        with pytest.raises(kind, match=message):
            run(**sound | wrong)
