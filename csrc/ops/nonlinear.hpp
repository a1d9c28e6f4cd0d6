// Operation: gradient descent of an ensemble of networks with a nonlinearity phi in their hidden layers, on samples.
//
//   z_l = W_l h_{l-1}, h_l = phi(z_l), h_0 = x; y_hat = W_D h_{D-1}
//   L = scale / 2 sum_p |y_p - y_hat_p|^2
//   R_D = y - y_hat, R_l = (W_{l+1}^T R_{l+1}) phi'(z_l);  W_l <- W_l + lr scale sum_p R_l h_{l-1}^T
// over all samples, or over those of a minibatch (ops/noise.hpp); loss and records are those of all samples.
//
// As in ops/training.hpp: matrices are row-major and contiguous, nothing may alias, a record that is null is not made,
// entries of a record after the member stopped keep what the caller put there.
#pragma once

#include "core/chain.hpp"
#include "core/status.hpp"
#include "ops/noise.hpp"

namespace pydln::ops {

enum class Activation : std::int64_t {
  linear = 0,
  tanh = 1,
  erf = 2,
  relu = 3,
  leaky_relu = 4,
  gelu = 5,
  softplus = 6
};

inline constexpr double kLeak = 0.01;  // phi(z) = kLeak z below zero

template <class T>
struct Samples {
  std::int64_t count = 0;  // P; 0: there are none
  PerMember<const T> x;    // (P, n_0)
  PerMember<const T> y;    // (P, n_D)
  T scale = T(0);          // 1 / P, or 1
};

template <class T>
struct Nonlinear {
  Chain chain{};
  std::int64_t batch = 0;
  T* const* weights = nullptr;  // D pointers to (batch, n_l, n_{l-1}); in: start, out: weights where the member stopped
  Activation activation = Activation::linear;

  Samples<T> train;
  Samples<T> test;                  // used for test_loss
  bool samples_per_member = false;  // whether any sample, or mode, has a stride
  std::int64_t modes = 0;           // r
  PerMember<const T> mode_u;        // (n_D, r)
  PerMember<const T> mode_x;        // (P, r)    scale X V: the strengths are diag(U^T Y_hat^T mode_x)

  PerMember<const T> lr;
  Noise<T> noise;  // none, or minibatch
  std::int64_t steps = 0;

  PerMember<const T> stop_loss;  // as in ops/training.hpp
  PerMember<const T> stop_strengths;
  PerMember<const T> stop_steady;

  std::int64_t records = 0;
  const std::int64_t* record_at = nullptr;  // `records` steps, increasing, within 0 ... steps
  T* loss = nullptr;                        // (batch, records)
  T* test_loss = nullptr;                   // (batch, records)
  T* strengths = nullptr;                   // (batch, records, r)
  T* layer_norms = nullptr;                 // (batch, records, D)        Frobenius norms
  T* drift = nullptr;                       // (batch, records, D - 1)    as in ops/descent.hpp
  T* const* weight_records = nullptr;       // D pointers to (batch, records, n_l, n_{l-1})

  Status* status = nullptr;            // (batch)
  std::int64_t* stopped_at = nullptr;  // (batch) step
};

}  // namespace pydln::ops
