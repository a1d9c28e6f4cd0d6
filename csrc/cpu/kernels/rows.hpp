// Layout "rows": one network at a time, row-major matrices whose rows are padded with zeros to whole vectors.
// Every product is a broadcast of the left factor times vectors of the right one. Best for wide networks.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

template <class T>
struct Rows {
  using Scalar = T;
  using V = typename Vector<T>::type;
  using Cell = T;
  using Value = T;
  static constexpr int64_t members = 1;
  static constexpr int64_t L = lanes_of<T>;

  static PYDLN_INLINE T get(const Value& v, int64_t) { return v; }
  static PYDLN_INLINE void set(Value& v, int64_t, T x) { v = x; }

  static int64_t vectors(int64_t cols) { return (cols + L - 1) / L; }
  // A row of a multiple of 1 KiB would map every row to the same cache sets: one more vector breaks the pattern.
  static int64_t stride(int64_t cols) {
    const int64_t ld = vectors(cols) * L;
    return ld * static_cast<int64_t>(sizeof(T)) % 1024 == 0 ? ld + L : ld;
  }
  static int64_t cells(int64_t rows, int64_t cols) { return rows * stride(cols); }

  // ---- in and out -----------------------------------------------------------------------------------------------
  static void load(T* dst, int64_t, const T* src, int64_t rows, int64_t cols, bool transposed) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) dst[i * ld + j] = transposed ? src[j * rows + i] : src[i * cols + j];
      for (int64_t j = cols; j < ld; ++j) dst[i * ld + j] = 0;
    }
  }
  static void store(const T* src, int64_t, T* dst, int64_t rows, int64_t cols, bool transposed) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) (transposed ? dst[j * rows + i] : dst[i * cols + j]) = src[i * ld + j];
  }
  static void copy_lane(T* dst, const T* src, int64_t, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) dst[q] = src[q];
  }
  static void clear_lane(T* dst, int64_t, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) dst[q] = 0;
  }

  // ---- what becomes of a vector of a product ------------------------------------------------------------------
  struct Store {
    T* c;
    int64_t ldc;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { *vec(c + i * ldc + j) = acc; }
  };
  struct Residual {
    T* c;
    const T* s;
    int64_t ld;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const {
      *vec(c + i * ld + j) = *vec(s + i * ld + j) - acc;
    }
  };
  struct Step {  // C = W + rate AB
    T* c;
    const T* w;
    int64_t ld;
    V rate;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const {
      *vec(c + i * ld + j) = fma(rate, acc, V(*vec(w + i * ld + j)));
    }
  };

  // ---- products ---------------------------------------------------------------------------------------------------
  // A product that is long looks at `watch` on its way and ends, unfinished, once the run is cancelled; null: never.
  static void product(const Control* watch, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t M,
                      int64_t N, int64_t K) {
    multiply(watch, a, lda, 1, b, ldb, M, N, K, Store{c, stride(N)});
  }
  static void product_tn(const Control* watch, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t M,
                         int64_t N, int64_t K) {
    multiply(watch, a, 1, lda, b, ldb, M, N, K, Store{c, stride(N)});
  }
  static void residual(const Control* watch, const T* s, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                       int64_t M, int64_t N, int64_t K) {
    multiply(watch, a, lda, 1, b, ldb, M, N, K, Residual{c, s, stride(N)});
  }
  // C = W + rate A^T R; C may be W
  static void step_tn(const Control* watch, const T* a, int64_t lda, const T* r, int64_t ldr, const T* w, T* c, T rate,
                      int64_t M, int64_t N, int64_t K) {
    multiply(watch, a, 1, lda, r, ldr, M, N, K, Step{c, w, stride(N), splat(rate)});
  }

  // Residuals R_{l+1} = R_l W_l^T. Carried transposed, R_{l+1}^T = W_l R_l^T: then W_l is the broadcast factor and is
  // read in its own order; only the thin R (m × n) is transposed, never W.
  struct Carry {
    T* now = nullptr;
    T* then = nullptr;

    void begin(const T* e, int64_t m, int64_t cols) { transpose(e, now, m, cols); }
    void next(const Control* watch, const T*, const T* w, T* out, int64_t m, int64_t rows, int64_t cols) {
      multiply(watch, w, stride(cols), 1, now, stride(m), rows, m, cols, Store{then, stride(m)});
      transpose(then, out, rows, m);
      T* t = now;
      now = then;
      then = t;
    }
  };
  static Carry carry(Arena& arena, int64_t widest, int64_t m) {
    Carry c;
    c.now = arena.take<T>(cells(widest, m));
    c.then = arena.take<T>(cells(widest, m));
    return c;
  }

  // C (cols × rows) = A^T, zeros in the padding
  static void transpose(const T* a, T* c, int64_t rows, int64_t cols) {
    const int64_t lda = stride(cols), ldc = stride(rows);
    for (int64_t j0 = 0; j0 < cols; j0 += 8)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = j0; j < cols && j < j0 + 8; ++j) c[j * ldc + i] = a[i * lda + j];
    for (int64_t j = 0; j < cols; ++j)
      for (int64_t i = rows; i < ldc; ++i) c[j * ldc + i] = 0;
  }

  // ---- element by element -------------------------------------------------------------------------------------
  static void subtract(const T* s, const T* a, T* c, int64_t rows, int64_t cols) {
    each_vector(rows, cols, [=](int64_t q) { *vec(c + q) = *vec(s + q) - *vec(a + q); });
  }
  static void step(const T* w, T* c, const T* g, T rate, int64_t rows, int64_t cols) {
    const V r = splat(rate);
    each_vector(rows, cols, [=](int64_t q) { *vec(c + q) = fma(r, V(*vec(g + q)), V(*vec(w + q))); });
  }
  static T step_momentum(const T* w, T* c, T* v, const T* g, T rate, T momentum, T decay, T largest, int64_t rows,
                         int64_t cols) {
    const V r = splat(rate), mu = splat(momentum), wd = splat(decay);
    V most{};
    each_vector(rows, cols, [=, &most](int64_t q) {
      const V weight = *vec(w + q);
      const V velocity = fma(mu, V(*vec(v + q)), fma(V(-wd), weight, V(*vec(g + q))));
      *vec(v + q) = velocity;
      *vec(c + q) = fma(r, velocity, weight);
      most = max_abs(most, velocity);
    });
    for (int64_t i = 0; i < L; ++i) largest = max_abs(largest, most[i]);
    return largest;
  }

  // ---- sums in canonical order -----------------------------------------------------------------------------------
  static T anchored_dot(const T* e, T ridge, const T* p, const T* omega, int64_t rows,
                        int64_t cols) {  // <e + ridge p, p - omega>
    const V r = splat(ridge);
    return canonical(rows, cols, [=](int64_t q, V sum) {
      const V anchor = *vec(p + q);
      return fma(fma(r, anchor, V(*vec(e + q))), V(anchor - *vec(omega + q)), sum);
    });
  }
  static T dot_self(const T* x, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) { return fma(V(*vec(x + q)), V(*vec(x + q)), p); });
  }
  static T distance2(const T* x, const T* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) {
      const V d = *vec(x + q) - *vec(y + q);
      return fma(d, d, p);
    });
  }

  static void column_dots(const T* u, const T* p, T* out, int64_t rows, int64_t cols) {
    const int64_t ld = stride(cols);
    for (int64_t j = 0; j < vectors(cols) * L; j += L) {
      V sum{};
      for (int64_t i = 0; i < rows; ++i) sum = fma(V(*vec(u + i * ld + j)), V(*vec(p + i * ld + j)), sum);
      *vec(out + j) = sum;
    }
  }
  static PYDLN_INLINE T element(const T* x, int64_t q, int64_t) { return x[q]; }

 private:
  static PYDLN_INLINE V* vec(T* p) { return reinterpret_cast<V*>(p); }
  static PYDLN_INLINE const V* vec(const T* p) { return reinterpret_cast<const V*>(p); }

  template <class F>
  static PYDLN_INLINE void each_vector(int64_t rows, int64_t cols, F f) {
    const int64_t ld = stride(cols), used = vectors(cols) * L;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < used; j += L) f(i * ld + j);
  }

  template <class F>
  static PYDLN_INLINE T canonical(int64_t rows, int64_t cols, F f) {
    constexpr int64_t P = kPartialSums / L;
    const int64_t ld = stride(cols), full = cols / L, rest = cols % L;
    V column, p[P] = {};
    for (int64_t q = 0; q < L; ++q) column[q] = static_cast<T>(q);
    const auto inside = column < splat(static_cast<T>(rest));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < full; ++j) p[j % P] = f(i * ld + j * L, p[j % P]);
      if (rest == 0) continue;
      V& last = p[full % P];  // the padding stays out: it is NaN once infinity times its zeros has been stored there
      last = inside ? V(f(i * ld + full * L, last)) : last;
    }
    T flat[kPartialSums];
    for (int64_t q = 0; q < kPartialSums; ++q) flat[q] = p[q / L][q % L];
    return add_tree(flat);
  }

  template <int MR, int NR, class Out>
  static PYDLN_INLINE void block(const T* a, int64_t ai, int64_t ak, const T* b, int64_t ldb, int64_t i0, int64_t j0,
                                 int64_t K, Out out) {
    V acc[MR][NR] = {};
    a += i0 * ai;
    b += j0;
    for (int64_t k = 0; k < K; ++k) {
      V bv[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) bv[j] = *vec(b + k * ldb + j * L);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const V av = splat(a[i * ai + k * ak]);
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) out(i0 + i, j0 + j * L, acc[i][j]);
  }

  // Rows i to M - 1 of a column panel of NR vectors, which stays in the first cache level while rows of A pass over it.
  template <int MR, int NR, class Out>
  static PYDLN_INLINE void panel(const T* a, int64_t ai, int64_t ak, const T* b, int64_t ldb, int64_t j, int64_t i,
                                 int64_t M, int64_t K, Out out) {
    for (; i + MR <= M; i += MR) block<MR, NR>(a, ai, ak, b, ldb, i, j, K, out);
    if constexpr (MR > 4)
      if (i + 4 <= M) {
        block<4, NR>(a, ai, ak, b, ldb, i, j, K, out);
        i += 4;
      }
    if constexpr (MR > 2)
      if (i + 2 <= M) {
        block<2, NR>(a, ai, ak, b, ldb, i, j, K, out);
        i += 2;
      }
    if (i < M) block<1, NR>(a, ai, ak, b, ldb, i, j, K, out);
    static_assert(MR <= 8, "the remainders above cover at most 4 + 2 + 1 rows");
  }

  template <class Out>
  static void multiply(const Control* watch, const T* a, int64_t ai, int64_t ak, const T* b, int64_t ldb, int64_t M,
                       int64_t N, int64_t K, Out out) {
    const int64_t used = vectors(N) * L, rows = watch ? rows_between_looks(M, K) : M;
    int64_t j = 0;
    for (; j + 2 * L <= used; j += 2 * L)
      for (int64_t i = 0; i < M; i += rows) {
        if (watch && cancelled(*watch)) return;
        panel<PYDLN_ROWS_MR, 2>(a, ai, ak, b, ldb, j, i, M - i < rows ? M : i + rows, K, out);
      }
    if (j < used) panel<8, 1>(a, ai, ak, b, ldb, j, 0, M, K, out);
  }

  // Rows of a panel in a few million multiply-adds, under a millisecond; whole blocks of rows.
  static PYDLN_INLINE int64_t rows_between_looks(int64_t M, int64_t K) {
    constexpr int64_t kLook = 4'000'000 / (2 * L);
    if (M * K <= kLook) return M;
    const int64_t rows = kLook / K / PYDLN_ROWS_MR * PYDLN_ROWS_MR;
    return rows ? rows : PYDLN_ROWS_MR;
  }
};

}  // namespace pydln::PYDLN_ISA
