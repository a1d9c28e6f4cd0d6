// Random numbers without a state: Philox 4×32 with ten rounds (Salmon, Moraes, Dror & Shaw 2011), keyed by the seed, of a
// counter of block, member, step and stream. As many blocks at once as a vector has lanes of 64 bits; every number is
// computed by itself, in double precision, so neither vector width nor precision of the run change it.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/elementary.hpp"

namespace pydln::PYDLN_ISA {

enum class Stream : std::uint64_t { indices = 0, inputs = 1, labels = 2 };

struct Draw {
  std::uint64_t seed, member, step;
};

// Blocks between two looks at whether the run is cancelled: some tens of microseconds. What was drawn until then is no use.
inline constexpr std::int64_t kLookEvery = 4096;
PYDLN_INLINE bool give_up(const Control& watch, std::int64_t block) {
  return block % kLookEvery == 0 && cancelled(watch);
}

struct Words {
  Bits of[4];  // 32 bits each
};

// Blocks first, first + 1, ..., one in each lane.
PYDLN_INLINE Words philox(const Draw& d, Stream stream, std::uint64_t first) {
  constexpr std::uint64_t kLow = 0xFFFFFFFF, kMultiplier0 = 0xD2511F53, kMultiplier2 = 0xCD9E8D57;
  Bits block;
  for (std::size_t i = 0; i < sizeof(Bits) / sizeof(std::uint64_t); ++i) block[i] = first + i;
  Words x{{block, Bits{} + d.member, Bits{} + (d.step & kLow),
           Bits{} + (((d.step >> 32U) & 0xFFFFFFU) | static_cast<std::uint64_t>(stream) << 24U)}};
  std::uint64_t key0 = d.seed & kLow, key1 = d.seed >> 32U;
  for (int round = 0; round < 10; ++round) {
    const Bits p = x.of[0] * kMultiplier0, q = x.of[2] * kMultiplier2;
    x = Words{{(q >> 32U) ^ x.of[1] ^ key0, q & kLow, (p >> 32U) ^ x.of[3] ^ key1, p & kLow}};
    key0 = (key0 + 0x9E3779B9) & kLow;
    key1 = (key1 + 0xBB67AE85) & kLow;
  }
  return x;
}

// The number below `bound` < 2^32 that 32 random bits stand for.
PYDLN_INLINE std::int64_t below(std::uint64_t word, std::int64_t bound) {
  return static_cast<std::int64_t>(word * static_cast<std::uint64_t>(bound) >> 32U);
}

// f(i, word) for numbers first + i, i = 0 ... count - 1: four words of every block. `first` is a multiple of four.
template <class F>
void each_word(const Control& watch, const Draw& d, Stream stream, std::int64_t first, std::int64_t count, F f) {
  constexpr std::int64_t lanes = lanes_of<double>;
  for (std::int64_t block = 0; 4 * block < count; block += lanes) {
    if (give_up(watch, block)) return;
    const Words w = philox(d, stream, static_cast<std::uint64_t>(first / 4 + block));
    for (std::int64_t lane = 0; lane < lanes; ++lane)
      for (std::int64_t i = 0; i < 4; ++i) {
        const std::int64_t number = 4 * (block + lane) + i;
        if (number < count) f(number, w.of[i][lane]);
      }
  }
}

namespace normal {

using namespace elementary;

// In [1, 2), from the upper 52 of 64 bits.
PYDLN_INLINE Doubles one_to_two(Bits x) {
  constexpr std::uint64_t kOne = 0x3FF0000000000000;
  return as_doubles((x >> 12U) | kOne);
}

// cos and sin of 2 pi v for v in [0, 1): the nearest quarter turn, and Taylor's series of what is left.
PYDLN_INLINE void turn(Doubles v, Doubles& cosine, Doubles& sine) {
  constexpr double kQuarter = 1.57079632679489661923;
  static constexpr double kCos[] = {1.0,
                                    -1.0 / 2,
                                    1.0 / 24,
                                    -1.0 / 720,
                                    1.0 / 40320,
                                    -1.0 / 3628800,
                                    1.0 / 479001600,
                                    -1.0 / 87178291200,
                                    1.0 / 2.0922789888e13,
                                    -1.0 / 6.402373705728e15};
  static constexpr double kSin[] = {1.0,
                                    -1.0 / 6,
                                    1.0 / 120,
                                    -1.0 / 5040,
                                    1.0 / 362880,
                                    -1.0 / 39916800,
                                    1.0 / 6227020800,
                                    -1.0 / 1.307674368e12,
                                    1.0 / 3.55687428096e14,
                                    -1.0 / 1.21645100408832e17};
  const Doubles whole = v * 4.0 + kWhole;
  const Doubles a = (v * 4.0 - (whole - kWhole)) * kQuarter, z = a * a;
  const Doubles c = polynomial(kCos, z), s = a * polynomial(kSin, z);
  const Bits n = as_bits(whole);
  const Bits odd = Bits{} - (n & 1U);
  const Bits from_c = as_bits(c), from_s = as_bits(s);
  cosine = as_doubles(((from_c & ~odd) | (from_s & odd)) ^ (((n + 1U) & 2U) << 62U));
  sine = as_doubles(((from_s & ~odd) | (from_c & odd)) ^ ((n & 2U) << 62U));
}

}  // namespace normal

// Standard normal numbers first ... first + count - 1 (Box & Muller 1958), `first` even: block j makes 2 j and 2 j + 1.
template <class T>
void normals(const Control& watch, const Draw& d, Stream stream, std::int64_t first, std::int64_t count, T* out) {
  constexpr std::int64_t lanes = lanes_of<double>;
  for (std::int64_t j = 0; 2 * j < count; j += lanes) {
    if (give_up(watch, j)) return;
    const Words w = philox(d, stream, static_cast<std::uint64_t>(first / 2 + j));
    const Doubles u = 2.0 - normal::one_to_two(w.of[0] | (w.of[1] << 32U));  // in (0, 1]
    const Doubles v = normal::one_to_two(w.of[2] | (w.of[3] << 32U)) - 1.0;
    const Doubles square = -2.0 * elementary::log(u);
    Doubles cosine, sine, radius;
    normal::turn(v, cosine, sine);
    for (std::int64_t i = 0; i < lanes; ++i) radius[i] = __builtin_sqrt(square[i]);
    const Doubles even = radius * cosine, odd = radius * sine;
    for (std::int64_t i = 0; i < lanes && 2 * (j + i) < count; ++i) {
      const std::int64_t number = 2 * (j + i);
      out[number] = static_cast<T>(even[i]);
      if (number + 1 < count) out[number + 1] = static_cast<T>(odd[i]);
    }
  }
}

}  // namespace pydln::PYDLN_ISA
