// Operation: all singular values of matrices with rows of very different size, each to its own last digits.
//
//   row i of A = 2^exponents_i rows_i
//
// by one-sided Jacobi rotations of the rows (Hestenes 1958) that never form the large and the small on one scale. If
// A = D C with D diagonal and C of rows of length one, the relative error of every value is about the condition number of C
// times rounding, however large that of A is (Demmel & Veselic 1992). The exponents may leave the range of a double by far.
// A matrix that `most_sweeps` do not suffice for is reported as step_limit; one that holds NaN gives NaN.
#pragma once

#include "core/status.hpp"

namespace pydln::ops {

struct GradedValues {
  std::int64_t batch = 0;
  std::int64_t rows = 0, cols = 0;  // neither is 0
  std::int64_t most_sweeps = 0;
  const double* matrices = nullptr;         // (batch, rows, cols)  of entries whose squares neither over- nor underflow
  const std::int64_t* exponents = nullptr;  // (batch, rows)  below 2^60 in size

  // One for each row: of those, min(rows, cols) are the singular values, the others rounding, or zero. In no order.
  double* values = nullptr;               // (batch, rows)
  std::int64_t* exponents_out = nullptr;  // (batch, rows)  values are 2^exponents_out values
  Status* status = nullptr;               // (batch)
};

}  // namespace pydln::ops
