// Operation: gradient descent of an ensemble of deep linear networks.
//
//   Omega = W_D ... W_1,  E = Sigma_yx - Omega Sigma_xx,
//   G_l = (W_D ... W_{l+1})^T E (W_{l-1} ... W_1)^T - decay W_l          (minus the gradient of the loss)
//   V_l <- momentum V_l + G_l,  W_l <- W_l + lr V_l                      (V_l = 0 before the first step)
//                               W_l <- W_l + lr (momentum V_l + G_l)     (Nesterov)
// With noise (ops/noise.hpp) the gradient has another E; loss and records are those of the task.
//   loss = L(P) + 1/2 <E + ridge P, P - Omega>,  P (Sigma_xx + ridge I) = Sigma_yx
//
// The loss is quadratic, so this holds exactly for any ridge; near the minimum it keeps the digits that
// 1/2 tr Sigma_yy - <Omega, Sigma_yx> + ... loses, and the ridge keeps P small where Sigma_xx is nearly singular.
// Where Sigma_xx = I the ridge is 0 and P = Sigma_yx.
//
// All matrices are row-major and contiguous. Nothing may alias. A record that is null is not made.
// Outputs of a member are written only by the worker that runs it; entries of a record after the member stopped keep
// what the caller put there (NaN), and the Status and the step of members never begun likewise.
#pragma once

#include "core/chain.hpp"
#include "core/status.hpp"
#include "ops/noise.hpp"

namespace pydln::ops {

// Second moments of one task. The loss is an average or a sum over samples as these are.
template <class T>
struct Moments {
  PerMember<const T> sigma_xx;     // (n_0, n_0)
  PerMember<const T> variances;    // (n_0): Sigma_xx is diagonal; with neither, Sigma_xx = I
  PerMember<const T> sigma_yx;     // (n_D, n_0)
  PerMember<const T> anchor;       // (n_D, n_0)  P; not read where Sigma_xx = I
  PerMember<const T> ridge;        // scalar; not read where Sigma_xx = I
  PerMember<const T> anchor_loss;  // scalar: L(P)

  bool whitened() const { return !sigma_xx && !variances; }
};

template <class T>
struct Descent {
  Chain chain{};
  std::int64_t batch = 0;
  T* const* weights = nullptr;  // D pointers to (batch, n_l, n_{l-1}); in: start, out: weights where the member stopped

  Moments<T> train;
  Moments<T> test;               // used for test_loss; sigma_yx absent: no test loss
  bool task_per_member = false;  // whether any matrix of train, test and modes has a stride
  std::int64_t modes = 0;        // r
  PerMember<const T> mode_u;     // (n_D, r)
  PerMember<const T> mode_v;     // (n_0, r)
  PerMember<const T> root;       // (n_0, n_0): R = R^T, R R = Sigma_xx, for kernel_distance; absent: Sigma_xx = I

  PerMember<const T> lr;
  PerMember<const T> momentum;  // absent: 0
  PerMember<const T> decay;     // absent: 0
  bool nesterov = false;
  Noise<T> noise;
  std::int64_t steps = 0;

  PerMember<const T> stop_loss;       // stop when loss <= this
  PerMember<const T> stop_strengths;  // (r): stop when |u_a| >= this for every a that is not NaN here
  PerMember<const T> stop_steady;     // stop when max |V_l| <= this after a step: |dW/dt| in units of 1/tau

  std::int64_t records = 0;
  const std::int64_t* record_at = nullptr;  // `records` steps, increasing, within 0 ... steps
  T* loss = nullptr;                        // (batch, records)
  T* test_loss = nullptr;                   // (batch, records)
  T* strengths = nullptr;                   // (batch, records, r)        diag(U^T Omega V)
  T* product = nullptr;                     // (batch, records, n_D, n_0)
  T* layer_norms = nullptr;                 // (batch, records, D)        Frobenius norms
  T* kernel_distance = nullptr;             // (batch, records)        see kernels/tangent.hpp
  T* drift = nullptr;  // (batch, records, D - 1)    ||C_l(t) - C_l(0)||, C_l = W_{l+1}^T W_{l+1} - W_l W_l^T
  T* const* weight_records = nullptr;  // D pointers to (batch, records, n_l, n_{l-1})

  Status* status = nullptr;            // (batch)
  std::int64_t* stopped_at = nullptr;  // (batch)
};

}  // namespace pydln::ops
