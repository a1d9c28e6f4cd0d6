"""The throw-away kernels that pydln's were designed after, where someone has compiled them: the speed to beat.

The environment variable PYDLN_PROTOTYPES names a folder with gk_v3.so and g7_v3.so (AVX2), or gk_v4.so and g7_v4.so
(AVX-512).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import probe
from clock import fastest
from workloads import LR, RECORD_EVERY

LABEL = "prototype"
FOLDER = "PYDLN_PROTOTYPES"
NARROW = 10  # the only number of outputs that g7 is compiled for


def prepare(workload):
    kernels = _thin(workload) if workload.batch == 1 and workload.widths[-1] == NARROW else _batched(workload)
    if len(kernels) == 1:
        return kernels[0]
    return fastest(kernels, lambda train: train(RECORD_EVERY))


def _batched(workload):
    """Designs A (networks over the lanes of a vector) and B (one network after the other)."""
    library, suffix = _library("gk"), "f" if workload.dtype == "float32" else "d"
    targets = np.ascontiguousarray(
        np.broadcast_to(workload.sigma_yx.astype(workload.dtype), (workload.batch, *workload.sigma_yx.shape))
    )
    rates = np.full(workload.batch, LR, workload.dtype)
    long = ctypes.c_long

    def with_design(design):
        run = getattr(library, f"run{design}_{suffix}")
        run.restype = None

        def train(steps):
            # One record at every multiple of RECORD_EVERY below `steps`: none at the end.
            losses = np.empty((steps // RECORD_EVERY, workload.batch), workload.dtype)
            layers = [np.empty_like(w) for w in workload.start]
            run(
                _widths(workload),
                ctypes.c_int(workload.depth),
                long(workload.batch),
                long(steps),
                long(RECORD_EVERY),
                _pointers(workload.start),
                _pointer(targets),
                _pointer(rates),
                _pointer(losses),
                ctypes.c_int(1),
                ctypes.c_int(1),  # A: sizes known to the compiler where it has them. B: padded rows
                _pointers(layers),
            )
            return losses.T, layers

        return train

    return [with_design(design) for design in "AB"]


def _thin(workload):
    """One wide network from its narrow end; the trained weights are not given back."""
    single = workload.dtype == "float32"
    run = getattr(_library("g7"), "g7_f" if single else "g7_d")
    run.restype = None
    target = np.ascontiguousarray(workload.sigma_yx.astype(workload.dtype))

    def train(steps):
        losses = np.empty((steps // RECORD_EVERY, 1), workload.dtype)
        run(
            _widths(workload),
            ctypes.c_int(workload.depth),
            ctypes.c_long(steps),
            ctypes.c_long(RECORD_EVERY),
            _pointers(workload.start),
            _pointer(target),
            ctypes.c_double(LR),
            _pointer(losses),
            ctypes.c_int(1),
        )
        return losses.T, None

    return [train]


def _library(stem):
    version = "v4" if probe.isa() == "avx512" else "v3"
    return ctypes.CDLL(str(Path(os.environ[FOLDER]).resolve() / f"{stem}_{version}.so"))


def _widths(workload):
    return (ctypes.c_int * len(workload.widths))(*workload.widths)


def _pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def _pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
