"""What the package shows to the world: its names, their documentation, its version, its errors."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import pydln

TREE = Path(__file__).parents[1] / "pyproject.toml"


def modules() -> list[str]:
    return sorted(m.name for m in pkgutil.walk_packages(pydln.__path__, "pydln.") if not m.name.endswith("._core"))


def test_public_names() -> None:
    assert set(pydln.__all__) >= {
        *("Task", "Weights", "Trajectory", "Status", "Stop", "gradient_descent"),
        *("init", "exact", "plot", "datasets", "analysis"),
        *("PydlnError", "IntegrationError", "Interrupted", "NotApplicable", "NotRecorded", "BackendUnavailable"),
        *("DataNotFound", "FileDamaged", "MissingExtra"),
    }


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), "no docstring"
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (thing.__doc__ or "").strip(), f"{public} has no docstring"


def test_public_signatures_are_annotated() -> None:
    for name in pydln.__all__:
        thing = getattr(pydln, name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}({parameter.name})"


def test_settings_of_a_run_are_keywords() -> None:
    """Nobody can pass a flag or a rate by position."""
    parameters = inspect.signature(pydln.gradient_descent).parameters.values()
    assert [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY] == ["task", "weights"]
    assert {p.name for p in parameters} == {
        *("task", "weights", "lr", "steps", "at", "record_every", "record", "momentum", "weight_decay", "stop"),
        *("nesterov", "noise", "reduce", "n_threads", "throw", "progress"),
    }


def test_one_version() -> None:
    assert pydln.__version__ == importlib.metadata.version("pydln")
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z].*)?", pydln.__version__)


@pytest.mark.skipif(not TREE.is_file(), reason="needs the source tree")
def test_one_version_in_the_tree() -> None:
    """pyproject.toml has it; the citation and the changelog follow."""
    stated = re.search(r'^version = "(.+)"$', TREE.read_text(), re.MULTILINE)
    assert stated is not None
    assert stated[1] == pydln.__version__
    assert f"version: {stated[1]}\n" in (TREE.parent / "CITATION.cff").read_text()
    assert f"## [{stated[1]}]" in (TREE.parent / "CHANGELOG.md").read_text()


def test_own_errors_have_one_base() -> None:
    for name in pydln.__all__:
        thing = getattr(pydln, name)
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing is not pydln.Interrupted:
            assert issubclass(thing, pydln.PydlnError)
    assert issubclass(pydln.Interrupted, KeyboardInterrupt)
    assert not issubclass(pydln.Interrupted, Exception), "Ctrl-C must pass through 'except Exception'"


def test_the_readme_in_small() -> None:
    """A task, a start, a simulation and the theory: the same object, on the same curve."""
    task = pydln.Task.from_spectrum([3.0, 1.0], n_in=5, n_out=4, seed=0)
    start = pydln.init.aligned(task, depth=2, strength=[0.01, 0.1])
    run = pydln.gradient_descent(task, start, lr=1e-3, steps=3000)
    exact = pydln.exact.solve(task, start).evaluate(run.t)
    assert type(run) is type(exact) is pydln.Trajectory
    assert run.strengths.shape == exact.strengths.shape == (2, len(run.t), 2)
    np.testing.assert_allclose(run.strengths, exact.strengths, atol=1e-2)
