// What grows unseen in a network: near a saddle a part far below the largest entries grows as exp(rho t), and no error that is
// measured against the largest entries shows it (FlowWorker).
#pragma once

#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

template <int64_t N>
struct Together {
  typedef double Numbers __attribute__((vector_size(8 * N), may_alias));
  typedef int64_t Marks __attribute__((vector_size(8 * N), may_alias));  // what comparisons make: 0, or all bits
};
// A number of every lane, in double precision, for single precision has no powers of small entries; or a mark. They are
// computed `some` at a time, which fill a vector (M3 8x8: lane after lane, the same took a twentieth of a step).
template <int64_t N>
struct PerLane {
  static constexpr int64_t some = N < lanes_of<double> ? N : lanes_of<double>;
  using Numbers = typename Together<some>::Numbers;
  using Marks = typename Together<some>::Marks;
  struct Doubles {
    alignas(64) double of[N] = {};
    PYDLN_INLINE double& operator[](int64_t lane) { return of[lane]; }
    PYDLN_INLINE double operator[](int64_t lane) const { return of[lane]; }
    // From lane q on.
    PYDLN_INLINE Numbers& at(int64_t q) { return *reinterpret_cast<Numbers*>(of + q); }
    PYDLN_INLINE const Numbers& at(int64_t q) const { return *reinterpret_cast<const Numbers*>(of + q); }
  };
  struct Flags {
    alignas(64) int64_t of[N] = {};
    PYDLN_INLINE int64_t& operator[](int64_t lane) { return of[lane]; }
    PYDLN_INLINE int64_t operator[](int64_t lane) const { return of[lane]; }
    PYDLN_INLINE Marks& at(int64_t q) { return *reinterpret_cast<Marks*>(of + q); }
    PYDLN_INLINE const Marks& at(int64_t q) const { return *reinterpret_cast<const Marks*>(of + q); }
  };

  template <class L>
  static PYDLN_INLINE Numbers get(const typename L::Value& v, int64_t q) {
    Numbers x;
    if constexpr (sizeof(typename L::Scalar) == sizeof(double))
      __builtin_memcpy(&x, reinterpret_cast<const char*>(&v) + q * static_cast<int64_t>(sizeof(double)), sizeof(x));
    else
      for (int64_t i = 0; i < some; ++i) x[i] = static_cast<double>(L::get(v, q + i));
    return x;
  }
  template <class L>
  static PYDLN_INLINE void put(typename L::Value& v, int64_t q, const Numbers& x) {
    if constexpr (sizeof(typename L::Scalar) == sizeof(double))
      __builtin_memcpy(reinterpret_cast<char*>(&v) + q * static_cast<int64_t>(sizeof(double)), &x, sizeof(x));
    else
      for (int64_t i = 0; i < some; ++i) L::set(v, q + i, static_cast<typename L::Scalar>(x[i]));
  }
  static PYDLN_INLINE Numbers roots(const Numbers& x) {
    double r[some];
    __builtin_memcpy(r, &x, sizeof(r));
    for (int64_t i = 0; i < some; ++i) r[i] = __builtin_sqrt(r[i]);
    Numbers y;
    __builtin_memcpy(&y, r, sizeof(r));
    return y;
  }
};

// What layers may gain along the way of a mode: rates of growth of the pairs of layers are sigma times the gains g_j of all
// others, and the fastest growth is the largest eigenvalue of the matrix of all pairs, P_lm = prod_(j != l, m) g_j, times sigma.
template <class L>
class PathGains {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;
  using InLanes = PerLane<L::members>;
  using Numbers = typename InLanes::Numbers;

 public:
  PathGains(Arena& arena, int64_t depth, int64_t widest) : depth_(depth) {
    squares_ = arena.take<Value>(depth);
    gain_ = arena.take<Numbers>(depth);
    sum_ = arena.take<Numbers>(depth);
    above_ = arena.take<Numbers>(depth + 1);
    x_ = arena.take<Numbers>(depth);
    row_ = arena.take<Cell>(L::cells(1, widest));
    image_row_ = arena.take<Cell>(L::cells(1, widest));
    column_ = arena.take<Cell>(L::cells(widest, 1));
    image_ = arena.take<Cell>(L::cells(widest, 1));
  }
  // Of a vector that goes through the layers, a row, and its square; width(l) are theirs, S if it is known when compiled.
  template <int S, class Width>
  __attribute__((noinline)) void measure(const Control* watch, Cell* const* weights, const Cell* x, Value square,
                                         Width width) {
    for (int64_t l = 0; l < depth_; ++l) {
      // x/|x|^2, which keeps the squares of long ways within the range of the numbers.
      const Value shrink = T(1) / square;
      for (int64_t i = 0; i < (S > 0 ? S : width(l)); ++i) row_[i] = Value(x[i]) * shrink;
      Value after;
      if constexpr (S > 0) {
        L::template from_right<S>(weights[l], row_, image_);
        after = L::template square_of_row<S>(image_);
        x = image_;
      } else {
        const Cell* from = L::as_column(row_, column_, width(l));
        L::product(watch, weights[l], L::stride(width(l)), from, L::stride(1), image_, width(l + 1), 1, width(l));
        x = L::as_row(image_, image_row_, width(l + 1));
        after = L::dot(x, x, 1, width(l + 1));
      }
      squares_[l] = after * square;
      square = after;
    }
  }
  // Of the lanes from q on: the largest eigenvalue of the matrix P of pairs, in units of sigma, or a little more. What one layer
  // has of all its pairs is a row of P 1 and bounds it; so does max_l (P x)_l / x_l with any x > 0 (Collatz, Wielandt), closer
  // with x = P 1 where gains are unequal: M3 8x8 at 1e-8, 6.8 % more steps than without a bound become 4.5 (three layers: 1.9).
  Numbers most(int64_t q) const {
    if (depth_ == 3) return most_of_three(q);
    const Numbers zero{}, one = zero + 1.0;
    for (int64_t l = 0; l < depth_; ++l) {
      const Numbers square = InLanes::template get<L>(squares_[l], q);
      gain_[l] = root(square);
      x_[l] = one;
    }
    above_[depth_] = one;
    for (int64_t l = depth_ - 1; l >= 0; --l) above_[l] = above_[l + 1] * gain_[l];
    Numbers most = pairs();
    for (int round = 0; round < kRounds; ++round) {
      const Numbers shrink = one / most;
      for (int64_t l = 0; l < depth_; ++l) x_[l] = sum_[l] * shrink;
      pairs();
      Numbers closer = zero;
      for (int64_t l = 0; l < depth_; ++l) {
        const Numbers ratio = sum_[l] / x_[l];  // NaN where there is nothing
        closer = ratio > closer ? ratio : closer;
      }
      most = ((closer > zero) & (closer < most)) ? closer : most;
    }
    return most;
  }

 private:
  static Numbers root(const Numbers& square) { return square > Numbers{} ? InLanes::roots(square) : Numbers{}; }
  // Of three layers, P has 0 on its diagonal and one gain in each other place: its largest eigenvalue is the root of
  // x^3 - (a^2 + b^2 + c^2) x - 2abc, a >= b >= c, by Newton's method from a + b on, from above, with a = 1.
  Numbers most_of_three(int64_t q) const {
    const Numbers zero{}, one = zero + 1.0;
    const Numbers f = root(InLanes::template get<L>(squares_[0], q));
    const Numbers g = root(InLanes::template get<L>(squares_[1], q));
    const Numbers h = root(InLanes::template get<L>(squares_[2], q));
    const Numbers more = f > g ? f : g, less = f > g ? g : f;
    const Numbers a = more > h ? more : h, other = more > h ? h : more;
    const Numbers unit = one / a, b = (other > less ? other : less) * unit, c = (other > less ? less : other) * unit;
    const Numbers squares = one + b * b + c * c, product = 2.0 * b * c;
    Numbers x = one + b;
    for (int round = 0; round < 3; ++round) x = (2.0 * x * x * x + product) / (3.0 * x * x - squares);
    const Numbers two = one + one;
    return a > zero ? Numbers(a * (x < two ? x : two)) : zero;  // NaN where 1/a has no number
  }
  // sum = P x; returns its largest entry.
  Numbers pairs() const {
    Numbers below = Numbers{} + 1.0, most{};
    for (int64_t l = 0; l < depth_; ++l) sum_[l] = Numbers{};
    for (int64_t l = 0; l < depth_; ++l) {
      Numbers others = below, sum = sum_[l];
      const Numbers here = x_[l];
      for (int64_t m = l + 1; m < depth_; ++m) {
        const Numbers pair = others * above_[m + 1];
        sum = sum + pair * x_[m];
        sum_[m] = sum_[m] + pair * here;
        others = others * gain_[m];
      }
      sum_[l] = sum;
      below = below * gain_[l];
      most = sum > most ? sum : most;
    }
    return most;
  }

  static constexpr int kRounds = 2;
  const int64_t depth_;
  Value* squares_;
  Numbers *gain_, *sum_, *above_, *x_;  // of some lanes at a time
  Cell *row_, *image_row_, *column_, *image_;
};

// Numbers that no direction of a network has to do with: x_i = frac(i phi) - 1/2, phi the golden ratio.
template <class T>
static inline T scattered(int64_t i) {
  const double x = static_cast<double>(i + 1) * 0.6180339887498949;
  return static_cast<T>(x - static_cast<double>(static_cast<int64_t>(x)) - 0.5);
}

// The largest singular value of the residual E, by power iteration that goes on from step to step: p <- E E^T p, with a twentieth
// of a fixed vector beside it, in which a value that takes the lead is found. Of two layers nothing grows faster than this:
// d(W_1 q)/dt = sigma W_2^T p, d(W_2^T p)/dt = sigma W_1 q, less what the product gains of it.
template <class L>
class ResidualNorm {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;

 public:
  ResidualNorm(Arena& arena, int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {
    left_ = arena.take<Cell>(L::cells(1, rows));
    fixed_ = arena.take<Cell>(L::cells(1, rows));
    back_ = arena.take<Cell>(L::cells(1, rows));
    image_ = arena.take<Cell>(L::cells(rows, 1));
    right_ = arena.take<Cell>(L::cells(1, cols));
    column_ = arena.take<Cell>(L::cells(cols, 1));
    if (!arena.base) return;
    double square = 0;
    for (int64_t i = 0; i < rows; ++i) square += scattered<double>(i) * scattered<double>(i);
    const double unit = 1 / __builtin_sqrt(square);
    for (int64_t i = 0; i < rows; ++i)
      left_[i] = fixed_[i] = Cell{} + static_cast<T>(unit * static_cast<double>(scattered<double>(i)));
  }

  // A round for the members that `live` is 1 of; S: the size, if it is known when compiled.
  template <int S>
  __attribute__((noinline)) void iterate(const Control* watch, const Cell* e, const Value& live) {
    Value size, square;
    const Cell* back = image_;
    if constexpr (S > 0) {
      L::template from_left<S>(left_, e, right_);
      L::template from_right<S>(e, right_, image_);
      size = L::template square_of_row<S>(left_);
      square = L::template square_of_row<S>(right_);
    } else {
      L::product(watch, left_, L::stride(rows_), e, L::stride(cols_), right_, 1, cols_, rows_);
      size = L::dot(left_, left_, 1, rows_);
      square = L::dot(right_, right_, 1, cols_);
      const Cell* column = L::as_column(right_, column_, cols_);
      L::product(watch, e, L::stride(cols_), column, L::stride(1), image_, rows_, 1, cols_);
      back = L::as_row(image_, back_, rows_);
    }
    const Value gain = square / size, shrink = T(1) / square;  // |p| becomes 1 / |p|: about 1
    const auto counts = live > Value{};
    const auto sound = (square > Value{}) & (shrink - shrink == Value{});
    const Value little = Value{} + T(0.05);
    for (int64_t i = 0; i < (S > 0 ? S : rows_); ++i) {
      const Value mixed = fma(little, Value(fixed_[i]), Value(back[i] * shrink));
      const Value next = sound ? mixed : Value(fixed_[i]);
      left_[i] = counts ? next : Value(left_[i]);
    }
    const Value found = sound ? gain : Value{};
    square_ = counts ? found : square_;
    right_square_ = square;
  }
  // New members begin as all did.
  void restart(const Value& live) {
    const auto counts = live > Value{};
    for (int64_t i = 0; i < rows_; ++i) left_[i] = counts ? Value(fixed_[i]) : Value(left_[i]);
  }
  // The right vector of the value, a row, and its square. After `iterate`.
  const Cell* right() const { return right_; }
  const Value& right_square() const { return right_square_; }
  const Value& square() const { return square_; }  // of the singular value

 private:
  const int64_t rows_, cols_;
  Cell *left_, *fixed_, *back_, *image_, *right_, *column_;
  Value square_{}, right_square_{};
};

// The fastest growth of the linearised flow dX/dt = J X, J = -Hessian of the loss, by power iteration on J + shift; J X is a
// difference of slopes. J is symmetric: Rayleigh quotients err by the square of the direction's error.
struct Growth {
  static constexpr int64_t kFirst = 10;  // rounds without shift, which find the fastest decay
  static constexpr int64_t kBegin = 40;  // rounds before the rate is used; after them one each step
  static constexpr int64_t kSure = 400;  // rounds after which no growth means that there is none
  int64_t rounds = 0, due = 0;
  double rate = 0;   // 0 or below: nothing grows
  double decay = 0;  // the fastest
  double shift = 0;

  void begin() {
    *this = Growth{};
    due = kBegin;
  }
  bool begins() const { return rounds == 0 || rounds == kFirst; }  // from scattered numbers
  bool sure() const { return rounds >= kSure; }
  void take(double quotient) {
    ++rounds;
    --due;
    if (!(quotient - quotient == 0)) quotient = 0;
    if (rounds <= kFirst) {
      const double size = quotient < 0 ? -quotient : quotient;
      if (size > decay) decay = size;
    } else {
      rate = quotient;
      if (-quotient > decay) decay = -quotient;
    }
    shift = rounds < kFirst ? 0 : 0.65 * decay;
  }
};

}  // namespace pydln::PYDLN_ISA
