// phi and phi' of a block of numbers, vector by vector.
#pragma once

#include "cpu/kernels/elementary.hpp"
#include "ops/nonlinear.hpp"

namespace pydln::PYDLN_ISA {

// phi(x) takes the place of x, phi'(x) goes to `derivative`.
template <class T>
void activate(ops::Activation kind, typename Vector<T>::type* x, typename Vector<T>::type* derivative, int64_t count) {
  using V = typename Vector<T>::type;
  const auto each = [=](auto phi) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int64_t i = 0; i < count; ++i) {
      V value, slope;
      phi(x[i], value, slope);
      x[i] = value;
      derivative[i] = slope;
    }
  };
  const auto bent = [=](T leak) __attribute__((always_inline)) {
    each([=](V z, V& value, V& slope) __attribute__((always_inline)) {
      slope = z > 0 ? splat(T(1)) : splat(leak);
      value = slope * z;
    });
  };
  switch (kind) {
    case ops::Activation::linear:
      return bent(T(1));
    case ops::Activation::relu:
      return bent(T(0));
    case ops::Activation::leaky_relu:
      return bent(T(ops::kLeak));
    case ops::Activation::tanh: {
      constexpr int kTogether = PYDLN_REGISTERS >= 32 ? 4 : 2;
      int64_t i = 0;
      for (; i + kTogether <= count; i += kTogether) elementary::tanh<T, kTogether>(x + i, x + i, derivative + i);
      for (; i < count; ++i) elementary::tanh<T, 1>(x + i, x + i, derivative + i);
      return;
    }
    case ops::Activation::erf:
      return each([](V z, V& v, V& s) __attribute__((always_inline)) { elementary::erf<T>(z, v, s); });
    case ops::Activation::gelu:
      return each([](V z, V& v, V& s) __attribute__((always_inline)) { elementary::gelu<T>(z, v, s); });
    case ops::Activation::softplus:
      return each([](V z, V& v, V& s) __attribute__((always_inline)) { elementary::softplus<T>(z, v, s); });
  }
}

}  // namespace pydln::PYDLN_ISA
