// What the control of step sizes needs of vectors of doubles: masks as bits, square roots, and a logarithm and a power of two of
// few digits.
#pragma once

#include "cpu/kernels/elementary.hpp"

namespace pydln::PYDLN_ISA {

PYDLN_INLINE SignedBits integers(int64_t x) { return x - SignedBits{}; }
PYDLN_INLINE SignedBits bits(Doubles x) { return (SignedBits)x; }

// Bit i tells whether lane i of the result of a comparison is true.
template <class M>
PYDLN_INLINE unsigned truth(M mask) {
#if defined(__AVX512DQ__)
  typedef long long Quads __attribute__((vector_size(64)));
  if constexpr (sizeof(mask) == 64) return static_cast<unsigned char>(__builtin_ia32_cvtq2mask512((Quads)mask));
#elif defined(__AVX__)
  typedef double Signs __attribute__((vector_size(32)));
  if constexpr (sizeof(mask) == 32) return static_cast<unsigned>(__builtin_ia32_movmskpd256((Signs)mask));
#elif defined(__SSE2__)
  typedef double Signs __attribute__((vector_size(16)));
  if constexpr (sizeof(mask) == 16) return static_cast<unsigned>(__builtin_ia32_movmskpd((Signs)mask));
#endif
  unsigned all = 0;
  for (int64_t i = 0; i < lanes_of<double>; ++i) all |= mask[i] ? 1U << static_cast<unsigned>(i) : 0U;
  return all;
}

// Correctly rounded.
template <class V>
PYDLN_INLINE V square_root(V x) {
#if __has_builtin(__builtin_elementwise_sqrt)  // Clang 17 and newer
  return __builtin_elementwise_sqrt(x);
#else
#if !defined(__clang__)
#if defined(__AVX512F__)
  constexpr int kRoundAsSet = 4;
  if constexpr (sizeof(x) == 64)
    return (V)__builtin_ia32_sqrtpd512_mask(x, x, static_cast<unsigned char>(-1), kRoundAsSet);
#elif defined(__AVX__)
  if constexpr (sizeof(x) == 32) return (V)__builtin_ia32_sqrtpd256(x);
#elif defined(__SSE2__)
  if constexpr (sizeof(x) == 16) return (V)__builtin_ia32_sqrtpd(x);
#endif
#endif
  for (int64_t i = 0; i < lanes_of<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// To 6e-8, of normal x > 0: for the lengths of steps.
PYDLN_INLINE Doubles rough_log2(Doubles x) {
  constexpr double kTwo52 = 0x1p52;
  const SignedBits exponent = (bits(x) >> 52) | bits(splat(kTwo52));  // a double: 2^52 + exponent
  const Doubles m = (Doubles)((bits(x) & integers(0x000fffffffffffff)) | integers(0x3ff0000000000000)) - 1.5;
  constexpr double c[] = {0.58496250072,  0.96179598538,   -0.32059847118, 0.14252592843,  -0.07126680309,
                          0.037466490278, -0.020790033196, 0.01477057116,  -0.008665699315};
  Doubles sum = splat(c[8]);
#pragma GCC unroll 8
  for (int i = 7; i >= 0; --i) sum = fma(sum, m, splat(c[i]));
  return ((Doubles)exponent - (kTwo52 + 1023)) + sum;
}

// To 8e-8 of its size, of |y| < 1000.
PYDLN_INLINE Doubles rough_exp2(Doubles y) {
  constexpr double kRound = 0x1.8p52;  // the sum has the nearest integer in its last bits
  const Doubles shifted = y + kRound, r = y - (shifted - kRound);
  constexpr double c[] = {1.0000000755, 0.69314718803, 0.24022107485, 0.055503571142, 0.0096760319184, 0.0013390863365};
  Doubles sum = splat(c[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) sum = fma(sum, r, splat(c[i]));
  return (Doubles)(bits(sum) + (bits(shifted) << 52));
}

}  // namespace pydln::PYDLN_ISA
