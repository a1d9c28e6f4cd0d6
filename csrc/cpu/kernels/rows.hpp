// Layout "rows": one network at a time, row-major matrices whose rows are padded with zeros to whole vectors.
// Every product is a broadcast of the left factor times vectors of the right one, in blocks held in registers; each
// element is summed over the inner index from first to last, across tiles too. Best for wide networks.
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
  static PYDLN_INLINE bool finite(const Value& v) { return v - v == 0; }

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

  // The left factor of a product: element (i, k) at p[i * row + k * column].
  struct Left {
    const T* p;
    int64_t row, column;
  };

  // ---- what becomes of a vector of a product: `partial` is where it waits between two tiles -----------------------
  struct Store {  // C = AB
    T* c;
    int64_t ld;
    PYDLN_INLINE V* partial(int64_t i, int64_t j) const { return vec(c + i * ld + j); }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const { *vec(c + i * ld + j) = acc; }
    PYDLN_INLINE Store right(int64_t j) const { return {c + j, ld}; }
  };
  struct Scaled {  // C = (AB) D, entry by entry
    T* c;
    const T* d;
    int64_t ld;
    PYDLN_INLINE V* partial(int64_t i, int64_t j) const { return vec(c + i * ld + j); }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const {
      *vec(c + i * ld + j) = acc * *vec(d + i * ld + j);
    }
    PYDLN_INLINE Scaled right(int64_t j) const { return {c + j, d + j, ld}; }
  };
  struct Residual {  // C = S - AB
    T* c;
    const T* s;
    int64_t ld;
    PYDLN_INLINE V* partial(int64_t i, int64_t j) const { return vec(c + i * ld + j); }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const {
      *vec(c + i * ld + j) = *vec(s + i * ld + j) - acc;
    }
  };
  struct Step {  // C = W + rate AB; C may be W
    T* c;
    const T* w;
    int64_t ld;
    V rate;
    T* strip;
    PYDLN_INLINE V* partial(int64_t i, int64_t j) const { return vec(strip + i * ld + j); }
    PYDLN_INLINE void operator()(int64_t i, int64_t j, V acc) const {
      *vec(c + i * ld + j) = fma(rate, acc, V(*vec(w + i * ld + j)));
    }
  };

  // ---- products ---------------------------------------------------------------------------------------------------
  // A product looks at `watch` between tiles and ends, unfinished, once the run is cancelled; null: never.
  static void product(const Control* watch, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t M,
                      int64_t N, int64_t K) {
    multiply(watch, Left{a, lda, 1}, b, ldb, M, N, K, Store{c, stride(N)});
  }
  static void product_tn(const Control* watch, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t M,
                         int64_t N, int64_t K) {
    multiply(watch, Left{a, 1, lda}, b, ldb, M, N, K, Store{c, stride(N)});
  }
  static void residual(const Control* watch, const T* s, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                       int64_t M, int64_t N, int64_t K) {
    multiply(watch, Left{a, lda, 1}, b, ldb, M, N, K, Residual{c, s, stride(N)});
  }

  // ---- one layer of the backward pass ----------------------------------------------------------------------------
  // next(R W^T) and W <- update(W, A^T R), strip by strip of W's rows, so that W comes from memory once: a strip is
  // turned tile by tile for the first product, and still near when the second one updates it.
  struct Space {
    T* turned = nullptr;
    T* strip = nullptr;
  };
  static Space make_space(Arena& arena, int64_t widest, int64_t) {
    Space s;
    s.turned = arena.take<T>(kTile * kStrip);
    s.strip = arena.take<T>(cells(kStrip, widest));
    return s;
  }

  // What a gradient does to the weights; `from` may be `to`.
  struct Plain {
    static constexpr bool fused = true;
    const T* from;
    T* to;
    T rate;
    PYDLN_INLINE Plain at(int64_t q) const { return {from + q, to + q, rate}; }
    PYDLN_INLINE V operator()(V weight, V gradient) const { return fma(splat(rate), gradient, weight); }
  };
  struct Slope {  // the gradient itself goes to `to`
    static constexpr bool fused = true;
    const T* from;
    T* to;
    PYDLN_INLINE Slope at(int64_t q) const { return {from + q, to + q}; }
    PYDLN_INLINE V operator()(V, V gradient) const { return gradient; }
  };
  struct Sum {  // the gradient is added to what is in `to`
    static constexpr bool fused = false;
    const T* from;
    T* to;
  };
  struct Settle {  // Plain, by the sum of the gradient and what is in `sum`, which is lost
    static constexpr bool fused = false;
    const T* from;
    T* to;
    T* sum;
    T rate;
  };
  struct Momentum {
    static constexpr bool fused = false;
    const T* from;
    T* to;
    T* velocity;
    T rate, momentum, decay;
    bool nesterov;
    T* largest;  // takes the largest |velocity|
  };

  template <class Next, class Update>
  static void layer_step(const Control* watch, const Space& space, const T* a, const T* r, const Next& next,
                         const Update& update, int64_t rows, int64_t cols, int64_t m) {
    const int64_t ld = stride(cols), ldn = stride(rows);
    int64_t i = 0;
    if constexpr (Update::fused) {
      if (m <= kThin) {
        for (; rows - i >= L; i += L) {
          if (watch && cancelled(*watch)) return;
          thin_strip<kThin>(m, a + i, ldn, r, update.at(i * ld), next.right(i), ld, cols);
        }
      }
    }
    for (; i < rows; i += kStrip) {
      const int64_t some = rows - i < kStrip ? rows - i : kStrip;
      for (int64_t k = 0; k < cols; k += kTile) {
        const int64_t deep = cols - k < kTile ? cols - k : kTile;
        turn(update.from + i * ld + k, ld, space.turned, some, deep);
        tiles(watch, Left{r + k, ld, 1}, space.turned, kStrip, m, some, deep, k == 0, k + deep == cols, next.right(i));
      }
      update_rows(watch, space, update, Left{a + i, 1, ldn}, r, i * ld, some, cols, m);
      if (watch && cancelled(*watch)) return;
    }
  }
  // The second alone.
  template <class Update>
  static void last_layer_step(const Control* watch, const Space& space, const T* a, int64_t lda, const T* r,
                              const Update& update, int64_t rows, int64_t cols, int64_t m) {
    for (int64_t i = 0; i < rows; i += kStrip) {
      if (watch && cancelled(*watch)) return;
      update_rows(watch, space, update, Left{a + i, 1, lda}, r, i * stride(cols), rows - i < kStrip ? rows - i : kStrip,
                  cols, m);
    }
  }

  // ---- element by element -------------------------------------------------------------------------------------
  static void update_all(const Plain& u, const T* g, int64_t rows, int64_t cols) {
    const V rate = splat(u.rate);
    each_vector(rows, cols, [&](int64_t q) { *vec(u.to + q) = fma(rate, V(*vec(g + q)), V(*vec(u.from + q))); });
  }
  static void update_all(const Slope& u, const T* g, int64_t rows, int64_t cols) {
    each_vector(rows, cols, [&](int64_t q) { *vec(u.to + q) = *vec(g + q); });
  }
  static void update_all(const Momentum& u, const T* g, int64_t rows, int64_t cols) {
    const V rate = splat(u.rate), mu = splat(u.momentum), decay = splat(-u.decay);
    V most{};
    each_vector(rows, cols, [&](int64_t q) {
      const V weight = *vec(u.from + q), pull = fma(decay, weight, V(*vec(g + q)));
      const V velocity = fma(mu, V(*vec(u.velocity + q)), pull);
      *vec(u.velocity + q) = velocity;
      *vec(u.to + q) = fma(rate, u.nesterov ? fma(mu, velocity, pull) : velocity, weight);
      most = max_abs(most, velocity);
    });
    for (int64_t i = 0; i < L; ++i) *u.largest = max_abs(*u.largest, most[i]);
  }
  static void scale(T* x, T factor, int64_t rows, int64_t cols) {
    each_vector(rows, cols, [=](int64_t q) { *vec(x + q) = *vec(x + q) * factor; });
  }
  static void scaled(const T* x, T factor, T* y, int64_t rows, int64_t cols) {
    each_vector(rows, cols, [=](int64_t q) { *vec(y + q) = *vec(x + q) * factor; });
  }
  static T largest(const T* x, int64_t rows, int64_t cols) {
    T most = 0;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) most = max_abs(most, x[i * stride(cols) + j]);
    return most;
  }
  static void subtract(const T* s, const T* a, T* c, int64_t rows, int64_t cols) {
    each_vector(rows, cols, [=](int64_t q) { *vec(c + q) = *vec(s + q) - *vec(a + q); });
  }
  // C = S - A diag(d), or S - diag(d) A
  static void subtract_scaled(const T* s, const T* a, const T* d, bool by_row, T* c, int64_t rows, int64_t cols) {
    const int64_t ld = stride(cols), used = vectors(cols) * L;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < used; j += L) {
        const int64_t q = i * ld + j;
        *vec(c + q) = fma(V(-(by_row ? splat(d[i]) : V(*vec(d + j)))), V(*vec(a + q)), V(*vec(s + q)));
      }
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
  // A vector that is kept as a row, or a column, as the other, which is made in `space`.
  static const T* as_column(const T* row, T* space, int64_t n) {
    transpose(row, space, 1, n);
    return space;
  }
  static const T* as_row(const T* column, T* space, int64_t n) {
    transpose(column, space, n, 1);
    return space;
  }

  // ---- sums in canonical order -----------------------------------------------------------------------------------
  static T dot(const T* x, const T* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) { return fma(V(*vec(x + q)), V(*vec(y + q)), p); });
  }
  static T trace(const T* x, int64_t n) {
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i * stride(n) + i];
    return sum;
  }
  static T distance2(const T* x, const T* y, int64_t rows, int64_t cols) {
    return canonical(rows, cols, [=](int64_t q, V p) {
      const V d = *vec(x + q) - *vec(y + q);
      return fma(d, d, p);
    });
  }

  // out = diag(U^T A B) by way of P = AB: out[a] = sum_i U_ia P_ia, i from first to last; unless it begins, the sums go on from
  // what is there.
  static int64_t strengths_cells(int64_t rows, int64_t modes) { return cells(rows, modes); }
  static void strengths(const Control* watch, const T* a, int64_t lda, const T* b, const T* u, int64_t ldu, T* p,
                        T* out, int64_t M, int64_t N, int64_t K, bool begins = true) {
    product(watch, a, lda, b, ldu, p, M, N, K);
    for (int64_t j = 0; j < vectors(N) * L; j += L) {
      V sum = begins ? V{} : *vec(out + j);
      for (int64_t i = 0; i < M; ++i) sum = fma(V(*vec(u + i * ldu + j)), V(*vec(p + i * ldu + j)), sum);
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

  // ---- the update of a strip ---------------------------------------------------------------------------------------
  static void update_rows(const Control* watch, const Space& space, const Plain& u, Left a, const T* r, int64_t at,
                          int64_t some, int64_t cols, int64_t m) {
    multiply(watch, a, r, stride(cols), some, cols, m,
             Step{u.to + at, u.from + at, stride(cols), splat(u.rate), space.strip});
  }
  static void update_rows(const Control* watch, const Space&, const Slope& u, Left a, const T* r, int64_t at,
                          int64_t some, int64_t cols, int64_t m) {
    multiply(watch, a, r, stride(cols), some, cols, m, Store{u.to + at, stride(cols)});
  }
  static void update_rows(const Control* watch, const Space&, const Sum& u, Left a, const T* r, int64_t at,
                          int64_t some, int64_t cols, int64_t m) {
    multiply(watch, a, r, stride(cols), some, cols, m, Store{u.to + at, stride(cols)}, false);
  }
  static void update_rows(const Control* watch, const Space&, const Settle& u, Left a, const T* r, int64_t at,
                          int64_t some, int64_t cols, int64_t m) {
    multiply(watch, a, r, stride(cols), some, cols, m,
             Step{u.to + at, u.from + at, stride(cols), splat(u.rate), u.sum + at}, false);
  }
  static void update_rows(const Control* watch, const Space& space, const Momentum& u, Left a, const T* r, int64_t at,
                          int64_t some, int64_t cols, int64_t m) {
    multiply(watch, a, r, stride(cols), some, cols, m, Store{space.strip, stride(cols)});
    Momentum here = u;
    here.from += at, here.to += at, here.velocity += at;
    update_all(here, space.strip, some, cols);
  }

  // C (cols × kStrip) = A^T for `rows` <= kStrip rows of A, zeros in the columns that complete a vector.
  static void turn(const T* a, int64_t lda, T* c, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i += L)
      for (int64_t j = 0; j < cols; j += L) {
        V square[L];
#pragma GCC unroll 16
        for (int64_t q = 0; q < L; ++q) {
          square[q] = i + q < rows ? V(*vec(a + (i + q) * lda + j)) : V{};
          if (q % kPiece<T> == kPiece<T> - 1) transpose_pieces<T>(square + q + 1 - kPiece<T>);
        }
        exchange_pieces<T>(square);
#pragma GCC unroll 16
        for (int64_t q = 0; q < L; ++q) *vec(c + (j + q) * kStrip + i) = square[q];
      }
  }

  // ---- a strip of L rows of W below few rows of R --------------------------------------------------------------
  // A square of W is turned for R W^T, two of them take A^T R, in one visit: W passes through the core once. The sums of the
  // M rows of R W^T stay in registers along the strip.
  template <int M, class Next, class Update>
  static PYDLN_INLINE void thin_strip(int64_t m, const T* a, int64_t lda, const T* r, const Update& update,
                                      const Next& next, int64_t ld, int64_t cols) {
    if constexpr (M > 1) {
      if (m < M) return thin_strip<M - 1>(m, a, lda, r, update, next, ld, cols);
    }
    thin_strip_of<M>(a, lda, r, update, next, ld, cols);
  }
  template <int M, class Next, class Update>
  static __attribute__((noinline)) void thin_strip_of(const T* a, int64_t lda, const T* r, const Update& update,
                                                      const Next& next, int64_t ld, int64_t cols) {
    V sum[M] = {}, left[M];
#pragma GCC unroll 16
    for (int k = 0; k < M; ++k) left[k] = *vec(a + k * lda);
    near(left);
    int64_t j = 0;
    for (; cols - j >= 2 * L; j += 2 * L) thin_tile<M, 2>(left, r + j, update.at(j), sum, ld, L);
    for (; j < cols; j += L) thin_tile<M, 1>(left, r + j, update.at(j), sum, ld, cols - j < L ? cols - j : L);
#pragma GCC unroll 16
    for (int q = 0; q < M; ++q) next(q, 0, sum[q]);
  }
  // Puts x in memory, at addresses the compiler knows: elements are broadcast from there.
  template <class X>
  static PYDLN_INLINE void near(X& x) {
    __asm__("" : "+m"(x));
  }
  template <int M, int C, class Update>
  static PYDLN_INLINE void thin_tile(const V (&left)[M], const T* r, const Update& update, V (&sum)[M], int64_t ld,
                                     int64_t some) {
    // Pointers to every third row, hidden from the compiler: addresses of all rows are sums of two registers then, not spilled
    // one by one. Broadcasts come from R itself: from a copy on the stack they wait for its stores (79 % of the probe, 73).
    constexpr int kGroups = (M + 2) / 3;
    const T* third[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g, r += 3 * ld) {
      third[g] = r;
      __asm__("" : "+r"(third[g]));
    }
    const auto row = [&](int q) __attribute__((always_inline)) { return third[q / 3] + q % 3 * ld; };
    constexpr int P = kPiece<T>;
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) {
      const T* w = update.from + c * L;
#if PYDLN_LOADS_PIECES  // a step of G7a on Zen 4: x1.07 in float64, x1.09 in float32; by halves of vectors x1.03, x1.07
      const T* first[P];
#pragma GCC unroll 4
      for (int q = 0; q < P; ++q) first[q] = w + q * ld;
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        V columns[P];
#pragma GCC unroll 4
        for (int q = 0; q < P; ++q) {
          __asm__("" : "+r"(first[q]));  // as third above
          columns[q] = pieces_of(first[q] + p * P, P * ld);
          __builtin_prefetch(first[q] + (L + p * P) * ld);
        }
        transpose_pieces<T>(columns);
#pragma GCC unroll 4
        for (int e = 0; e < P; ++e)
          if (C == 2 || p * P + e < some) {
#pragma GCC unroll 16
            for (int q = 0; q < M; ++q) sum[q] = fma(splat(row(q)[c * L + p * P + e]), columns[e], sum[q]);
          }
      }
#else
      V square[L];
#pragma GCC unroll 16
      for (int64_t q = 0; q < L; ++q, w += ld) {
        square[q] = *vec(w);
        __builtin_prefetch(w + L * ld);
        if (q % P == P - 1) transpose_pieces<T>(square + q + 1 - P);
      }
      exchange_pieces<T>(square);
#pragma GCC unroll 16
      for (int64_t k = 0; k < L; ++k)
        if (C == 2 || k < some) {
#pragma GCC unroll 16
          for (int q = 0; q < M; ++q) sum[q] = fma(splat(row(q)[c * L + k]), square[k], sum[q]);
        }
#endif
    }
    constexpr int kBlock = PYDLN_REGISTERS == 32 ? 8 : 4;
    const T* from = update.from;
    T* to = update.to;
#pragma GCC unroll 4
    for (int i = 0; i < L; i += kBlock) {
      V gradient[kBlock][C] = {};
#pragma GCC unroll 16
      for (int k = 0; k < M; ++k)
#pragma GCC unroll 8
        for (int q = 0; q < kBlock; ++q)
#pragma GCC unroll 2
          for (int c = 0; c < C; ++c)
            if (i + q < L) gradient[q][c] = fma(splat(left[k][i + q]), V(*vec(row(k) + c * L)), gradient[q][c]);
#pragma GCC unroll 8
      for (int q = 0; q < kBlock; ++q, from += ld, to += ld)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c)
          if (i + q < L) *vec(to + c * L) = update(*vec(from + c * L), gradient[q][c]);
    }
  }

  // ---- blocks, panels, tiles ---------------------------------------------------------------------------------------
  // MR rows × NR vectors in registers. Ahead: touch what lies `ahead` elements on, which comes next.
  template <int MR, int NR, bool Ahead, class Out>
  static PYDLN_INLINE void block(Left a, const T* b, int64_t ldb, int64_t i0, int64_t j0, int64_t K, bool begins,
                                 bool ends, int64_t ahead, Out out) {
    V acc[MR][NR] = {};
    if (!begins) {
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = *out.partial(i0 + i, j0 + j * L);
    }
    const T* pa = a.p + i0 * a.row;
    const T* pb = b + j0;
    for (int64_t k = 0; k < K; ++k, pa += a.column, pb += ldb) {
      V bv[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) bv[j] = *vec(pb + j * L);
      if constexpr (Ahead) {
#pragma GCC unroll 8
        for (int j = 0; j < NR * PYDLN_VECTOR_BYTES; j += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(pb + ahead) + j);
      }
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const V av = splat(pa[i * a.row]);
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) {
        if (ends)
          out(i0 + i, j0 + j * L, acc[i][j]);
        else
          *out.partial(i0 + i, j0 + j * L) = acc[i][j];
      }
  }

  template <int MR, int NR, bool Ahead, class Out>
  static PYDLN_INLINE void block_of(int64_t rows, Left a, const T* b, int64_t ldb, int64_t i, int64_t j, int64_t K,
                                    bool begins, bool ends, int64_t ahead, Out out) {
    if constexpr (MR > 1) {
      if (rows < MR) return block_of<MR - 1, NR, Ahead>(rows, a, b, ldb, i, j, K, begins, ends, ahead, out);
    }
    block<MR, NR, Ahead>(a, b, ldb, i, j, K, begins, ends, ahead, out);
  }

  // NR vectors of columns: a piece of B that stays in the first cache level while rows i to M - 1 of A pass over it, in
  // blocks of nearly equal height, for a block of one or two rows would wait for its own sums.
  template <int MR, int NR, class Out>
  static PYDLN_INLINE void panel(Left a, const T* b, int64_t ldb, int64_t i, int64_t M, int64_t j, int64_t K,
                                 bool begins, bool ends, int64_t ahead, Out out) {
    while (i < M) {
      const int64_t rows = next_block<MR>(M - i);
      if (ahead)
        block_of<MR, NR, true>(rows, a, b, ldb, i, j, K, begins, ends, ahead, out);
      else
        block_of<MR, NR, false>(rows, a, b, ldb, i, j, K, begins, ends, ahead, out);
      ahead = 0;
      i += rows;
    }
  }

  template <class Out>
  static void panels(Left a, const T* b, int64_t ldb, int64_t i, int64_t M, int64_t N, int64_t K, bool begins,
                     bool ends, Out out) {
    const bool large = K * ldb * static_cast<int64_t>(sizeof(T)) > 32768;
    const int64_t ahead = !large ? 0 : M - i <= kRowsThin ? K * ldb : 2 * L;
    int64_t j = 0, left = vectors(N);
    for (; left > 3 || left == 2; left -= 2, j += 2 * L) {
      if (M - i <= kRowsThin)
        panel<kRowsThin, 2>(a, b, ldb, i, M, j, K, begins, ends, ahead, out);
      else
        panel<kRows2, 2>(a, b, ldb, i, M, j, K, begins, ends, ahead, out);
    }
    if (left == 3) panel<kRows3, 3>(a, b, ldb, i, M, j, K, begins, ends, ahead, out);
    if (left == 1) panel<kRows1, 1>(a, b, ldb, i, M, j, K, begins, ends, ahead, out);
  }

  // One tile of the inner dimension, rows in groups whose part of A stays in the second cache level.
  template <class Out>
  static void tiles(const Control* watch, Left a, const T* b, int64_t ldb, int64_t M, int64_t N, int64_t K, bool begins,
                    bool ends, Out out) {
    for (int64_t i = 0; i < M; i += kGroup) {
      if (watch && cancelled(*watch)) return;
      panels(a, b, ldb, i, M - i < kGroup ? M : i + kGroup, N, K, begins, ends, out);
    }
  }

  template <class Out>
  static void multiply(const Control* watch, Left a, const T* b, int64_t ldb, int64_t M, int64_t N, int64_t K, Out out,
                       bool begins = true) {
    const int64_t tile = M <= kRowsThin ? kThinTile : kTile;
    for (int64_t k = 0; k < K; k += tile) {
      const int64_t deep = K - k < tile ? K - k : tile;
      tiles(watch, Left{a.p + k * a.column, a.row, a.column}, b + k * ldb, ldb, M, N, deep, begins && k == 0,
            k + deep == K, out);
    }
  }

  // Inner dimension of a tile: two vectors of so many rows are half of a first cache level of 32 KiB.
  static constexpr int64_t kTile = 8192 / PYDLN_VECTOR_BYTES;
  // Rows of A at a time: with kTile columns of doubles a quarter of a MiB.
  static constexpr int64_t kGroup = 4 * PYDLN_VECTOR_BYTES;
  static constexpr int64_t kStrip = 4 * L;
  // A of at most so many rows is one block high; the backward pass has a kernel of its own for R of at most kThin rows.
  static constexpr int kRowsThin = PYDLN_REGISTERS == 32 ? 12 : 6, kThin = 12;
  // Rows of B at a time below so few of A: no more streams than the processor follows by itself. From memory, 1000 × 1000
  // doubles below ten rows: 52 % of the multiply-add probe by 8 at a time, 71 by 16, 50 by 24, 40 by 32.
  static constexpr int64_t kThinTile = 16;
  static constexpr int kRows1 = 8, kRows2 = PYDLN_REGISTERS == 32 ? 8 : 6, kRows3 = PYDLN_REGISTERS == 32 ? 8 : 4;
};

}  // namespace pydln::PYDLN_ISA
