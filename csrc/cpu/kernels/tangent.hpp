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
    if (op.root) root_ = arena.take<G>(L::cells(inputs(), inputs()));
    Kernel* const both[] = {&now_, &start_};
    for (Kernel* k : both) {
      k->below = arena.take<Cell*>(D_);
      k->above = arena.take<Cell*>(D_);
      for (std::int64_t l = 0; l < D_; ++l) {
        gram(arena, k->below, l, n_, l > 0 || roots_below());
        gram(arena, k->above, l, m_, l + 1 < D_ || roots_above());
      }
    }
    std::int64_t widest = 0, rooted = 0;
    for (std::int64_t l = 1; l < D_; ++l) {
      widest = width(l) > widest ? width(l) : widest;
      rooted = L::cells(m_, width(l)) > rooted ? L::cells(m_, width(l)) : rooted;
    }
    for (auto& p : carried_) p = arena.take<Cell>(L::cells(widest, n_));
    if (roots_above()) rooted_ = arena.take<Cell>(rooted);
    turned_ = arena.take<Cell>(L::cells(widest, m_));
  }

  bool wanted() const { return op_.kernel_distance; }

  void load_task(std::int64_t lane, std::int64_t member) {
    if (root_) L::load(root_, lane, op_.root.of(member), inputs(), inputs(), false);
  }

  // The kernel of the present weights; products[l] = W_D ... W_{l+1} as the forward pass left them. Left unfinished when the
  // run is cancelled.
  void look(const Control& control, Cell* const* weights, Cell* const* products) {
    const Control* watch = &control;
    const Cell* p = nullptr;  // P_l R where R goes below, else P_l
    for (std::int64_t l = 0; l < D_; ++l) {
      if (cancelled(control)) return;
      if (l == 1 && !roots_below()) {
        p = weights[0];
      } else if (l > 0) {
        Cell* next = carried_[l % 2];
        if (l == 1)
          L::product(watch, weights[0], ld(n_), root_, ld(n_), next, width(1), n_, n_);
        else
          L::product(watch, weights[l - 1], ld(width(l - 1)), p, ld(n_), next, width(l), n_, width(l - 1));
        p = next;
      }
      if (l > 0)
        L::product_tn(watch, p, ld(n_), p, ld(n_), now_.below[l], n_, n_, width(l));
      else if (roots_below())
        L::product(watch, root_, ld(n_), root_, ld(n_), now_.below[l], n_, n_, n_);

      if (l + 1 < D_) {
        const std::int64_t inner = width(l + 1);
        const Cell* q = products[l + 1];
        if (roots_above()) {
          L::product(watch, root_, ld(m_), q, ld(inner), rooted_, m_, inner, m_);
          q = rooted_;
        }
        L::transpose(q, turned_, m_, inner);
        L::product(watch, q, ld(inner), turned_, ld(m_), now_.above[l], m_, m_, inner);
      } else if (roots_above()) {
        L::product(watch, root_, ld(m_), root_, ld(m_), now_.above[l], m_, m_, m_);
      }
    }
  }

  // The present kernel is where `lane` started.
  void begin(std::int64_t lane) {
    for (std::int64_t l = 0; l < D_; ++l) {
      if (now_.below[l]) L::copy_lane(start_.below[l], now_.below[l], lane, n_, n_);
      if (now_.above[l]) L::copy_lane(start_.above[l], now_.above[l], lane, m_, m_);
    }
  }

  // What `distance` is read off.
  void measure() {
    start_square_ = dot(start_, start_);
    square_ = dot(now_, now_);
    overlap_ = dot(now_, start_);
  }

  // 1 - <K, K_0> / (|K| |K_0|), written so that it is exactly 0 at the start and squares of squares do not overflow; NaN
  // where either kernel is 0.
  T distance(std::int64_t lane) const {
    const T start = L::get(start_square_, lane), square = L::get(square_, lane), overlap = L::get(overlap_, lane);
    return 1 - overlap / (start * static_cast<T>(__builtin_sqrt(square / start)));
  }

 private:
  struct Kernel {  // (n, n) and (m, m) for every layer; null is the identity
    Cell** below = nullptr;
    Cell** above = nullptr;
  };

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
        sum = fma(dot(x.below[l], y.below[k], n_), dot(x.above[l], y.above[k], m_), sum);
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
  Cell* carried_[2] = {};
  Cell* rooted_ = nullptr;
  Cell* turned_ = nullptr;
  Value start_square_{}, square_{}, overlap_{};
};

}  // namespace pydln::PYDLN_ISA
