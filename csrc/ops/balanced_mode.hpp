// Operation: strengths of balanced modes, du/dt = D |u|^p (s - u), p = 2 - 2/D, by looking them up.
//
// v = u/s runs through one course, v' = |v|^p (1 - v) in T = D |s|^p t, wherever it starts: below the target v is between 0
// and 1, above it v > 1, with the target across zero v < 0. T = 0 is where v passes `middle`. Before it E = v is tabulated,
// afterwards E = v or, on the way to the fixed point, E = 1 - v, as
//
//   E = E_c exp(c_1 x + ... + c_7 x^7),  x = (y - y_c) 2^-e,  y = origin + direction T in [2^e, 2^(e+1))
//
// in each of 2^kCellBits equal cells of an octave of y, with centre y_c. `direction` is +1 or -1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pydln::ops {

// Digits of y, after the leading one, that say in which cell of an octave it is.
inline constexpr unsigned kCellBits = 5;
inline constexpr std::int64_t kRow = 8;

// One side of T = 0.
struct Branch {
  std::int64_t begin = 0, cells = 1;  // its rows in the table, in the order of y
  std::int64_t first = 0;             // number of the first of these cells: upper bits of y, exponent and kCellBits
  double origin = 0, direction = 1;
  const double* bounds = nullptr;  // (cells + 1) |E| at the cells' borders, decreasing
};

struct BalancedMode {
  const double* table = nullptr;  // (rows, kRow): E_c, c_1, ..., c_7; aligned to 64 bytes
  std::int64_t rows = 0;
  Branch early, late;
  double middle = 0;
  bool late_is_gap = false;  // E = 1 - v after T = 0
  double last = 0;           // later T are taken for this one: E is zero by then, or T out of range

  std::int64_t modes = 0, times = 0;
  const std::int64_t* which = nullptr;  // (modes) entries of u0, s, rate and rows of u, gap; null: all in order
  const double* u0 = nullptr;
  const double* s = nullptr;
  const double* rate = nullptr;  // D |s|^p
  const double* t = nullptr;     // those of entry i from t + i t_stride
  std::int64_t t_stride = 0;     // 0: all modes share them
  double* u = nullptr;           // (entries, times)
  double* gap = nullptr;         // (entries, times)  s - u with its own digits; null: not wanted
};

}  // namespace pydln::ops
