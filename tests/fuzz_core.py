"""Calls every function of pydln._core with every argument spoilt; test_border.py runs it in a process of its own.

The sound calls are those that the package makes itself, so that a new function or a new entry is spoilt by being there.
"""

from __future__ import annotations

import copy
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pydln
from pydln import activations, exact, init, spectra
from pydln._base import backend

FUNCTIONS = tuple(name for name in dir(backend.core) if callable(getattr(backend.core, name)) and name[0] != "_")
REFUSALS = (ValueError, TypeError, MemoryError)
Call = tuple[tuple[Any, ...], dict[str, Any]]
Path = tuple[Any, ...]


def use_all() -> None:
    """Calls of the package that reach every function of the extension, with every kind of argument."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    whitened = pydln.Task.from_spectrum([3.0, 1.0], 4, 3, seed=0)
    sampled = pydln.Task.from_data(X, Y, X_test=X, Y_test=Y, keep_samples=True)
    everything = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights")
    stop = pydln.Stop(loss=1e-9, strengths=9.0, steady=1e-9)
    for dtype in ("float64", "float32"):
        start = init.gaussian([4, 3, 3], batch=2, seed=0, scale=0.1, dtype=dtype)
        options: dict[str, Any] = {"lr": 0.01, "steps": 3, "reduce": "none"}
        pydln.gradient_descent(
            sampled,
            start,
            **options,
            record=(*everything, "kernel_distance"),
            stop=stop,
            momentum=0.5,
            weight_decay=0.1,
        )
        for noise in (pydln.Minibatch(2), pydln.Minibatch(2, replace=False), pydln.Online(2), pydln.LabelNoise(0.1)):
            pydln.gradient_descent(sampled, start, **{**options, "reduce": "auto"}, noise=noise)
        for method in ("tsit5", "dop853", "rk4"):
            step = 0.1 if method == "rk4" else None
            flow = {"reduce": "none", "method": method, "step": step, "record": everything}
            pydln.gradient_flow(sampled, start, [0.0, 0.5], stop=stop, **flow)  # type: ignore[arg-type]
        pydln.gradient_flow(whitened, start, [0.0, 0.5], reduce="none")
        pydln.plan(whitened, start)
        pydln.train_nonlinear(X, Y, start, lr=0.01, steps=3, x_test=X, y_test=Y, batch_size=2, record=everything[:3])
        phi = getattr(backend.core, "activate_f64" if dtype == "float64" else "activate_f32")
        x = np.ones(3, dtype)
        phi(1, x, x.copy(), x.copy(), backend.isa())
    pydln.mode_flow([3.0, 1.0], [[0.1, 0.2], [0.3, 0.4]], [0.0, 0.5])
    exact.balanced_mode([0.1, 0.2], [1.0, 2.0], [0.0, 1.0], depth=3)
    aligned = init.aligned(whitened, depth=3, strength=[0.1, 0.2])
    exact.solve(whitened, aligned).evaluate([0.0, 1.0])
    pydln.reduce.find(pydln.reduce.Ensemble.of(whitened, aligned), steps=10**6)
    exact.scalar_mode([0.1, 0.2], [0.3, 0.4], [1.0, 2.0], [0.0, 1.0])
    one = pydln.Task.from_covariances(None, [[1.0, 0.0], [0.0, 0.5]], 2.0)
    balanced = init.lambda_balanced([[0.1, 0.2], [0.0, 0.3]], imbalance=0.5)
    exact.solve(one, balanced, tol=1e-12).evaluate([0.0, 1.0], record="weights")
    spectra.singular_values(rng.standard_normal((2, 3, 4)))
    spectra.product_spectrum(rng.standard_normal((2, 3, 3)))
    activations.activation("tanh")
    backend.core.step_flops([4, 3, 3], True)
    backend.core.usable_isas()
    backend.core.best_isa()


def sound_calls() -> dict[str, list[Call]]:
    """Arguments of every function, as the package hands them over."""
    made: dict[str, list[Call]] = {name: [] for name in FUNCTIONS}
    real = {name: getattr(backend.core, name) for name in FUNCTIONS}

    def caught(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made[name].append((copied(args), copied(kwargs)))
            return real[name](*args, **kwargs)

        return call

    try:
        for name in FUNCTIONS:
            setattr(backend.core, name, caught(name))
        use_all()
    finally:
        for name in FUNCTIONS:
            setattr(backend.core, name, real[name])
    missing = [name for name, calls in made.items() if not calls]
    assert not missing, f"use_all does not reach {', '.join(missing)}"
    return made


def copied(value: Any) -> Any:
    """A deep copy that leaves callables alone, and arrays at 64 bytes as tables have to lie."""
    if isinstance(value, np.ndarray):
        room = np.empty(value.nbytes + 64, np.uint8)
        at = -room.ctypes.data % 64
        a = room[at : at + value.nbytes].view(value.dtype).reshape(value.shape)
        a[...] = value
        return a
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [copied(one) for one in value]
    return value if callable(value) else copy.copy(value)


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every part of a call that can be put into another's place."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list | tuple):
        for key, one in enumerate(value):
            yield from places(one, (*path, key))


GONE = object()


def spoilt(value: Any) -> Iterator[Any]:
    """`value` in every way that it can be wrong."""
    yield from (None, GONE, object(), "x", -1, 0, 2**31, 2**63 - 1, -(2**63), 2**64, 1e308, float("nan"), [], {}, ())
    yield from (np.zeros(0), np.zeros((1, 1, 1)), np.zeros((0, 2, 2)), np.ma.array([1.0], mask=True), np.array(1.0))
    if isinstance(value, np.ndarray):
        a = value
        yield from (a[None], a.reshape(-1), a.astype(object), a.astype(np.complex128), a.astype(">f8"), a.astype("f2"))
        yield from (a.astype(t) for t in (np.float32, np.float64, np.int32, np.int64, bool) if t != a.dtype)
        yield from (
            np.zeros(tuple(0 if k == axis else n for k, n in enumerate(a.shape)), a.dtype) for axis in range(a.ndim)
        )
        yield from (np.zeros(tuple(n + (k == axis) for k, n in enumerate(a.shape)), a.dtype) for axis in range(a.ndim))
        room = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        room[...] = a
        yield room
        fixed = a.copy()
        fixed.flags.writeable = False
        yield fixed
        yield np.broadcast_to(a[..., :1], a.shape) if a.ndim and a.size else a
        for number in (0, -1, 2**62) if a.dtype.kind == "i" else (0.0, -1.0, np.nan, np.inf, 1e308, 5e-324):
            with np.errstate(over="ignore"):
                yield np.full_like(a, number)
    elif isinstance(value, list | tuple):
        yield from (
            list(value)[:-1],
            [*value, None],
            [*value, *value],
            [None] * len(value),
            tuple(value),
            list(value)[::-1],
        )
    elif callable(value):
        yield from (lambda *_: "x", lambda *_: -1, lambda *_: 1 / 0)


def put(call: Call, path: Path, value: Any) -> Call:
    """The call with `value` at `path`."""
    args, kwargs = copied(call)
    args = list(args)
    at: Any = (args, kwargs)
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        at.pop(path[-1])
    else:
        at[path[-1]] = value
    return tuple(args), kwargs


def tried(function: Callable[..., Any], call: Call, what: str) -> None:
    print(what, end="\r", flush=True)  # the last line of a process that was killed
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        function(*call[0], **call[1])
    except (*REFUSALS, KeyboardInterrupt, ZeroDivisionError):
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(seed: int = 0, of_each: int = 400) -> None:
    """Tries so many of the spoilt calls of each function; all of them for 0."""

    def ring(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, ring)
    rng = np.random.default_rng(seed)
    count = 0
    for name, calls in sound_calls().items():
        function = getattr(backend.core, name)
        distinct = {repr([path for path, _ in places(call)]): call for call in calls}
        todo = [
            (call, path, value)
            for call in distinct.values()
            for path, there in places(call)
            if len(path) > 1
            for value in spoilt(there)
        ]
        chosen = rng.permutation(len(todo))[:of_each] if of_each else range(len(todo))
        for i in chosen:
            call, path, value = todo[i]
            tried(function, put(call, path, value), f"{name} {path} {str(value)[:40]!r}          ")
            count += 1
    print(f"\n{count}")


if __name__ == "__main__":
    main(of_each=int(sys.argv[1]))
