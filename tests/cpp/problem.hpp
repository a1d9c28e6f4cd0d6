// A descent with storage of its own, to be filled, run and looked at; and the same in naive loops over doubles.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "cpu/descent.hpp"

namespace problem {

using pydln::PerMember;
using pydln::Status;

inline std::size_t ample_memory() { return SIZE_MAX / 2; }  // no bound that matters here

// A small generator with the same numbers everywhere.
struct Random {
  std::uint64_t state;
  explicit Random(std::uint64_t seed) : state(seed * 2862933555777941757ULL + 3037000493ULL) {}
  std::uint64_t bits() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return state >> 33U;
  }
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }
  double real(double low, double high) { return low + (high - low) * static_cast<double>(bits()) / 2147483648.0; }
};

// ---- the operation and everything it points to ------------------------------------------------------------------------
struct Options {
  bool whitened = true;
  bool task_per_member = false;
  bool general = false;  // momentum, decay
  bool records = true;
  bool test_task = false;
};

// The sixteen ways to set all but `records`.
inline Options options(unsigned bits) {
  const auto set = [bits](unsigned place) { return bits / place % 2 == 1; };
  return {.whitened = set(1), .task_per_member = set(2), .general = set(4), .records = true, .test_task = set(8)};
}

template <class T>
class Problem {
 public:
  // Numbers come from `number()`; 32 guard values after every output must survive.
  template <class Number>
  Problem(std::vector<std::int64_t> widths, std::int64_t batch, std::int64_t steps, std::vector<std::int64_t> at,
          Options options, Number number)
      : widths_(std::move(widths)), at_(std::move(at)) {
    const auto D = static_cast<std::int64_t>(widths_.size()) - 1;
    const std::int64_t in = widths_.front(), out = widths_.back(), r = in < out ? in : out;
    const std::int64_t tasks = options.task_per_member ? batch : 1;
    const auto fill = [&](std::int64_t count) {
      std::vector<T> v(static_cast<std::size_t>(count));
      for (T& x : v) x = static_cast<T>(number());
      return v;
    };
    const auto own = [&](std::vector<T>& v, std::int64_t size, std::int64_t members) {
      v = fill(size * members);
      return PerMember<const T>{v.data(), members > 1 ? size : 0};
    };
    op.chain = {D, widths_.data()};
    op.batch = batch;
    for (std::int64_t l = 0; l < D; ++l) start.push_back(fill(batch * widths_[l + 1] * widths_[l]));
    for (const auto& w : start) {
      weights.push_back(w);
      weights.back().insert(weights.back().end(), kGuards, guard());
    }
    for (auto& w : weights) weight_pointers_.push_back(w.data());
    op.weights = weight_pointers_.data();

    const auto residual = [&](std::vector<T>* storage, std::int64_t columns) {
      pydln::ops::Residual<T> r;
      if (!options.whitened) r.map = own(storage[0], in * columns, tasks);
      r.target = own(storage[1], out * columns, tasks);
      r.columns = columns;
      return r;
    };
    op.train = residual(train_, in);
    op.floor = own(floors_[0], 1, batch);
    if (!options.whitened) {
      for (std::int64_t i = 0; i < tasks; ++i)  // symmetric, the diagonal large enough not to repel
        for (std::int64_t a = 0; a < in; ++a) {
          T* row = train_[0].data() + i * in * in + a * in;
          for (std::int64_t b = 0; b < a; ++b) row[b] = train_[0][i * in * in + b * in + a];
          row[a] += T(2);
        }
      op.squares = residual(squares_, in > 2 ? in - 2 : in);
    }
    if (options.test_task) {
      op.test = residual(test_, !options.whitened && in > 1 ? in - 1 : in);
      op.test_floor = own(floors_[1], 1, batch);
    }
    op.task_per_member = tasks > 1;
    op.modes = r;
    op.mode_u = own(mode_u_, out * r, tasks);
    op.mode_v = own(mode_v_, in * r, tasks);
    op.lr = own(lr, 1, batch);
    if (options.general) {
      op.momentum = own(momentum, 1, batch);
      op.decay = own(decay, 1, batch);
    }
    op.steps = steps;
    op.records = static_cast<std::int64_t>(at_.size());
    op.record_at = at_.data();
    if (options.records) {
      const std::int64_t rows = batch * op.records;
      op.loss = output(loss, rows);
      op.strengths = output(strengths, rows * r);
      op.product = output(product, rows * out * in);
      op.layer_norms = output(layer_norms, rows * D);
      op.drift = output(drift, rows * (D - 1));
      if (options.test_task) op.test_loss = output(test_loss, rows);
      for (std::int64_t l = 0; l < D; ++l) output(weight_records.emplace_back(), rows * widths_[l + 1] * widths_[l]);
      for (auto& w : weight_records) record_pointers_.push_back(w.data());
      op.weight_records = record_pointers_.data();
    }
    status.assign(static_cast<std::size_t>(batch), Status::interrupted);
    stopped_at.assign(static_cast<std::size_t>(batch), -7);
    op.status = status.data();
    op.stopped_at = stopped_at.data();
  }
  Problem(const Problem&) = delete;
  Problem(Problem&&) = delete;
  Problem& operator=(const Problem&) = delete;
  Problem& operator=(Problem&&) = delete;
  ~Problem() = default;

  // Puts every output back to what the constructor left there.
  void rewind() {
    for (std::size_t l = 0; l < start.size(); ++l) std::copy(start[l].begin(), start[l].end(), weights[l].begin());
    for (auto* v : {&loss, &test_loss, &strengths, &product, &layer_norms, &drift}) clear(*v);
    for (auto& v : weight_records) clear(v);
    status.assign(status.size(), Status::interrupted);
    stopped_at.assign(stopped_at.size(), -7);
  }
  bool guards_stand() const {
    bool stand = true;
    const auto look = [&](const std::vector<T>& v) {
      for (std::size_t i = v.size() < kGuards ? 0 : v.size() - kGuards; i < v.size(); ++i) stand &= v[i] == guard();
    };
    for (const auto* v : {&loss, &test_loss, &strengths, &product, &layer_norms, &drift}) look(*v);
    for (const auto& v : weights) look(v);
    for (const auto& v : weight_records) look(v);
    return stand;
  }

  pydln::ops::Descent<T> op{};
  std::vector<std::vector<T>> start, weights, weight_records;
  std::vector<T> lr, momentum, decay, loss, test_loss, strengths, product, layer_norms, drift;
  std::vector<Status> status;
  std::vector<std::int64_t> stopped_at;

 private:
  static constexpr std::size_t kGuards = 32;
  static T guard() { return T(-12345); }
  static void clear(std::vector<T>& v) {
    for (std::size_t i = 0; i + kGuards < v.size(); ++i) v[i] = std::numeric_limits<T>::quiet_NaN();
  }
  T* output(std::vector<T>& v, std::int64_t count) {
    v.assign(static_cast<std::size_t>(count) + kGuards, guard());
    clear(v);
    return v.data();
  }

  std::vector<std::int64_t> widths_, at_;
  std::vector<T*> weight_pointers_, record_pointers_;
  std::vector<T> train_[2], squares_[2], test_[2], floors_[2], mode_u_, mode_v_;
};

// ---- the same, naively -------------------------------------------------------------------------------------------------
struct Matrix {
  std::int64_t rows, cols;
  std::vector<double> x;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), x(static_cast<std::size_t>(r * c)) {}
  template <class T>
  Matrix(std::int64_t r, std::int64_t c, const T* from) : Matrix(r, c) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(from[i]);
  }
  double& at(std::int64_t i, std::int64_t j) { return x[static_cast<std::size_t>(i * cols + j)]; }
  double at(std::int64_t i, std::int64_t j) const { return x[static_cast<std::size_t>(i * cols + j)]; }
};

inline Matrix times(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t j = 0; j < b.cols; ++j)
      for (std::int64_t k = 0; k < a.cols; ++k) c.at(i, j) += a.at(i, k) * b.at(k, j);
  return c;
}
inline Matrix turned(const Matrix& a) {
  Matrix c(a.cols, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t j = 0; j < a.cols; ++j) c.at(j, i) = a.at(i, j);
  return c;
}
inline Matrix minus(const Matrix& a, const Matrix& b) {
  Matrix c = a;
  for (std::size_t i = 0; i < c.x.size(); ++i) c.x[i] -= b.x[i];
  return c;
}
inline double dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.x.size(); ++i) sum += a.x[i] * b.x[i];
  return sum;
}

// One member in plain loops, every product written out as the gradient's formula has it.
template <class T>
class Naive {
 public:
  Naive(const Problem<T>& p, std::int64_t member) : op_(p.op), member_(member), D_(p.op.chain.depth) {
    for (std::int64_t l = 0; l < D_; ++l) {
      const std::int64_t rows = width(l + 1), cols = width(l);
      layers.emplace_back(rows, cols, p.start[static_cast<std::size_t>(l)].data() + member * rows * cols);
      velocity_.emplace_back(rows, cols);
    }
    for (std::int64_t l = 0; l + 1 < D_; ++l) start_.push_back(conserved(l));
  }

  Matrix product() const {
    Matrix omega = layers[0];
    for (std::int64_t l = 1; l < D_; ++l) omega = times(layers[static_cast<std::size_t>(l)], omega);
    return omega;
  }
  Matrix residual(const pydln::ops::Residual<T>& of) const {
    const Matrix omega = product();
    const Matrix target(omega.rows, of.columns, of.target.of(member_));
    return minus(target, of.map ? times(omega, Matrix(omega.cols, of.columns, of.map.of(member_))) : omega);
  }
  double loss() const { return loss(op_.squares ? op_.squares : op_.train, op_.floor); }
  double test_loss() const { return loss(op_.test, op_.test_floor); }
  double strength(std::int64_t mode) const {
    const Matrix omega = product();
    const Matrix u(omega.rows, op_.modes, op_.mode_u.of(member_)), v(omega.cols, op_.modes, op_.mode_v.of(member_));
    double sum = 0;
    for (std::int64_t i = 0; i < omega.rows; ++i)
      for (std::int64_t j = 0; j < omega.cols; ++j) sum += u.at(i, mode) * omega.at(i, j) * v.at(j, mode);
    return sum;
  }
  double layer_norm(std::int64_t l) const {
    const Matrix& w = layers[static_cast<std::size_t>(l)];
    return std::sqrt(dot(w, w));
  }
  double drift(std::int64_t l) const {
    const Matrix d = minus(conserved(l), start_[static_cast<std::size_t>(l)]);
    return std::sqrt(dot(d, d));
  }
  void step() {
    std::vector<Matrix> slopes;
    for (std::int64_t l = 0; l < D_; ++l) {
      Matrix g = residual(op_.train);
      for (std::int64_t j = D_ - 1; j > l; --j) g = times(turned(layers[static_cast<std::size_t>(j)]), g);
      for (std::int64_t j = 0; j < l; ++j) g = times(g, turned(layers[static_cast<std::size_t>(j)]));
      slopes.push_back(g);
    }
    const double rate = static_cast<double>(*op_.lr.of(member_));
    const double mu = op_.momentum ? static_cast<double>(*op_.momentum.of(member_)) : 0;
    const double wd = op_.decay ? static_cast<double>(*op_.decay.of(member_)) : 0;
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (std::size_t i = 0; i < layers[l].x.size(); ++i) {
        velocity_[l].x[i] = mu * velocity_[l].x[i] + slopes[l].x[i] - wd * layers[l].x[i];
        layers[l].x[i] += rate * velocity_[l].x[i];
      }
  }

  std::vector<Matrix> layers;

 private:
  double loss(const pydln::ops::Residual<T>& of, const PerMember<const T>& floor) const {
    const Matrix f = residual(of);
    return static_cast<double>(*floor.of(member_)) + 0.5 * dot(f, f);
  }
  std::int64_t width(std::int64_t l) const { return op_.chain.widths[l]; }
  Matrix conserved(std::int64_t l) const {
    const Matrix &below = layers[static_cast<std::size_t>(l)], &above = layers[static_cast<std::size_t>(l + 1)];
    return minus(times(turned(above), above), times(below, turned(below)));
  }

  const pydln::ops::Descent<T>& op_;
  std::int64_t member_, D_;
  std::vector<Matrix> velocity_, start_;
};

// Every instruction set of this computer in both layouts.
template <class F>
void each_kernel(F f) {
  for (const pydln::cpu::Isa& isa : pydln::cpu::usable_isas())
    for (const pydln::Layout layout : {pydln::Layout::interleaved, pydln::Layout::rows}) f(isa, layout);
}

template <class T>
void run(const Problem<T>& p, const pydln::cpu::Isa& isa, pydln::Layout layout, int threads = 1) {
  pydln::Control control;
  pydln::cpu::run<T>(p.op, isa, layout, threads, ample_memory, control, [] {});
}

}  // namespace problem
