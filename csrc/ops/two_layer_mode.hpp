// Operation: modes of two layers with whitened inputs, da/dt = b (s - ab), db/dt = a (s - ab), from any start, at any times.
// Formulas and their cases are in pydln/exact/two_layer_mode.py.
#pragma once

#include <cstdint>

namespace pydln::ops {

struct TwoLayerMode {
  std::int64_t modes = 0, times = 0;
  const double* a0 = nullptr;  // (modes)
  const double* b0 = nullptr;
  const double* s = nullptr;
  const double* t = nullptr;  // (times), or (modes, times) with t_stride = times; >= 0, finite
  std::int64_t t_stride = 0;

  double* a = nullptr;    // (modes, times)
  double* b = nullptr;    // (modes, times)
  double* gap = nullptr;  // (modes, times)  s - ab with its own digits; null: not wanted
};

}  // namespace pydln::ops
