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
  static PYDLN_INLINE bool finite(const Value& v) {
    return any_of(reinterpret_cast<Bits>(v - v != V{}), typename CountLanes<sizeof(V) / sizeof(int64_t)>::type{}) == 0;
  }

  // Rows of a multiple of 1 KiB would share few sets of the first cache: they are a line longer, which stays zero.
  static constexpr PYDLN_INLINE int64_t stride(int64_t cols) {
    constexpr int64_t size = sizeof(V), line = size < 64 ? 64 / size : 1;
    return cols * size % 1024 == 0 ? cols + line : cols;
  }
  static int64_t cells(int64_t rows, int64_t cols) { return rows * stride(cols); }

  // ---- in and out of the group ------------------------------------------------------------------------------
  static void load(V* dst, int64_t lane, const T* src, int64_t rows, int64_t cols, bool transposed) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) dst[i * ld + j][lane] = transposed ? src[j * rows + i] : src[i * cols + j];
  }
  static void store(const V* src, int64_t lane, T* dst, int64_t rows, int64_t cols, bool transposed) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) (transposed ? dst[j * rows + i] : dst[i * cols + j]) = src[i * ld + j][lane];
  }
  // A matrix shared by all members stays scalar and is broadcast where it is read.
  static void load(T* dst, int64_t, const T* src, int64_t rows, int64_t cols, bool transposed) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) dst[i * ld + j] = transposed ? src[j * rows + i] : src[i * cols + j];
  }
  static void copy_lane(V* dst, const V* src, int64_t lane, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) dst[q][lane] = src[q][lane];
  }
  static void clear_lane(V* dst, int64_t lane, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) dst[q][lane] = 0;
  }

  // ---- what becomes of an element of a product --------------------------------------------------------------
  struct Store {  // C = AB
    V* c;
    int64_t ldc;
    PYDLN_INLINE Store from(int64_t i, int64_t j) const { return {c + i * ldc + j, ldc}; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ldc + j] = acc; }
  };
  template <class G>
  struct Residual {  // C = S - AB
    V* c;
    const G* s;
    int64_t ld;
    PYDLN_INLINE Residual from(int64_t i, int64_t j) const { return {c + i * ld + j, s + i * ld + j, ld}; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = at(s + i * ld + j) - acc; }
  };
  struct Scaled {  // C = (AB) D, entry by entry
    V* c;
    const V* d;
    int64_t ld;
    PYDLN_INLINE Scaled from(int64_t i, int64_t j) const { return {c + i * ld + j, d + i * ld + j, ld}; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = acc * d[i * ld + j]; }
  };
  struct More {  // C = C + AB, the sums going on from C
    V* c;
    int64_t ld;
    PYDLN_INLINE More from(int64_t i, int64_t j) const { return {c + i * ld + j, ld}; }
    PYDLN_INLINE V begin(int64_t i, int64_t j) const { return c[i * ld + j]; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = acc; }
  };
  struct Last {  // C = W + rate (S + AB), the sums going on from S; C may be W
    V* c;
    const V* w;
    const V* s;
    int64_t ld;
    V rate;
    PYDLN_INLINE Last from(int64_t i, int64_t j) const {
      const int64_t q = i * ld + j;
      return {c + q, w + q, s + q, ld, rate};
    }
    PYDLN_INLINE V begin(int64_t i, int64_t j) const { return s[i * ld + j]; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = fma(rate, acc, w[i * ld + j]); }
  };
  struct Step {  // C = W + rate AB; C may be W
    V* c;
    const V* w;
    int64_t ld;
    V rate;
    PYDLN_INLINE Step from(int64_t i, int64_t j) const { return {c + i * ld + j, w + i * ld + j, ld, rate}; }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { c[i * ld + j] = fma(rate, acc, w[i * ld + j]); }
  };
  template <class G>
  struct Dots {  // C_j += U_ij (AB)_ij
    V* c;
    const G* u;
    int64_t ldu;
    PYDLN_INLINE Dots from(int64_t i, int64_t j) const { return {c + j, u + i * ldu + j, ldu}; }
    template <int M, int N>
    PYDLN_INLINE void take(const V (&acc)[M][N]) const {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        V sum = c[j];
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) sum = fma(V(at(u + i * ldu + j)), acc[i][j], sum);
        c[j] = sum;
      }
    }
  };

  // C = AB, and `f` of a row of every block: f(q, vectors), the first of them element q of C. f.close() ends a block.
  template <class F>
  struct Each {
    F f;
    V* c;
    int64_t ld, q;
    PYDLN_INLINE Each from(int64_t i, int64_t j) const { return {f, c, ld, q + i * ld + j}; }
    template <int M, int N>
    PYDLN_INLINE void take(const V (&acc)[M][N]) {
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) c[q + i * ld + j] = acc[i][j];
        f(q + i * ld, acc[i]);
      }
      f.close();
    }
  };

  template <int S>
  static constexpr int64_t ld = stride(S);

  // ---- products -----------------------------------------------------------------------------------------------
  // C (M × N) = A B; element (i, j) sums over k from first to last. Networks in this layout are small: their products never
  // watch whether the run is cancelled.
  template <class A, class B>
  static void product(const Control*, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M, int64_t N,
                      int64_t K) {
    if (N == 1) return column(plain(a, lda), plain(b, ldb), M, K, Store{c, stride(1)});
    multiply(plain(a, lda), plain(b, ldb), M, N, K, Store{c, stride(N)});
  }
  template <class A, class B>
  static void product_tn(const Control*, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M, int64_t N,
                         int64_t K) {
    multiply(turned(a, lda), plain(b, ldb), M, N, K, Store{c, stride(N)});
  }
  template <class G, class A, class B>
  static void residual(const Control*, const G* s, const A* a, int64_t lda, const B* b, int64_t ldb, V* c, int64_t M,
                       int64_t N, int64_t K) {
    multiply(plain(a, lda), plain(b, ldb), M, N, K, Residual<G>{c, s, stride(N)});
  }

  // ---- one layer of the backward pass ----------------------------------------------------------------------------
  // What a gradient does to the weights; `from` may be `to`.
  struct Plain {
    static constexpr bool fused = true;  // done where the gradient is made
    const V* from;
    V* to;
    V rate;
    PYDLN_INLINE Step at(int64_t cols) const { return {to, from, stride(cols), rate}; }
  };
  struct Slope {  // the gradient itself goes to `to`
    static constexpr bool fused = true;
    const V* from;
    V* to;
    PYDLN_INLINE Store at(int64_t cols) const { return {to, stride(cols)}; }
  };
  template <class F>
  struct Used {  // Slope, and `f` of it
    static constexpr bool fused = true;
    const V* from;
    V* to;
    F f;
    PYDLN_INLINE Each<F> at(int64_t cols) const { return {f, to, stride(cols), 0}; }
  };
  template <int S>
  static PYDLN_INLINE Store store(V* c) {
    return {c, ld<S>};
  }
  template <class F>
  static Used<F> used(const V* from, V* to, const F& f) {
    return {from, to, f};
  }
  template <class F>
  static Each<F> each(const F& f, V* c, int64_t ldc) {
    return {f, c, ldc, 0};
  }
  struct Sum {  // the gradient is added to what is in `to`
    static constexpr bool fused = true;
    const V* from;
    V* to;
    PYDLN_INLINE More at(int64_t cols) const { return {to, stride(cols)}; }
  };
  struct Settle {  // Plain, by the sum of the gradient and what is in `sum`
    static constexpr bool fused = true;
    const V* from;
    V* to;
    const V* sum;
    V rate;
    PYDLN_INLINE Last at(int64_t cols) const { return {to, from, sum, stride(cols), rate}; }
  };
  struct Momentum {
    static constexpr bool fused = false;
    const V* from;
    V* to;
    V* velocity;
    V rate, momentum, decay;
    bool nesterov;
    V* largest;  // takes the largest |velocity| of each member
  };
  struct Space {
    V* gradient = nullptr;
  };
  static Space make_space(Arena& arena, int64_t, int64_t most_cells) { return {arena.take<V>(most_cells)}; }

  // next(R W^T) and W <- update(W, A^T R)
  template <class Next, class Update>
  static PYDLN_INLINE void layer_step(const Control* watch, const Space& space, const V* a, const V* r,
                                      const Next& next, const Update& update, int64_t rows, int64_t cols, int64_t m) {
    multiply(plain(r, stride(cols)), turned(update.from, stride(cols)), m, rows, cols, next);
    last_layer_step(watch, space, a, stride(rows), r, update, rows, cols, m);
  }
  // The second alone.
  template <class A, class Update>
  static PYDLN_INLINE void last_layer_step(const Control*, const Space& space, const A* a, int64_t lda, const V* r,
                                           const Update& update, int64_t rows, int64_t cols, int64_t m) {
    const auto left = turned(a, lda);
    const auto right = plain(r, stride(cols));
    if constexpr (Update::fused) {
      multiply(left, right, rows, cols, m, update.at(cols));
    } else {
      multiply(left, right, rows, cols, m, Store{space.gradient, stride(cols)});
      update_all(update, space.gradient, rows, cols);
    }
  }

  // ---- the same where all matrices are S × S, S known when compiled -----------------------------------------------
  template <int S>
  static PYDLN_INLINE void product(const V* a, const V* b, V* c) {
    multiply_square<S>(plain(a, ld<S>), plain(b, ld<S>), Store{c, ld<S>});
  }
  template <int S, class G>
  static PYDLN_INLINE void residual(const G* s, const V* a, const V* b, V* c) {
    multiply_square<S>(plain(a, ld<S>), plain(b, ld<S>), Residual<G>{c, s, ld<S>});
  }
  // y = x A, and y = A x, of vectors: rows and columns are the same cells.
  template <int S>
  static PYDLN_INLINE void from_left(const V* x, const V* a, V* y) {
    static_assert(S % 8 == 0);
#pragma GCC unroll 1
    for (int j = 0; j < S; j += 8) block<1, 8, S>(plain(x, ld<S>), plain(a, ld<S>), 0, j, S, Store{y, ld<S>});
  }
  template <int S>
  static PYDLN_INLINE void from_right(const V* a, const V* x, V* y) {
    static_assert(S % 8 == 0);
#pragma GCC unroll 1
    for (int i = 0; i < S; i += 8) block<8, 1, S>(plain(a, ld<S>), plain(x, stride(1)), i, 0, S, Store{y, stride(1)});
  }
  template <int S, class Next, class Update>
  static PYDLN_INLINE void layer_step(const V* a, const V* r, const Next& next, const Update& update) {
    multiply_square<S>(plain(r, ld<S>), turned(update.from, ld<S>), next);
    multiply_square<S>(turned(a, ld<S>), plain(r, ld<S>), update.at(S));
  }
  // The last two layers: W' = V + rate R W^T beside V, the top layer, and W <- W + rate V^T R.
  template <int S>
  static PYDLN_INLINE void last_step(const V* top, const V* r, V* to, V* w, V rate) {
    multiply_square<S>(plain(r, ld<S>), turned(w, ld<S>), Step{to, top, ld<S>, rate});
    multiply_square<S>(turned(top, ld<S>), plain(r, ld<S>), Step{w, w, ld<S>, rate});
  }

  // ---- element by element ---------------------------------------------------------------------------------------
  static void update_all(const Plain& u, const V* g, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) u.to[q] = fma(u.rate, g[q], u.from[q]);
  }
  static void update_all(const Slope& u, const V* g, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) u.to[q] = g[q];
  }
  static void update_all(const Momentum& u, const V* g, int64_t rows, int64_t cols) {
    V most = *u.largest;
    for (int64_t q = 0; q < cells(rows, cols); ++q) {
      const V weight = u.from[q], pull = fma(V(-u.decay), weight, g[q]);
      const V velocity = fma(u.momentum, u.velocity[q], pull);
      u.velocity[q] = velocity;
      u.to[q] = fma(u.rate, u.nesterov ? fma(u.momentum, velocity, pull) : velocity, weight);
      most = max_abs(most, velocity);
    }
    *u.largest = most;
  }
  static void scale(V* x, T factor, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) x[q] = x[q] * factor;
  }
  static void scaled(const V* x, V factor, V* y, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) y[q] = x[q] * factor;
  }
  static V largest(const V* x, int64_t rows, int64_t cols) {
    V most{};
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) most = max_abs(most, x[i * stride(cols) + j]);
    return most;
  }
  static void transpose(const V* a, V* c, int64_t rows, int64_t cols) {
    const int64_t from = stride(cols), to = stride(rows);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) c[j * to + i] = a[i * from + j];
  }
  // A vector that is kept as a row, or a column, as the other: the same cells.
  static const V* as_column(const V* row, V*, int64_t) { return row; }
  static const V* as_row(const V* column, V*, int64_t) { return column; }

  template <class G>
  static void subtract(const G* s, const V* a, V* c, int64_t rows, int64_t cols) {
    for (int64_t q = 0; q < cells(rows, cols); ++q) c[q] = at(s + q) - a[q];
  }
  // C = S - A diag(d), or S - diag(d) A
  template <class G>
  static void subtract_scaled(const G* s, const V* a, const G* d, bool by_row, V* c, int64_t rows, int64_t cols) {
    const int64_t ld = stride(cols);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const int64_t q = i * ld + j;
        c[q] = fma(V(-at(d + (by_row ? i : j))), a[q], at(s + q));
      }
  }

  // ---- sums in canonical order ----------------------------------------------------------------------------------
  template <int S>
  static PYDLN_INLINE V dot(const V* x, const V* y) {
    return canonical_of<S <= 4   ? 4
                        : S <= 8 ? 8
                                 : kPartialSums>(S, S, [=](int64_t q, V p) { return fma(x[q], y[q], p); });
  }
  template <int S>
  static PYDLN_INLINE V square_of_row(const V* x) {
    return canonical_of<S <= 8 ? 8 : kPartialSums>(1, S, [=](int64_t q, V p) { return fma(x[q], x[q], p); });
  }
  static V dot(const V* x, const V* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) { return fma(x[q], y[q], p); });
  }
  static V trace(const V* x, int64_t n) {
    V sum{};
    for (int64_t i = 0; i < n; ++i) sum = sum + x[i * stride(n) + i];
    return sum;
  }
  static V distance2(const V* x, const V* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) {
      const V d = x[q] - y[q];
      return fma(d, d, p);
    });
  }

  // out = diag(U^T A B): out[a] = sum_i U_ia (AB)_ia, i from first to last; no product is kept. Unless it begins, the sums go
  // on from what is there.
  static int64_t strengths_cells(int64_t, int64_t) { return 0; }
  template <class G>
  static void strengths(const Control*, const V* a, int64_t lda, const G* b, const G* u, int64_t ldu, V*, V* out,
                        int64_t M, int64_t N, int64_t K, bool begins = true) {
    for (int64_t j = 0; begins && j < N; ++j) out[j] = V{};
    multiply(plain(a, lda), plain(b, ldu), M, N, K, Dots<G>{out, u, ldu});
  }
  static PYDLN_INLINE T element(const V* x, int64_t q, int64_t lane) { return x[q][lane]; }

 private:
  // All words of `bits` or-ed together, half of them with the other half.
  template <int... I>
  static PYDLN_INLINE std::uint64_t any_of(Bits bits, Lanes<I...>) {
    constexpr int n = sizeof...(I);
    if constexpr (n >= 8) bits |= __builtin_shufflevector(bits, bits, (I + 4) % n...);
    if constexpr (n >= 4) bits |= __builtin_shufflevector(bits, bits, (I + 2) % n...);
    if constexpr (n >= 2) bits |= __builtin_shufflevector(bits, bits, (I + 1) % n...);
    return bits[0];
  }

  static PYDLN_INLINE V at(const V* p) { return *p; }
  static PYDLN_INLINE V at(const T* p) { return splat(*p); }

  // Sixteen partial sums, of which a narrow matrix leaves some at zero: adding those changes no bit.
  template <class F>
  static PYDLN_INLINE V canonical(int64_t rows, int64_t cols, F f) {
    if (cols <= 4) return canonical_of<4>(rows, cols, f);
    if (cols <= 8) return canonical_of<8>(rows, cols, f);
    return canonical_of<kPartialSums>(rows, cols, f);
  }
  template <int64_t P, class F>
  static PYDLN_INLINE V canonical_of(int64_t rows, int64_t cols, F f) {
    V p[P] = {};
    const int64_t ld = stride(cols);
    if (cols % P == 0) {  // the partial sums stay in registers
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t q = i * ld; q < i * ld + cols; q += P) {
#pragma GCC unroll 16
          for (int64_t j = 0; j < P; ++j) p[j] = f(q + j, p[j]);
        }
    } else {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) p[j % P] = f(i * ld + j, p[j % P]);
    }
    return add_tree<P>(p);
  }

  // A factor of a product, of each member or the same for all: a matrix with its rows at a distance of ld, or its transpose. Which
  // is known when compiled, for addresses of elements at distances of one need no registers.
  template <class E, bool kTurned>
  struct Factor {
    const E* p;
    int64_t ld;
    PYDLN_INLINE int64_t row() const { return kTurned ? 1 : ld; }
    PYDLN_INLINE int64_t column() const { return kTurned ? ld : 1; }
    PYDLN_INLINE Factor below(int64_t i) const { return {p + i * row(), ld}; }
  };
  template <class E>
  static PYDLN_INLINE Factor<E, false> plain(const E* p, int64_t ld) {
    return {p, ld};
  }
  template <class E>
  static PYDLN_INLINE Factor<E, true> turned(const E* p, int64_t ld) {
    return {p, ld};
  }

  template <int MR, int NR, int S, class A, class B, class Out>
  static PYDLN_INLINE void block(A a, B b, int64_t i0, int64_t j0, int64_t K, Out whole) {
    V acc[MR][NR] = {};
    const auto* pa = a.p + i0 * a.row();
    const auto* pb = b.p + j0 * b.column();
    Out out = whole.from(i0, j0);  // NOLINT(misc-const-correctness): Each counts on
    if constexpr (requires { out.begin(0, 0); }) {
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = out.begin(i, j);
    }
    const auto multiply_add = [&](int64_t k) __attribute__((always_inline)) {
      V bv[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) {
        bv[j] = at(pb + k * b.row() + j * b.column());
        keep(bv[j]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        V av = at(pa + i * a.row() + k * a.column());  // NOLINT(misc-const-correctness): keep() takes it
        keep(av);
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
    };
    if constexpr (S == 8) {  // GCC mixes all eight until it spills: flows lost x1.09 by that
#pragma GCC unroll 4
      for (int k = 0; k < S; ++k) multiply_add(k);
    } else if constexpr (S > 0) {
#pragma GCC unroll 8
      for (int k = 0; k < S; ++k) multiply_add(k);
    } else {
      for (int64_t k = 0; k < K; ++k, pa += a.column(), pb += b.row()) multiply_add(0);
    }
    if constexpr (requires { out.take(acc); }) {
      out.take(acc);
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) out(i, j, acc[i][j]);
    }
  }

  template <int MR, int NR, class A, class B, class Out>
  static PYDLN_INLINE void block_of(int64_t cols, A a, B b, int64_t j, int64_t K, Out out) {
    if constexpr (NR > 1) {
      if (cols < NR) return block_of<MR, NR - 1>(cols, a, b, j, K, out);
    }
    block<MR, NR, 0>(a, b, 0, j, K, out);
  }

  // MR rows of C, in blocks of nearly equal width: a block of a single column would wait for its own sums. A function for each
  // number of rows: all in one spill their addresses before they begin (3 x 3 x 3: 110 -> 55 FMA slots on Zen 4).
  template <int MR, class A, class B, class Out>
  static __attribute__((noinline)) void block_row(A a, B b, int64_t N, int64_t K, const Out& out) {
    constexpr int NR = kCols[MR];
    int64_t j = 0;
    if constexpr (NR == 2) {  // pairs, and three where one would be left over
      for (; N - j > 3; j += 2) block<MR, 2, 0>(a, b, 0, j, K, out);
      block_of<MR, 3>(N - j, a, b, j, K, out);
    } else {
      while (j < N) {
        const int64_t cols = next_block<NR>(N - j);
        block_of<MR, NR>(cols, a, b, j, K, out);
        j += cols;
      }
    }
  }

  // A product of a single column: eight rows at a time, for fewer would wait for their own sums.
  template <class A, class B, class Out>
  static void column(A a, B b, int64_t M, int64_t K, const Out& out) {
    for (int64_t i = 0; i < M;) {
      const int64_t rows = next_block<8>(M - i);
      column_of<8>(rows, a.below(i), b, K, out.from(i, 0));
      i += rows;
    }
  }
  template <int MR, class A, class B, class Out>
  static PYDLN_INLINE void column_of(int64_t rows, A a, B b, int64_t K, Out out) {
    if constexpr (MR > 1) {
      if (rows < MR) return column_of<MR - 1>(rows, a, b, K, out);
    }
    block<MR, 1, 0>(a, b, 0, 0, K, out);
  }

  template <int S, class A, class B, class Out>
  static PYDLN_INLINE void multiply_square(A a, B b, Out out) {
    if constexpr (S == 4 && PYDLN_REGISTERS == 32) {
      // Two rows after two: a product that reads this one begins with the first while the others are made.
#pragma GCC unroll 1
      for (int i = 0; i < S; i += 2) block<2, 4, S>(a, b, i, 0, S, out);
    } else if constexpr (S % 8 == 0 && S * S * sizeof(V) > 32768) {
      // B does not fit into the first cache: two blocks of rows share what comes from the second, half a line for every
      // multiply-add without (32 x 32 on Zen 5: 79 % of the probe, 90 with).
      constexpr int NR = kCols[4];
#pragma GCC unroll 1
      for (int i = 0; i < S; i += 8)
#pragma GCC unroll 1
        for (int j = 0; j < S; j += NR)
#pragma GCC unroll 1
          for (int q = i; q < i + 8; q += 4) block<4, NR, S>(a, b, q, j, S, out);
    } else if constexpr (S % 4 == 0) {
      constexpr int NR = kCols[4];
#pragma GCC unroll 1
      for (int i = 0; i < S; i += 4)
#pragma GCC unroll 1
        for (int j = 0; j < S; j += NR) block<4, NR, S>(a, b, i, j, S, out);
    } else {
      blocks_of<S, 0, 0>(a, b, out);
    }
  }
  // All blocks of an S × S product, one after the other.
  template <int S, int I, int J, class A, class B, class Out>
  static PYDLN_INLINE void blocks_of(A a, B b, Out out) {
    constexpr int MR = next_block<4>(S - I), left = S - J;
    constexpr int NR = left == 3 ? 3 : next_block<kCols[MR]>(left);
    block<MR, NR, S>(a, b, I, J, S, out);
    if constexpr (NR < left)
      blocks_of<S, I, J + NR>(a, b, out);
    else if constexpr (I + MR < S)
      blocks_of<S, I + MR, 0>(a, b, out);
  }
  template <class A, class B, class Out>
  static void multiply(A a, B b, int64_t M, int64_t N, int64_t K, Out out) {
    for (int64_t i = 0; i < M;) {
      const int64_t rows = next_block<4>(M - i);
      switch (rows) {
        case 1:
          block_row<1>(a.below(i), b, N, K, out.from(i, 0));
          break;
        case 2:
          block_row<2>(a.below(i), b, N, K, out.from(i, 0));
          break;
        case 3:
          block_row<3>(a.below(i), b, N, K, out.from(i, 0));
          break;
        default:
          block_row<4>(a.below(i), b, N, K, out.from(i, 0));
      }
      i += rows;
    }
  }

  // Columns of a register block of so many rows: sums, one row of B and an element of A fill the registers.
  static constexpr int kCols[5] = {0, 8, 4, 3, PYDLN_REGISTERS == 32 ? 4 : 2};
};

}  // namespace pydln::PYDLN_ISA
