"""Starting weights, for whole ensembles; each start says what it conserves and which exact solutions it admits.

Random starts are keyed by (seed, member, layer): member i of an ensemble is the same network, bit for bit, whatever the
batch it is drawn in, and ``first=i, batch=1`` draws it alone. The dtype only rounds: all is computed in float64. The
random numbers are those of NumPy's Philox generator; NumPy may change how it turns them into normal numbers between its
feature releases.

Gradient flow conserves W_{l+1}ᵀW_{l+1} - W_l W_lᵀ at every hidden layer, for any task (Saxe, McClelland & Ganguli 2013,
section 1); `pydln.exact.solve` finds the exact solution, `pydln.exact.candidates` what each of them misses.
"""

from pydln.init.aligned import aligned
from pydln.init.balanced import balanced
from pydln.init.gaussian import gaussian
from pydln.init.identity import identity
from pydln.init.lambda_balanced import lambda_balanced
from pydln.init.mup import MupScaling, mup, mup_scaling
from pydln.init.orthogonal import orthogonal
from pydln.init.product_scaled import product_scaled
from pydln.init.residual import residual
from pydln.init.uniform import uniform

__all__ = [
    "MupScaling",
    "aligned",
    "balanced",
    "gaussian",
    "identity",
    "lambda_balanced",
    "mup",
    "mup_scaling",
    "orthogonal",
    "product_scaled",
    "residual",
    "uniform",
]
