// The kernels of singular values on matrices whose values are known: reflections on both sides of a diagonal.
#include "cpu/singular_values.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "cpu/graded_values.hpp"

namespace {

namespace cpu = pydln::cpu;
namespace ops = pydln::ops;

constexpr double kGuard = -777;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double number(std::int64_t i) { return static_cast<double>(i * 7919 % 1009) / 1009 - 0.5; }

// 1 - 2 v v^T / v^T v, from the left (rows) or from the right.
void reflect(double* a, std::int64_t rows, std::int64_t cols, bool left, std::int64_t seed) {
  const std::int64_t n = left ? rows : cols, others = left ? cols : rows;
  const auto entry = [&](std::int64_t i, std::int64_t k) -> double& {
    return left ? a[i * cols + k] : a[k * cols + i];
  };
  double square = 0;
  for (std::int64_t i = 0; i < n; ++i) square += number(seed + i) * number(seed + i);
  for (std::int64_t k = 0; k < others; ++k) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += number(seed + i) * entry(i, k);
    for (std::int64_t i = 0; i < n; ++i) entry(i, k) -= 2 * sum / square * number(seed + i);
  }
}

struct Problem {
  std::vector<double> matrices, values, known;
  std::vector<pydln::Status> status;
  ops::SingularValues op;

  Problem(std::int64_t batch, std::int64_t rows, std::int64_t cols) {
    const std::int64_t n = std::min(rows, cols);
    matrices.resize(at(batch * rows * cols));
    for (std::int64_t b = 0; b < batch; ++b) {
      double* a = matrices.data() + b * rows * cols;
      for (std::int64_t i = 0; i < n; ++i) {
        known.push_back(static_cast<double>(n - i) / static_cast<double>(n + b % 5));
        a[i * cols + i] = known.back() * (i % 2 ? -1 : 1);
      }
      for (std::int64_t seed = 1; seed < 4; ++seed) {
        reflect(a, rows, cols, true, 100 * seed + b);
        reflect(a, rows, cols, false, 1000 * seed + b);
      }
    }
    values.assign(at(batch * n + 1), kGuard);
    status.assign(at(batch), pydln::Status::interrupted);
    op.batch = batch;
    op.rows = rows;
    op.cols = cols;
    op.most_steps = 30;
    op.matrices = matrices.data();
    op.values = values.data();
    op.status = status.data();
  }
};

template <class Op>
void run(const Op& op, const cpu::Isa& isa, int threads) {
  pydln::Control control;
  cpu::run(op, isa, threads, [] { return SIZE_MAX; }, control, [] {});
}

void known_values(const cpu::Isa& isa, std::int64_t batch, std::int64_t rows, std::int64_t cols) {
  Problem p(batch, rows, cols);
  run(p.op, isa, 1);
  double worst = 0;
  for (std::size_t i = 0; i < p.known.size(); ++i) worst = std::max(worst, std::abs(p.values[i] - p.known[i]));
  CHECK(worst < 1e-14);
  CHECK(p.values.back() == kGuard);
  for (const pydln::Status status : p.status) CHECK(status == pydln::Status::completed);
  Problem again(batch, rows, cols);
  run(again.op, isa, 3);
  CHECK(std::memcmp(again.values.data(), p.values.data(), p.values.size() * sizeof(double)) == 0);
}

// The same, with rows 2^-200 and more apart: each value is that of the row it comes from, for the rows are orthogonal.
void graded(const cpu::Isa& isa, std::int64_t batch, std::int64_t n) {
  const Problem p(batch, n, n);
  std::vector<double> rows(at(batch * n * n)), values(at(batch * n + 1), kGuard);
  std::vector<std::int64_t> exponents(at(batch * n)), out(at(batch * n));
  std::vector<pydln::Status> status(at(batch));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t i = 0; i < n; ++i) {
      rows[at((b * n + i) * n + i)] = 1;
      exponents[at(b * n + i)] = -200 * i * (1 + b % 9);
    }
  for (std::int64_t b = 0; b < batch; ++b) reflect(rows.data() + b * n * n, n, n, false, b);
  ops::GradedValues op;
  op.batch = batch;
  op.rows = op.cols = n;
  op.most_sweeps = 40;
  op.matrices = rows.data();
  op.exponents = exponents.data();
  op.values = values.data();
  op.exponents_out = out.data();
  op.status = status.data();
  run(op, isa, 2);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto more = static_cast<int>(out[i] - exponents[i]);
    CHECK(std::abs(std::ldexp(values[i], more) - 1) < 1e-14);
  }
  CHECK(values.back() == kGuard);
  for (const pydln::Status one : status) CHECK(one == pydln::Status::completed);
}

}  // namespace

int main() {
  for (const cpu::Isa& isa : cpu::usable_isas()) {
    for (const std::int64_t n : {1, 2, 3, 4, 5, 8, 9, 17, 33}) {
      known_values(isa, 11, n, n);
      known_values(isa, 3, n, n + 3);
      known_values(isa, 9, 2 * n + 1, n);
      graded(isa, 10, n);
    }
    known_values(isa, 700, 16, 16);  // enough work for threads
  }
  return check::result();
}
