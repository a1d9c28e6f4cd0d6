"""Errors that carry something keep it on the way through a pickle, as between processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pydln


@pytest.mark.parametrize("kind", [pydln.IntegrationError, pydln.Interrupted])
def test_a_trajectory_survives_a_pickle(kind: type[BaseException]) -> None:
    run = pydln.Trajectory(
        t=[0.0],
        steps=[0],
        records={"loss": [[2.0]]},
        status=[4],
        stopped_step=[0],
        stopped_time=[0],
        source="gradient_descent",
    )
    error = pickle.loads(pickle.dumps(kind("a sentence", run)))  # type: ignore[call-arg]
    assert type(error) is kind
    assert str(error) == "a sentence"
    np.testing.assert_array_equal(error.trajectory.loss, run.loss)


def test_what_was_missed_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(pydln.NotApplicable("a sentence", {"one layer": "the depth"})))
    assert (str(error), error.missed) == ("a sentence", {"one layer": "the depth"})
