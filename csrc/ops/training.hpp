// What every way of training an ensemble of deep linear networks is given: starts, task, when a member may stop.
//
//   Omega = W_D ... W_1,  E = Sigma_yx - Omega Sigma_xx,
//   -dL/dW_l = (W_D ... W_{l+1})^T E (W_{l-1} ... W_1)^T
//   loss = L(P) + 1/2 <E + ridge P, P - Omega>,  P (Sigma_xx + ridge I) = Sigma_yx
//
// The loss is quadratic, so this holds exactly for any ridge; near the minimum it keeps the digits that
// 1/2 tr Sigma_yy - <Omega, Sigma_yx> + ... loses, and the ridge keeps P small where Sigma_xx is nearly singular.
// Where Sigma_xx = I the ridge is 0 and P = Sigma_yx.
//
// All matrices are row-major and contiguous. Nothing may alias. A record that is null is not made.
// Outputs of a member are written only by the worker that runs it; entries of a record after the member stopped keep
// what the caller put there (NaN), and the Status and the end of members never begun likewise.
#pragma once

#include "core/chain.hpp"
#include "core/status.hpp"

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
struct Training {
  Chain chain{};
  std::int64_t batch = 0;
  T* const* weights = nullptr;  // D pointers to (batch, n_l, n_{l-1}); in: start, out: weights where the member stopped

  Moments<T> train;
  bool task_per_member = false;  // whether any matrix of the task has a stride
  std::int64_t modes = 0;        // r
  PerMember<const T> mode_u;     // (n_D, r)
  PerMember<const T> mode_v;     // (n_0, r)

  PerMember<const T> stop_loss;       // stop when loss <= this
  PerMember<const T> stop_strengths;  // (r): stop when |u_a| >= this for every a that is not NaN here
  PerMember<const T> stop_steady;  // stop when no entry of a layer moves faster: max |dW/dt|, t in units of tau = 1/lr

  PerMember<const T> least_residual;  // scalar, for stop_steady: ||E||_F^2 of the best that the widths allow; absent: 0

  Status* status = nullptr;  // (batch)
};

// What is recorded of every network, at `times` steps or times.
template <class T>
struct Recording {
  Moments<T> test;           // used for test_loss; sigma_yx absent: no test loss
  T* loss = nullptr;         // (batch, times)
  T* test_loss = nullptr;    // (batch, times)
  T* strengths = nullptr;    // (batch, times, r)        diag(U^T Omega V)
  T* product = nullptr;      // (batch, times, n_D, n_0)
  T* layer_norms = nullptr;  // (batch, times, D)        Frobenius norms
  T* drift = nullptr;        // (batch, times, D - 1)    ||C_l(t) - C_l(0)||, C_l = W_{l+1}^T W_{l+1} - W_l W_l^T
  T* const* weight_records = nullptr;  // D pointers to (batch, times, n_l, n_{l-1})
};

}  // namespace pydln::ops
