"""pydln: mode_flow and gradient_flow."""

from __future__ import annotations

from flows.cases import Modes

LABEL = "pydln"


def prepare(case, method, rtol):
    import pydln

    how = {"method": method, "rtol": rtol, "n_threads": 1}

    def modes(count):
        start = case.start[:count, None]
        return pydln.mode_flow(case.s[:count, None], start, case.times, **how).strengths[..., 0]

    def networks(count):
        weights = pydln.Weights([w[:count] for w in case.start])
        task = pydln.Task.from_covariances(None, case.target, (case.target**2).sum())
        return pydln.gradient_flow(task, weights, case.times, record="product", **how).product

    return modes if isinstance(case, Modes) else networks
