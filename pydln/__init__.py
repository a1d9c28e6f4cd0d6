"""pydln: the learning dynamics of deep linear networks, simulated in ensembles and solved exactly.

The system is that of Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
neural networks" (2013). Names follow the field: ``depth`` D is the number of weight matrices, ``widths`` are n_0 … n_D
with the inputs first, ``weights`` start with W_1, ``product`` is Ω = W_D ⋯ W_1, time is in units of τ = 1/lr.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pydln import activations, analysis, datasets, exact, init, reduce, spectra
from pydln._base.backend import version as _version
from pydln.analysis.consistency import Consistency, consistency
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
from pydln.simulate.balanced.end_to_end import end_to_end_flow
from pydln.simulate.balanced.singular import SingularFlow, SingularRates, singular_flow, singular_rates
from pydln.simulate.descent import gradient_descent
from pydln.simulate.flow import gradient_flow
from pydln.simulate.methods import Method
from pydln.simulate.modes import mode_flow
from pydln.simulate.noise import LabelNoise, Minibatch, Online
from pydln.simulate.nonlinear import train_nonlinear
from pydln.simulate.plan import Plan, plan
from pydln.simulate.pretraining import Pretrained, fine_tune, pretrain
from pydln.simulate.stop import Stop
from pydln.task.task import Modes, Task
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

if TYPE_CHECKING:
    from pydln import plot, propagation
    from pydln import reproduce as reproduce
    from pydln import sweep as sweep

__version__ = _version()

_LATER = ("plot", "propagation", "reproduce", "sweep")  # subpackages that wait until they are asked for

__all__ = [
    "BackendUnavailable",
    "Consistency",
    "DataNotFound",
    "FileDamaged",
    "IntegrationError",
    "Interrupted",
    "LabelNoise",
    "Method",
    "Minibatch",
    "MissingExtra",
    "Modes",
    "NotApplicable",
    "NotRecorded",
    "Online",
    "Plan",
    "Pretrained",
    "PydlnError",
    "SingularFlow",
    "SingularRates",
    "Status",
    "Stop",
    "Task",
    "Trajectory",
    "Weights",
    "__version__",
    "activations",
    "analysis",
    "consistency",
    "datasets",
    "end_to_end_flow",
    "exact",
    "fine_tune",
    "gradient_descent",
    "gradient_flow",
    "init",
    "mode_flow",
    "plan",
    "plot",
    "pretrain",
    "propagation",
    "reduce",
    "singular_flow",
    "singular_rates",
    "spectra",
    "train_nonlinear",
]


def __getattr__(name: str) -> object:
    if name in _LATER:
        return import_module(f"pydln.{name}")
    raise AttributeError(f"module 'pydln' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER})
