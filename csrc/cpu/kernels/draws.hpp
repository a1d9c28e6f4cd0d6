// The samples that a step of a member draws, one in a row: minibatches, fresh inputs, noise on the labels. Members draw one by
// one, piece by piece.
#pragma once

#include "cpu/kernels/random.hpp"
#include "ops/noise.hpp"

namespace pydln::PYDLN_ISA {

template <class T, std::int64_t Members>
class Draws {
 public:
  Draws(const ops::Noise<T>& noise, std::int64_t in, std::int64_t out, std::int64_t piece, Arena& arena)
      : noise_(noise), in_(in), out_(out), piece_(piece) {
    if (!noise.samples_drawn()) return;
    x_ = arena.take<T>(piece * in);
    y_ = arena.take<T>(piece * out);
    if (noise.kind == ops::NoiseKind::minibatch && !noise.replace)
      for (auto& order : order_) order = arena.take<std::int32_t>(noise.samples);
  }

  void begin(std::int64_t lane, std::int64_t member) {
    member_[lane] = member;
    pass_[lane] = -1;
  }
  Draw numbers_of(std::int64_t lane, std::int64_t step) const {
    return {noise_.seed, static_cast<std::uint64_t>(*noise_.number.of(member_[lane])),
            static_cast<std::uint64_t>(step)};
  }

  // Samples first, first + 1, ... of a member's step, labels with normal noise of this size (without inputs of their own: the
  // noise alone); zeros where the last piece has none.
  void draw(const Control& watch, std::int64_t lane, std::int64_t step, std::int64_t first, T std) {
    const std::int64_t count = first + piece_ < noise_.size ? piece_ : noise_.size - first;
    const Draw d = numbers_of(lane, step);
    for (std::int64_t q = std != 0 ? count * out_ : 0; q < piece_ * out_; ++q) y_[q] = 0;
    for (std::int64_t q = count * in_; q < piece_ * in_; ++q) x_[q] = 0;
    if (std != 0) {
      normals(watch, d, Stream::labels, first * out_, count * out_, y_);
      for (std::int64_t q = 0; q < count * out_; ++q) y_[q] *= std;
    }
    if (noise_.kind == ops::NoiseKind::online)
      normals(watch, d, Stream::inputs, first * in_, count * in_, x_);
    else
      pick(watch, d, lane, first, count);
  }
  const T* x() const { return x_; }  // (piece, n_0)
  const T* y() const { return y_; }  // (piece, n_D)

 private:
  // Samples of a minibatch; their labels are added to the noise that y_ holds.
  void pick(const Control& watch, const Draw& d, std::int64_t lane, std::int64_t first, std::int64_t count) {
    const T* x = noise_.x.of(member_[lane]);
    const T* y = noise_.y.of(member_[lane]);
    const auto take = [=, this](std::int64_t place, std::int64_t sample) {
      for (std::int64_t i = 0; i < in_; ++i) x_[place * in_ + i] = x[sample * in_ + i];
      for (std::int64_t i = 0; i < out_; ++i) y_[place * out_ + i] += y[sample * out_ + i];
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
  const std::int64_t in_, out_, piece_;
  std::int64_t member_[Members] = {};
  std::int64_t pass_[Members] = {};
  std::int32_t* order_[Members] = {};  // of the samples in the present pass
  T *x_ = nullptr, *y_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
