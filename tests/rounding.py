"""How far floating-point descent may be from exact arithmetic: a bound that is carried along the run, not a guess.

Standard model (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3): an inner product chain of `count`
roundings of unit u errs by at most gamma = count u / (1 - count u) times the same chain of absolute values, in whatever
order it is summed and whether multiply-adds round once or twice. A chain of many wide matrices is bounded better factor
by factor, ‖fl(XY) - XY‖_F <= gamma ‖X‖_F ‖Y‖_F, the others entering by their spectral norms; the smaller bound counts.

From step to step the error of the weights is amplified by at most ‖1 - lr Hessian‖; the Hessian is a positive
semi-definite matrix, which shrinks errors unless it exceeds 1/lr, and a part proportional to the residual, both bounded
by the norms of the layers.
"""

from __future__ import annotations

import itertools

import numpy as np
import reference

DOUBLE = 2.0**-53


def error_bounds(weights, *, task, lr, momentum=0.0, weight_decay=0.0, dtype=np.float64) -> dict[str, np.ndarray]:
    """Largest error of any entry of every record, (time,), of a descent in `dtype` whose exact weights are `weights`.

    `weights`: D arrays (time, n_l, n_{l-1}), one entry per step from the start on. The result covers the rounding of
    the inputs to `dtype`, of the run, and of the reference itself (float64).
    """
    widths = [weights[0].shape[2], *(w.shape[1] for w in weights)]
    depth, times = len(weights), len(weights[0])
    own = float(np.finfo(dtype).eps) / 2
    unit = own + DOUBLE
    count = sum(widths) + widths[0] + 2 * depth + 16  # 16: inputs rounded to dtype, rates, differences, final sums
    gamma = count * unit / (1 - count * unit)
    ends = max(widths[0], widths[-1])
    thin = min(widths[0], widths[-1]) if depth > 1 else ends
    links = own * _links(widths, thin if _thin_side_is_cheaper(widths) else ends) + DOUBLE * _links(widths, ends)
    names = ("loss", "test_loss", "strengths", "product", "layer_norms", "drift", "weights")
    bounds = {name: np.full(times, np.nan) for name in names}
    moved = stirred = 0.0  # error of the weights, of the velocity (Frobenius, all layers)
    quadratic_start = None

    for k in range(times):
        layers = [w[k] for w in weights]
        if not np.isfinite(layers[0]).all():
            break
        sizes = [np.abs(w) for w in layers]
        norms = np.array([np.linalg.norm(w, 2) + moved for w in layers])
        whole = np.prod(norms)
        without = whole / norms
        spread = np.linalg.norm(without) * moved  # error of the product through the weights
        omega, size = reference.product(layers), reference.product(sizes)
        variance = np.linalg.norm(task.sigma_xx, 2)
        residual = np.linalg.norm(task.sigma_yx - omega @ task.sigma_xx) + variance * spread
        evaluated = min(gamma * np.linalg.norm(size), links * whole)

        bounds["weights"][k] = moved
        bounds["product"][k] = spread + evaluated
        bounds["strengths"][k] = spread + evaluated + gamma * np.sqrt(ends) * np.linalg.norm(omega)
        bounds["layer_norms"][k] = moved + gamma * max(np.linalg.norm(w) for w in layers)
        bounds["loss"][k] = _loss_error(task, omega, spread + evaluated, gamma)
        if task.test is not None:
            bounds["test_loss"][k] = _loss_error(task.test, omega, spread + evaluated, gamma)
        quadratic = [a.T @ a + b @ b.T for b, a in itertools.pairwise(sizes)]
        quadratic_start = quadratic if quadratic_start is None else quadratic_start
        pairs = zip(norms, norms[1:], quadratic, quadratic_start, strict=False)
        bounds["drift"][k] = max(
            (2 * (a + b) * moved + 2 * gamma * (np.linalg.norm(q) + np.linalg.norm(q0)) for b, a, q, q0 in pairs),
            default=0.0,
        )

        if k + 1 == times or not np.isfinite(weights[0][k + 1]).all():
            break
        without_two = whole / np.multiply.outer(norms, norms)
        np.fill_diagonal(without_two, 0.0)
        convex = variance * np.sum(without**2) + weight_decay
        indefinite = residual * without_two.sum(axis=0).max()
        slopes = reference.gradient(sizes, -np.abs(task.sigma_xx), np.abs(task.sigma_yx))
        largest = np.linalg.norm(task.sigma_yx) + whole * np.sqrt(ends) * variance
        sloped = min(gamma * _norm(slopes), links * largest * np.linalg.norm(without))
        velocity = _norm([(w[k + 1] - w[k]) / lr for w in weights])
        local = sloped + gamma * (weight_decay * _norm(layers) + velocity)
        rounded = unit * (_norm([w[k + 1] for w in weights]) + 2 * lr * velocity)
        if momentum:
            stirred = momentum * stirred + (convex + indefinite) * moved + local
            moved = moved + lr * stirred + rounded
        else:
            moved = (max(1.0, lr * convex - 1) + lr * indefinite) * moved + lr * local + rounded
    return bounds


def _links(widths, carried) -> float:
    """Roundings of all the products behind one gradient, inner dimension n, Frobenius norms <= √carried, √n."""
    return sum((n + 16) * np.sqrt(carried * n) for n in widths) + carried**2


def _thin_side_is_cheaper(widths) -> bool:
    """Whether theory.md section 2 carries the products along the end with fewer units."""
    along_output, along_input = reference.inner_work(widths)
    return (along_input < along_output) == (widths[0] < widths[-1])


def _norm(matrices) -> float:
    return float(np.sqrt(sum(np.sum(m**2) for m in matrices)))


def _loss_error(task, omega, spread, gamma) -> float:
    """Of floor + 1/2 |B - ΩA|². Ω itself is `spread` off."""
    xx, yx, size = task.sigma_xx, task.sigma_yx, np.abs(omega)
    root, target = (np.eye(len(xx)), yx) if task.squares is None else (task.squares.root, task.squares.target)
    gap = np.linalg.norm(target - omega @ root)
    moving = np.linalg.norm(yx - omega @ xx) * spread + 0.5 * np.linalg.norm(xx, 2) * spread**2
    rounded = gamma * np.linalg.norm(np.abs(target) + size @ np.abs(root))
    evaluating = gap * rounded + 0.5 * rounded**2 + gamma * (task.floor + 0.5 * gap**2)
    # What the task and the reference leave in float64: 1/2 tr Σ_yy - ... to its terms.
    terms = 0.5 * task.trace_yy + np.sum(size * (np.abs(yx) + 0.5 * size @ np.abs(xx)))
    return moving + evaluating + DOUBLE * 8 * len(xx) * terms
