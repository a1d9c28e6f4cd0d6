// ops::SingularValues for one instruction set; CMake compiles this source as it does body.cpp. One matrix a lane.
#include "ops/singular_values.hpp"

#include "cpu/kernels/bidiagonal.hpp"
#include "cpu/kernels/body.hpp"
#include "cpu/kernels/quotient_difference.hpp"

namespace pydln::PYDLN_ISA {
namespace {

constexpr int64_t kLanes = lanes_of<double>;

class Work {
 public:
  Work(const ops::SingularValues& op, Arena& arena)
      : op_(op),
        rows_(op.rows > op.cols ? op.rows : op.cols),
        cols_(op.rows > op.cols ? op.cols : op.rows),
        matrix_{arena.take<Doubles>(rows_ * LaneMatrix::stride(cols_)), rows_, cols_, LaneMatrix::stride(cols_)},
        bidiagonal_(cols_, arena),
        qd_(cols_, arena) {}

  void group(int64_t first) {
    matrix_.load(op_.matrices, first, op_.batch, op_.rows, op_.cols);
    bidiagonal_.reduce(matrix_);
    const unsigned unfinished = qd_.solve(bidiagonal_.d, bidiagonal_.e, op_.most_steps);
    for (int64_t j = 0; j < cols_; ++j) qd_.found[j] = square_root(qd_.found[j]);
    for (int64_t lane = 0; lane < kLanes && first + lane < op_.batch; ++lane) {
      const bool done = !(unfinished >> static_cast<unsigned>(lane) & 1U);
      op_.status[first + lane] = done ? Status::completed : Status::step_limit;
      if (done) write(lane, op_.values + (first + lane) * cols_);
    }
  }

 private:
  void write(int64_t lane, double* out) const {
    const bool broken = matrix_.broken[lane] != 0;
    const int64_t e = matrix_.exponent[lane];
    const double half = LaneMatrix::power_of_two(e / 2), rest = LaneMatrix::power_of_two(e - e / 2);
    for (int64_t j = 0; j < cols_; ++j) {
      const double x = broken ? __builtin_nan("") : qd_.found[j][lane] * half * rest;
      int64_t k = j;
      for (; k > 0 && out[k - 1] < x; --k) out[k] = out[k - 1];
      out[k] = x;
    }
  }

  const ops::SingularValues& op_;
  const int64_t rows_, cols_;
  LaneMatrix matrix_;
  Bidiagonal bidiagonal_;
  QuotientDifference qd_;
};

std::size_t measure(const ops::SingularValues& op) {
  Arena arena{nullptr};
  Work(op, arena);
  return arena.used;
}

void work(const ops::SingularValues& op, Control& control, char* workspace) {
  Arena arena{workspace};
  Work work(op, arena);
  for (int64_t i = take_members(control, kLanes); i < op.batch && !cancelled(control);
       i = take_members(control, kLanes))
    work.group(i);
}

}  // namespace

SingularValuesBody singular_values() { return {measure, work, kLanes}; }

}  // namespace pydln::PYDLN_ISA
