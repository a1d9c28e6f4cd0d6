// What every operation that integrates in time is given: an explicit Runge-Kutta method, its tolerances, when to record.
//
//   k_i = f(y + h sum_j a_ij k_j),  y' = y + h sum_i b_i k_i,  y(t + theta h) = y + h sum_i b_i(theta) k_i
#pragma once

#include <cstdint>

namespace pydln::ops {

inline constexpr std::int64_t kMostStages = 16;

// A method as numbers. Its last stage lies at the new point, and is the first of the next step.
struct Tableau {
  std::int64_t stages = 0;    // 3 or more
  std::int64_t extra = 0;     // further stages that only b_i(theta) needs; stages + extra <= kMostStages
  const double* a = nullptr;  // (stages + extra, stages + extra), below the diagonal; row stages - 1 is b
  std::int64_t errors = 0;    // estimates: 0 steps are fixed; 1; 2 of which the combination e^2 / sqrt(e^2 + f^2 / 100)
  const double* error = nullptr;  // (errors, stages)
  std::int64_t powers = 0;
  const double* dense = nullptr;  // (stages + extra, powers): b_i(theta) = sum_p dense_ip theta^(p + 1)
  double exponent = 1;            // the error of a step is of order h^exponent
  double growth = 0;  // h rho up to which v' = rho v is followed within a small part of rtol per factor e of v
};

struct Stepping {
  Tableau method;
  double rtol = 0, atol = 0;
  double step = 0;      // of methods with fixed steps; of others the first one, 0: chosen
  double max_step = 0;  // 0: none
  std::int64_t max_steps = 0;

  std::int64_t times = 0;
  const double* record_at = nullptr;  // `times` numbers >= 0, increasing; the last is where the run ends

  double* stopped_at = nullptr;      // (batch) time
  std::int64_t* accepted = nullptr;  // (batch) steps
  std::int64_t* rejected = nullptr;  // (batch)
};

}  // namespace pydln::ops
