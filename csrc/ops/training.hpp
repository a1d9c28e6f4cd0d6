// What every way of training an ensemble of deep linear networks is given: starts, task, when a member may stop.
//
//   Omega = W_D ... W_1,  E = Sigma_yx - Omega Sigma_xx,
//   -dL/dW_l = (W_D ... W_{l+1})^T E (W_{l-1} ... W_1)^T
//   loss = floor + 1/2 |F|²,  F = target - Omega root,  root root^T = Sigma_xx,  target root^T = Sigma_yx
//
// The loss above its floor is a sum of squares and nothing is subtracted from it: it is never below the floor and keeps its
// digits near the minimum. No entry of F is larger than what the targets themselves have, however near Sigma_xx is to a singular
// matrix, and the rounding of its columns follows those of the root. Where Sigma_xx = I, root = I and F = E.
//
// All matrices are row-major and contiguous. Nothing may alias. A record that is null is not made.
// Outputs of a member are written only by the worker that runs it; entries of a record after the member stopped keep
// what the caller put there (NaN), and the Status and the end of members never begun likewise.
#pragma once

#include "core/chain.hpp"
#include "core/status.hpp"

namespace pydln::ops {

// target - Omega map: E with Sigma_xx and Sigma_yx, F with a root of Sigma_xx and what goes with it. The loss is an average or a
// sum over samples as these are.
template <class T>
struct Residual {
  PerMember<const T> map;       // (n_0, columns)
  PerMember<const T> diagonal;  // (n_0): of a map that has nothing else, columns = n_0; with neither, the map is I
  PerMember<const T> target;    // (n_D, columns); absent: there is no such residual
  std::int64_t columns = 0;

  bool plain() const { return !map && !diagonal; }
  bool own() const { return map.stride != 0 || diagonal.stride != 0 || target.stride != 0; }
  explicit operator bool() const { return static_cast<bool>(target); }
};

template <class T>
struct Training {
  Chain chain{};
  std::int64_t batch = 0;
  T* const* weights = nullptr;  // D pointers to (batch, n_l, n_{l-1}); in: start, out: weights where the member stopped

  Residual<T> train;             // E
  Residual<T> squares;           // F; absent where that is E
  PerMember<const T> floor;      // scalar
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
  Residual<T> test;  // F of held-out data, used for test_loss
  PerMember<const T> test_floor;
  T* loss = nullptr;         // (batch, times)
  T* test_loss = nullptr;    // (batch, times)
  T* strengths = nullptr;    // (batch, times, r)        diag(U^T Omega V)
  T* product = nullptr;      // (batch, times, n_D, n_0)
  T* layer_norms = nullptr;  // (batch, times, D)        Frobenius norms
  T* drift = nullptr;        // (batch, times, D - 1)    ||C_l(t) - C_l(0)||, C_l = W_{l+1}^T W_{l+1} - W_l W_l^T
  T* const* weight_records = nullptr;  // D pointers to (batch, times, n_l, n_{l-1})
};

}  // namespace pydln::ops
