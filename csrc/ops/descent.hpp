// Operation: gradient descent of an ensemble of deep linear networks (ops/training.hpp).
//
//   G_l = (W_D ... W_{l+1})^T E (W_{l-1} ... W_1)^T - decay W_l          (minus the gradient of the loss)
//   V_l <- momentum V_l + G_l,  W_l <- W_l + lr V_l                      (V_l = 0 before the first step)
//                               W_l <- W_l + lr (momentum V_l + G_l)     (Nesterov)
// With noise (ops/noise.hpp) the gradient has another E; loss and records are those of the task.
#pragma once

#include "ops/noise.hpp"
#include "ops/training.hpp"

namespace pydln::ops {

template <class T>
struct Descent : Training<T>, Recording<T> {
  PerMember<const T> root;  // (n_0, n_0): R = R^T, R R = Sigma_xx, up to a factor, for kernel_distance; absent: I

  PerMember<const T> lr;
  PerMember<const T> momentum;  // absent: 0
  PerMember<const T> decay;     // absent: 0
  bool nesterov = false;
  Noise<T> noise;
  std::int64_t steps = 0;

  std::int64_t records = 0;
  const std::int64_t* record_at = nullptr;  // `records` steps, increasing, within 0 ... steps
  T* kernel_distance = nullptr;             // (batch, records)    see kernels/tangent.hpp

  std::int64_t* stopped_at = nullptr;  // (batch) step
};

}  // namespace pydln::ops
