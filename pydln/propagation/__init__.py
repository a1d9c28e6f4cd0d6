"""Signals and gradients in wide random nonlinear networks: mean field, and networks as they are.

The mean field (Poole et al. 2016, Schoenholz et al. 2017; S13 section 4) follows the mean square q of activity and the
correlation c of two inputs from layer to layer, for any nonlinearity; `propagate` and `jacobian` do so in a network.
"""

from pydln.propagation.correlations import correlation_fixed_point, correlation_map, correlation_slope
from pydln.propagation.depth_scales import DepthScales, depth_scales
from pydln.propagation.edge import edge_of_chaos
from pydln.propagation.fixed_points import fixed_point
from pydln.propagation.gaussian import Mean, gaussian_mean
from pydln.propagation.jacobians import jacobian, jacobian_singular_values
from pydln.propagation.lengths import chi, length_map, length_slope
from pydln.propagation.networks import Signal, propagate
from pydln.propagation.phases import PhaseDiagram, phase_diagram

__all__ = [
    "DepthScales",
    "Mean",
    "PhaseDiagram",
    "Signal",
    "chi",
    "correlation_fixed_point",
    "correlation_map",
    "correlation_slope",
    "depth_scales",
    "edge_of_chaos",
    "fixed_point",
    "gaussian_mean",
    "jacobian",
    "jacobian_singular_values",
    "length_map",
    "length_slope",
    "phase_diagram",
    "propagate",
]
