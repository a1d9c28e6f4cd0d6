// What grows unseen in a network: near a saddle a part far below the largest entries grows as exp(rho t), and no error that is
// measured against the largest entries shows it (FlowWorker).
#pragma once

#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

// What layers may gain along the way of a mode: rates of growth of the pairs of layers are sigma times the gains g_j of all
// others, and what one layer has of all its pairs bounds the fastest growth: max_l sum_m sigma prod_(j != l, m) g_j.
template <class L>
class PathGains {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;

 public:
  PathGains(Arena& arena, int64_t depth, int64_t widest) : depth_(depth) {
    squares_ = arena.take<Value>(depth);
    gain_ = arena.take<double>(depth);
    sum_ = arena.take<double>(depth);
    above_ = arena.take<double>(depth + 1);
    for (auto& x : column_) x = arena.take<Cell>(L::cells(widest, 1));
  }
  // Of a vector that goes through the layers; width(l) are theirs.
  template <class Width>
  void measure(const Control* watch, Cell* const* weights, const Cell* x, Width width) {
    for (int64_t l = 0; l < depth_; ++l) {
      const Value before = L::dot(x, x, width(l), 1), shrink = T(1) / before;
      Cell *from = column_[l % 2], *to = column_[1 - l % 2];
      // x/|x|^2, which keeps the squares of long ways within the range of the numbers.
      for (int64_t i = 0; i < width(l); ++i) from[i * L::stride(1)] = Value(x[i * L::stride(1)]) * shrink;
      L::product(watch, weights[l], L::stride(width(l)), from, L::stride(1), to, width(l + 1), 1, width(l));
      squares_[l] = L::dot(to, to, width(l + 1), 1) * before;
      x = to;
    }
  }
  double most(int64_t lane) const {
    for (int64_t l = 0; l < depth_; ++l) {
      const auto square = static_cast<double>(L::get(squares_[l], lane));
      gain_[l] = square > 0 ? __builtin_sqrt(square) : 0;
    }
    above_[depth_] = 1;
    for (int64_t l = depth_ - 1; l >= 0; --l) above_[l] = above_[l + 1] * gain_[l];
    for (int64_t l = 0; l < depth_; ++l) sum_[l] = 0;
    double below = 1, most = 0;
    for (int64_t l = 0; l < depth_; ++l) {
      double others = below;
      for (int64_t m = l + 1; m < depth_; ++m) {
        const double pair = others * above_[m + 1];
        sum_[l] += pair;
        sum_[m] += pair;
        others *= gain_[m];
      }
      below *= gain_[l];
      most = sum_[l] > most ? sum_[l] : most;
    }
    return most;
  }

 private:
  const int64_t depth_;
  Value* squares_;
  double *gain_, *sum_, *above_;  // of one lane at a time
  Cell* column_[2];
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

  // A round for the members that `live` is 1 of.
  void iterate(const Control* watch, const Cell* e, const Value& live) {
    L::product(watch, left_, L::stride(rows_), e, L::stride(cols_), right_, 1, cols_, rows_);
    const Value size = L::dot(left_, left_, 1, rows_), square = L::dot(right_, right_, 1, cols_);
    L::transpose(right_, column_, 1, cols_);
    L::product(watch, e, L::stride(cols_), column_, L::stride(1), image_, rows_, 1, cols_);
    L::transpose(image_, back_, rows_, 1);
    const Value gain = square / size, shrink = T(1) / square;  // |p| becomes 1 / |p|: about 1
    const auto counts = live > Value{};
    const auto sound = (square > Value{}) & (shrink - shrink == Value{});
    const Value little = Value{} + T(0.05);
    for (int64_t i = 0; i < rows_; ++i) {
      const Value mixed = fma(little, Value(fixed_[i]), Value(back_[i] * shrink));
      const Value next = sound ? mixed : Value(fixed_[i]);
      left_[i] = counts ? next : Value(left_[i]);
    }
    const Value found = sound ? gain : Value{};
    square_ = counts ? found : square_;
  }
  // New members begin as all did.
  void restart(const Value& live) {
    const auto counts = live > Value{};
    for (int64_t i = 0; i < rows_; ++i) left_[i] = counts ? Value(fixed_[i]) : Value(left_[i]);
  }
  // The right vector of the value, a column. After `iterate`.
  const Cell* column() const { return column_; }
  double of(int64_t lane) const { return __builtin_sqrt(static_cast<double>(L::get(square_, lane))); }

 private:
  const int64_t rows_, cols_;
  Cell *left_, *fixed_, *back_, *image_, *right_, *column_;
  Value square_{};
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
