// What a step of stochastic gradient descent draws, and the residual that its backward pass starts from. Members draw one
// by one; the products are done for the whole group. Many samples are drawn and summed piece by piece: memory is that of
// one piece, and a cancelled run waits for no more than one.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/draws.hpp"
#include "ops/descent.hpp"

namespace pydln::PYDLN_ISA {

// `flipped`: matrices are those of the transposed chain, see kernels/descent.hpp.
template <class L, class G>
class NoiseSource {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;
  static constexpr std::int64_t kMembers = L::members;

 public:
  NoiseSource(const ops::Descent<T>& op, bool flipped, Arena& arena)
      : noise_(op.noise),
        flipped_(flipped),
        in_(op.chain.widths[0]),
        out_(op.chain.widths[op.chain.depth]),
        piece_(piece_of(op.noise.size)),
        draws_(op.noise, in_, out_, piece_, arena) {
    if (noise_.kind == ops::NoiseKind::none) return;
    if (noise_.root) root_ = arena.take<G>(L::cells(in_, in_));
    if (noise_.kind == ops::NoiseKind::labels) {
      drawn_ = arena.take<T>(out_ * in_);
      y_ = arena.take<Cell>(L::cells(rows(), cols()));
      if (noise_.root) other_ = arena.take<Cell>(L::cells(rows(), cols()));
      return;
    }
    const std::int64_t y_cells = flipped_ ? L::cells(piece_, out_) : L::cells(out_, piece_);
    x_ = arena.take<Cell>(L::cells(in_, piece_));
    x_turned_ = arena.take<Cell>(L::cells(piece_, in_));
    y_ = arena.take<Cell>(y_cells);
    other_ = arena.take<Cell>(y_cells);
    if (piece_ < noise_.size) sum_ = arena.take<Cell>(L::cells(rows(), cols()));
    if (noise_.kind == ops::NoiseKind::online) {
      labels_ = arena.take<G>(L::cells(rows(), cols()));
      if (noise_.root) z_ = arena.take<Cell>(L::cells(in_, piece_));
    }
  }

  bool any() const { return noise_.kind != ops::NoiseKind::none; }
  bool samples_drawn() const { return noise_.samples_drawn(); }

  void clear(std::int64_t lane) {
    if (samples_drawn()) {
      L::clear_lane(x_, lane, in_, piece_);
      if (z_) L::clear_lane(z_, lane, in_, piece_);
      L::clear_lane(y_, lane, flipped_ ? piece_ : out_, flipped_ ? out_ : piece_);
    } else if (any()) {
      L::clear_lane(y_, lane, rows(), cols());
    }
  }
  void load_task(std::int64_t lane, std::int64_t member) {
    if (root_) L::load(root_, lane, noise_.root.of(member), in_, in_, false);
    if (labels_) L::load(labels_, lane, noise_.labels.of(member), rows(), cols(), flipped_);
  }
  void begin(std::int64_t lane, std::int64_t member) {
    L::set(std_, lane, noise_.std ? *noise_.std.of(member) : T(0));
    draws_.begin(lane, member);
  }

  // e becomes the residual of what the members draw at their steps (negative: of a lane without a member); of the task's
  // when the noise is in the labels of all samples. Left unfinished when the run is cancelled.
  void residual(const Control& watch, const std::int64_t* step, const Cell* omega, Cell* e) {
    if (noise_.kind == ops::NoiseKind::labels) return disturb_labels(watch, step, e);
    for (std::int64_t first = 0; first < noise_.size; first += piece_) {
      for (std::int64_t lane = 0; lane < kMembers; ++lane)
        if (step[lane] >= 0) draw(watch, lane, step[lane], first);
      if (cancelled(watch)) return;
      residual_of_piece(watch, omega, first == 0 ? e : sum_);
      if (first > 0) L::update_all(typename L::Plain{e, e, Value{} + T(1)}, sum_, rows(), cols());
    }
  }

 private:
  std::int64_t rows() const { return flipped_ ? in_ : out_; }
  std::int64_t cols() const { return flipped_ ? out_ : in_; }
  static std::int64_t ld(std::int64_t cols) { return L::stride(cols); }
  // Pieces of equal length, no more than this: a few MiB of images, and products long enough to be done in blocks. A multiple
  // of four, for blocks of random numbers must not straddle two of them.
  static std::int64_t piece_of(std::int64_t size) {
    constexpr std::int64_t kMost = 128;
    if (size <= kMost) return size;
    const std::int64_t pieces = (size + kMost - 1) / kMost;
    return ((size + pieces - 1) / pieces + 3) / 4 * 4;
  }

  void disturb_labels(const Control& watch, const std::int64_t* step, Cell* e) {
    for (std::int64_t lane = 0; lane < kMembers; ++lane) {
      if (step[lane] < 0) continue;
      normals(watch, draws_.numbers_of(lane, step[lane]), Stream::labels, 0, out_ * in_, drawn_);
      L::load(y_, lane, drawn_, rows(), cols(), flipped_);
    }
    const Cell* z = y_;
    if (root_ && flipped_)
      L::product(&watch, root_, ld(in_), y_, ld(out_), other_, in_, out_, in_);
    else if (root_)
      L::product(&watch, y_, ld(in_), root_, ld(in_), other_, out_, in_, in_);
    if (root_) z = other_;
    L::update_all(typename L::Plain{e, e, std_}, z, rows(), cols());
  }

  void draw(const Control& watch, std::int64_t lane, std::int64_t step, std::int64_t first) {
    draws_.draw(watch, lane, step, first, L::get(std_, lane));
    if (cancelled(watch)) return;
    L::load(z_ ? z_ : x_, lane, draws_.x(), in_, piece_, true);
    if (flipped_)
      L::load(y_, lane, draws_.y(), piece_, out_, false);
    else
      L::load(y_, lane, draws_.y(), out_, piece_, true);
  }

  void residual_of_piece(const Control& watch, const Cell* omega, Cell* e) {
    if (labels_) {
      const Cell* z = z_ ? z_ : x_;
      if (flipped_) {
        L::transpose(z, x_turned_, in_, piece_);
        L::product(&watch, x_turned_, ld(in_), labels_, ld(out_), other_, piece_, out_, in_);
        L::update_all(typename L::Plain{y_, y_, Value{} + T(1)}, other_, piece_, out_);
      } else {
        L::product(&watch, labels_, ld(in_), z, ld(piece_), other_, out_, piece_, in_);
        L::update_all(typename L::Plain{y_, y_, Value{} + T(1)}, other_, out_, piece_);
      }
    }
    if (z_) L::product(&watch, root_, ld(in_), z_, ld(piece_), x_, in_, piece_, in_);
    L::transpose(x_, x_turned_, in_, piece_);
    if (flipped_) {
      L::residual(&watch, y_, x_turned_, ld(in_), omega, ld(out_), other_, piece_, out_, in_);
      L::scale(other_, noise_.scale, piece_, out_);
      L::product(&watch, x_, ld(piece_), other_, ld(out_), e, in_, out_, piece_);
    } else {
      L::residual(&watch, y_, omega, ld(in_), x_, ld(piece_), other_, out_, piece_, in_);
      L::scale(other_, noise_.scale, out_, piece_);
      L::product(&watch, other_, ld(piece_), x_turned_, ld(in_), e, out_, in_, piece_);
    }
  }

  const ops::Noise<T>& noise_;
  const bool flipped_;
  const std::int64_t in_, out_, piece_;
  Draws<T, kMembers> draws_;
  Value std_{};
  T* drawn_ = nullptr;  // noise on the labels of all samples
  G *root_ = nullptr, *labels_ = nullptr;
  Cell *x_ = nullptr, *x_turned_ = nullptr, *z_ = nullptr, *y_ = nullptr, *other_ = nullptr, *sum_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
