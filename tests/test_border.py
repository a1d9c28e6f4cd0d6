"""What comes from outside: every argument of every public function, by introspection of what there is.

A new public function is tested by being there. When one of its arguments has a name that VALUES does not know, the test
says so.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pydln
from pydln import (
    Stop,
    Task,
    Trajectory,
    Weights,
    activations,
    analysis,
    datasets,
    exact,
    init,
    plot,
    propagation,
    reduce,
    spectra,
)
from pydln._base import validate

Figure = pytest.importorskip("matplotlib.figure").Figure

try:
    import pandas as pd
except ImportError:
    pd = None

MODULES = (pydln, activations, analysis, datasets, exact, init, plot, propagation, reduce, spectra)
MISTAKES = (TypeError, ValueError)
REFUSALS = (*MISTAKES, IndexError, pydln.PydlnError)

rng = np.random.default_rng(0)
TASK = Task.from_spectrum([3.0, 1.0], 4, 3, seed=0)
WEIGHTS = init.aligned(TASK, depth=2, strength=[0.1, 0.2])
BALANCED = init.balanced(0.1 * rng.standard_normal((3, 4)), depth=2)
RUN = pydln.gradient_descent(TASK, WEIGHTS, lr=0.01, steps=20)
SOLUTION = exact.solve(TASK, WEIGHTS)
PRODUCT = 0.1 * rng.standard_normal((3, 4))
SAMPLES = rng.standard_normal((10, 4))
LAW = spectra.MarchenkoPastur(0.5)
LAWS = (LAW, spectra.Disk(1), spectra.FussCatalan(2), spectra.Orthogonal())

# A sound value for each name of an argument; of those that are not here the default is taken, if there is one.
VALUES: dict[str, Any] = {
    "task": TASK, "tasks": [TASK, TASK], "weights": WEIGHTS, "run": RUN, "solution": SOLUTION,
    "ensemble": reduce.Ensemble.of(TASK, WEIGHTS),
    "pretrained": pydln.pretrain(TASK, [4, 4, 3], lr=0.05, steps=3), "law": LAW, "stop": Stop(loss=0.1),
    "simulation": RUN, "theory": SOLUTION.evaluate(RUN.t),
    "lr": 0.01, "steps": 5, "t": [0.0, 0.5, 1.0], "product": PRODUCT, "depth": 2, "width": 4, "widths": [4, 5, 3],
    "s": [3.0, 1.0], "u0": [0.1, 0.2], "u": [0.5, 0.6], "v0": 0.1, "v": 1.0, "a0": 0.1, "b0": 0.2,
    "layer_strengths": [[0.5, 0.5], [0.4, 0.4]], "strength": [0.1, 0.2], "imbalance": 0.3, "scale": 0.5, "norm": 1.0,
    "x": SAMPLES, "y": SAMPLES[:, :3], "X": SAMPLES, "Y": SAMPLES[:, :3], "sigma_xx": np.eye(4), "sigma_yx": PRODUCT,
    "trace_yy": 5.0, "n_in": 4, "n_out": 3, "target": [3.0, 1.0], "loss": 4.0, "activation": "tanh",
    "sigma_w": 1.2, "sigma_b": 0.1,
    "q": 0.5, "c": 0.3, "f": np.tanh, "variance": 0.5, "reduce": "auto", "kind": "gaussian", "n": 3,
    "matrices": PRODUCT,
    "factors": WEIGHTS, "empirical": [0.1, 0.5], "log_values": [0.1, 0.5], "values": [0.1, 0.5j],
    "gains": [1.0, 2.0], "lengths": [1, 2], "iterations": [1.0], "rate": [1.0],
    "phases": propagation.phase_diagram("tanh", [1.0, 2.0], [0.1, 0.2]), "paths": [([0.0, 1.0], [0.0, 1.0])],
    "levels": 2, "branching": 2, "flip": 0.1, "features": 5, "layers": list(WEIGHTS.layers),
    "parts": [WEIGHTS, WEIGHTS],
    "std": 0.1, "size": 2, "teacher": 2.0, "k": 2, "ratio": 0.5, "index": [0, 1],
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "pydln.pretrain": {"lr": 0.05, "steps": 3},
    "pydln.exact.balanced_mode": {"u0": 0.1, "s": 1.0},
    "pydln.exact.scalar_mode": {"s": 1.0},
    "pydln.exact.iterations_to_learn": {"v": 0.5},
    "pydln.exact.compare": {"run": pydln.gradient_flow(TASK, WEIGHTS, [0.0, 1.0])},
    "pydln.init.aligned": {"strength": [0.1, 0.2]},
    "pydln.init.product_scaled": {"norm": 1.0},
    "pydln.plot.learning_time": {"depth": [2.0]},
    "pydln.plot.optimal_rate": {"depth": [2.0]},
    "pydln.plot.phase_portrait": {"s": 1.0},
    "pydln.plot.jacobian_grid": {"singular_values": {"one": np.ones((2, 2, 2))}},
    "pydln.propagation.phase_diagram": {"sigma_w": [1.0, 2.0], "sigma_b": [0.1, 0.2]},
    "pydln.propagation.propagate": {"x": SAMPLES[:2]},
    "pydln.propagation.jacobian": {"x": SAMPLES[:2]},
    "pydln.propagation.jacobian_singular_values": {"x": SAMPLES[:2]},
    "pydln.spectra.JacobianLaw": {"q": 0.5},
    "pydln.spectra.compare": {"law": spectra.Disk(1)},
}
# Arguments that nothing is computed with: names to show, axes to draw into, callables.
SHOWN = {"also", "ax", "name", "label", "color", "progress", "note", "path"}


CALLED_ELSEWHERE = {"batch": "members", "layers": "weights", "setting": "settings['own']"}


class Case(NamedTuple):
    """A public callable and an argument of it."""

    name: str
    call: Callable[..., Any]
    argument: str

    def sound(self) -> dict[str, Any]:
        """Arguments it takes, those without a default and the one in question."""
        given = {}
        for parameter in inspect.signature(self.call).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            own = OWN.get(self.name, {})
            if parameter.name == "ax":
                given["ax"] = Figure().add_subplot()
            elif parameter.name in own:
                given[parameter.name] = own[parameter.name]
            elif parameter.default is parameter.empty:
                assert parameter.name in VALUES, f"{self.name}: VALUES has nothing for the argument {parameter.name}"
                given[parameter.name] = VALUES[parameter.name]
        return given

    def __call__(self, value: Any) -> Any:
        return self.call(**{**self.sound(), self.argument: value})


def stopped(*, loss: Any = 0.1, strengths: Any = 0.1, steady: Any = 0.1) -> Any:
    stop = Stop(loss=loss, strengths=strengths, steady=steady)
    return pydln.gradient_descent(TASK, WEIGHTS, lr=0.01, steps=5, stop=stop)


def with_noise(kind: type, task: Task) -> Callable[..., Any]:
    def noisy(**options: Any) -> Any:
        return pydln.gradient_descent(task, WEIGHTS, lr=0.01, steps=3, noise=kind(**options))

    noisy.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return noisy


def recorded(*, t: Any = RUN.t, steps: Any = RUN.steps, loss: Any = RUN.loss, status: Any = RUN.status,
             stopped_time: Any = RUN.stopped_step, setting: Any = RUN.stopped_step) -> Any:  # fmt: skip
    return Trajectory(
        t=t,
        steps=steps,
        records={"loss": loss},
        status=status,
        stopped_time=stopped_time,
        settings={"own": setting},
        source="x",
    )


def callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            is_law = inspect.isclass(thing) and issubclass(thing, spectra.Law) and thing is not spectra.Law
            if inspect.isfunction(thing) or is_law:
                yield f"{module.__name__}.{name}", thing
    law_methods = [name for name, _ in inspect.getmembers(spectra.Law, inspect.isfunction) if name[0] != "_"]
    for law in LAWS:
        for name in law_methods:
            yield f"{type(law).__name__}.{name}", getattr(law, name)
    for name, method in inspect.getmembers(Task, callable):
        if name[0] != "_":
            yield f"Task.{name}", TASK.loss if name == "loss" else method
    yield "Weights", Weights
    yield "Weights.concatenate", Weights.concatenate
    yield "Weights[]", lambda index: WEIGHTS[index]
    yield "Trajectory", recorded
    yield "Trajectory[]", lambda index: RUN[index]
    yield "Stop", stopped
    yield "Solution.evaluate", SOLUTION.evaluate
    yield "Solution.residual", SOLUTION.residual
    from_data = Task.from_data(SAMPLES, SAMPLES[:, :3], keep_samples=True)
    for kind in (pydln.Minibatch, pydln.Online, pydln.LabelNoise):
        yield kind.__name__, with_noise(kind, from_data)


def cases() -> list[Case]:
    return [
        Case(name, call, parameter.name)
        for name, call in callables()
        for parameter in inspect.signature(call).parameters.values()
        if parameter.name not in SHOWN and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


CASES = cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}({case.argument})")


def flags() -> list[Case]:
    """Arguments whose default, or annotation, is a bool."""
    found = []
    for case in CASES:
        parameter = inspect.signature(case.call).parameters[case.argument]
        if isinstance(parameter.default, bool) or str(parameter.annotation) in ("bool", "<class 'bool'>"):
            found.append(case)
    return found


def named(case: Case, sentence: str) -> bool:
    return case.argument in sentence or CALLED_ELSEWHERE.get(case.argument, "?") in sentence


def assert_taken_or_refused(case: Case, value: Any) -> None:
    sentence = None
    try:
        case(value)
    except REFUSALS as error:
        sentence = str(error)
    assert sentence is None or (named(case, sentence) and len(sentence) < 600), (value, sentence)


def assert_refused(case: Case, value: Any, *words: str) -> None:
    with pytest.raises(MISTAKES) as caught:
        case(value)
    sentence = str(caught.value)
    assert "\n" not in sentence, sentence
    assert len(sentence) < 600, sentence
    assert named(case, sentence), sentence
    assert "expected" in sentence, sentence
    for word in words:
        assert word in sentence, sentence


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_the_arguments_that_are_spoilt_below_are_sound(name: str) -> None:
    one = next(case for case in CASES if case.name == name)
    one.call(**one.sound())


def masked_like(value: Any) -> Any:
    """`value` with a mask over one entry; an array of numbers where it is none."""
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.ones(3)
    mask = np.zeros(numbers.shape, bool)
    mask[(0,) * numbers.ndim] = True
    return np.ma.array(numbers, mask=mask)


@each_case
def test_masked_arrays_are_refused_in_every_argument(case: Case) -> None:
    value = case.sound().get(case.argument, [1.0, 2.0])
    hidden = masked_like(value)
    for spoilt in (hidden, np.ma.array(2, mask=True), [np.ma.masked, np.ma.masked], np.ma.array(hidden.data)):
        assert_refused(case, spoilt)


@pytest.mark.parametrize("case", flags(), ids=lambda case: f"{case.name}({case.argument})")
def test_flags_are_true_or_false(case: Case) -> None:
    for value in (np.array([True, False]), np.array([True]), np.array(True), np.ma.masked, 1, "yes", None):
        assert_refused(case, value, "expected True or False")


@pytest.mark.parametrize("case", flags(), ids=lambda case: f"{case.name}({case.argument})")
def test_numpy_flags_are_flags(case: Case) -> None:
    default = inspect.signature(case.call).parameters[case.argument].default
    case(np.bool_(default is True))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.argument == "n_threads"], ids=lambda case: f"{case.name}({case.argument})"
)
def test_numbers_of_threads_that_no_int_holds(case: Case) -> None:
    for count in (2**31, 2**63, 2**64, 10**30):
        assert_refused(case, count, "expected an integer <= 2147483647")
    case(2**31 - 1)


INTEGERS = [
    case
    for case in CASES
    if str(inspect.signature(case.call).parameters[case.argument].annotation) in ("int", "int | None")
    and case.argument not in ("bins", "most")
]


@pytest.mark.parametrize("case", INTEGERS, ids=lambda case: f"{case.name}({case.argument})")
def test_integers_of_any_size_are_taken_or_refused_in_a_sentence(case: Case) -> None:
    for huge in (2**64, 10**5000):
        assert_taken_or_refused(case, huge)


@each_case
def test_arrays_without_axes_are_taken_as_numbers_or_refused(case: Case) -> None:
    for value in (np.array(2.0), np.array(2), np.array("loss"), np.array(None)):
        assert_taken_or_refused(case, value)


@each_case
def test_rubbish_is_refused_in_a_sentence(case: Case) -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (
        object(),
        {"a": 1},
        [[1.0], [1.0, 2.0]],
        np.array([1j]),
        b"\x00",
        loop,
        np.zeros((2, 0)),
        float("nan"),
    ):
        assert_taken_or_refused(case, value)


def misaligned(value: Any) -> np.ndarray:
    a = np.asarray(value, dtype=np.float64)
    room = np.empty(a.nbytes + 1, np.uint8)[1:].view(np.float64)[: a.size].reshape(a.shape)
    room[...] = a
    assert a.ndim == 0 or not room.flags.aligned
    return room


def arrays() -> list[Case]:
    """Arguments whose sound value is an array of floating-point numbers."""
    others = ("tasks", "parts", "layers", "paths", "index", "values", "widths")
    given = [(case, case.sound().get(case.argument)) for case in CASES if case.argument not in others]
    return [case for case, value in given if isinstance(value, list | np.ndarray)]


@pytest.mark.parametrize("case", arrays(), ids=lambda case: f"{case.name}({case.argument})")
def test_misaligned_arrays_give_what_aligned_ones_give(case: Case) -> None:
    value = case.sound()[case.argument]
    assert_same(case(np.array(value, dtype=np.float64)), case(misaligned(value)))


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, tuple):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, Trajectory):
        for name in a.names:
            assert_same(getattr(a, name), getattr(b, name))
    elif isinstance(a, Weights):
        for one, other in zip(a.layers, b.layers, strict=True):
            np.testing.assert_array_equal(one, other)


# --- numbers as other packages hold them -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "given",
    [
        [1, 2, 3],
        [1, 2.5, True],
        [np.int8(1), np.float32(0.1), np.uint64(2**63)],
        [2**53, -(2**53), 2**63 - 1],
        [2**64 - 1, 0],
        [[1, 2], [3, 4]],
    ],
)
def test_objects_that_are_numbers_are_exact(given: Any) -> None:
    objects = np.array(given, dtype=object)
    wanted = np.array([float(one) for one in objects.flat]).reshape(objects.shape)
    np.testing.assert_array_equal(validate.array(objects, "x"), wanted)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ([1, 2**64], "integers too large for 64 bits"),
        ([1, None], "a missing value at [1]"),
        ([1, "a"], "an array of objects, 'a' at [1]"),
        ([1, 1j], "an array of objects, 1j at [1]"),
        ([1, [2]], "an array of objects"),
        ([], "an array of objects"),
    ],
)
def test_objects_that_are_no_numbers(given: list[Any], got: str) -> None:
    objects = np.empty(len(given), object)
    objects[:] = given
    with pytest.raises(TypeError) as caught:
        validate.array(objects, "x")
    assert str(caught.value).startswith(f"x: expected real numbers, got {got}")


@pytest.mark.skipif(pd is None, reason="needs pandas")
def test_nullable_columns_of_pandas() -> None:
    for kind in ("Int64", "Int8", "UInt32", "Float64", "boolean"):
        column = pd.Series([1, 0, 1], dtype=kind)
        np.testing.assert_array_equal(validate.array(column, "x"), [1.0, 0.0, 1.0])
        np.testing.assert_array_equal(validate.array(column.array, "x"), [1.0, 0.0, 1.0])
        np.testing.assert_array_equal(validate.array(pd.DataFrame({"a": column}), "x")[:, 0], [1.0, 0.0, 1.0])
        with pytest.raises(MISTAKES, match=r"^x: expected .*, got (a missing value at|1 that are not)"):
            validate.array(pd.Series([1, None], dtype=kind), "x")
    frame = pd.DataFrame({"a": pd.array([1, 2], dtype="Int64"), "b": [0.5, 1.5]})
    np.testing.assert_array_equal(validate.array(frame, "x"), [[1, 0.5], [2, 1.5]])
    X = pd.DataFrame(np.round(SAMPLES), dtype="Int64")
    assert_same(
        Task.from_data(X, X.iloc[:, :3]).sigma_yx, Task.from_data(np.round(SAMPLES), np.round(SAMPLES[:, :3])).sigma_yx
    )


class Tensor:
    """Behaves as a tensor of torch does towards NumPy."""

    def __init__(
        self, values: Any, *, grad: bool = False, dtype: str = "float64", device: str = "cpu", layout: str = "strided"
    ):
        self.values, self.requires_grad, self.layout = np.asarray(values, dtype=np.float64), grad, f"torch.{layout}"
        self.dtype, self.device = f"torch.{dtype}", types.SimpleNamespace(type=device)
        self.shape, self.ndim = self.values.shape, self.values.ndim

    def detach(self) -> Tensor:
        return self

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, *_: Any, **__: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.dtype == "torch.bfloat16" or self.device.type != "cpu" or self.layout != "torch.strided":
            raise TypeError("no")
        return self.values


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"grad": True}, ".detach()"),
        ({"dtype": "bfloat16"}, ".float()"),
        ({"dtype": "float8_e4m3fn"}, ".float()"),
        ({"device": "cuda"}, ".cpu()"),
        ({"layout": "sparse_coo"}, ".to_dense()"),
        ({"grad": True, "dtype": "bfloat16", "device": "cuda"}, ".detach().float().cpu()"),
    ],
)
def test_tensors_say_what_makes_an_array_of_them(options: dict[str, Any], calls: str) -> None:
    tensor = Tensor(PRODUCT, **options)
    for given in (tensor, [tensor, tensor], (tensor,)):
        with pytest.raises(TypeError, match=r"^product: expected an array of numbers, got a Tensor ") as caught:
            TASK.loss(given)  # type: ignore[arg-type]
        assert str(caught.value).endswith(f": pass product{calls}")
    with pytest.raises(TypeError) as caught:
        Weights([tensor])
    assert str(caught.value).endswith(f": pass weights[0]{calls}")
    assert "from_torch" not in str(caught.value)


def test_a_tensor_without_obstacles_is_an_array() -> None:
    assert TASK.loss(Tensor(PRODUCT)) == TASK.loss(PRODUCT)  # type: ignore[arg-type]


def test_what_becomes_a_masked_array_is_one() -> None:
    class Variable:  # as that of netCDF4
        def __array__(self, *_: Any, **__: Any) -> Any:
            return np.ma.array([1.0, 1e20], mask=[False, True])

    with pytest.raises(TypeError, match="x: expected numbers without a mask, got a masked array"):
        validate.array(Variable(), "x")
    with pytest.raises(TypeError, match="x: expected numbers without a mask"):
        validate.array([[1.0], [np.ma.masked]], "x")


# --- the extension, called with anything: in a process of its own, which a crash ends --------------------------------
def test_the_extension_refuses_whatever_it_is_given() -> None:
    """None, nothing, wrong shapes and types, numbers of any size, in each place of each call: 400 of each function."""
    script = [sys.executable, str(Path(__file__).with_name("fuzz_core.py")), "400"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}; {done.stdout[-500:]} {done.stderr[-2000:]}"
    assert int(done.stdout.split()[-1]) > 2000, done.stdout[-500:]
