// Matrices of as many members as a vector has lanes, one a lane, on their way in: cell (i, j) is one vector, scaled by a
// power of two for each lane where eighth powers of the entries, of which shifts are made, might leave the range of a double.
#pragma once

#include "cpu/kernels/rough.hpp"

namespace pydln::PYDLN_ISA {

struct LaneMatrix {
  using V = Doubles;
  static constexpr int64_t kLanes = lanes_of<double>;
  // Rows of a multiple of 1 KiB would share few sets of the first cache.
  static constexpr int64_t stride(int64_t cols) {
    return cols * PYDLN_VECTOR_BYTES % 1024 == 0 ? cols + (PYDLN_VECTOR_BYTES < 64 ? 64 / PYDLN_VECTOR_BYTES : 1)
                                                 : cols;
  }

  V* cells;
  int64_t rows, cols, ld;  // rows >= cols
  SignedBits broken{};     // lanes that held NaN or infinity: all zeros now
  SignedBits exponent{};   // entries are 2^exponent times what is in the cells

  // Lane i takes matrix first + i of (batch, given_rows, given_cols), transposed if that is the wide way; lanes beyond the
  // batch become zeros.
  void load(const double* matrices, int64_t first, int64_t batch, int64_t given_rows, int64_t given_cols) {
    const int64_t entries = given_rows * given_cols;
    const bool turned = given_rows < given_cols;
    const double* from[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) from[i] = matrices + (first + i < batch ? first + i : first) * entries;
    V largest{}, differences{};
    int64_t row = 0, col = 0;
    const auto put = [&](V x) {
      largest = max_abs(largest, x);
      differences = differences + (x - x);
      cells[turned ? col * ld + row : row * ld + col] = x;
      if (++col == given_cols) col = 0, ++row;
    };
    int64_t k = 0;
    for (; k + kLanes <= entries; k += kLanes) {
      V square[kLanes];
#pragma GCC unroll 8
      for (int64_t i = 0; i < kLanes; ++i) square[i] = *reinterpret_cast<const Loose*>(from[i] + k);
      turn(square);
#pragma GCC unroll 8
      for (const V& x : square) put(x);
    }
    for (; k < entries; ++k) {
      V x{};
      for (int64_t i = 0; i < kLanes; ++i) x[i] = from[i][k];
      put(x);
    }
    broken = differences != 0.0;
    SignedBits beyond{};
    exponent = SignedBits{};
    unsigned touched = truth(broken);
    for (int64_t i = 0; i < kLanes; ++i) {
      if (first + i >= batch) beyond[i] = -1, touched |= 1U << static_cast<unsigned>(i);
      if (broken[i] || largest[i] == 0 || (largest[i] > 0x1p-60 && largest[i] < 0x1p60)) continue;
      exponent[i] = exponent_of(largest[i]);
      touched |= 1U << static_cast<unsigned>(i);
    }
    if (!touched) return;
    V half{}, rest{};  // 2^-exponent in two factors, each in range
    for (int64_t i = 0; i < kLanes; ++i) {
      half[i] = power_of_two(-(exponent[i] / 2));
      rest[i] = power_of_two(-(exponent[i] - exponent[i] / 2));
    }
    const SignedBits cleared = broken | beyond;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const V x = cells[i * ld + j] * half * rest;
        cells[i * ld + j] = cleared ? V{} : x;
      }
    exponent = cleared ? SignedBits{} : exponent;
  }

  // e with 2^e <= x < 2^(e+1), of finite x > 0.
  static int64_t exponent_of(double x) {
    int64_t shift = 0;
    if (x < 0x1p-1000) x *= 0x1p200, shift = 200;
    std::uint64_t word = 0;
    __builtin_memcpy(&word, &x, sizeof word);
    return static_cast<int64_t>(word >> 52U) - 1023 - shift;
  }
  // |e| < 1022
  static double power_of_two(int64_t e) {
    const std::uint64_t word = static_cast<std::uint64_t>(e + 1023) << 52U;
    double x = 0;
    __builtin_memcpy(&x, &word, sizeof x);
    return x;
  }

 private:
  typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));
  static PYDLN_INLINE void turn(V* square) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kLanes; i += 2) transpose_pieces<double>(square + i);
    exchange_pieces<double>(square);
  }
};

}  // namespace pydln::PYDLN_ISA
