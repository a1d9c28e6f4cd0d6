// Vectors of the instruction set this translation unit is compiled for, by GCC/Clang vector extensions.
// The including source defines PYDLN_ISA (a namespace of its own: no two sets share an inline function) and
// PYDLN_VECTOR_BYTES.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/control.hpp"

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

typedef std::uint64_t Bits __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias));
typedef std::int64_t SignedBits __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias));

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
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
PYDLN_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
PYDLN_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
template <class V>
PYDLN_INLINE V fma(V a, V b, V c) {
#if __has_builtin(__builtin_elementwise_fma)  // Clang 17 and newer
  return __builtin_elementwise_fma(a, b, c);
#else
  [[maybe_unused]] constexpr bool doubles = sizeof(a[0]) == sizeof(double);
#if defined(__AVX512F__)
  constexpr int kRoundAsSet = 4;
  if constexpr (sizeof(V) == 64 && doubles)
    return (V)__builtin_ia32_vfmaddpd512_mask(a, b, c, static_cast<unsigned char>(-1), kRoundAsSet);
  else if constexpr (sizeof(V) == 64)
    return (V)__builtin_ia32_vfmaddps512_mask(a, b, c, static_cast<unsigned short>(-1), kRoundAsSet);
#elif defined(__FMA__)
  if constexpr (sizeof(V) == 32 && doubles)
    return (V)__builtin_ia32_vfmaddpd256(a, b, c);
  else if constexpr (sizeof(V) == 32)
    return (V)__builtin_ia32_vfmaddps256(a, b, c);
#elif defined(__aarch64__) && !defined(__clang__)  // Clang makes one instruction of the loop below
  if constexpr (sizeof(V) == 16 && doubles)
    return (V)__builtin_aarch64_fmav2df(a, b, c);
  else if constexpr (sizeof(V) == 16)
    return (V)__builtin_aarch64_fmav4sf(a, b, c);
#endif
  V r = c;
  for (std::size_t i = 0; i < sizeof(V) / sizeof(a[0]); ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
#endif
}
#else
template <class V>
PYDLN_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}
#endif

// Puts x in a register and keeps the compiler from reading it from memory again for each use: a register block would
// then be bound by its loads (measured on 8 × 8: 74 % of peak without, 96 % with).
template <class V>
PYDLN_INLINE void keep(V& x) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(x));
#elif defined(__AVX2__)
  if constexpr (sizeof(V) <= 32) __asm__("" : "+x"(x));
#elif defined(__SSE2__)
  if constexpr (sizeof(V) <= 16) __asm__("" : "+x"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#else
  (void)x;
#endif
}

// Extent of the next register block, at most Most, where `left` remain: the last two are nearly equal, for a block of one
// or two rows would wait for its own sums.
template <int Most>
constexpr PYDLN_INLINE int64_t next_block(int64_t left) {
  if (left <= Most) return left;
  return left < 2 * Most ? (left + 1) / 2 : Most;
}

// The transpose of a square of as many vectors as each has lanes: first inside pieces of 16 bytes, then of those pieces.
// Every shuffle is one that x86 has as an instruction without a table of indices (float32: a fifth of a layer's step saved).
template <class T>
inline constexpr int kPiece = 16 / static_cast<int>(sizeof(T));
template <int... I>
struct Lanes {};
template <int N, int... I>
struct CountLanes : CountLanes<N - 1, N - 1, I...> {};
template <int... I>
struct CountLanes<0, I...> {
  using type = Lanes<I...>;
};
// In every piece of P lanes: units of S lanes of the low (or high) halves of a and b in turn.
template <int P, int S, bool High, class V, int... I>
PYDLN_INLINE V interleave(V a, V b, Lanes<I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(
      a, b, (I / P * P + (High ? P / 2 : 0) + I % P / S / 2 * S + I % S + (I % P / S % 2 ? n : 0))...);
}
// Piece A, of four also piece A + 2, of a and then of b.
template <int P, int A, class V, int... I>
PYDLN_INLINE V pieces(V a, V b, Lanes<I...>) {
  constexpr int n = sizeof...(I), half = n / P / 2;
  return __builtin_shufflevector(a, b, ((I / P % half * 2 + A) * P + I % P + (I / P / half ? n : 0))...);
}
// The first half: of P vectors, inside every piece.
template <class T, class V = typename Vector<T>::type>
PYDLN_INLINE void transpose_pieces(V* x) {
  constexpr int n = static_cast<int>(lanes_of<T>), P = kPiece<T>;
  constexpr typename CountLanes<n>::type all;
  if constexpr (P == 2) {
    const V a = x[0], b = x[1];
    x[0] = interleave<P, 1, false>(a, b, all), x[1] = interleave<P, 1, true>(a, b, all);
  } else {
    const V a = interleave<P, 1, false>(x[0], x[1], all), b = interleave<P, 1, true>(x[0], x[1], all);
    const V c = interleave<P, 1, false>(x[2], x[3], all), d = interleave<P, 1, true>(x[2], x[3], all);
    x[0] = interleave<P, 2, false>(a, c, all), x[1] = interleave<P, 2, true>(a, c, all);
    x[2] = interleave<P, 2, false>(b, d, all), x[3] = interleave<P, 2, true>(b, d, all);
  }
}
// The second: of all vectors, piece by piece.
template <class T, class V = typename Vector<T>::type>
PYDLN_INLINE void exchange_pieces(V* x) {
  constexpr int n = static_cast<int>(lanes_of<T>), P = kPiece<T>;
  constexpr typename CountLanes<n>::type all;
  if constexpr (n == 2 * P) {
#pragma GCC unroll 4
    for (int q = 0; q < P; ++q) {
      const V a = x[q], b = x[q + P];
      x[q] = pieces<P, 0>(a, b, all), x[q + P] = pieces<P, 1>(a, b, all);
    }
  } else if constexpr (n == 4 * P) {
#pragma GCC unroll 4
    for (int q = 0; q < P; ++q) {
      const V a = pieces<P, 0>(x[q], x[q + P], all), b = pieces<P, 1>(x[q], x[q + P], all);
      const V c = pieces<P, 0>(x[q + 2 * P], x[q + 3 * P], all), d = pieces<P, 1>(x[q + 2 * P], x[q + 3 * P], all);
      x[q] = pieces<P, 0>(a, c, all), x[q + 2 * P] = pieces<P, 1>(a, c, all);
      x[q + P] = pieces<P, 0>(b, d, all), x[q + 3 * P] = pieces<P, 1>(b, d, all);
    }
  }
}

// Of a square in memory, pieces may come each to its place in a vector: the load units and a masked move do that, not the shuffle
// unit, and columns are there four by four (two of doubles), not all at the end.
#if defined(__AVX512DQ__) && __has_builtin(__builtin_ia32_broadcastf32x4_512)
#define PYDLN_LOADS_PIECES 1
// The pieces at p, p + step, p + 2 step and p + 3 step.
template <class T>
PYDLN_INLINE typename Vector<T>::type pieces_of(const T* p, int64_t step) {
  typedef T Piece __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
  typedef T Whole __attribute__((vector_size(64)));
  const auto piece = [=](int g)
                         __attribute__((always_inline)) { return *reinterpret_cast<const Piece*>(p + g * step); };
  Whole x;
  if constexpr (kPiece<T> == 2)
    x = __builtin_ia32_pd512_pd(piece(0));
  else
    x = __builtin_ia32_ps512_ps(piece(0));
#pragma GCC unroll 3
  for (int g = 1; g < 4; ++g)
    if constexpr (kPiece<T> == 2)
      x = (Whole)__builtin_ia32_broadcastf64x2_512_mask(piece(g), x, static_cast<unsigned char>(0x3U << (2 * g)));
    else
      x = (Whole)__builtin_ia32_broadcastf32x4_512(piece(g), x, static_cast<unsigned short>(0xFU << (4 * g)));
  return (typename Vector<T>::type)x;
}
#else
#define PYDLN_LOADS_PIECES 0
#endif

// |x|: the sign bit cleared, two instructions; left to a comparison, GCC computes it twice, under masks.
template <class V>
PYDLN_INLINE V magnitude(V x) {
  const V zero{};
  V a = reinterpret_cast<V>(reinterpret_cast<Bits>(x) & ~reinterpret_cast<Bits>(-zero));
  keep(a);
  return a;
}
PYDLN_INLINE double magnitude(double x) { return __builtin_fabs(x); }
PYDLN_INLINE float magnitude(float x) { return __builtin_fabsf(x); }

// max(m, |x|), for scalars and vectors alike; NaN in `x` leaves `m`.
template <class V>
PYDLN_INLINE V max_abs(V m, V x) {
  const V a = magnitude(x);
  return a > m ? a : m;
}

// Canonical order of every sum over the elements of a matrix: sixteen partial sums by column index modulo 16, each
// over rows first to last and columns first to last, then a fixed tree. Every layout can follow it at full width.
inline constexpr int64_t kPartialSums = 16;

template <int64_t P = kPartialSums, class V>
PYDLN_INLINE V add_tree(V* p) {
#pragma GCC unroll 4
  for (int64_t half = P / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int64_t i = 0; i < half; ++i) p[i] = p[i] + p[i + half];
  return p[0];
}

// Bump allocator over one block; with a null base it only measures. Every piece is zero and starts on a cache line, and pieces
// that fill pages are moved against each other: at one offset of the page a load waits for an unrelated store.
struct Arena {
  static constexpr std::size_t kStagger = 320;
  char* base;
  const Control* control = nullptr;
  std::size_t used = 0;

  template <class C>
  C* take(int64_t count) {
    C* p = base ? reinterpret_cast<C*>(base + used) : nullptr;
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(C), &bytes) || __builtin_add_overflow(bytes, 63, &bytes) ||
        __builtin_add_overflow(used, bytes / 64 * 64 + kStagger, &used))
      used = SIZE_MAX / 2;  // no computer has this much: the caller refuses
    if (p) clear(reinterpret_cast<char*>(p), bytes);
    return p;
  }

 private:
  // Gigabytes take seconds: once the run is cancelled, what is taken is not cleared, and nothing may be made of it.
  void clear(char* p, std::size_t bytes) const {
    constexpr std::size_t kPiece = std::size_t{1} << 22U;
    for (std::size_t at = 0; at < bytes && !(control && cancelled(*control)); at += kPiece)
      __builtin_memset(p + at, 0, bytes - at < kPiece ? bytes - at : kPiece);
  }
};

}  // namespace pydln::PYDLN_ISA
