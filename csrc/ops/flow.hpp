// Operation: gradient flow of an ensemble of deep linear networks, dW_l/dt = -dL/dW_l from t = 0 on (ops/training.hpp), by
// an explicit Runge-Kutta method with steps that every member chooses for itself (ops/stepping.hpp).
//
// A step is kept when its error, over every layer max |error| / (atol + rtol max |W|), is at most 1. Largest entries and not
// root mean squares: no order of summation can change them.
#pragma once

#include "ops/stepping.hpp"
#include "ops/training.hpp"

namespace pydln::ops {

template <class T>
struct Flow : Training<T>, Recording<T>, Stepping {};

}  // namespace pydln::ops
