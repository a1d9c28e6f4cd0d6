"""Every mistake in a call of gradient_descent is one clear sentence, before any work is done; and what a failed run hands over."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ensembles import RECORDS, same_bits, some_task, starts

import pydln as dln
from pydln import _backend, _validate

TASK = some_task(3, 2, whiten=True)
WEIGHTS = starts((3, 4, 2), 5)


class TouchedError(Exception):
    pass


@pytest.fixture(autouse=True)
def _no_work_is_done(monkeypatch, request) -> None:
    """A refused call never reaches the kernels."""
    if "runs" in request.keywords.get("usefixtures", pytest.mark.none).args:
        return

    def touched(**_):
        raise TouchedError

    monkeypatch.setattr(_backend.core, "descent_f64", touched)
    monkeypatch.setattr(_backend.core, "descent_f32", touched)


def call(task=TASK, weights=WEIGHTS, **arguments):
    return dln.gradient_descent(task, weights, **{"lr": 0.1, "steps": 10, **arguments})
