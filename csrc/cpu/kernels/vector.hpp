// Vectors of the instruction set this translation unit is compiled for, by GCC/Clang vector extensions.
// The including source defines PYDLN_ISA (a namespace of its own: no two sets share an inline function) and
// PYDLN_VECTOR_BYTES.
#pragma once

#include <cstddef>
#include <cstdint>

#define PYDLN_INLINE inline __attribute__((always_inline))

namespace pydln::PYDLN_ISA {

using std::int64_t;

template <class T>
struct Vector;
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias));
};
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias));
};

template <class T>
inline constexpr int64_t lanes_of = PYDLN_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

// x - 0 keeps the sign of zero and folds to a bare broadcast; x + 0 would do neither.
template <class T>
PYDLN_INLINE typename Vector<T>::type splat(T x) {
  return x - typename Vector<T>::type{};
}

// One rounding where the set has FMA, two elsewhere. Every multiply-add is written with this, and the compiler may form
// none of its own (-ffp-contract=off): left to itself it fuses some chains and not others, by tuning and by context, and
// the layouts would disagree in the last bit (seen with GCC's avoid-fma tuning and with Clang 16).
template <class V>
PYDLN_INLINE V fma(V a, V b, V c) {
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  return a * b + c;
#elif __has_builtin(__builtin_elementwise_fma)  // Clang 17 and newer
  return __builtin_elementwise_fma(a, b, c);
#elif defined(__FMA__)
  if constexpr (sizeof(V) == sizeof(double))
    return __builtin_fma(a, b, c);
  else if constexpr (sizeof(V) == sizeof(float))
    return __builtin_fmaf(a, b, c);
  else if constexpr (sizeof(a[0]) == sizeof(double))
    return (V)__builtin_ia32_vfmaddpd256(a, b, c);
  else
    return (V)__builtin_ia32_vfmaddps256(a, b, c);
#else
  return a * b + c;
#endif
}

// |x| and max by comparison, for scalars and vectors alike; NaN in `x` leaves `m`.
PYDLN_INLINE double max_abs(double m, double x) { return (x < 0 ? -x : x) > m ? (x < 0 ? -x : x) : m; }
PYDLN_INLINE float max_abs(float m, float x) { return (x < 0 ? -x : x) > m ? (x < 0 ? -x : x) : m; }
template <class V>
PYDLN_INLINE V max_abs(V m, V x) {
  const V a = x < 0 ? -x : x;
  return a > m ? a : m;
}

// Canonical order of every sum over the elements of a matrix: sixteen partial sums by column index modulo 16, each
// over rows first to last and columns first to last, then a fixed tree. Every layout can follow it at full width.
inline constexpr int64_t kPartialSums = 16;

template <class V>
PYDLN_INLINE V add_tree(V* p) {
  for (int64_t half = kPartialSums / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) p[i] = p[i] + p[i + half];
  return p[0];
}

// Bump allocator over one block; with a null base it only measures. Every piece starts on a cache line.
struct Arena {
  char* base;
  std::size_t used = 0;

  template <class C>
  C* take(int64_t count) {
    C* p = base ? reinterpret_cast<C*>(base + used) : nullptr;
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<std::size_t>(count), sizeof(C), &bytes) ||
        __builtin_add_overflow(bytes, 63, &bytes) || __builtin_add_overflow(used, bytes / 64 * 64, &used))
      used = SIZE_MAX / 2;  // no computer has this much: the caller refuses
    return p;
  }
};

}  // namespace pydln::PYDLN_ISA
