// The noise of stochastic gradients: what a step sees in place of Sigma_xx and Sigma_yx. With random numbers that depend
// on nothing but (seed, member, step, number), B = size and xi, z standard normal:
//
//   minibatch  E = scale sum_b (y_b + std xi_b - Omega x_b) x_b^T   of B samples: drawn one by one, or the next in the order
//                                                                 of this pass over all samples, shuffled for each pass
//   online     the same of fresh samples, x = root z, y = labels z + std xi
//   labels     E = Sigma_yx + std Z root - Omega Sigma_xx, Z normal (n_D, n_0): noise on the labels of all samples
#pragma once

#include "core/chain.hpp"

namespace pydln::ops {

enum class NoiseKind : std::int64_t { none = 0, minibatch = 1, online = 2, labels = 3 };

template <class T>
struct Noise {
  NoiseKind kind = NoiseKind::none;
  std::uint64_t seed = 0;
  PerMember<const std::int64_t> number;  // by which a member's random numbers are drawn, below 2^32
  std::int64_t size = 0;                 // B
  std::int64_t samples = 0;
  bool replace = true;
  T scale = T(1);
  PerMember<const T> x;       // (samples, n_0)
  PerMember<const T> y;       // (samples, n_D)
  PerMember<const T> root;    // (n_0, n_0), symmetric; absent: the identity
  PerMember<const T> labels;  // (n_D, n_0)
  PerMember<const T> std;     // scalar

  bool samples_drawn() const { return kind == NoiseKind::minibatch || kind == NoiseKind::online; }
};

}  // namespace pydln::ops
