// Operation: the matrix Riccati flow Q' = (F - QQ^T / 2) Q of symmetric F, in the eigenvectors of F: Q itself at any
// times, not only QQ^T, which has the closed form of pydln/exact/riccati.py.
//
// Rows of Q that belong to modes come in pairs, q_+ of all eigenvalues kappa first, then q_- of -kappa; what is outside
// of the modes follows, on the side of inputs and on that of outputs. The rows of W_1^T and W_2 of a mode are
//
//   upper q_+ + lower q_-,   lower q_+ - upper q_-.
//
// One of the two sides, with its own part outside, is the small one S, and Q^TQ = |lambda| I + 2 S^TS: the imbalance
// lambda of two layers is conserved.
#pragma once

#include "core/status.hpp"

namespace pydln::ops {

// Gauss-Legendre nodes on a step, and the degree up to which what happens on it is told apart.
inline constexpr std::int64_t kNodes = 16;

struct Riccati {
  std::int64_t batch = 0;
  std::int64_t rows = 0, cols = 0;  // neither is 0; rows = 2 modes + outside_in + outside_out
  std::int64_t modes = 0, outside_in = 0, outside_out = 0;
  std::int64_t times = 0;
  std::int64_t most_steps = 0;

  const double* start = nullptr;  // (batch, rows, cols)  Q at time 0
  const double* floor = nullptr;  // (batch, rows)  what rounding may have left in each row of it
  const double* w = nullptr;      // (batch, rows)  eigenvalues
  const double* rate =
      nullptr;  // (batch, rows + 1)  max(w, 0), the last 0, each less the same |lambda| / 2, by a formula of its own
  const double* vectors = nullptr;    // (batch, 2, modes)  upper, lower
  const double* strengths = nullptr;  // (batch, modes)  s
  const double* begin =
      nullptr;  // (batch, rows, cols)  the rows of W_1^T and W_2 of the modes, and those outside, at time 0
  const std::int64_t* outer = nullptr;  // (batch)  1: the small side is that of outputs, 0: of inputs
  const double* t = nullptr;            // (batch, times)  >= 0, finite, increasing or equal
  const std::int64_t* place = nullptr;  // (batch, times)  where in `out` each goes

  // On [0, 1]: nodes (16), integrals of the polynomials that are 1 at one node up to every node (16 of, 16 to),
  // Legendre coefficients of these polynomials (16 degrees, 16 of).
  const double* nodes = nullptr;
  const double* integrals = nullptr;
  const double* coefficients = nullptr;

  // W_1^T and W_2 of all their rows
  std::int64_t n_in = 0, n_out = 0;
  const double* inputs = nullptr;   // (batch, n_in, rows)
  const double* outputs = nullptr;  // (batch, n_out, rows)

  // null: not wanted
  double* out = nullptr;     // (batch, times, rows, cols)  rows as in `begin`
  double* first = nullptr;   // (batch, times, cols, n_in)
  double* second = nullptr;  // (batch, times, n_out, cols)
  Status* status = nullptr;  // (batch)  step_limit: the times that were not reached are NaN
};

}  // namespace pydln::ops
