from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydln.analysis import half_times, learning_times
from pydln.errors import NotRecorded
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory

S = np.array([3.0, 1.5])
U0 = np.array([[1e-3, 1e-3], [1e-2, 2e-3]])  # (batch, mode)


def exact_run(t: Any, s: Any = S) -> Trajectory:
    """Two members, two modes, depth 2 (S13 eq. 12); `t` (time,) or (2, time)."""
    t = np.asarray(t)
    times = t[None, :, None] if t.ndim == 1 else t[:, :, None]
    u = s / (1 + (S / U0[:, None, :] - 1) * np.exp(-2 * S * times))
    return Trajectory(
        t=t,
        steps=None,
        records={"strengths": u, "loss": 0.5 * ((s - u) ** 2).sum(axis=-1)},
        status=[Status.COMPLETED] * 2,
        stopped_step=[-1] * 2,
        stopped_time=[-1] * 2,
        source="exact:test",
    )


def closed_form() -> np.ndarray[Any, Any]:
    return np.asarray(np.log(S / U0 - 1) / (2 * S))


def test_half_times_are_those_of_the_closed_form_and_converge_at_second_order() -> None:
    errors = [np.abs(half_times(exact_run(np.linspace(0, 5, n)), S) - closed_form()).max() for n in (101, 401)]
    assert errors[0] < 2e-3
    assert errors[1] < errors[0] / 8


def test_half_times_with_times_and_targets_per_member() -> None:
    t = np.stack([np.linspace(0, 5, 2001), np.linspace(0, 4, 2001)])
    np.testing.assert_allclose(half_times(exact_run(t), np.stack([S, S])), closed_form(), rtol=1e-5)


def test_negative_modes_reach_half_from_below_zero() -> None:
    run = exact_run(np.linspace(0, 5, 2001), s=-S)
    np.testing.assert_allclose(half_times(run, -S), closed_form(), rtol=1e-5)
    assert np.isnan(half_times(run, S)).all()


def test_never_and_at_once() -> None:
    early = exact_run(np.linspace(0, 0.5, 20))
    assert np.isnan(half_times(early, S)[:, 1]).all()
    assert (half_times(early, 1e-6 * S) == 0).all()
    np.testing.assert_array_equal(learning_times(early, 100.0), [0.0, 0.0])
    assert np.isnan(learning_times(early, 1e-9)).all()


def test_a_member_that_stopped_keeps_its_crossing() -> None:
    run = exact_run(np.linspace(0, 5, 501))
    u = np.array(run.strengths)
    u[0, 200:] = np.nan  # t = 2: after mode 1 of this member, before its mode 2
    cut = Trajectory(
        t=run.t,
        steps=None,
        records={"strengths": u},
        status=run.status,
        stopped_step=run.stopped_step,
        stopped_time=run.stopped_step,
        source="exact:test",
    )
    whole, partial = half_times(run, S), half_times(cut, S)
    assert whole[0, 0] < 2 < whole[0, 1]
    np.testing.assert_array_equal(partial[:, 0], whole[:, 0])
    assert np.isnan(partial[0, 1])
    assert partial[1, 1] == whole[1, 1]


@settings(max_examples=25, deadline=None)
@given(level=st.floats(0.01, 5.0), shift=st.floats(0.1, 10.0))
def test_learning_time_is_where_the_loss_passes_the_level_and_scales_with_time(level: float, shift: float) -> None:
    t = np.linspace(0, 6, 3001)
    run = exact_run(t)
    found = learning_times(run, level)
    for member in range(2):
        assert np.interp(found[member], t, run.loss[member]) == pytest.approx(level, rel=1e-9)
    slower = Trajectory(
        t=shift * t,
        steps=None,
        records={"loss": run.loss},
        status=run.status,
        stopped_step=run.stopped_step,
        stopped_time=run.stopped_step,
        source="exact:test",
    )
    np.testing.assert_allclose(learning_times(slower, [level, level]), shift * found, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: half_times(run, [1.0]),
            "target: expected (2,) or (2, 2), one strength for each recorded mode, got (1,)",
        ),
        (lambda run: half_times(run, [1.0, 0.0]), "target: expected strengths other than 0, got 0"),
        (lambda run: learning_times(run, [1.0] * 3), "loss: expected a number or one for each of 2 members, got 3"),
    ],
)
def test_wrong_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        call(exact_run([0.0, 1.0]))
    assert str(caught.value) == message


def test_what_was_not_recorded() -> None:
    bare = Trajectory(
        t=[0.0], steps=None, records={}, status=[0], stopped_step=[-1], stopped_time=[-1], source="exact:test"
    )
    with pytest.raises(NotRecorded, match="strengths"):
        half_times(bare, [1.0])
    with pytest.raises(NotRecorded, match="loss"):
        learning_times(bare, 1.0)


@pytest.mark.parametrize("call", [half_times, learning_times])
def test_something_that_is_no_trajectory(call: Any) -> None:
    with pytest.raises(TypeError, match=r"^run: expected a pydln\.Trajectory, got list$"):
        call([1.0], 1.0)
