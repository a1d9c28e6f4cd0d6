"""pydln: the learning dynamics of deep linear networks, simulated in ensembles and solved exactly.

The system is that of Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
neural networks" (2013). Names follow the field: ``depth`` D is the number of weight matrices, ``widths`` are n_0 … n_D
with the inputs first, ``weights`` start with W_1, ``product`` is Ω = W_D ⋯ W_1, time is in units of τ = 1/lr.
"""

from pydln import analysis, datasets, exact, init, plot, reduce, spectra
from pydln._backend import version as _version
from pydln.end_to_end import end_to_end_flow
from pydln.errors import (
    BackendUnavailable,
    DataNotFound,
    FileDamaged,
    IntegrationError,
    Interrupted,
    MissingExtra,
    NotApplicable,
    NotRecorded,
    PydlnError,
)
from pydln.flow import Stop, gradient_descent
from pydln.integrate import gradient_flow, mode_flow
from pydln.noise import LabelNoise, Minibatch, Online
from pydln.plan import Plan, plan
from pydln.singular import SingularFlow, SingularRates, singular_flow, singular_rates
from pydln.task import Modes, Task
from pydln.trajectory import Status, Trajectory
from pydln.weights import Weights

__version__ = _version()

__all__ = [
    "BackendUnavailable",
    "DataNotFound",
    "FileDamaged",
    "IntegrationError",
    "Interrupted",
    "LabelNoise",
    "Minibatch",
    "MissingExtra",
    "Modes",
    "NotApplicable",
    "NotRecorded",
    "Online",
    "Plan",
    "PydlnError",
    "SingularFlow",
    "SingularRates",
    "Status",
    "Stop",
    "Task",
    "Trajectory",
    "Weights",
    "__version__",
    "analysis",
    "datasets",
    "end_to_end_flow",
    "exact",
    "gradient_descent",
    "gradient_flow",
    "init",
    "mode_flow",
    "plan",
    "plot",
    "reduce",
    "singular_flow",
    "singular_rates",
    "spectra",
]
