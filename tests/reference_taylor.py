"""Gradient flow of two layers with whitened inputs by Taylor's series in integers: as many digits as one likes.

    W_1' = W_2ᵀE,  W_2' = E W_1ᵀ,  E = Σ_yx - W_2 W_1

Numbers are multiples of 2^-bits: layers much smaller than 1 have that many fewer. A step is as long as the last of its
terms allow, so that 1e-30 of a layer is missing.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

ORDER = 40
MISSING = 100  # bits


def two_layers(sigma_yx, first, second, times, bits=180):
    """W_1 and W_2 at increasing times, float64."""
    one = 1 << bits

    def whole(a):
        return np.vectorize(lambda x: int(Fraction(float(x)) * one), otypes=[object])(a)

    def size(a):  # log2
        return max(abs(x) for x in a.ravel()).bit_length() - bits

    def floats(a):
        return np.vectorize(lambda x: float(Fraction(x, one)), otypes=[float])(a)

    S, A0, B0 = whole(sigma_yx), whole(first), whole(second)
    now, found = 0, []
    for t in times:
        end = int(Fraction(float(t)) * one)
        while now < end:
            A, B, E = [A0], [B0], []
            for k in range(ORDER):
                E.append((S if k == 0 else 0 * S) - (np.hstack(B) @ np.vstack(A[::-1]) >> bits))
                A.append((np.vstack(B).T @ np.vstack(E[::-1]) >> bits) // (k + 1))
                B.append((np.hstack(E) @ np.hstack(A[k::-1]).T >> bits) // (k + 1))
            room = [(size(X[0]) - size(X[q]) - MISSING) / q for X in (A, B) for q in (ORDER - 1, ORDER) if X[q].any()]
            step = min(end - now, int(Fraction(2.0 ** min(room, default=60.0)) * one))
            A0, B0 = A[ORDER], B[ORDER]
            for k in range(ORDER - 1, -1, -1):
                A0, B0 = A[k] + (step * A0 >> bits), B[k] + (step * B0 >> bits)
            now += step
        found.append((floats(A0), floats(B0)))
    return found
