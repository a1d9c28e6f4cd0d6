"""The specification: every operation of the kernels as slow, plain NumPy for one network. Kernels answer to this."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np


def product(layers):
    """Omega = W_D ... W_1."""
    omega = np.eye(layers[0].shape[1])
    for w in layers:
        omega = w @ omega
    return omega


def loss(layers, sigma_xx, sigma_yx, trace_yy):
    """L = 1/2 tr Sigma_yy - tr(Omega^T Sigma_yx) + 1/2 tr(Omega Sigma_xx Omega^T)."""
    omega = product(layers)
    return 0.5 * trace_yy - np.sum(omega * sigma_yx) + 0.5 * np.trace(omega @ sigma_xx @ omega.T)


def gradient(layers, sigma_xx, sigma_yx):
    """dL/dW_l = -(W_D ... W_{l+1})^T E (W_{l-1} ... W_1)^T, E = Sigma_yx - Omega Sigma_xx."""
    error = sigma_yx - product(layers) @ sigma_xx
    out = []
    for place in range(len(layers)):
        above = np.eye(layers[-1].shape[0])
        for w in layers[:place:-1]:
            above = above @ w
        below = np.eye(layers[0].shape[1])
        for w in layers[:place]:
            below = w @ below
        out.append(-above.T @ error @ below.T)
    return out


def inner_work(widths):
    """Multiply-adds of a step's products along the output and input side: 3 n_D, 3 n_0 per weight of D - 1 layers."""
    sizes = [n_in * n_out for n_in, n_out in itertools.pairwise(widths)]
    return 3 * widths[-1] * sum(sizes[:-1]), 3 * widths[0] * sum(sizes[1:])


def conserved(layers):
    """C_l = W_{l+1}^T W_{l+1} - W_l W_l^T."""
    return [above.T @ above - below @ below.T for below, above in itertools.pairwise(layers)]


def tangent_kernel(layers, sigma_xx):
    """K = J Jᵀ on the inputs: J the derivatives of Omega Sigma_xx^(1/2) by every weight, entry by entry."""
    values, vectors = np.linalg.eigh(sigma_xx)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    jacobian = []
    for place, w in enumerate(layers):
        above = np.eye(layers[-1].shape[0])
        for v in layers[:place:-1]:
            above = above @ v
        below = root
        for v in layers[:place]:
            below = v @ below
        pairs = itertools.product(range(w.shape[0]), range(w.shape[1]))
        jacobian += [np.outer(above[:, i], below[j]).ravel() for i, j in pairs]
    jacobian = np.array(jacobian).T
    return jacobian @ jacobian.T


def kernel_distance(layers, start, sigma_xx):
    """1 - <K, K_0> / (|K| |K_0|)."""
    k, k0 = tangent_kernel(layers, sigma_xx), tangent_kernel(start, sigma_xx)
    return 1 - np.sum(k * k0) / (np.linalg.norm(k) * np.linalg.norm(k0))


@dataclass
class Descent:
    """What `descent` returns: records at the steps asked for, as lists over time, and the end."""

    records: dict = field(default_factory=dict)
    layers: list = field(default_factory=list)
    status: str = "completed"
    stopped_at: int = 0


def kernel_alignment(layers, sigma_xx, sigma_yx):
    """y^T K y / (|K| |y|^2) of the tangent kernel K, y = Omega* Sigma_xx^(1/2) entry by entry."""
    values, vectors = np.linalg.eigh(sigma_xx)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    y = (sigma_yx @ np.linalg.pinv(sigma_xx) @ root).ravel()
    K = tangent_kernel(layers, sigma_xx)
    return y @ K @ y / (np.linalg.norm(K) * (y @ y))


def sharpness(layers, sigma_xx, sigma_yx):
    """The largest eigenvalue of the Hessian, column by column from central differences of the gradient.

    The gradient is a polynomial of degree 2 D - 1 in each weight; four differences at steps h, 2h, 3h, 4h are exact up
    to h^8.
    """
    flat = np.concatenate([w.ravel() for w in layers])
    shapes = [w.shape for w in layers]

    def slope(x):
        made, first = [], 0
        for shape in shapes:
            made.append(x[first : first + shape[0] * shape[1]].reshape(shape))
            first += shape[0] * shape[1]
        return np.concatenate([g.ravel() for g in gradient(made, sigma_xx, sigma_yx)])

    h = 0.02
    columns = []
    for move in np.eye(len(flat)) * h:
        weights = ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280))
        columns.append(sum(c * (slope(flat + k * move) - slope(flat - k * move)) for k, c in weights) / h)
    hessian = np.array(columns)
    return np.linalg.eigvalsh(0.5 * (hessian + hessian.T))[-1]


def quantity(name, layers, start, task):
    """What can be recorded of one network, by its name."""
    xx, yx, U, V = task.sigma_xx, task.sigma_yx, task.modes.U, task.modes.V
    omega = product(layers)
    sigma = np.linalg.svd(omega, compute_uv=False)
    share = sigma[sigma > 0] / sigma.sum()
    reached = list(itertools.accumulate(layers[:-1], lambda below, w: w @ below))
    return {
        "loss": lambda: loss(layers, xx, yx, task.trace_yy),
        "test_loss": lambda: loss(layers, task.test.sigma_xx, task.test.sigma_yx, task.test.trace_yy),
        "strengths": lambda: np.diag(U.T @ omega @ V),
        "product": lambda: omega,
        "layer_norms": lambda: [np.linalg.norm(w) for w in layers],
        "kernel_distance": lambda: kernel_distance(layers, start, xx),
        "drift": lambda: [np.linalg.norm(a - b) for a, b in zip(conserved(layers), conserved(start), strict=True)],
        "weights": lambda: layers,
        "singular_values": lambda: sigma,
        "effective_rank": lambda: np.exp(-np.sum(share * np.log(share))),
        "alignment": lambda: [
            u @ omega @ v / np.sqrt(np.linalg.norm(omega @ v) * np.linalg.norm(u @ omega))
            for u, v in zip(U.T, V.T, strict=True)
        ],
        "balance": lambda: [np.linalg.norm(c) for c in conserved(layers)],
        "representations": lambda: [p.T @ p for p in reached],
        "kernel_alignment": lambda: kernel_alignment(layers, xx, yx),
        "sharpness": lambda: sharpness(layers, xx, yx),
    }[name]()


def least_residual(sigma_xx, sigma_yx, rank):
    """‖Σ_yx - ΩΣ_xx‖² of the best Ω of that rank: that which ΩΣ_xx^(1/2) cannot have of the modes of PΣ_xx^(1/2)."""
    values, Q = np.linalg.eigh(sigma_xx)
    kept = values > 1e-12 * values.max()
    root, inverse = Q[:, kept] * np.sqrt(values[kept]), Q[:, kept] / np.sqrt(values[kept])
    U, s, Vt = np.linalg.svd(sigma_yx @ inverse, full_matrices=False)
    return np.sum(((U[:, rank:] * s[rank:]) @ Vt[rank:] @ root.T) ** 2)


def attainable_speed(layers, sigma_xx, sigma_yx, weight_decay=0.0):
    """The largest speed of da/dt = a^(D-1) (σ - a^D) from a small start, σ the norm of what is left to learn."""
    depth, residual = len(layers), sigma_yx - product(layers) @ sigma_xx
    rank = min(min(w.shape) for w in layers)
    least = least_residual(sigma_xx, sigma_yx, rank)
    left = np.sum(residual**2) - least
    sigma = np.sqrt(left if left > 2.0**-46 * least else 0.0) - weight_decay * np.sqrt(min(residual.shape))
    if depth == 1 or sigma <= 0:
        return 0.0
    a = (sigma * (depth - 1) / (2 * depth - 1)) ** (1 / depth)
    return a ** (depth - 1) * (sigma - a**depth)


def descent(
    layers,
    *,
    sigma_xx,
    sigma_yx,
    trace_yy,
    U,
    V,
    lr,
    steps,
    at,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    test=None,
    stop_loss=None,
    stop_strengths=None,
    stop_steady=None,
    noise=None,
):
    """Gradient descent of one network, every quantity recorded at the steps `at`, NaN after it stopped.

    `noise(step)`: the Sigma_xx and Sigma_yx that the gradient of that step sees instead.
    """
    layers = [np.array(w, dtype=np.float64) for w in layers]
    velocity = [np.zeros_like(w) for w in layers]
    start = conserved(layers)
    names = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift")
    run = Descent(records={name: [] for name in names} | {"weights": [[] for _ in layers]})
    status, fastest = None, np.inf

    def look(alive):
        nan = 1.0 if alive else np.nan
        omega = product(layers)
        values = {
            "loss": loss(layers, sigma_xx, sigma_yx, trace_yy),
            "test_loss": np.nan if test is None else loss(layers, *test),
            "strengths": np.diag(U.T @ omega @ V),
            "product": omega,
            "layer_norms": np.array([np.linalg.norm(w) for w in layers]),
            "drift": np.array([np.linalg.norm(c - c0) for c, c0 in zip(conserved(layers), start, strict=True)]),
        }
        for name, value in values.items():
            run.records[name].append(value * nan)
        for kept, w in zip(run.records["weights"], layers, strict=True):
            kept.append(w * nan)

    for step in range(steps + 1):
        if status is None:
            run.stopped_at = step
        if step in at:
            look(alive=status is None)
        if status is None:
            now = loss(layers, sigma_xx, sigma_yx, trace_yy)
            u = np.abs(np.diag(U.T @ product(layers) @ V))
            if not np.isfinite(now):
                status = "diverged"
            elif stop_loss is not None and now <= stop_loss:
                status = "reached_loss"
            elif stop_strengths is not None and np.all(np.isnan(stop_strengths) | (u >= stop_strengths)):
                status = "reached_strength"
            elif (
                stop_steady is not None
                and fastest <= stop_steady
                and (fastest == 0 or attainable_speed(layers, sigma_xx, sigma_yx, weight_decay) <= stop_steady)
            ):
                status = "steady"
        if status is not None or step == steps:
            continue
        slopes = gradient(layers, *((sigma_xx, sigma_yx) if noise is None else noise(step)))
        fastest = 0.0
        for place, w in enumerate(layers):
            pull = -(slopes[place] + weight_decay * w)
            velocity[place] = momentum * velocity[place] + pull
            layers[place] = w + lr * (momentum * velocity[place] + pull if nesterov else velocity[place])
            fastest = max(fastest, np.abs(velocity[place]).max())
    run.layers = layers
    run.status = status or "completed"
    run.records = {
        name: [np.array(w) for w in value] if name == "weights" else np.array(value)
        for name, value in run.records.items()
    }
    return run


@dataclass
class Integrated:
    """What `runge_kutta` returns: the layers at the times asked for, and the steps it took."""

    at: list = field(default_factory=list)
    accepted: int = 0
    rejected: int = 0
    status: str = "completed"
    bounded: int = 0  # steps that what grows unseen made shorter


def fastest_growth(slope, layers):
    """The largest and the least eigenvalue of J, dX/dt = J X linearised at `layers`, J = -Hessian of the loss."""
    shapes = [w.shape for w in layers]
    cuts = np.cumsum([0, *(w.size for w in layers)])
    y, first = (np.concatenate([w.ravel() for w in ws]) for ws in (layers, slope(layers)))
    nudge = 2.0**-26 * (np.abs(y).max() or 1.0)
    columns = []
    for x in np.eye(len(y)):
        moved = [(y + nudge * x)[a:b].reshape(s) for a, b, s in zip(cuts, cuts[1:], shapes, strict=False)]
        columns.append((np.concatenate([k.ravel() for k in slope(moved)]) - first) / nudge)
    rates = np.linalg.eigvalsh(0.5 * (np.array(columns) + np.array(columns).T))
    return rates[-1], rates[0]


def path_gain(layers, x):
    """max_l Σ_m ∏ g_j over the layers j other than l and m, g_j what layer j multiplies |x| by on its way."""
    gains = []
    for w in layers:
        gains.append(np.linalg.norm(w @ x) / (np.linalg.norm(x) or 1.0))
        x = w @ x
    depth = len(layers)
    pairs = np.zeros((depth, depth))
    for i, k in zip(*np.triu_indices(depth, 1), strict=True):
        pairs[i, k] = pairs[k, i] = np.prod([g for j, g in enumerate(gains) if j not in (i, k)])
    return pairs.sum(axis=1).max()


def runge_kutta(
    slope, layers, method, t, *, rtol=1e-8, atol=0.0, step=None, max_step=np.inf, max_steps=100_000, residual=None
):
    """dW_l/dt = slope(W)_l from t = 0 by a method of `methods`, with the step control of `gradient_flow`.

    `residual` of a network is E = Σ_yx - ΩΣ_xx: what grows unseen is bounded by it (`Method.growth`). Nothing rests.
    """

    def largest(layers):
        return max(np.abs(w).max() for w in layers)

    def moved(weights, h):
        return [w + h * sum(c * k[layer] for c, k in zip(weights, ks, strict=True)) for layer, w in enumerate(y)]

    def bound(hidden):
        """How long a step may be, and whether what grows may be out of sight."""
        if residual is None or not len(method.error) or len(y) == 1:
            return np.inf, False
        _, sigma, Vt = np.linalg.svd(residual(y))
        speed, size = largest(first), largest(y)
        hidden = speed < (0.03 if hidden else 0.01) * sigma[0] * size ** (len(y) - 1)
        rate, longest = sigma[0] * path_gain(y, Vt[0]), np.inf
        insight = (speed / (rate * size)) ** (4 if len(y) > 2 else 8)
        if hidden:
            rate, fall = fastest_growth(slope, y)
            longest = 3 / -fall
        most = method.growth(max(rtol + atol, 1e-15)) * (1 + insight * (2 if len(y) > 2 else 0.5) / 0.03) ** (
            1 / method.exponent
        )
        return min(longest, most / rate if rate > 0 else np.inf), hidden

    y, now, end, run = [np.array(w, dtype=np.float64) for w in layers], 0.0, t[-1], Integrated()
    first, before, grows = slope(y), 1e-4, True
    following = step or 0.01 * largest(y) / largest(first)
    most, hidden = bound(False)
    run.bounded += most < 1.3 * following
    following = min(following, max_step, most)
    times = list(t)
    if times[0] == 0:
        run.at.append(y)
        times.pop(0)
    while times:
        last = now + following * (1 + 1e-8) >= end
        h = end - now if last else following
        ks = [first]
        for row in method.a[1 : method.stages]:
            point = moved(row[: len(ks)], h)
            ks.append(slope(point))
        errors = [0.0 for _ in method.error]
        for i, weights in enumerate(method.error):
            for layer, (w, new) in enumerate(zip(y, point, strict=True)):
                e = h * sum(c * k[layer] for c, k in zip(weights, ks, strict=True))
                scale = atol + rtol * max(np.abs(w).max(), np.abs(new).max())
                errors[i] = max(errors[i], np.abs(e).max() / scale if scale else 0.0)
        error = errors[0] if errors else 0.0
        if len(errors) == 2 and error > 0:
            error = error**2 / np.sqrt(error**2 + 0.01 * errors[1] ** 2)
        p = 1 / method.exponent
        kept = error <= 1
        run.accepted += kept
        run.rejected += not kept
        if not kept:
            following, grows = h / min(max(1, error**p / 0.9), 5), False
        else:
            if errors:
                e = max(error, 1e-4)
                ratio = e ** (0.85 * p) / before ** (0.2 * p) / 0.9
                following, before, grows = h / min(max(0.1 if grows else 1, ratio), 5), e, True
                following = min(following, max_step)
            for row in method.a[method.stages :]:
                ks.append(slope(moved(row[: len(ks)], h)))
            while times and (last or times[0] <= now + h):
                theta = min(max(0, (times.pop(0) - now) / h), 1)
                run.at.append(moved(method.dense @ theta ** np.arange(1, method.dense.shape[1] + 1), h))
            y, first, now = point, ks[method.stages - 1], now + h
            if times:
                most, hidden = bound(hidden)
                run.bounded += most < 1.3 * following  # `gradient_flow` estimates the rate
                following = min(following, most)
        if times and run.accepted + run.rejected >= max_steps:
            run.status = "step_limit"
            break
    return run


def nonlinear_outputs(layers, x, phi):
    """y_hat = W_D phi(W_{D-1} phi(... W_1 x)) of samples in rows, and z_l = W_l h_{l-1} of every hidden layer."""
    h, inner = x, []
    for w in layers[:-1]:
        inner.append(h @ w.T)
        h = phi.value(inner[-1])
    return h @ layers[-1].T, inner


def nonlinear_loss(layers, x, y, phi, scale):
    """L = scale/2 sum_p |y_p - y_hat_p|^2."""
    return scale / 2 * np.sum((y - nonlinear_outputs(layers, x, phi)[0]) ** 2)


def nonlinear_gradient(layers, x, y, phi, scale):
    """dL/dW_l = -scale sum_p R_l h_{l-1}^T, R_D = y - y_hat, R_l = phi'(z_l) W_{l+1}^T R_{l+1}."""
    out, inner = nonlinear_outputs(layers, x, phi)
    below = [x, *(phi.value(z) for z in inner)]
    r, slopes = y - out, []
    for place in range(len(layers) - 1, -1, -1):
        slopes.append(-scale * r.T @ below[place])
        if place:
            r = (r @ layers[place]) * phi.derivative(inner[place - 1])
    return slopes[::-1]


def nonlinear(
    layers,
    x,
    y,
    phi,
    *,
    scale,
    U,
    V,
    lr,
    steps,
    test=None,
    stop_loss=None,
    stop_strengths=None,
    stop_steady=None,
    drawn=None,
):
    """Gradient descent of one nonlinear network, every quantity recorded at every step, NaN after it stopped.

    `phi` has value(z) and derivative(z); `test`: x, y and scale of held-out samples; `drawn(step)`: those that the
    gradient of that step sees instead. Strengths are diag(U^T scale sum_p y_hat x^T V).
    """
    layers = [np.array(w, dtype=np.float64) for w in layers]
    start = conserved(layers)
    names = ("loss", "test_loss", "strengths", "layer_norms", "drift")
    run = Descent(records={name: [] for name in names} | {"weights": [[] for _ in layers]})
    status, fastest = None, np.inf
    for step in range(steps + 1):
        nan = 1.0 if status is None else np.nan
        now = nonlinear_loss(layers, x, y, phi, scale)
        u = np.diag(U.T @ (scale * nonlinear_outputs(layers, x, phi)[0].T @ x) @ V)
        values = {
            "loss": now,
            "test_loss": np.nan if test is None else nonlinear_loss(layers, *test[:2], phi, test[2]),
            "strengths": u,
            "layer_norms": np.array([np.linalg.norm(w) for w in layers]),
            "drift": np.array([np.linalg.norm(c - c0) for c, c0 in zip(conserved(layers), start, strict=True)]),
        }
        for name, value in values.items():
            run.records[name].append(value * nan)
        for kept, w in zip(run.records["weights"], layers, strict=True):
            kept.append(w * nan)
        if status is None:
            run.stopped_at = step
            if not np.isfinite(now):
                status = "diverged"
            elif stop_loss is not None and now <= stop_loss:
                status = "reached_loss"
            elif stop_strengths is not None and np.all(np.isnan(stop_strengths) | (np.abs(u) >= stop_strengths)):
                status = "reached_strength"
            elif stop_steady is not None and fastest <= stop_steady:
                status = "steady"
        if status is not None or step == steps:
            continue
        seen = (x, y, scale) if drawn is None else drawn(step)
        slopes = nonlinear_gradient(layers, *seen[:2], phi, seen[2])
        fastest = max(np.abs(g).max() for g in slopes)
        layers = [w - lr * g for w, g in zip(layers, slopes, strict=True)]
    run.layers = layers
    run.status = status or "completed"
    run.records = {
        name: [np.array(w) for w in value] if name == "weights" else np.array(value)
        for name, value in run.records.items()
    }
    return run


def singular_values(matrix):
    """Decreasing. Columns are rotated in pairs until all are orthogonal; their lengths are the values (Hestenes)."""
    a = np.array(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T, float)
    for _ in range(60):
        largest = 0.0
        for i, j in itertools.combinations(range(a.shape[1]), 2):
            x, y = a[:, i].copy(), a[:, j].copy()
            across, difference = x @ y, x @ x - y @ y
            if across == 0:
                continue
            largest = max(largest, abs(across) / np.sqrt((x @ x) * (y @ y)))
            angle = 0.5 * np.arctan2(2 * across, difference)
            a[:, i], a[:, j] = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        if largest < 1e-15 * len(a):
            break
    return -np.sort(-np.linalg.norm(a, axis=0))
