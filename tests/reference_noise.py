"""The specification of stochastic gradients: counter-based random numbers, and what a step makes of them."""

from __future__ import annotations

from functools import cache

import numpy as np

INDICES, INPUTS, LABELS = range(3)  # streams of random numbers of a step


def philox(counter, key):
    """Philox 4×32 with ten rounds (Salmon et al. 2011): four words of 32 bits of the counter and the key."""
    x = [int(word) for word in counter]
    k = [int(word) for word in key]
    for _ in range(10):
        first, second = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [
            (second >> 32) ^ x[1] ^ k[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ x[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


@cache  # every kernel is compared with the same numbers
def words(seed, member, step, stream, block):
    """Four words. The key is the seed; the counter says block, member, step and stream."""
    low = 0xFFFFFFFF
    counter = (block, member, step & low, (step >> 32) & 0xFFFFFF | stream << 24)
    return philox(counter, (seed & low, seed >> 32))


@cache
def normals(seed, member, step, stream, count):
    """Standard normal numbers (Box & Muller 1958): block j gives numbers 2 j and 2 j + 1."""
    out = np.zeros(count + count % 2)
    for j in range(len(out) // 2):
        w = words(seed, member, step, stream, j)
        u, v = ((a | b << 32) >> 12 for a, b in (w[:2], w[2:]))  # 52 bits each
        radius = np.sqrt(-2 * np.log(1 - u / 2**52))
        out[2 * j : 2 * j + 2] = radius * np.cos(2 * np.pi * v / 2**52), radius * np.sin(2 * np.pi * v / 2**52)
    out.setflags(write=False)
    return out[:count]


def below(seed, member, step, number, bound):
    """Number `number` of the step's whole numbers from 0 to bound - 1."""
    return words(seed, member, step, INDICES, number // 4)[number % 4] * bound >> 32


def chosen(seed, member, step, size, samples, replace):
    """The samples of a minibatch: drawn one by one, or the next ones of the order of this pass over the samples."""
    if replace:
        return [below(seed, member, step, i, samples) for i in range(size)]
    epoch, place = divmod(step, samples // size)
    order = list(range(samples))
    for i in range(1, samples):  # Fisher & Yates; a pass is the step of its random numbers
        j = below(seed, member, epoch, i, i + 1)
        order[i], order[j] = order[j], order[i]
    return order[place * size : (place + 1) * size]


def minibatch(x, y, size, *, seed, member, step, replace, label_noise, total):
    """Second moments of `size` samples, times total / size: `total` is 1 for averages, the samples for sums."""
    rows = chosen(seed, member, step, size, len(x), replace)
    xi = normals(seed, member, step, LABELS, size * y.shape[1]).reshape(size, -1)
    x, y = x[rows], y[rows] + label_noise * xi
    return x.T @ x * (total / size), y.T @ x * (total / size)


def online(root, optimum, size, *, seed, member, step, label_noise):
    """Second moments of fresh samples: x = Sigma_xx^(1/2) z, y = Omega* x + label_noise xi."""
    n_out, n_in = optimum.shape
    x = normals(seed, member, step, INPUTS, size * n_in).reshape(size, n_in) @ root
    y = x @ optimum.T + label_noise * normals(seed, member, step, LABELS, size * n_out).reshape(size, n_out)
    return x.T @ x / size, y.T @ x / size


def noisy_labels(sigma_xx, sigma_yx, root, scale, *, seed, member, step):
    """Sigma_yx of all samples with fresh noise on every label: a Gaussian of column covariance Sigma_xx is added."""
    z = normals(seed, member, step, LABELS, sigma_yx.size).reshape(sigma_yx.shape)
    return sigma_xx, sigma_yx + scale * z @ root
