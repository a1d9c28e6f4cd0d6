// Householder's reduction of a matrix to upper bidiagonal form, one matrix a lane (Golub & Kahan 1965). Each step reads and
// writes the rest of the matrix once: four rows at a time take the left and the right reflection one after the other while
// they are in the first cache, and leave the products that the next left reflection needs.
#pragma once

#include "cpu/kernels/lane_matrix.hpp"

namespace pydln::PYDLN_ISA {

class Bidiagonal {
  using V = Doubles;

 public:
  Bidiagonal(int64_t cols, Arena& arena)
      : d(arena.take<V>(cols)),
        e(arena.take<V>(cols)),
        g_(arena.take<V>(cols)),
        w_(arena.take<V>(cols)),
        u_(arena.take<V>(cols)) {}

  V* const d;  // (cols) diagonal, of either sign
  V* const e;  // (cols - 1) beside it

  // Destroys `m`.
  void reduce(const LaneMatrix& m) {
    const int64_t n = m.cols, ld = m.ld;
    for (int64_t j = 0; j < n; ++j) g_[j] = V{};
    for (int64_t i = 0; i < m.rows; ++i) {
      const V* row = m.cells + i * ld;
      for (int64_t j = 0; j < n; ++j) g_[j] = fma(row[0], row[j], g_[j]);
    }
    for (int64_t k = 0; k < n; ++k) {
      V* row = m.cells + k * ld;
      const Reflection left = reflection(row[k], g_[k]);
      d[k] = left.image;
      if (k + 1 == n) break;
      for (int64_t j = k + 1; j < n; ++j) {
        w_[j] = left.rate * fma(-left.image, row[j], g_[j]);
        row[j] = fma(-left.first, w_[j], row[j]);
        g_[j] = V{};
      }
      Reflection right{row[k + 1], V{}, V{}};
      if (k + 2 < n) {
        V square{};
        for (int64_t j = k + 1; j < n; ++j) square = fma(row[j], row[j], square);
        right = reflection(row[k + 1], square);
      }
      e[k] = right.image;
      u_[k + 1] = right.first;
      for (int64_t j = k + 2; j < n; ++j) u_[j] = row[j];
      int64_t i = k + 1;
      for (; i + kRows <= m.rows; i += kRows) update<kRows>(m.cells + i * ld, ld, k, n, right.rate);
      for (; i < m.rows; ++i) update<1>(m.cells + i * ld, ld, k, n, right.rate);
    }
  }

 private:
  static constexpr int64_t kRows = 4;

  // x -> (image, 0, ..., 0) by x - rate v (v . x), v = x but for its first entry.
  struct Reflection {
    V image, first, rate;
  };
  static PYDLN_INLINE Reflection reflection(V x0, V square) {
    const V size = square_root(square), image = x0 < 0.0 ? size : -size;
    const V under = fma(x0 < 0.0 ? -x0 : x0, size, square);
    const SignedBits some = under > 0x1p-900;  // below, there is nothing left to speak of
    const V rate = 1.0 / (some ? under : splat(1.0));
    return {some ? image : x0, some ? x0 - image : V{}, some ? rate : V{}};
  }

  // Rows of a: z = rate (a - v w^T) u, a <- a - v w^T - z u^T; g += x^T a with x the column k + 1. What stands between the
  // reflections is worked out twice rather than written: stores are what these loops wait for.
  template <int64_t R>
  PYDLN_INLINE void update(V* a, int64_t ld, int64_t k, int64_t n, V rate) {
    V v[R], z[R], x[R];
#pragma GCC unroll 4
    for (int64_t r = 0; r < R; ++r) v[r] = -a[r * ld + k], z[r] = V{};
    for (int64_t j = k + 1; j < n; ++j) {
      const V w = w_[j], u = u_[j];
#pragma GCC unroll 4
      for (int64_t r = 0; r < R; ++r) z[r] = fma(fma(v[r], w, a[r * ld + j]), u, z[r]);
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < R; ++r) {
      z[r] = -(rate * z[r]);
      x[r] = fma(z[r], u_[k + 1], fma(v[r], w_[k + 1], a[r * ld + k + 1]));
    }
    for (int64_t j = k + 1; j < n; ++j) {
      const V w = w_[j], u = u_[j];
      V g = g_[j];
#pragma GCC unroll 4
      for (int64_t r = 0; r < R; ++r) {
        const V left = fma(z[r], u, fma(v[r], w, a[r * ld + j]));
        a[r * ld + j] = left;
        g = fma(x[r], left, g);
      }
      g_[j] = g;
    }
  }

  V *const g_, *const w_, *const u_;
};

}  // namespace pydln::PYDLN_ISA
