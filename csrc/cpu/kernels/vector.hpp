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

// One rounding where the set has FMA (these sources are compiled with -ffp-contract=fast there), two elsewhere
// (-ffp-contract=off). All arithmetic that decides bits goes through here, so layouts agree bit for bit.
template <class V>
PYDLN_INLINE V fma(V a, V b, V c) {
  return a * b + c;
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
    used += (static_cast<std::size_t>(count) * sizeof(C) + 63) / 64 * 64;
    return p;
  }
};

}  // namespace pydln::PYDLN_ISA
