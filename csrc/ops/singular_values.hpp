// Operation: all singular values of small matrices, to rounding relative to the largest one of each matrix.
//
//   A = Q B P^T, B upper bidiagonal (Householder; Golub & Kahan 1965)
//   the eigenvalues of B^T B by shifted differential quotient-difference steps (dqds; Fernando & Parlett 1994)
//
// A matrix that holds NaN or infinity gets NaN. One whose dqds does not come to an end in `most_steps` for every value is
// reported as step_limit, its values not written: the caller takes another method for it.
#pragma once

#include "core/status.hpp"

namespace pydln::ops {

struct SingularValues {
  std::int64_t batch = 0;
  std::int64_t rows = 0, cols = 0;   // either may be larger, neither is 0
  std::int64_t most_steps = 0;       // of dqds, for each value
  const double* matrices = nullptr;  // (batch, rows, cols)

  double* values = nullptr;  // (batch, min(rows, cols))  decreasing
  Status* status = nullptr;  // (batch)
};

}  // namespace pydln::ops
