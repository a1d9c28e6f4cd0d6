// e^-rt and its integral over time, each with its own last digits.
#pragma once

#include "cpu/kernels/rough.hpp"

namespace pydln::PYDLN_ISA {

struct Decay {
  Doubles value, integral;  // e^-rt and (1 - e^-rt) / r, t where r = 0
};
PYDLN_INLINE Decay decay(Doubles rate, Doubles t) {
  using namespace elementary;
  const Doubles x = rate * t;
  const auto g = grown<double>(at_least<double>(-x, -700.0), Doubles{});
  const Doubles power = elementary::power_of_two<double>(word_of<double>(g.whole) - word_of<double>(splat(kWhole)));
  const Doubles lost = fma(g.rest, power, power - 1.0);
  return {fma(g.rest, power, power), x > 1e-290 ? -lost / rate : t};
}

}  // namespace pydln::PYDLN_ISA
