// Operation: decoupled modes of deep linear networks, each D scalars under gradient flow from t = 0 on,
//
//   da_l/dt = (prod_{j != l} a_j) (s - d u),  u = prod_j a_j,
//
// by an explicit Runge-Kutta method with steps that every mode chooses for itself (ops/stepping.hpp). The flow conserves
// c_l = a_l^2 - a_m^2, so that the layer m of smallest |a| carries all others along:
//
//   dz/dt = P (s - d z P),  z = a_m,  P = prod_{l != m} a_l = ± prod_{l != m} sqrt(z^2 + c_l)
//
// with c_l >= 0 and signs that never change. A relative error of z is one of at most its size in every a_l.
// Plateaus of small starts and the way to rest are closed forms where what those leave out is a tenth of the tolerance, of
// methods with an estimate (math/plateau.hpp; cpu/kernels/modes.hpp).
// A step is kept when its error is at most atol + rtol max |z|.
#pragma once

#include "core/status.hpp"
#include "ops/stepping.hpp"

namespace pydln::ops {

struct Modes : Stepping {
  std::int64_t depth = 0;                   // D
  std::int64_t batch = 0;                   // modes in all, each on its own
  std::int64_t together = 1;                // so many consecutive ones belong to one network
  const double* layer_strengths = nullptr;  // (batch, D)  a_l at t = 0
  const double* s = nullptr;                // (batch)
  const double* variances = nullptr;        // (batch)  d

  double* strengths = nullptr;  // (batch / together, times, together)  u; NaN after a mode was given up
  Status* status = nullptr;     // (batch)
};

}  // namespace pydln::ops
