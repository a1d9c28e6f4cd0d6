// Logarithm and exponential of vectors of doubles: a few instructions a lane without branches or tables, so that every
// instruction set that fuses multiply-adds gives the same bits.
#pragma once

#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

using Doubles = Vector<double>::type;

namespace elementary {

PYDLN_INLINE Doubles as_doubles(Bits x) { return reinterpret_cast<Doubles&>(x); }
PYDLN_INLINE Bits as_bits(Doubles x) { return reinterpret_cast<Bits&>(x); }

// c[0] + z (c[1] + z (...))
template <int N>
PYDLN_INLINE Doubles polynomial(const double (&c)[N], Doubles z) {
  Doubles sum = splat(c[N - 1]);
#pragma GCC unroll 16
  for (int k = N - 2; k >= 0; --k) sum = fma(sum, z, splat(c[k]));
  return sum;
}

// The same in two chains half as long, where nothing else fills the time that each waits for its last step.
template <int N>
PYDLN_INLINE Doubles split_polynomial(const double (&c)[N], Doubles z) {
  static_assert(N % 2 == 0);
  const Doubles square = z * z;
  Doubles even = splat(c[N - 2]), odd = splat(c[N - 1]);
#pragma GCC unroll 16
  for (int k = N - 4; k >= 0; k -= 2) {
    even = fma(even, square, splat(c[k]));
    odd = fma(odd, square, splat(c[k + 1]));
  }
  return fma(odd, z, even);
}

// Adding this rounds a double below 2^51 to a whole number, which then stands in the lowest bits.
inline constexpr double kWhole = 6755399441055744.0;  // 1.5 × 2^52
inline constexpr std::uint64_t kWholeBits = 0x4338000000000000;

// ln x for x > 0, normal: x = 2^e m with m from sqrt(1/2) to sqrt(2), ln m = 2 artanh((m - 1) / (m + 1)) as a series.
PYDLN_INLINE Doubles log(Doubles x) {
  constexpr std::uint64_t kRootOfHalf = 0x3FE6A09E667F3BCD;
  constexpr double kLn2 = 0.693147180559945309417;
  static constexpr double kOdd[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                    1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  Bits shifted = as_bits(x) - kRootOfHalf;
  const SignedBits e = reinterpret_cast<SignedBits&>(shifted) >> 52;
  const Doubles m = as_doubles(as_bits(x) - (reinterpret_cast<const Bits&>(e) << 52U));
  const Doubles exponent = as_doubles(reinterpret_cast<const Bits&>(e) + kWholeBits) - kWhole;
  const Doubles s = (m - 1.0) / (m + 1.0), z = s * s;
  return fma(exponent, splat(kLn2), Doubles(2.0 * s * polynomial(kOdd, z)));
}

// e^x for |x| < 700: x = n ln 2 + r, |r| <= ln 2 / 2, and e^r as a polynomial of which 3e-18 is missing (the Chebyshev
// series, cut). The 1 is added last, to what has smaller roundings: 2.2e-16 of e^x, measured.
PYDLN_INLINE Doubles exp(Doubles x) {
  constexpr double kPerLn2 = 1.442695040888963407360;
  constexpr double kLn2 = 0x1.62e42fef8p-1, kLn2Rest = 0x1.1cf79abc9e3b4p-36;  // the first of 34 bits: n kLn2 is exact
  static constexpr double kC[] = {0.0,
                                  1.0,
                                  0.5000000000000018406,
                                  0.1666666666666670245,
                                  0.041666666666487938476,
                                  0.0083333333333095065775,
                                  0.0013888888952356136183,
                                  1.9841269909260645948e-4,
                                  2.4801485438447380967e-5,
                                  2.755722491836886848e-6,
                                  2.7632655759332030799e-7,
                                  2.5114882786996687342e-8};
  const Doubles whole = fma(x, splat(kPerLn2), splat(kWhole)), n = whole - kWhole;
  const Doubles r = fma(n, splat(-kLn2Rest), fma(n, splat(-kLn2), x));
  return as_doubles(as_bits(1.0 + split_polynomial(kC, r)) + (as_bits(whole) << 52U));
}

}  // namespace elementary
}  // namespace pydln::PYDLN_ISA
