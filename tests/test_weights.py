"""Weights: what they accept, what they refuse, and that nobody can change them behind a run's back."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydln.weights import Weights, member_index


def make(widths: tuple[int, ...], batch: int = 1, dtype: Any = np.float64, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights([rng.normal(size=(batch, n, m)).astype(dtype) for m, n in pairwise(widths)])


def test_attributes() -> None:
    w = make((5, 4, 3, 2), batch=7)
    assert (w.widths, w.depth, w.batch, len(w), w.dtype.name) == ((5, 4, 3, 2), 3, 7, 7, "float64")
    assert [layer.shape for layer in w.layers] == [(7, 4, 5), (7, 3, 4), (7, 2, 3)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.integers(1, 4))
def test_product_is_the_chain_last_layer_leftmost(widths: list[int], batch: int) -> None:
    w = make(tuple(widths), batch)
    product = w.product()
    assert product.shape == (batch, widths[-1], widths[0])
    for i in range(batch):
        expected = np.eye(widths[0])
        for layer in w.layers:
            expected = layer[i] @ expected
        np.testing.assert_allclose(product[i], expected, rtol=1e-12, atol=1e-13)


def test_product_of_one_layer_is_a_copy() -> None:
    w = make((3, 2))
    product = w.product()
    product[:] = 0
    assert np.all(w.layers[0] != 0)


def test_two_dimensional_layers_are_one_member() -> None:
    w = Weights([np.ones((3, 2)), np.ones((1, 3, 3)), [[1, 2, 3]]])
    assert w.batch == 1
    assert w.widths == (2, 3, 3, 1)


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [(np.float32, np.float32), (np.float64, np.float64), (np.int32, np.float64), (bool, np.float64)],
)
def test_dtypes(given_dtype: Any, expected: Any) -> None:
    w = Weights([np.ones((2, 2), given_dtype), np.ones((2, 2), given_dtype)])
    assert w.dtype == expected
    assert w.product().dtype == expected


def test_layers_are_copied_and_read_only() -> None:
    mine = np.ones((2, 3, 3))
    w = Weights([mine])
    mine[:] = 7
    assert np.all(w.layers[0] == 1)
    assert mine.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        w.layers[0][0, 0, 0] = 2
    with pytest.raises(AttributeError):
        w.layers = ()  # type: ignore[misc]


def test_layers_are_contiguous_whatever_was_given() -> None:
    transposed = np.arange(24.0).reshape(2, 3, 4).transpose(0, 2, 1)
    w = Weights([transposed])
    assert w.layers[0].flags.c_contiguous
    np.testing.assert_array_equal(w.layers[0], transposed)


def test_indexing_keeps_the_batch_axis() -> None:
    w = make((3, 2, 3), batch=5)
    mask = np.array([True, False, False, True, False])
    cases: list[tuple[Any, list[int]]] = [
        (1, [1]),
        (-1, [4]),
        (np.int64(2), [2]),
        (slice(1, None, 2), [1, 3]),
        (slice(None, None, -1), [4, 3, 2, 1, 0]),
        (mask, [0, 3]),
        ([3, 3, 0], [3, 3, 0]),
        (np.array([], dtype=int), []),
        ([], []),
    ]
    for index, members in cases:
        picked = w[index]
        assert picked.batch == len(members)
        for layer, source in zip(picked.layers, w.layers, strict=True):
            np.testing.assert_array_equal(layer, source[members])
            assert layer.flags.c_contiguous
            assert not layer.flags.writeable
    assert [member.batch for member in w] == [1] * 5


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (5, IndexError, "index: expected a member among 5, got 5"),
        (-6, IndexError, "index: expected a member among 5, got -6"),
        ([0, 9], IndexError, "index: expected members among 5, got 0 ... 9"),
        ([True, False], IndexError, "index: expected a mask over 5 members, got 2 entries"),
        ("a", TypeError, "index: expected an integer, a slice, a mask or a 1-D array of integers, got 'a'"),
        (1.0, TypeError, "index: expected an integer, .* got 1.0"),
        ((0, 1), TypeError, r"index: expected an integer, .* got \(0, 1\)"),
        ([0.5], TypeError, "index: expected an integer, .* got an array of float64 with shape"),
        ([[0]], TypeError, r"index: expected an integer, .* got an array of int64 with shape \(1, 1\)"),
    ],
)
def test_wrong_indices(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        member_index(index, 5)


def test_astype_and_concatenate() -> None:
    w = make((4, 3, 2), batch=3)
    single = w.astype("float32")
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single.layers[0], w.layers[0].astype(np.float32))
    both = Weights.concatenate([w[:1], w[1:]])
    for layer, source in zip(both.layers, w.layers, strict=True):
        np.testing.assert_array_equal(layer, source)
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got int64"):
        w.astype(np.int64)
    with pytest.raises(ValueError, match=r"dtype: expected weights within the range of float32, got 1e\+300"):
        Weights([[[1e300]]]).astype(np.float32)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], ValueError, "parts: expected at least one Weights, got none"),
        ([make((2, 2)), np.ones((2, 2))], TypeError, r"parts\[1\]: expected Weights, got ndarray"),
        ([make((2, 2)), make((2, 3))], ValueError, r"parts\[1\]: expected widths \(2, 2\), got \(2, 3\)"),
        (
            [make((2, 2)), make((2, 2), dtype=np.float32)],
            ValueError,
            r"parts\[1\]: expected float64 like parts\[0\], got",
        ),
    ],
)
def test_wrong_parts(parts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Weights.concatenate(parts)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, "weights: expected at least one layer, got none"),
        (np.ones((2, 3, 3)), TypeError, r"weights: expected a sequence of layers, W_1 first, got one array of shape"),
        ("abc", TypeError, "weights: expected a sequence of layers, W_1 first, got str"),
        (3, TypeError, "weights: expected a sequence of layers, W_1 first, got int"),
        (make((2, 2)), TypeError, "weights: expected a sequence of layers, W_1 first, got Weights"),
        (["abc"], TypeError, r"weights\[0\]: expected real numbers, got 'abc'"),
        (
            [np.ones((2, 2), complex)],
            TypeError,
            r"weights\[0\]: expected real numbers, got an array of complex numbers",
        ),
        ([[[1, 2], [3]]], ValueError, r"weights\[0\]: expected an array of numbers, got a ragged sequence"),
        ([np.ones(3)], ValueError, r"weights\[0\]: expected \(batch, n_out, n_in\) or \(n_out, n_in\), got \(3,\)"),
        ([np.ones((2, 0))], ValueError, r"weights\[0\]: expected at least one member and one unit .* got \(2, 0\)"),
        ([np.ones((0, 2, 2))], ValueError, r"weights\[0\]: expected at least one member"),
        ([[[1.0, np.nan]]], ValueError, r"weights\[0\]: expected finite numbers, got 1 that are not"),
        (
            [np.ones((64, 16, 8)), np.ones((64, 16, 32))],
            ValueError,
            r"weights\[1\]: expected \(batch, 32, 16\) to follow weights\[0\], got \(64, 16, 32\)",
        ),
        (
            [np.ones((64, 16, 8)), np.ones((64, 5, 32))],
            ValueError,
            r"weights\[1\]: expected \(batch, any, 16\) to follow weights\[0\], got \(64, 5, 32\)",
        ),
        (
            [np.ones((64, 16, 8)), np.ones((32, 5, 16))],
            ValueError,
            r"weights\[1\]: expected \(64, any, 16\) to follow weights\[0\], got \(32, 5, 16\)",
        ),
        (
            [np.ones((2, 2), np.float32), np.ones((2, 2))],
            ValueError,
            r"weights\[1\]: expected float32 like weights\[0\], got float64",
        ),
    ],
)
def test_wrong_layers(layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Weights(layers)


def test_repr_stays_short() -> None:
    assert repr(make((5, 4, 2), batch=7)) == "Weights(batch=7, depth=2, widths=5-4-2, float64, 1.57 kB)"
    assert len(repr(make((1,) * 200))) < 120


def test_pickle_and_copy_stay_read_only() -> None:
    w = make((3, 2, 3), batch=2)
    for other in (pickle.loads(pickle.dumps(w)), copy.deepcopy(w), copy.copy(w)):
        assert other.widths == w.widths
        for mine, theirs in zip(w.layers, other.layers, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert not theirs.flags.writeable


class Tensor:
    """As much of torch.Tensor as `from_torch` touches."""

    def __init__(self, array: np.ndarray[Any, Any], dtype: str = "") -> None:
        self.array, self.dtype = array, dtype or f"torch.{array.dtype}"

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        return self.array


class Linear:
    """As much of torch.nn.Linear as `from_torch` touches."""

    def __init__(self, weight: np.ndarray[Any, Any], bias: Any = None, dtype: str = "") -> None:
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = Tensor(weight, dtype), bias


class ReLU:
    pass


class Sequential:
    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def __iter__(self) -> Any:
        return iter(self.modules)


def test_from_torch_stand_in() -> None:
    first, second = np.ones((3, 2), np.float32), np.full((4, 3), 2, np.float32)
    w = Weights.from_torch(Sequential(Linear(first), Linear(second)))
    assert w.widths == (2, 3, 4)
    assert w.dtype == np.float32
    assert w.batch == 1
    first[:] = 0
    assert np.all(w.layers[0] == 1)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Sequential(), ValueError, "module: expected at least one Linear layer, got none"),
        (Linear(np.ones((2, 2))), TypeError, "module: expected a torch.nn.Sequential, got Linear"),
        ([np.ones((2, 2))], TypeError, "module: expected a torch.nn.Sequential, got list"),
        (Sequential(Linear(np.ones((2, 2))), ReLU()), TypeError, r"module\[1\]: expected a Linear layer, got ReLU"),
        (
            Sequential(Linear(np.ones((2, 2)), bias=Tensor(np.ones(2)))),
            ValueError,
            r"module\[0\]: expected a Linear layer without bias, got one with bias=True",
        ),
        (
            Sequential(Linear(np.ones((2, 2)), dtype="torch.bfloat16")),
            TypeError,
            r"module\[0\].weight: expected float32 or float64, got torch.bfloat16",
        ),
    ],
)
def test_wrong_modules(module: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Weights.from_torch(module)


def test_from_torch_itself() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 5, bias=False), torch.nn.Linear(5, 2, bias=False))
    w = Weights.from_torch(module)
    x = torch.randn(4, 3)
    np.testing.assert_allclose(module(x).detach().numpy(), x.numpy() @ w.product()[0].T, rtol=1e-5, atol=1e-6)
