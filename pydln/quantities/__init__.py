"""What can be recorded: every quantity is one entry of `QUANTITIES`, with its definition.

Kernels and solutions that know a quantity by themselves answer to its definition, which serves where they do not. To
enter a quantity is to offer it in every verb that has what it needs, and to test it there.
"""

from __future__ import annotations

from pydln.quantities import definitions
from pydln.quantities.quantity import Quantity, Sizes
from pydln.quantities.state import State

__all__ = ["QUANTITIES", "Quantity", "Sizes", "State"]

_ALL = (
    Quantity(
        "loss",
        "training loss L = 1/2 <|y - Omega x|^2>",
        of="map",
        define=definitions.loss,
    ),
    Quantity(
        "test_loss",
        "the same loss on the held-out covariances",
        of="map",
        define=definitions.test_loss,
    ),
    Quantity(
        "strengths",
        "diag(U^T Omega V), signed",
        of="map",
        axes=("mode",),
        shape=lambda n: (n.modes,),
        define=definitions.strengths,
    ),
    Quantity(
        "product",
        "Omega = W_D ... W_1",
        of="map",
        axes=("out", "in_"),
        shape=lambda n: (n.widths[-1], n.widths[0]),
        define=definitions.product,
    ),
    Quantity(
        "layer_norms",
        "Frobenius norm of every layer",
        of="layers",
        axes=("layer",),
        shape=lambda n: (n.depth,),
        define=definitions.layer_norms,
        any_network=True,
    ),
    Quantity(
        "kernel_distance",
        "1 - <K, K(0)> / (|K| |K(0)|) of the tangent kernel K on the inputs",
        of="start",
        define=definitions.kernel_distance,
        unreduced=True,
    ),
    Quantity(
        "drift",
        "Frobenius norm of the change of W_{l+1}^T W_{l+1} - W_l W_l^T since the start",
        of="start",
        axes=("interface",),
        shape=lambda n: (n.depth - 1,),
        define=definitions.drift,
        any_network=True,
    ),
    Quantity(
        "weights",
        "W_1 ... W_D",
        of="layers",
        define=definitions.weights,
        any_network=True,
    ),
    Quantity(
        "singular_values",
        "singular values of Omega, decreasing",
        of="map",
        axes=("singular",),
        shape=lambda n: (min(n.widths[0], n.widths[-1]),),
        define=definitions.singular_values,
    ),
    Quantity(
        "effective_rank",
        "exp of the entropy of Omega's singular values over their sum, from 1 to the rank; 0 where Omega is 0",
        of="map",
        define=definitions.effective_rank,
    ),
    Quantity(
        "alignment",
        "strength over sqrt(|Omega v| |Omega^T u|): +-1 where a mode is a pair of singular vectors of Omega",
        of="map",
        axes=("mode",),
        shape=lambda n: (n.modes,),
        define=definitions.alignment,
    ),
    Quantity(
        "balance",
        "Frobenius norm of W_{l+1}^T W_{l+1} - W_l W_l^T",
        of="layers",
        axes=("interface",),
        shape=lambda n: (n.depth - 1,),
        define=definitions.balance,
        any_network=True,
    ),
    Quantity(
        "representations",
        "similarities of the inputs in every hidden layer, (W_l ... W_1)^T W_l ... W_1",
        of="layers",
        axes=("interface", "in_", "in_2"),
        shape=lambda n: (n.depth - 1, n.widths[0], n.widths[0]),
        define=definitions.representations,
    ),
    Quantity(
        "kernel_alignment",
        "<y, K y> / (|K| |y|^2) of the tangent kernel K on the inputs and the least-squares map y of the task",
        of="layers",
        define=definitions.kernel_alignment,
    ),
    Quantity(
        "sharpness",
        "largest eigenvalue of the loss's Hessian",
        of="layers",
        define=definitions.sharpness,
    ),
)

QUANTITIES: dict[str, Quantity] = {one.name: one for one in _ALL}
"""Every name that `record=` knows. ``weights`` is a tuple of D arrays, each (batch, time, n_l, n_{l-1})."""
