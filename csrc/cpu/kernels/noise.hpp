// What a step of stochastic gradient descent draws, and the residual that its backward pass starts from. Members draw one
// by one; the products are done for the whole group. Many samples are drawn and summed piece by piece: memory is that of
// one piece, and a cancelled run waits for no more than one.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/random.hpp"
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
        piece_(piece_of(op.noise.size)) {
    if (noise_.kind == ops::NoiseKind::none) return;
    if (noise_.root) root_ = arena.take<G>(L::cells(in_, in_));
    if (noise_.kind == ops::NoiseKind::labels) {
      drawn_y_ = arena.take<T>(out_ * in_);
      y_ = arena.take<Cell>(L::cells(rows(), cols()));
      if (noise_.root) other_ = arena.take<Cell>(L::cells(rows(), cols()));
      return;
    }
    drawn_x_ = arena.take<T>(piece_ * in_);
    drawn_y_ = arena.take<T>(piece_ * out_);
    const std::int64_t y_cells = flipped_ ? L::cells(piece_, out_) : L::cells(out_, piece_);
    x_ = arena.take<Cell>(L::cells(in_, piece_));
    x_turned_ = arena.take<Cell>(L::cells(piece_, in_));
    y_ = arena.take<Cell>(y_cells);
    other_ = arena.take<Cell>(y_cells);
    if (piece_ < noise_.size) sum_ = arena.take<Cell>(L::cells(rows(), cols()));
    if (noise_.kind == ops::NoiseKind::online) {
      labels_ = arena.take<G>(L::cells(rows(), cols()));
      if (noise_.root) z_ = arena.take<Cell>(L::cells(in_, piece_));
    } else if (!noise_.replace) {
      for (auto& order : order_) order = arena.take<std::int32_t>(noise_.samples);
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
    member_[lane] = member;
    pass_[lane] = -1;
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
  Draw numbers_of(std::int64_t lane, std::int64_t step) const {
    return {noise_.seed, static_cast<std::uint64_t>(*noise_.number.of(member_[lane])),
            static_cast<std::uint64_t>(step)};
  }

  void disturb_labels(const Control& watch, const std::int64_t* step, Cell* e) {
    for (std::int64_t lane = 0; lane < kMembers; ++lane) {
      if (step[lane] < 0) continue;
      normals(watch, numbers_of(lane, step[lane]), Stream::labels, 0, out_ * in_, drawn_y_);
      L::load(y_, lane, drawn_y_, rows(), cols(), flipped_);
    }
    const Cell* z = y_;
    if (root_ && flipped_)
      L::product(&watch, root_, ld(in_), y_, ld(out_), other_, in_, out_, in_);
    else if (root_)
      L::product(&watch, y_, ld(in_), root_, ld(in_), other_, out_, in_, in_);
    if (root_) z = other_;
    L::update_all(typename L::Plain{e, e, std_}, z, rows(), cols());
  }

  // Samples first, first + 1, ... of a member's step; zeros where the last piece has none.
  void draw(const Control& watch, std::int64_t lane, std::int64_t step, std::int64_t first) {
    const std::int64_t count = first + piece_ < noise_.size ? piece_ : noise_.size - first;
    const Draw d = numbers_of(lane, step);
    const T std = L::get(std_, lane);
    for (std::int64_t q = std != 0 ? count * out_ : 0; q < piece_ * out_; ++q) drawn_y_[q] = 0;
    for (std::int64_t q = count * in_; q < piece_ * in_; ++q) drawn_x_[q] = 0;
    if (std != 0) {
      normals(watch, d, Stream::labels, first * out_, count * out_, drawn_y_);
      for (std::int64_t q = 0; q < count * out_; ++q) drawn_y_[q] *= std;
    }
    if (noise_.kind == ops::NoiseKind::online)
      normals(watch, d, Stream::inputs, first * in_, count * in_, drawn_x_);
    else
      pick(watch, d, lane, first, count);
    if (cancelled(watch)) return;
    L::load(z_ ? z_ : x_, lane, drawn_x_, in_, piece_, true);
    if (flipped_)
      L::load(y_, lane, drawn_y_, piece_, out_, false);
    else
      L::load(y_, lane, drawn_y_, out_, piece_, true);
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

  // Samples of a minibatch; their labels are added to the noise that drawn_y_ holds.
  void pick(const Control& watch, const Draw& d, std::int64_t lane, std::int64_t first, std::int64_t count) {
    const T* x = noise_.x.of(member_[lane]);
    const T* y = noise_.y.of(member_[lane]);
    const auto take = [=, this](std::int64_t place, std::int64_t sample) {
      for (std::int64_t i = 0; i < in_; ++i) drawn_x_[place * in_ + i] = x[sample * in_ + i];
      for (std::int64_t i = 0; i < out_; ++i) drawn_y_[place * out_ + i] += y[sample * out_ + i];
    };
    if (noise_.replace) {
      each_word(watch, d, Stream::indices, first, count,
                [&](std::int64_t i, std::uint64_t word) { take(i, below(word, noise_.samples)); });
      return;
    }
    const std::int64_t size = noise_.size, steps_of_pass = noise_.samples / size;
    const std::int64_t step = static_cast<std::int64_t>(d.step), pass = step / steps_of_pass;
    if (pass != pass_[lane]) shuffle(watch, {d.seed, d.member, static_cast<std::uint64_t>(pass)}, order_[lane]);
    pass_[lane] = pass;
    const std::int32_t* next = order_[lane] + (step - pass * steps_of_pass) * size + first;
    for (std::int64_t i = 0; i < count; ++i) take(i, next[i]);
  }
  // Fisher & Yates
  void shuffle(const Control& watch, const Draw& d, std::int32_t* order) {
    for (std::int64_t i = 0; i < noise_.samples; ++i) order[i] = static_cast<std::int32_t>(i);
    each_word(watch, d, Stream::indices, 0, noise_.samples, [&](std::int64_t i, std::uint64_t word) {
      const std::int64_t j = below(word, i + 1);
      const std::int32_t other = order[j];
      order[j] = order[i];
      order[i] = other;
    });
  }

  const ops::Noise<T>& noise_;
  const bool flipped_;
  const std::int64_t in_, out_, piece_;
  Value std_{};
  std::int64_t member_[kMembers] = {};
  std::int64_t pass_[kMembers] = {};
  std::int32_t* order_[kMembers] = {};  // of the samples in the present pass
  T *drawn_x_ = nullptr, *drawn_y_ = nullptr;
  G *root_ = nullptr, *labels_ = nullptr;
  Cell *x_ = nullptr, *x_turned_ = nullptr, *z_ = nullptr, *y_ = nullptr, *other_ = nullptr, *sum_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
