"""Compiled kernels of pydln; reached through pydln._base.backend only."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

build: dict[str, str]

def best_isa() -> str: ...
def usable_isas() -> list[str]: ...
def step_flops(widths: list[int], whitened: bool) -> float: ...
def balanced_mode(
    *,
    table: dict[str, Any],
    which: NDArray[Any] | None,
    u0: NDArray[Any],
    s: NDArray[Any],
    rate: NDArray[Any],
    t: NDArray[Any],
    u: NDArray[Any],
    gap: NDArray[Any] | None,
    threads: int,
    isa: str,
) -> bool: ...
def descent_f64(
    *,
    weights: list[NDArray[Any]],
    task: dict[str, Any],
    test: dict[str, Any] | None,
    root: NDArray[Any] | None,
    lr: NDArray[Any],
    momentum: NDArray[Any] | None,
    decay: NDArray[Any] | None,
    nesterov: bool,
    noise: dict[str, Any] | None,
    steps: int,
    stop: dict[str, NDArray[Any] | None],
    record_at: NDArray[Any],
    records: dict[str, Any],
    status: NDArray[Any],
    stopped_at: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
    layout: str,
    tick: Callable[[int, int], object] | None,
) -> bool: ...

descent_f32 = descent_f64

def flow_f64(
    *,
    weights: list[NDArray[Any]],
    task: dict[str, Any],
    test: dict[str, Any] | None,
    method: dict[str, Any],
    rtol: float,
    atol: float,
    step: float,
    max_step: float,
    max_steps: int,
    record_at: NDArray[Any],
    stop: dict[str, NDArray[Any] | None],
    records: dict[str, Any],
    status: NDArray[Any],
    stopped_at: NDArray[Any],
    accepted: NDArray[Any],
    rejected: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
    layout: str,
    tick: Callable[[int, int], object] | None,
) -> bool: ...

flow_f32 = flow_f64

def modes_f64(
    *,
    layer_strengths: NDArray[Any],
    s: NDArray[Any],
    variances: NDArray[Any],
    method: dict[str, Any],
    rtol: float,
    atol: float,
    step: float,
    max_step: float,
    max_steps: int,
    record_at: NDArray[Any],
    strengths: NDArray[Any],
    status: NDArray[Any],
    stopped_at: NDArray[Any],
    accepted: NDArray[Any],
    rejected: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
    tick: Callable[[int, int], object] | None,
) -> bool: ...
def plan_f64(widths: list[int], batch: int, whitened: bool, isa: str, layout: str) -> dict[str, Any]: ...

plan_f32 = plan_f64

def nonlinear_f64(
    *,
    weights: list[NDArray[Any]],
    activation: int,
    train: dict[str, Any],
    test: dict[str, Any] | None,
    modes: dict[str, Any],
    lr: NDArray[Any],
    noise: dict[str, Any] | None,
    steps: int,
    stop: dict[str, NDArray[Any] | None],
    record_at: NDArray[Any],
    records: dict[str, Any],
    status: NDArray[Any],
    stopped_at: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
    layout: str,
    tick: Callable[[int, int], object] | None,
) -> bool: ...

nonlinear_f32 = nonlinear_f64

def activate_f64(activation: int, x: NDArray[Any], value: NDArray[Any], derivative: NDArray[Any], isa: str) -> None: ...

activate_f32 = activate_f64

def singular_values(
    *,
    matrices: NDArray[Any],
    most_steps: int,
    values: NDArray[Any],
    status: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
) -> bool: ...
def graded_values(
    *,
    matrices: NDArray[Any],
    exponents: NDArray[Any],
    most_sweeps: int,
    values: NDArray[Any],
    exponents_out: NDArray[Any],
    status: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
) -> bool: ...
def riccati(
    *,
    start: NDArray[Any],
    floor: NDArray[Any],
    w: NDArray[Any],
    rate: NDArray[Any],
    vectors: NDArray[Any],
    strengths: NDArray[Any],
    begin: NDArray[Any],
    outer: NDArray[Any],
    outside_in: int,
    t: NDArray[Any],
    place: NDArray[Any],
    rule: dict[str, NDArray[Any]],
    most_steps: int,
    inputs: NDArray[Any],
    outputs: NDArray[Any],
    out: NDArray[Any] | None,
    first: NDArray[Any] | None,
    second: NDArray[Any] | None,
    status: NDArray[Any],
    threads: int,
    memory: Callable[[], int | None],
    isa: str,
) -> bool: ...
def two_layer_mode(
    *,
    a0: NDArray[Any],
    b0: NDArray[Any],
    s: NDArray[Any],
    t: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    gap: NDArray[Any] | None,
    threads: int,
    isa: str,
) -> bool: ...
