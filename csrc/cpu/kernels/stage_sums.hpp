// What a step of gradient flow makes of its stages: sums over stages, taken where a product makes the last one of them, N
// vectors at a time, while it is still in registers. The stages before it come from the second cache while products are
// computed; read between products, they kept the sums waiting (x1.08 on Zen 4, 8 x 8 and 16 x 16).
// Templates on the layout alone: products that end in a sum are compiled once for both kinds of task.
#pragma once

#include "cpu/kernels/vector.hpp"
#include "ops/flow.hpp"

namespace pydln::PYDLN_ISA {

template <class L>
struct StageSums {
  using T = typename L::Scalar;
  using V = typename Vector<T>::type;
  using Cell = typename L::Cell;
  using Value = typename L::Value;
  static constexpr bool kManyMembers = L::members > 1;

  // ---- a matrix as vectors: in either layout, and with padding that stays zero ----------------------------------------
  static V* vectors(Cell* p) { return reinterpret_cast<V*>(p); }
  static const V* vectors(const Cell* p) { return reinterpret_cast<const V*>(p); }
  static V spread(V x) { return x; }
  static V spread(T x) { return splat(x); }
  static Value across(const V& x) {
    if constexpr (kManyMembers) {
      return x;
    } else {
      T most = 0;
      for (int64_t i = 0; i < lanes_of<T>; ++i) most = max_abs(most, T(x[i]));
      return most;
    }
  }
  static Value total(const V& x) {
    if constexpr (kManyMembers) {
      return x;
    } else {
      T sum = 0;
      for (int64_t i = 0; i < lanes_of<T>; ++i) sum += x[i];
      return sum;
    }
  }
  // `f` of a matrix of so many vectors that is there already.
  template <class F>
  static void pass(F f, const Cell* matrix, int64_t size) {
    const V* from = vectors(matrix);
    int64_t q = 0;
    for (; q + 8 <= size; q += 8) some<8>(f, from, q);
    for (; q < size; ++q) some<1>(f, from, q);
    f.close();
  }

  // ---- sums ------------------------------------------------------------------------------------------------------------
  // P sums of stages, sum_j c_pj k_j.
  template <int P>
  struct Sums {
    int64_t before = -1;  // how many stages come before the last one
    Cell** k[ops::kMostStages];
    V weight[P * ops::kMostStages];
    void add(Cell** stage, const V* weights) {
      k[++before] = stage;
      for (int p = 0; p < P; ++p) weight[P * before + p] = weights[p];
    }
  };

  // One layer of the sums: element q of the last stage is at hand, the first sum leads from y to to[0].
  template <int P>
  struct Layer {
    const Sums<P>* sums;
    const V* from[ops::kMostStages];
    const V* y;
    V* to[P];
    V step;
    template <int N>
    PYDLN_INLINE void operator()(int64_t q, const V (&last)[N], V (&s)[P][N]) const {
      const int64_t n = sums->before;
      const V* weight = sums->weight;
#pragma GCC unroll 3
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) s[p][i] = V{};
      for (int64_t j = 0; j < n; ++j, weight += P) {
        const V* k = from[j] + q;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) {
          const V x = k[i];
#pragma GCC unroll 3
          for (int p = 0; p < P; ++p) s[p][i] = fma(weight[p], x, s[p][i]);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i)
#pragma GCC unroll 3
        for (int p = 0; p < P; ++p) s[p][i] = fma(weight[p], last[i], s[p][i]);
    }
  };

  // The sums from `y` to `to`, layer by layer.
  template <int P>
  struct Way {
    const Sums<P>& sums;
    const V step;
    Cell** y;
    Cell** to;
    mutable Layer<P> layers[2] = {};  // two of them are at work at the same time, the top one and the one below
    Layer<P>& at(int64_t l) const {
      Layer<P>& here = layers[l % 2];
      here.sums = &sums;
      for (int64_t j = 0; j < sums.before; ++j) here.from[j] = vectors(sums.k[j][l]);
      here.y = vectors(y[l]);
      here.to[0] = vectors(to[l]);
      here.step = step;
      return here;
    }
  };

  // ---- what becomes of a stage ---------------------------------------------------------------------------------------
  // Of one layer it is an object that takes vectors of the stage and is closed after the last.
  struct Unused {
    static constexpr bool any = false;
  };

  // to <- y + h sum_j c_j k_j
  struct Lead {
    const Layer<1>* layer;
    template <int N>
    PYDLN_INLINE void operator()(int64_t q, const V (&last)[N]) const {
      V s[1][N];
      (*layer)(q, last, s);
      const V step = layer->step;
      const V* y = layer->y + q;
      V* to = layer->to[0] + q;
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) to[i] = fma(step, s[0][i], y[i]);
    }
    void close() const {}
  };
  struct Leading {
    static constexpr bool any = true;
    Way<1> way;
    Lead operator()(int64_t l) const { return {&way.at(l)}; }
  };

  // The new point, and what R estimates of its error take from the stages before the last; how large the layers are.
  template <int R>
  struct Arrival {
    const Layer<R + 1>* layer;
    Value *size, *nan;
    V largest{}, not_finite{};
    template <int N>
    PYDLN_INLINE void operator()(int64_t q, const V (&last)[N]) {
      if constexpr (N > 4) {  // what the registers hold
        part<0, 4>(q, last);
        part<4, N - 4>(q, last);
      } else {
        V s[R + 1][N];
        (*layer)(q, last, s);
        const V step = layer->step;
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) {
          const V after = fma(step, s[0][i], layer->y[q + i]);
          layer->to[0][q + i] = after;
          largest = max_abs(largest, after);
          not_finite = fma(after, V{}, not_finite);  // 0, unless it is infinite or NaN
#pragma GCC unroll 2
          for (int p = 1; p <= R; ++p) layer->to[p][q + i] = s[p][i];
        }
      }
    }
    template <int First, int Count, int N>
    PYDLN_INLINE void part(int64_t q, const V (&last)[N]) {
      V some[Count];
#pragma GCC unroll 4
      for (int i = 0; i < Count; ++i) some[i] = last[First + i];
      (*this)(q + First, some);
    }
    PYDLN_INLINE void close() const {
      *size = max_abs(*size, across(largest));
      *nan = *nan + total(not_finite);
    }
  };
  template <int R>
  struct Arriving {
    static constexpr bool any = true;
    Way<R + 1> way;
    Cell** const* partial;
    Value *sizes, *nan;
    Arrival<R> operator()(int64_t l) const {
      Layer<R + 1>& here = way.at(l);
      for (int r = 0; r < R; ++r) here.to[r + 1] = vectors(partial[r][l]);
      Arrival<R> made{};
      made.layer = &here;
      made.size = &sizes[l];
      made.nan = nan;
      return made;
    }
  };

  // The largest entries of the R estimates, which the slope at the new point completes, and of that slope.
  template <int R>
  struct Verdict {
    const V* partial[R];
    V weight[R];
    V step;
    Value* error[R];
    Value *nan, *speed;
    V largest[R] = {}, not_finite{}, fastest{};
    template <int N>
    PYDLN_INLINE void operator()(int64_t q, const V (&last)[N]) {
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) fastest = max_abs(fastest, last[i]);
#pragma GCC unroll 2
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) {
          const V s = fma(weight[r], last[i], partial[r][q + i]) * step;
          largest[r] = max_abs(largest[r], s);
          not_finite = fma(s, V{}, not_finite);
        }
    }
    PYDLN_INLINE void close() const {
      *speed = max_abs(*speed, across(fastest));
      for (int r = 0; r < R; ++r) *error[r] = max_abs(*error[r], across(largest[r]));
      *nan = *nan + total(not_finite);
    }
  };
  template <int R>
  struct Judging {
    static constexpr bool any = true;
    const double* last_weights[R];  // of the stage at the new point
    const V step;
    Cell** const* partial;
    Value* const* errors;
    Value *nan, *speed;
    Verdict<R> operator()(int64_t l) const {
      Verdict<R> made{};
      for (int r = 0; r < R; ++r) {
        made.partial[r] = vectors(partial[r][l]);
        made.weight[r] = splat(static_cast<T>(*last_weights[r]));
        made.error[r] = &errors[r][l];
      }
      made.step = step;
      made.nan = nan;
      made.speed = speed;
      return made;
    }
  };

 private:
  template <int N, class F>
  static PYDLN_INLINE void some(F& f, const V* from, int64_t q) {
    V k[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) k[i] = from[q + i];
    f(q, k);
  }
};

}  // namespace pydln::PYDLN_ISA
