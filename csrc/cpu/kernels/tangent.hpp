// How far the tangent kernel of a chain has moved from where it started. On the inputs of the task it is
//
//   K = sum_l  B_l (x) A_l,   B_l = Q_l Q_l^T,  Q_l = W_D ... W_{l+1},   A_l = (P_l R)^T P_l R,  P_l = W_{l-1} ... W_1,
//
// with R R = Sigma_xx. K is never formed: <K, K'> = sum_{l,m} <A_l, A'_m> <B_l, B'_m>.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/vector.hpp"
#include "ops/descent.hpp"

namespace pydln::PYDLN_ISA {

// `flipped`: the chain is the transposed one, see kernels/descent.hpp. A and B then change places, and R goes with A.
template <class L, class G>
class TangentKernel {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;

 public:
  TangentKernel(const ops::Descent<T>& op, bool flipped, Arena& arena)
      : op_(op), flipped_(flipped), D_(op.chain.depth), m_(width(D_)), n_(width(0)) {
    if (!wanted()) return;
    power_ = arena.take<std::int64_t>(D_ * kMembers);
    if (op.root) root_ = arena.take<G>(L::cells(inputs(), inputs()));
    Kernel* const both[] = {&now_, &start_};
    for (Kernel* k : both) {
      k->below = arena.take<Cell*>(D_);
      k->above = arena.take<Cell*>(D_);
      k->weight = arena.take<Value>(D_);
      for (std::int64_t l = 0; l < D_; ++l) {
        gram(arena, k->below, l, n_, l > 0 || roots_below());
        gram(arena, k->above, l, m_, l + 1 < D_ || roots_above());
      }
    }
    std::int64_t widest = 0, across = 0;
    for (std::int64_t l = 1; l < D_; ++l) {
      widest = width(l) > widest ? width(l) : widest;
      across = L::cells(m_, width(l)) > across ? L::cells(m_, width(l)) : across;
    }
    for (auto& p : up_) p = arena.take<Cell>(L::cells(widest, n_));
    for (auto& q : down_) q = arena.take<Cell>(across);
    turned_ = arena.take<Cell>(L::cells(widest, m_));
  }

  bool wanted() const { return op_.kernel_distance; }

  void load_task(std::int64_t lane, std::int64_t member) {
    if (root_) L::load(root_, lane, op_.root.of(member), inputs(), inputs(), false);
  }

  // The kernel of the present weights. Left unfinished when the run is cancelled. P_l and Q_l are brought to entries near 1
  // by powers of two, for their fourth powers leave the range of a number long before they do; the powers are kept apart.
  void look(const Control& control, Cell* const* weights) {
    look_below(control, weights);
    look_above(control, weights);
    if (!cancelled(control)) weigh();
  }

  // The present kernel is where `lane` started.
  void begin(std::int64_t lane) {
    for (std::int64_t l = 0; l < D_; ++l) {
      if (now_.below[l]) L::copy_lane(start_.below[l], now_.below[l], lane, n_, n_);
      if (now_.above[l]) L::copy_lane(start_.above[l], now_.above[l], lane, m_, m_);
      L::set(start_.weight[l], lane, L::get(now_.weight[l], lane));
    }
  }

  // What `distance` is read off.
  void measure() {
    start_square_ = dot(start_, start_);
    square_ = dot(now_, now_);
    overlap_ = dot(now_, start_);
  }

  // 1 - <K, K_0> / (|K| |K_0|), written so that it is exactly 0 at the start; 0 also where the kernel is 0 and stays so. NaN
  // where one that was not has come to 0: its direction is not known.
  T distance(std::int64_t lane) const {
    const T start = L::get(start_square_, lane), square = L::get(square_, lane), overlap = L::get(overlap_, lane);
    if (start == 0 && square == 0) return 0;
    return 1 - overlap / (start * static_cast<T>(__builtin_sqrt(square / start)));
  }

 private:
  struct Kernel {  // (n, n) and (m, m) for every layer; null is the identity
    Cell** below = nullptr;
    Cell** above = nullptr;
    Value* weight = nullptr;  // of every layer's term, the largest 1; all 0 where the kernel is
  };

  static constexpr std::int64_t kMembers = L::members;
  static constexpr std::int64_t kNothing = -0x10000000000;  // the power of two of what is zero
  static constexpr std::int64_t kRange = sizeof(T) == 4 ? 126 : 1022;

  void look_below(const Control& control, Cell* const* weights) {
    const Control* watch = &control;
    std::int64_t power[kMembers] = {};
    const Cell* p = nullptr;  // P_l R where R goes below, else P_l
    for (std::int64_t l = 0; l < D_ && !cancelled(control); ++l) {
      if (l > 0) {
        const std::int64_t rows = width(l);
        Cell* next = up_[l % 2];
        if (l > 1)
          L::product(watch, weights[l - 1], ld(width(l - 1)), p, ld(n_), next, rows, n_, width(l - 1));
        else if (roots_below())
          L::product(watch, weights[0], ld(n_), root_, ld(n_), next, rows, n_, n_);
        level(l > 1 || roots_below() ? next : weights[0], next, rows, n_, power);
        p = next;
        L::product_tn(watch, p, ld(n_), p, ld(n_), now_.below[l], n_, n_, rows);
      } else if (roots_below()) {
        L::product(watch, root_, ld(n_), root_, ld(n_), now_.below[l], n_, n_, n_);
      }
      for (std::int64_t lane = 0; lane < kMembers; ++lane) power_[l * kMembers + lane] = power[lane];
    }
  }
  void look_above(const Control& control, Cell* const* weights) {
    const Control* watch = &control;
    std::int64_t power[kMembers] = {};
    const Cell* q = nullptr;  // R Q_l where R goes above, else Q_l
    for (std::int64_t l = D_ - 1; l >= 0 && !cancelled(control); --l) {
      if (l + 1 < D_) {
        const std::int64_t cols = width(l + 1);
        const bool top = l + 2 == D_;
        Cell* next = down_[l % 2];
        if (!top)
          L::product(watch, q, ld(width(l + 2)), weights[l + 1], ld(cols), next, m_, cols, width(l + 2));
        else if (roots_above())
          L::product(watch, root_, ld(m_), weights[l + 1], ld(cols), next, m_, cols, m_);
        level(!top || roots_above() ? next : weights[l + 1], next, m_, cols, power);
        q = next;
        L::transpose(q, turned_, m_, cols);
        L::product(watch, q, ld(cols), turned_, ld(m_), now_.above[l], m_, m_, cols);
      } else if (roots_above()) {
        L::product(watch, root_, ld(m_), root_, ld(m_), now_.above[l], m_, m_, m_);
      }
      for (std::int64_t lane = 0; lane < kMembers; ++lane) power_[l * kMembers + lane] += power[lane];
    }
  }

  // y <- x / 2^e with the largest entry in [1, 2); e is added to the powers of the lanes.
  void level(const Cell* x, Cell* y, std::int64_t rows, std::int64_t cols, std::int64_t* power) const {
    const Value most = L::largest(x, rows, cols);
    Value factor{};
    for (std::int64_t lane = 0; lane < kMembers; ++lane) {
      const auto size = static_cast<double>(L::get(most, lane));
      std::int64_t e = 0;
      if (size == 0)
        power[lane] = kNothing;
      else if (size - size == 0)
        e = exponent_of(size);
      power[lane] += e;
      L::set(factor, lane, power_of_two(-e));
    }
    L::scaled(x, factor, y, rows, cols);
  }
  // The weights of the terms of the present kernel, from their powers of two.
  void weigh() {
    for (std::int64_t lane = 0; lane < kMembers; ++lane) {
      std::int64_t most = kNothing;
      for (std::int64_t l = 0; l < D_; ++l) {
        const std::int64_t power = power_[l * kMembers + lane];
        most = power > most ? power : most;
      }
      for (std::int64_t l = 0; l < D_; ++l) {
        const std::int64_t less = 2 * (power_[l * kMembers + lane] - most);
        const bool there = most > kNothing / 2 && less >= -kRange;
        L::set(now_.weight[l], lane, there ? power_of_two(less) : T(0));
      }
    }
  }
  // e with 2^e <= x < 2^(e+1), within the range of T
  static std::int64_t exponent_of(double x) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, &x, sizeof word);
    const std::int64_t e = static_cast<std::int64_t>(word >> 52U) - 1023;
    return e < -kRange ? -kRange : (e > kRange ? kRange : e);
  }
  static T power_of_two(std::int64_t e) {
    const std::uint64_t word = static_cast<std::uint64_t>(e + 1023) << 52U;
    double x = 0;
    __builtin_memcpy(&x, &word, sizeof x);
    return static_cast<T>(x);
  }

  std::int64_t width(std::int64_t l) const { return op_.chain.widths[flipped_ ? op_.chain.depth - l : l]; }
  std::int64_t inputs() const { return op_.chain.widths[0]; }
  bool roots_below() const { return op_.root && !flipped_; }
  bool roots_above() const { return op_.root && flipped_; }
  static std::int64_t ld(std::int64_t cols) { return L::stride(cols); }

  static void gram(Arena& arena, Cell** list, std::int64_t l, std::int64_t n, bool there) {
    Cell* p = there ? arena.take<Cell>(L::cells(n, n)) : nullptr;
    if (arena.base) list[l] = p;
  }

  Value dot(const Kernel& x, const Kernel& y) const {
    Value sum{};
    for (std::int64_t l = 0; l < D_; ++l)
      for (std::int64_t k = 0; k < D_; ++k)
        sum = fma(Value(dot(x.below[l], y.below[k], n_) * (x.weight[l] * y.weight[k])), dot(x.above[l], y.above[k], m_),
                  sum);
    return sum;
  }
  static Value dot(const Cell* x, const Cell* y, std::int64_t n) {
    if (x && y) return L::dot(x, y, n, n);
    return x || y ? L::trace(x ? x : y, n) : Value{} + static_cast<T>(n);
  }

  const ops::Descent<T>& op_;
  const bool flipped_;
  const std::int64_t D_, m_, n_;
  G* root_ = nullptr;
  Kernel now_, start_;
  Cell* up_[2] = {};
  Cell* down_[2] = {};
  Cell* turned_ = nullptr;
  std::int64_t* power_ = nullptr;  // of two, by layer and lane: those of P_l and Q_l together
  Value start_square_{}, square_{}, overlap_{};
};

}  // namespace pydln::PYDLN_ISA
