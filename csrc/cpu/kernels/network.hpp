// A group of networks and their task: shapes, storage, forward pass, loss, strengths. L is the layout; the task's matrices are
// stored as G: L::Cell where members have tasks of their own, the bare scalar where all share one. Then a group holds a single
// copy, and its elements are broadcast where they are read.
//
// The chain is carried along the output side (math/cost.hpp). When the input side is cheaper, the transposed chain
// W_D^T, ..., W_1^T with the transposed task is run instead: "flipped" below; only loading, storing and the side on
// which Sigma_xx multiplies know of it.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/lanes.hpp"
#include "cpu/kernels/layers.hpp"
#include "math/cost.hpp"
#include "ops/training.hpp"

namespace pydln::PYDLN_ISA {

template <class L, class G>
class Network : protected Layers<L> {
 protected:
  using Base = Layers<L>;
  using Base::D_;
  using Base::flipped_;
  using Base::kMembers;
  using Base::ld;
  using Base::matrix;
  using Base::width;
  using typename Base::Cell;
  using typename Base::T;
  using typename Base::Value;

  struct Residual {  // in working orientation
    G* map = nullptr;
    G* diagonal = nullptr;
    G* target = nullptr;
    int64_t rows = 0, cols = 0;
    Value floor{};
    bool plain() const { return !map && !diagonal; }
  };

  // With a null arena base this only measures: arena.used is then the workspace one worker needs.
  Network(const ops::Training<T>& op, bool measures_strengths, Control& control, Arena& arena)
      : Base(op.chain, carry_input_side(op.chain)), training_(op), control_(control), m_(width(D_)), n_(width(0)) {
    products_ = arena.take<Cell*>(D_);
    for (int64_t l = 0; l + 1 < D_; ++l) matrix(arena, products_, l, m_, width(l));  // A_l = W_D ... W_{l+1}
    int64_t widest = n_, cells = 0, carried = 0;
    for (int64_t l = 0; l < D_; ++l) {
      widest = width(l) > widest ? width(l) : widest;
      const int64_t here = L::cells(width(l + 1), width(l)), rows = L::cells(m_, width(l));
      cells = here > cells ? here : cells;
      carried = rows > carried ? rows : carried;
    }
    if (op.squares) {
      const int64_t squares = flipped_ ? L::cells(op.squares.columns, n_) : L::cells(m_, op.squares.columns);
      carried = squares > carried ? squares : carried;
    }
    for (auto& r : carried_) r = arena.take<Cell>(carried);
    space_ = L::make_space(arena, widest, cells);
    make_residual(arena, train_, op.train);
    if (op.squares) make_residual(arena, squares_, op.squares);
    if (measures_strengths) {
      mode_u_ = arena.take<G>(L::cells(m_, op.modes));
      mode_v_ = arena.take<G>(L::cells(n_, op.modes));
      mode_product_ = arena.take<Cell>(L::strengths_cells(m_, op.modes));
      strengths_ = arena.take<Cell>(L::cells(1, op.modes));
    }
  }

  // ---- shapes -----------------------------------------------------------------------------------------------------
  // The width that all layers share, or 0.
  int64_t extent() const {
    for (int64_t l = 1; l <= D_; ++l)
      if (width(l) != width(0)) return 0;
    return width(0);
  }
  int64_t inputs() const { return training_.chain.widths[0]; }
  void make_residual(Arena& arena, Residual& to, const ops::Residual<T>& from) {
    to.rows = flipped_ ? from.columns : m_;
    to.cols = flipped_ ? n_ : from.columns;
    if (from.map)
      to.map = arena.take<G>(flipped_ ? L::cells(from.columns, inputs()) : L::cells(inputs(), from.columns));
    if (from.diagonal) to.diagonal = arena.take<G>(L::cells(1, inputs()));
    to.target = arena.take<G>(L::cells(to.rows, to.cols));
  }

  // ---- in and out of lanes ------------------------------------------------------------------------------------------
  void load_residual(Residual& to, const ops::Residual<T>& from, int64_t lane, int64_t member) {
    L::load(to.target, lane, from.target.of(member), to.rows, to.cols, flipped_);
    if (from.map)
      L::load(to.map, lane, from.map.of(member), flipped_ ? from.columns : inputs(), flipped_ ? inputs() : from.columns,
              flipped_);
    if (from.diagonal) L::load(to.diagonal, lane, from.diagonal.of(member), 1, inputs(), false);
  }
  void load_scalars(int64_t lane, int64_t member) { L::set(train_.floor, lane, *training_.floor.of(member)); }
  void load_task(int64_t lane, int64_t member) {
    load_residual(train_, training_.train, lane, member);
    if (training_.squares) load_residual(squares_, training_.squares, lane, member);
    if (mode_u_) {
      L::load(mode_u_, lane, (flipped_ ? training_.mode_v : training_.mode_u).of(member), m_, training_.modes, false);
      L::load(mode_v_, lane, (flipped_ ? training_.mode_u : training_.mode_v).of(member), n_, training_.modes, false);
    }
  }
  void load_weights(Cell** to, int64_t lane, int64_t member) { this->load_layers(training_.weights, member, to, lane); }

  // ---- the forward pass ---------------------------------------------------------------------------------------------
  // The layers that everything below sees.
  void see(Cell** weights) {
    weights_ = weights;
    products_[D_ - 1] = weights[D_ - 1];
  }

  // Products A_l of the present weights, Omega = A_0 if it is asked for, and the residual E if that is.
  void forward(bool omega, bool error) {
    Cell* e = carried_[0];
    for (int64_t l = D_ - 2; l >= 1; --l) {
      if (cancelled(control_)) return;
      product(products_[l + 1], weights_[l], products_[l], width(l), width(l + 1));
    }
    if (D_ > 1 && train_.plain() && !omega) {
      const int64_t K = width(1);
      L::residual(watch_, train_.target, products_[1], ld(K), weights_[0], ld(n_), e, m_, n_, K);
      return;
    }
    if (D_ > 1) product(products_[1], weights_[0], products_[0], n_, width(1));
    if (error) residual(train_, e);
  }
  // The same where all layers are S × S and inputs whitened.
  template <int S>
  PYDLN_INLINE void square_forward(bool omega = false) {
    if constexpr (S > 0) {
      for (int64_t l = D_ - 2; l >= 1; --l) L::template product<S>(products_[l + 1], weights_[l], products_[l]);
      if (omega) {
        L::template product<S>(products_[1], weights_[0], products_[0]);
        L::subtract(train_.target, products_[0], carried_[0], S, S);
      } else {
        L::template residual<S>(train_.target, products_[1], weights_[0], carried_[0]);
      }
    }
  }
  void product(const Cell* a, const Cell* b, Cell* c, int64_t cols, int64_t inner) {
    L::product(watch_, a, ld(inner), b, ld(cols), c, m_, cols, inner);
  }

  void residual(const Residual& of, Cell* to) {
    const Cell* omega = products_[0];
    if (of.diagonal)
      L::subtract_scaled(of.target, omega, of.diagonal, flipped_, to, m_, n_);
    else if (!of.map)
      L::subtract(of.target, omega, to, m_, n_);
    else if (flipped_)
      L::residual(watch_, of.target, of.map, ld(m_), omega, ld(n_), to, of.rows, n_, m_);
    else
      L::residual(watch_, of.target, omega, ld(n_), of.map, ld(of.cols), to, m_, of.cols, n_);
  }

  // ---- what is read off it ------------------------------------------------------------------------------------------
  // floor + 1/2 |F|², after a forward pass that made E, and Omega unless F = E.
  Value train_loss() {
    Cell* f = carried_[0];
    if (!train_.plain()) residual(squares_, f = carried_[1]);
    return loss_of(train_.plain() ? train_ : squares_, f, train_.floor);
  }
  Value loss_of(const Residual& of, const Cell* f, const Value& floor) {
    return fma(Value{} + T(0.5), L::dot(f, f, of.rows, of.cols), floor);
  }

  // The same where all layers are S × S and inputs whitened.
  template <int S>
  PYDLN_INLINE Value square_loss() const {
    return fma(Value{} + T(0.5), L::template dot<S>(carried_[0], carried_[0]), train_.floor);
  }

  void strengths() {
    const int64_t modes = training_.modes;
    L::strengths(watch_, products_[0], ld(n_), mode_v_, mode_u_, ld(modes), mode_product_, strengths_, m_, modes, n_);
  }

  bool strengths_reached(int64_t lane, int64_t member) const {
    return reached<L>(strengths_, training_.modes, lane, training_.stop_strengths.of(member));
  }

  const ops::Training<T>& training_;
  Control& control_;
  const Control* const watch_ = &control_;  // for products, which look at it when they are long
  const int64_t m_, n_;                     // working outputs and inputs

  Residual train_, squares_;
  Cell** weights_ = nullptr;
  Cell** products_ = nullptr;
  Cell* carried_[2] = {};
  typename L::Space space_;
  G* mode_u_ = nullptr;
  G* mode_v_ = nullptr;
  Cell* mode_product_ = nullptr;
  Cell* strengths_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
