// Layout "interleaved": as many networks as a vector has lanes; element (i, j) of a matrix is one vector.
// Any shape, no tails inside a vector, no transposes. Best for small networks in large batches.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

template <class T>
struct Interleaved {
  using Scalar = T;
  using V = typename Vector<T>::type;
  using Cell = V;   // storage of a matrix element
  using Value = V;  // one number per member of the group
  static constexpr int64_t members = lanes_of<T>;

  static PYDLN_INLINE T get(const Value& v, int64_t lane) { return v[lane]; }
  static PYDLN_INLINE void set(Value& v, int64_t lane, T x) { v[lane] = x; }

  static int64_t stride(int64_t cols) { return cols; }
  static int64_t cells(int64_t rows, int64_t cols) { return rows * cols; }

  // ---- in and out of the group ------------------------------------------------------------------------------
  static void load(V* dst, int64_t lane, const T* src, int64_t rows, int64_t cols, bool transposed) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) dst[i * cols + j][lane] = transposed ? src[j * rows + i] : src[i * cols + j];
  }
  static void store(const V* src, int64_t lane, T* dst, int64_t rows, int64_t cols, bool transposed) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) (transposed ? dst[j * rows + i] : dst[i * cols + j]) = src[i * cols + j][lane];
  }
  // A matrix shared by all members stays scalar and is broadcast where it is read.
  static void load(T* dst, int64_t, const T* src, int64_t rows, int64_t cols, bool transposed) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) dst[i * cols + j] = transposed ? src[j * rows + i] : src[i * cols + j];
  }
  static void copy_lane(V* dst, const V* src, int64_t lane, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < rows * cols; ++q) dst[q][lane] = src[q][lane];
  }
  static void clear_lane(V* dst, int64_t lane, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < rows * cols; ++q) dst[q][lane] = 0;
  }

  // ---- what becomes of an element of a product --------------------------------------------------------------
  struct Store {  // C = AB
    V* c;
    int64_t ldc;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ldc + j] = acc; }
  };
  template <class G>
  struct Residual {  // C = S - AB
    V* c;
    const G* s;
    int64_t ld;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = at(s + i * ld + j) - acc; }
  };
  struct Step {  // C = W + rate AB
    V* c;
    const V* w;
    int64_t ld;
    V rate;
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = fma(rate, acc, w[i * ld + j]); }
  };

  // ---- products -----------------------------------------------------------------------------------------------
  // C (M × N) = A B with run-time strides; element (i, j) sums over k from first to last. Networks in this layout are
  // small: their products never watch whether the run is cancelled.
  template <class A, class B>
  static void product(const Control*, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M, int64_t N,
                      int64_t K) {
    multiply(a, lda, 1, b, ldb, 1, M, N, K, Store{c, N});
  }
  template <class A, class B>
  static void product_tn(const Control*, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M, int64_t N,
                         int64_t K) {
    multiply(a, 1, lda, b, ldb, 1, M, N, K, Store{c, N});
  }
  template <class G, class A, class B>
  static void residual(const Control*, const G* s, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M,
                       int64_t N, int64_t K) {
    multiply(a, lda, 1, b, ldb, 1, M, N, K, Residual<G>{c, s, N});
  }
  // C (M × N) = W + rate A^T R, A (K × M), R (K × N); C may be W
  static void step_tn(const Control*, const V* a, int64_t lda, const V* r, int64_t ldr, const V* w, V* c, V rate,
                      int64_t M, int64_t N, int64_t K) {
    multiply(a, 1, lda, r, ldr, 1, M, N, K, Step{c, w, N, rate});
  }

  // Residuals R_{l+1} = R_l W_l^T, carried from E. Nothing but the strides is needed here.
  struct Carry {
    void begin(const V*, int64_t, int64_t) {}
    void next(const Control*, const V* r, const V* w, V* out, int64_t m, int64_t rows, int64_t cols) {
      multiply(r, cols, 1, w, 1, cols, m, rows, cols, Store{out, rows});
    }
  };
  static Carry carry(Arena&, int64_t, int64_t) { return {}; }

  static void transpose(const V* a, V* c, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) c[j * rows + i] = a[i * cols + j];
  }

  // ---- element by element ---------------------------------------------------------------------------------------
  template <class G>
  static void subtract(const G* s, const V* a, V* c, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < rows * cols; ++q) c[q] = at(s + q) - a[q];
  }
  // c = w + rate g; c may be w
  static void step(const V* w, V* c, const V* g, V rate, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < rows * cols; ++q) c[q] = fma(rate, g[q], w[q]);
  }
  // v = momentum v + (g - decay w), c = w + rate v; returns max(largest, |v|)
  static V step_momentum(const V* w, V* c, V* v, const V* g, V rate, V momentum, V decay, V largest, int64_t rows,
                         int64_t cols) {
    for (int64_t q = 0; q < rows * cols; ++q) {
      v[q] = fma(momentum, v[q], fma(-decay, w[q], g[q]));
      c[q] = fma(rate, v[q], w[q]);
      largest = max_abs(largest, v[q]);
    }
    return largest;
  }

  // ---- sums in canonical order ----------------------------------------------------------------------------------
  template <class G>
  static V anchored_dot(const V* e, V ridge, const G* p, const V* omega, int64_t rows,
                        int64_t cols) {  // <e + ridge p, p - omega>
    return canonical(rows, cols, [=](int64_t q, V sum) {
      const V anchor = at(p + q);
      return fma(fma(ridge, anchor, e[q]), V(anchor - omega[q]), sum);
    });
  }
  static V dot_self(const V* x, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) { return fma(x[q], x[q], p); });
  }
  static V distance2(const V* x, const V* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) {
      const V d = x[q] - y[q];
      return fma(d, d, p);
    });
  }

  // diag(U^T P): out[a] = sum_i U_ia P_ia, i from first to last
  template <class G>
  static void column_dots(const G* u, const V* p, V* out, int64_t rows, int64_t cols) {
    for (int64_t j = 0; j < cols; ++j) {
      V sum{};
      for (int64_t i = 0; i < rows; ++i) sum = fma(V(at(u + i * cols + j)), p[i * cols + j], sum);
      out[j] = sum;
    }
  }
  static PYDLN_INLINE T element(const V* x, int64_t q, int64_t lane) { return x[q][lane]; }

 private:
  static PYDLN_INLINE V at(const V* p) { return *p; }
  static PYDLN_INLINE V at(const T* p) { return splat(*p); }

  template <class F>
  static PYDLN_INLINE V canonical(int64_t rows, int64_t cols, F f) {
    V p[kPartialSums] = {};
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) p[j % kPartialSums] = f(i * cols + j, p[j % kPartialSums]);
    return add_tree(p);
  }

  template <int MR, int NR, class A, class B, class Out>
  static PYDLN_INLINE void block(const A* a, int64_t ai, int64_t ak, const B* b, int64_t bk, int64_t bj, int64_t i0,
                                 int64_t j0, int64_t K, Out out) {
    V acc[MR][NR] = {};
    for (int64_t k = 0; k < K; ++k) {
      V bv[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) bv[j] = at(b + k * bk + (j0 + j) * bj);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const V av = at(a + (i0 + i) * ai + k * ak);
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) out(i0 + i, j0 + j, acc[i][j]);
  }

  template <int MR, class A, class B, class Out>
  static PYDLN_INLINE void block_row(const A* a, int64_t ai, int64_t ak, const B* b, int64_t bk, int64_t bj, int64_t i,
                                     int64_t N, int64_t K, Out out) {
    constexpr int NR = PYDLN_INTERLEAVED_NR;
    int64_t j = 0;
    for (; j + NR <= N; j += NR) block<MR, NR>(a, ai, ak, b, bk, bj, i, j, K, out);
    if constexpr (NR > 2)
      if (j + 2 <= N) {
        block<MR, 2>(a, ai, ak, b, bk, bj, i, j, K, out);
        j += 2;
      }
    if (j < N) block<MR, 1>(a, ai, ak, b, bk, bj, i, j, K, out);
  }

  template <class A, class B, class Out>
  static void multiply(const A* a, int64_t ai, int64_t ak, const B* b, int64_t bk, int64_t bj, int64_t M, int64_t N,
                       int64_t K, Out out) {
    constexpr int MR = PYDLN_INTERLEAVED_MR;
    int64_t i = 0;
    for (; i + MR <= M; i += MR) block_row<MR>(a, ai, ak, b, bk, bj, i, N, K, out);
    if constexpr (MR > 2)
      if (i + 2 <= M) {
        block_row<2>(a, ai, ak, b, bk, bj, i, N, K, out);
        i += 2;
      }
    if (i < M) block_row<1>(a, ai, ak, b, bk, bj, i, N, K, out);
  }
};

}  // namespace pydln::PYDLN_ISA
