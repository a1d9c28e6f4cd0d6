"""numbalsoda: LSODA and DOP853 in a compiled loop, one trajectory after the other."""

from __future__ import annotations

import numpy as np

LABEL = "numbalsoda"


def prepare(case, method, rtol):
    import numba
    import numbalsoda

    depth, times = case.depth, case.times

    @numba.cfunc(numbalsoda.lsoda_sig, fastmath=True)
    def slope(t, a, da, s):
        rest = 1.0
        for layer in range(depth):
            da[layer] = rest
            rest *= a[layer]
        rest = s[0] - rest
        for layer in range(depth - 1, -1, -1):
            da[layer] *= rest
            rest *= a[layer]

    address = slope.address
    solve = numbalsoda.dop853 if method == "dop853" else numbalsoda.lsoda

    @numba.njit
    def loop(start, s):
        u = np.empty((len(s), len(times)))
        for i in range(len(s)):
            found, _ = solve(address, start[i], times, data=s[i : i + 1], rtol=rtol, atol=rtol)
            for k in range(len(times)):
                product = 1.0
                for layer in range(depth):
                    product *= found[k, layer]
                u[i, k] = product
        return u

    loop(case.start[:1], case.s[:1])
    return lambda count: loop(case.start[:count], case.s[:count])
