// Records of the layers themselves: their norms, their entries, and the drift ||C_l(t) - C_l(0)|| of what gradient flow of a
// linear network conserves, C_l = W_{l+1}^T W_{l+1} - W_l W_l^T.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/layers.hpp"

namespace pydln::PYDLN_ISA {

template <class L>
class LayerRecords : Layers<L> {
  using Base = Layers<L>;
  using Base::D_;
  using Base::flipped_;
  using Base::ld;
  using Base::width;
  using typename Base::Cell;
  using typename Base::T;
  using typename Base::Value;

 public:
  LayerRecords(const Chain& chain, bool flipped, bool drift, Arena& arena) : Base(chain, flipped) {
    if (!drift) return;
    int64_t square = 0, across = 0;
    for (int64_t l = 0; l + 1 < D_; ++l) {
      const int64_t hidden = width(l + 1), s = L::cells(hidden, hidden), t = L::cells(width(l), hidden);
      square = s > square ? s : square;
      across = t > across ? t : across;
    }
    for (auto& q : squares_) q = arena.take<Cell>(square);
    transposed_ = arena.take<Cell>(across);
    conserved_ = arena.take<Cell*>(D_ - 1);
    for (int64_t l = 0; l + 1 < D_; ++l) Base::matrix(arena, conserved_, l, width(l + 1), width(l + 1));
  }

  // Of the lanes that fresh(lane) says start now.
  template <class Fresh>
  void start(const Control& control, Cell* const* weights, Fresh fresh) {
    for (int64_t l = 0; l + 1 < D_ && !cancelled(control); ++l) {
      conserved_quantity(control, weights, l);
      for (int64_t lane = 0; lane < L::members; ++lane)
        if (fresh(lane)) L::copy_lane(conserved_[l], squares_[0], lane, width(l + 1), width(l + 1));
    }
  }
  // Of the lanes and places that for_due(f) hands to f, into the arrays of `op`; ends, unfinished, once the run is cancelled.
  template <class Op, class ForDue>
  void record(const Control& control, const Op& op, Cell* const* weights, ForDue for_due) {
    if (!op.layer_norms && !op.weight_records && !op.drift) return;
    const auto root = [](const Value& square, int64_t lane) {
      return static_cast<T>(__builtin_sqrt(L::get(square, lane)));
    };
    for (int64_t l = 0; l < D_; ++l) {
      const int64_t rows = width(l + 1), cols = width(l), to = this->outer_layer(l);
      if (op.layer_norms) {
        const Value square = L::dot(weights[l], weights[l], rows, cols);
        for_due([&](int64_t lane, int64_t at) { op.layer_norms[at * D_ + to] = root(square, lane); });
      }
      if (op.weight_records)
        for_due([&](int64_t lane, int64_t at) {
          L::store(weights[l], lane, op.weight_records[to] + at * rows * cols, rows, cols, flipped_);
        });
    }
    for (int64_t l = 0; op.drift && l + 1 < D_; ++l) {
      const int64_t hidden = width(l + 1), to = flipped_ ? D_ - 2 - l : l;
      conserved_quantity(control, weights, l);
      if (cancelled(control)) return;
      const Value square = L::distance2(squares_[0], conserved_[l], hidden, hidden);
      for_due([&](int64_t lane, int64_t at) { op.drift[at * (D_ - 1) + to] = root(square, lane); });
    }
  }

 private:
  // squares_[0] = C_l, of a flipped chain -C_l
  void conserved_quantity(const Control& control, Cell* const* weights, int64_t l) {
    const int64_t above = width(l + 2), hidden = width(l + 1), below = width(l);
    L::product_tn(&control, weights[l + 1], ld(hidden), weights[l + 1], ld(hidden), squares_[0], hidden, hidden, above);
    L::transpose(weights[l], transposed_, hidden, below);
    L::product(&control, weights[l], ld(below), transposed_, ld(hidden), squares_[1], hidden, hidden, below);
    L::subtract(squares_[0], squares_[1], squares_[0], hidden, hidden);
  }

  Cell** conserved_ = nullptr;
  Cell* squares_[2] = {};
  Cell* transposed_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
