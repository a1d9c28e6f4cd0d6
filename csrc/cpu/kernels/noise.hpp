// What a step of stochastic gradient descent draws, and the residual that its backward pass starts from. Members draw one
// by one; the products are done for the whole group.
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
        size_(op.noise.size) {
    if (noise_.kind == ops::NoiseKind::none) return;
    if (noise_.root) root_ = arena.take<G>(shared_cells(in_, in_));
    if (noise_.kind == ops::NoiseKind::labels) {
      drawn_y_ = arena.take<T>(out_ * in_);
      y_ = arena.take<Cell>(L::cells(rows(), cols()));
      if (noise_.root) other_ = arena.take<Cell>(L::cells(rows(), cols()));
      return;
    }
    drawn_x_ = arena.take<T>(size_ * in_);
    drawn_y_ = arena.take<T>(size_ * out_);
    const std::int64_t y_cells = flipped_ ? L::cells(size_, out_) : L::cells(out_, size_);
    x_ = arena.take<Cell>(L::cells(in_, size_));
    x_turned_ = arena.take<Cell>(L::cells(size_, in_));
    y_ = arena.take<Cell>(y_cells);
    other_ = arena.take<Cell>(y_cells);
    if (noise_.kind == ops::NoiseKind::online) {
      labels_ = arena.take<G>(shared_cells(rows(), cols()));
      if (noise_.root) z_ = arena.take<Cell>(L::cells(in_, size_));
    } else if (!noise_.replace) {
      for (auto& order : order_) order = arena.take<std::int32_t>(noise_.samples);
    }
  }

  bool any() const { return noise_.kind != ops::NoiseKind::none; }
  bool samples_drawn() const { return noise_.samples_drawn(); }

  void clear(std::int64_t lane) {
    if (samples_drawn()) {
      L::clear_lane(x_, lane, in_, size_);
      if (z_) L::clear_lane(z_, lane, in_, size_);
      L::clear_lane(y_, lane, flipped_ ? size_ : out_, flipped_ ? out_ : size_);
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
    pass_[lane] = -1;
  }

  // The random numbers of a member at a step; fewer when the run is cancelled.
  void draw(const Control& watch, std::int64_t lane, std::int64_t member, std::int64_t step) {
    const Draw d{noise_.seed, static_cast<std::uint64_t>(*noise_.number.of(member)), static_cast<std::uint64_t>(step)};
    if (noise_.kind == ops::NoiseKind::labels) {
      normals(watch, d, Stream::labels, out_ * in_, drawn_y_);
      L::load(y_, lane, drawn_y_, rows(), cols(), flipped_);
      return;
    }
    const T std = L::get(std_, lane);
    if (std != 0) {
      normals(watch, d, Stream::labels, size_ * out_, drawn_y_);
      for (std::int64_t q = 0; q < size_ * out_; ++q) drawn_y_[q] *= std;
    } else {
      for (std::int64_t q = 0; q < size_ * out_; ++q) drawn_y_[q] = 0;
    }
    if (noise_.kind == ops::NoiseKind::online)
      normals(watch, d, Stream::inputs, size_ * in_, drawn_x_);
    else
      pick(watch, d, lane, member);
    if (cancelled(watch)) return;
    L::load(z_ ? z_ : x_, lane, drawn_x_, in_, size_, true);
    if (flipped_)
      L::load(y_, lane, drawn_y_, size_, out_, false);
    else
      L::load(y_, lane, drawn_y_, out_, size_, true);
  }

  // e becomes the residual of what was drawn; of the task's when the noise is in the labels of all samples. Left
  // unfinished when the run is cancelled.
  void residual(const Control* watch, const Cell* omega, Cell* e) {
    if (noise_.kind == ops::NoiseKind::labels) {
      const Cell* z = y_;
      if (root_ && flipped_)
        L::product(watch, root_, ld(in_), y_, ld(out_), other_, in_, out_, in_);
      else if (root_)
        L::product(watch, y_, ld(in_), root_, ld(in_), other_, out_, in_, in_);
      if (root_) z = other_;
      L::update_all(typename L::Plain{e, e, std_}, z, rows(), cols());
      return;
    }
    if (labels_) {
      const Cell* z = z_ ? z_ : x_;
      if (flipped_) {
        L::transpose(z, x_turned_, in_, size_);
        L::product(watch, x_turned_, ld(in_), labels_, ld(out_), other_, size_, out_, in_);
        L::update_all(typename L::Plain{y_, y_, Value{} + T(1)}, other_, size_, out_);
      } else {
        L::product(watch, labels_, ld(in_), z, ld(size_), other_, out_, size_, in_);
        L::update_all(typename L::Plain{y_, y_, Value{} + T(1)}, other_, out_, size_);
      }
    }
    if (z_) L::product(watch, root_, ld(in_), z_, ld(size_), x_, in_, size_, in_);
    L::transpose(x_, x_turned_, in_, size_);
    if (flipped_) {
      L::residual(watch, y_, x_turned_, ld(in_), omega, ld(out_), other_, size_, out_, in_);
      L::scale(other_, noise_.scale, size_, out_);
      L::product(watch, x_, ld(size_), other_, ld(out_), e, in_, out_, size_);
    } else {
      L::residual(watch, y_, omega, ld(in_), x_, ld(size_), other_, out_, size_, in_);
      L::scale(other_, noise_.scale, out_, size_);
      L::product(watch, other_, ld(size_), x_turned_, ld(in_), e, out_, in_, size_);
    }
  }

 private:
  std::int64_t rows() const { return flipped_ ? in_ : out_; }
  std::int64_t cols() const { return flipped_ ? out_ : in_; }
  static std::int64_t ld(std::int64_t cols) { return L::stride(cols); }
  static std::int64_t shared_cells(std::int64_t rows, std::int64_t cols) {
    return kMembers > 1 && sizeof(G) == sizeof(T) ? rows * cols : L::cells(rows, cols);
  }

  // Samples of a minibatch; their labels are added to the noise that drawn_y_ holds.
  void pick(const Control& watch, const Draw& d, std::int64_t lane, std::int64_t member) {
    const T* x = noise_.x.of(member);
    const T* y = noise_.y.of(member);
    const auto take = [=, this](std::int64_t place, std::int64_t sample) {
      for (std::int64_t i = 0; i < in_; ++i) drawn_x_[place * in_ + i] = x[sample * in_ + i];
      for (std::int64_t i = 0; i < out_; ++i) drawn_y_[place * out_ + i] += y[sample * out_ + i];
    };
    if (noise_.replace) {
      each_word(watch, d, Stream::indices, size_,
                [&](std::int64_t i, std::uint64_t word) { take(i, below(word, noise_.samples)); });
      return;
    }
    const std::int64_t steps_of_pass = noise_.samples / size_;
    const std::int64_t step = static_cast<std::int64_t>(d.step), pass = step / steps_of_pass;
    if (pass != pass_[lane]) shuffle(watch, {d.seed, d.member, static_cast<std::uint64_t>(pass)}, order_[lane]);
    pass_[lane] = pass;
    const std::int32_t* next = order_[lane] + (step - pass * steps_of_pass) * size_;
    for (std::int64_t i = 0; i < size_; ++i) take(i, next[i]);
  }
  // Fisher & Yates
  void shuffle(const Control& watch, const Draw& d, std::int32_t* order) {
    for (std::int64_t i = 0; i < noise_.samples; ++i) order[i] = static_cast<std::int32_t>(i);
    each_word(watch, d, Stream::indices, noise_.samples, [&](std::int64_t i, std::uint64_t word) {
      const std::int64_t j = below(word, i + 1);
      const std::int32_t other = order[j];
      order[j] = order[i];
      order[i] = other;
    });
  }

  const ops::Noise<T>& noise_;
  const bool flipped_;
  const std::int64_t in_, out_, size_;
  Value std_{};
  std::int64_t pass_[kMembers] = {};
  std::int32_t* order_[kMembers] = {};  // of the samples in the present pass
  T *drawn_x_ = nullptr, *drawn_y_ = nullptr;
  G *root_ = nullptr, *labels_ = nullptr;
  Cell *x_ = nullptr, *x_turned_ = nullptr, *z_ = nullptr, *y_ = nullptr, *other_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
