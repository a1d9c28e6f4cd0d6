// The layers of a group of networks: shapes, storage, in and out of lanes. L is the layout.
//
// "Flipped" chains hold the transposed one, W_D^T, ..., W_1^T: working layers count from the output side then, and only what
// is here knows of it.
#pragma once

#include "core/chain.hpp"
#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

template <class L>
class Layers {
 protected:
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;
  static constexpr int64_t kMembers = L::members;

  Layers(const Chain& chain, bool flipped) : D_(chain.depth), flipped_(flipped), chain_(chain) {}

  int64_t width(int64_t l) const { return chain_.widths[flipped_ ? chain_.depth - l : l]; }
  int64_t outer_layer(int64_t l) const { return flipped_ ? D_ - 1 - l : l; }  // working layer -> the caller's layer
  static int64_t ld(int64_t cols) { return L::stride(cols); }

  static void matrix(Arena& arena, Cell** list, int64_t l, int64_t rows, int64_t cols) {
    Cell* p = arena.take<Cell>(L::cells(rows, cols));
    if (arena.base) list[l] = p;
  }
  // A matrix for every layer.
  Cell** layers(Arena& arena) const {
    Cell** list = arena.take<Cell*>(D_);
    for (int64_t l = 0; l < D_; ++l) matrix(arena, list, l, width(l + 1), width(l));
    return list;
  }

  // Out of the caller's arrays (batch, n_l, n_{l-1}).
  void load_layers(T* const* from, int64_t member, Cell** to, int64_t lane) {
    for (int64_t l = 0; l < D_; ++l) {
      const int64_t rows = width(l + 1), cols = width(l);
      L::load(to[l], lane, from[outer_layer(l)] + member * rows * cols, rows, cols, flipped_);
    }
  }
  // Into the arrays `to` of the caller, the one at `place` along their leading axes.
  void store_weights(Cell* const* from, int64_t lane, T* const* to, int64_t place) const {
    for (int64_t l = 0; l < D_; ++l) {
      const int64_t rows = width(l + 1), cols = width(l);
      L::store(from[l], lane, to[outer_layer(l)] + place * rows * cols, rows, cols, flipped_);
    }
  }
  void clear_lane(Cell** set, int64_t lane) const {
    for (int64_t l = 0; l < D_; ++l) L::clear_lane(set[l], lane, width(l + 1), width(l));
  }

  const int64_t D_;
  const bool flipped_;

 private:
  const Chain& chain_;
};

}  // namespace pydln::PYDLN_ISA
