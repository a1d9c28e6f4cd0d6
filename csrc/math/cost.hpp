// Counted work of one gradient step, and the choice that follows from it.
#pragma once

#include "core/chain.hpp"

namespace pydln {

// Multiply-adds of one step when products are carried along the output side (inner dimension n_D): the products
// A_l = A_{l+1} W_{l+1}, R_{l+1} = R_l W_l^T and A_l^T R_l for layers 1 ... D-1.
static inline double output_side_work(const Chain& c) {
  double sum = 0;
  for (std::int64_t l = 1; l < c.depth; ++l)
    sum += 3.0 * static_cast<double>(c.widths[c.depth]) * static_cast<double>(c.widths[l]) *
           static_cast<double>(c.widths[l - 1]);
  return sum;
}

// The same along the input side (inner dimension n_0), layers 2 ... D.
static inline double input_side_work(const Chain& c) {
  double sum = 0;
  for (std::int64_t l = 2; l <= c.depth; ++l)
    sum += 3.0 * static_cast<double>(c.widths[0]) * static_cast<double>(c.widths[l]) *
           static_cast<double>(c.widths[l - 1]);
  return sum;
}

// The input side is the output side of the transposed chain; it is taken when it costs less. The choice depends on
// the widths alone, so a member's bits do not depend on its batch.
static inline bool carry_input_side(const Chain& c) { return input_side_work(c) < output_side_work(c); }

// Floating-point operations of one step of one network, Sigma_xx product included when inputs are not whitened.
static inline double step_flops(const Chain& c, bool whitened) {
  const double inputs = static_cast<double>(c.widths[0]);
  const double outputs = static_cast<double>(c.widths[c.depth]);
  const double chain = carry_input_side(c) ? input_side_work(c) : output_side_work(c);
  return 2.0 * (chain + inputs * outputs * (whitened ? 1.0 : 1.0 + inputs));
}

// The same of the residual of `size` samples that a step draws.
static inline double samples_flops(const Chain& c, double size) {
  const double inputs = static_cast<double>(c.widths[0]);
  const double outputs = static_cast<double>(c.widths[c.depth]);
  return 2.0 * size * inputs * (3.0 * outputs + inputs);
}

// The same of a step of a nonlinear network over `samples`: two for every weight forward, four backward, but two of the first
// layer; what phi costs is not counted.
static inline double nonlinear_flops(const Chain& c, double samples) {
  double weights = 0;
  for (std::int64_t l = 0; l < c.depth; ++l)
    weights += (l ? 6.0 : 4.0) * static_cast<double>(c.widths[l]) * static_cast<double>(c.widths[l + 1]);
  return samples * weights;
}

// The same of recording the drift of the conserved quantities once: two products per interface of two layers.
static inline double drift_flops(const Chain& c) {
  double sum = 0;
  for (std::int64_t l = 1; l < c.depth; ++l)
    sum += 2.0 * static_cast<double>(c.widths[l]) * static_cast<double>(c.widths[l]) *
           static_cast<double>(c.widths[l + 1] + c.widths[l - 1]);
  return sum;
}

// The same of looking at the tangent kernel once: products from both sides, two Gram matrices a layer, their inner products.
static inline double tangent_flops(const Chain& c) {
  const double in = static_cast<double>(c.widths[0]), out = static_cast<double>(c.widths[c.depth]);
  double sum = 4.0 * static_cast<double>(c.depth * c.depth) * (in * in + out * out);
  for (std::int64_t l = 1; l < c.depth; ++l) {
    const double here = static_cast<double>(c.widths[l]), before = static_cast<double>(c.widths[l - 1]);
    const double after = static_cast<double>(c.widths[l + 1]);
    sum += 2.0 * here * (in * in + out * out + (l > 1 ? in * before : 0.0) + (l + 1 < c.depth ? out * after : 0.0));
  }
  return sum;
}

}  // namespace pydln
