"""A Runge–Kutta method with its tolerances, for kernels and for `stepping.follow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydln._base import validate
from pydln.simulate.balanced.stepping import Coordinates, Reached, Recorder, follow
from pydln.simulate.loop import Ends
from pydln.simulate.methods import Method
from pydln.simulate.methods import method as method_named
from pydln.simulate.progress import Tick

__all__ = ["Integrator"]


class Integrator:
    """A method with its tolerances, checked."""

    def __init__(
        self,
        method: str | Method,
        rtol: float | None,
        atol: float,
        step: float | None,
        max_step: float | None,
        max_steps: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.method: Method = method_named(method)
        self.dtype = dtype
        default = 1e-8 if dtype == np.float64 else 1e-4
        eps = float(np.finfo(dtype).eps)
        self.rtol = default if rtol is None else validate.number(rtol, "rtol", at_least=0)
        self.atol = validate.number(atol, "atol", at_least=0)
        if self.rtol < 4 * eps and self.atol == 0:
            raise ValueError(f"rtol: expected at least {4 * eps:.2g} in {dtype} where atol is 0, got {self.rtol:g}")
        self.step = None if step is None else validate.number(step, "step", above=0)
        self.max_step = None if max_step is None else validate.number(max_step, "max_step", above=0)
        self.max_steps = validate.integer(max_steps, "max_steps", at_least=1, at_most=2**62)
        if not len(self.method.error) and self.step is None:
            raise ValueError(f"step: expected the length of the steps of {self.method.name}, got None")

    @property
    def settings(self) -> dict[str, Any]:
        """What a trajectory tells of it."""
        adaptive = {"rtol": self.rtol, "atol": self.atol} if len(self.method.error) else {}
        limits = {"step": self.step, "max_step": self.max_step, "max_steps": self.max_steps}
        return {"method": self.method.name, **adaptive, **limits}

    def following(
        self,
        times: NDArray[np.float64],
        ended: Ends,
        tick: Tick | None,
        reached: Reached | None = None,
    ) -> Callable[[Coordinates, NDArray[Any], Recorder], None]:
        """`stepping.follow` with coordinates, starts and a recorder left open; `tick` gets records."""

        def run(path: Coordinates, y: NDArray[Any], record: Recorder) -> None:
            done = 0

            def seen(path: Any, which: NDArray[np.int64], at: NDArray[np.int64], y: NDArray[Any]) -> None:
                nonlocal done
                record(path, which, at, y)
                done += len(at)
                if tick is not None:
                    tick(done, len(times))

            with np.errstate(all="ignore"):  # a step too long may lead anywhere, and is not kept
                follow(
                    path,
                    y,
                    times,
                    self.method,
                    rtol=self.rtol,
                    atol=self.atol,
                    step=self.step,
                    max_step=self.max_step,
                    max_steps=self.max_steps,
                    ended=ended.of(np.arange(len(y))),
                    record=seen,
                    reached=reached,
                )

        return run

    def kernel(self, times: NDArray[np.float64]) -> dict[str, Any]:
        """What the kernels take."""
        return {
            "method": self.method.kernel(max(self.rtol + self.atol, 1e-15)),
            "rtol": self.rtol,
            "atol": self.atol,
            "step": self.step or 0.0,
            "max_step": self.max_step or 0.0,
            "max_steps": self.max_steps,
            "record_at": times,
        }
