// ops::GradedValues for one instruction set; CMake compiles this source as it does body.cpp. One matrix a lane.
#include "ops/graded_values.hpp"

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/lane_matrix.hpp"

namespace pydln::PYDLN_ISA {
namespace {

using V = Doubles;
using I = SignedBits;
constexpr int64_t kLanes = lanes_of<double>;

// 2^k of whole numbers k, cut off where the smaller of two rows no longer counts beside the larger.
PYDLN_INLINE V power_of_two(I k) {
  k = k > 1000 ? integers(1000) : k;
  k = k < -1000 ? integers(-1000) : k;
  return (V)((k + 1023) << 52);
}

class Work {
 public:
  Work(const ops::GradedValues& op, Arena& arena)
      : op_(op),
        n_(op.rows),
        ld_(LaneMatrix::stride(op.cols)),
        cells_(arena.take<V>(n_ * ld_)),
        squares_(arena.take<V>(n_)),
        exponents_(arena.take<I>(n_)) {}

  void group(int64_t first, const Control& control) {
    load(first);
    // Rounding alone makes cosines of about eps sqrt(cols); no rotation may follow them.
    const double tolerance = 0x1p-53 * static_cast<double>(op_.cols > 4 ? op_.cols : 4);
    I active = integers(-1);
    for (int64_t left = op_.most_sweeps; left > 0 && truth(active) && !cancelled(control); --left) {
      normalize();
      I rotated{};
      for (int64_t i = 0; i + 1 < n_; ++i)
        for (int64_t j = i + 1; j < n_; ++j) rotated |= orthogonalize(i, j, active, tolerance);
      active = active & rotated;
    }
    normalize();
    for (int64_t lane = 0; lane < kLanes && first + lane < op_.batch; ++lane) {
      op_.status[first + lane] = active[lane] ? Status::step_limit : Status::completed;
      for (int64_t i = 0; i < n_; ++i) {
        op_.values[(first + lane) * n_ + i] = __builtin_sqrt(squares_[i][lane]);
        op_.exponents_out[(first + lane) * n_ + i] = exponents_[i][lane];
      }
    }
  }

 private:
  void load(int64_t first) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t member = first + lane < op_.batch ? first + lane : first;
      const double* from = op_.matrices + member * n_ * op_.cols;
      for (int64_t i = 0; i < n_; ++i) {
        exponents_[i][lane] = op_.exponents[member * n_ + i];
        for (int64_t j = 0; j < op_.cols; ++j) cells_[i * ld_ + j][lane] = from[i * op_.cols + j];
      }
    }
  }

  PYDLN_INLINE V product(const V* x, const V* y) const {
    V sums[4] = {};
    int64_t k = 0;
    for (; k + 4 <= op_.cols; k += 4)
#pragma GCC unroll 4
      for (int64_t q = 0; q < 4; ++q) sums[q] = fma(x[k + q], y[k + q], sums[q]);
    for (; k < op_.cols; ++k) sums[0] = fma(x[k], y[k], sums[0]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // Lengths of rows from 1/2 to 2, the rest in the exponents; squares of the lengths anew.
  void normalize() {
    for (int64_t i = 0; i < n_; ++i) {
      V* x = cells_ + i * ld_;
      const V square = product(x, x);
      V scale{};
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const double s = square[lane];
        const int64_t e = s > 0 && s - s == 0 ? LaneMatrix::exponent_of(s) / 2 : 0;
        exponents_[i][lane] += e;
        scale[lane] = LaneMatrix::power_of_two(-e);
      }
      for (int64_t k = 0; k < op_.cols; ++k) x[k] *= scale;
      squares_[i] = square * scale * scale;
    }
  }

  // Rotates rows X = 2^e x, Y = 2^f y in their plane until they are orthogonal. With X the longer one, r = 2^(f - e),
  //   t = tan = 2 X.Y / (d + sqrt(d^2 + 4 (X.Y)^2)),  d = |X|^2 - |Y|^2
  // is r q with q = 2 x.y / (d' + sqrt(d'^2 + 4 r^2 (x.y)^2)), d' = |x|^2 - r^2 |y|^2, and
  //   x <- (x + r^2 q y) cos,  y <- (y - q x) cos,
  // in which nothing depends on how small r is. Returns the lanes that had to be rotated.
  PYDLN_INLINE I orthogonalize(int64_t i, int64_t j, I active, double tolerance) {
    V *x = cells_ + i * ld_, *y = cells_ + j * ld_;
    const V a = squares_[i], b = squares_[j], dot = product(x, y);
    const V size = dot < 0.0 ? -dot : dot;
    const I rotate = active & (size > tolerance * square_root(a * b));
    if (!truth(rotate)) return rotate;
    const I apart = exponents_[j] - exponents_[i];
    const V forward = power_of_two(apart * 2), backward = power_of_two(apart * -2);
    const I swapped = apart > 0 ? (I)(a < forward * b) : (I)(a * backward < b);  // Y is the longer one
    const V r2 = swapped ? backward : forward;
    const V d = (swapped ? b : a) - r2 * (swapped ? a : b);
    const V q = 2.0 * dot / (d + square_root(fma(d, d, 4.0 * r2 * dot * dot)));
    const V angle = rotate ? q : V{}, tangent2 = r2 * angle * angle;
    const V cosine = 1.0 / square_root(1.0 + tangent2);
    const V into_long = cosine * r2 * angle, into_short = -(cosine * angle);
    const V to_x = swapped ? into_short : into_long, to_y = swapped ? into_long : into_short;
    for (int64_t k = 0; k < op_.cols; ++k) {
      const V u = x[k], v = y[k];
      x[k] = fma(to_x, v, cosine * u);
      y[k] = fma(to_y, u, cosine * v);
    }
    // |X|^2 + X.Y t and |Y|^2 - X.Y t.
    const V gained = angle * dot;
    const V longer = fma(r2, gained, swapped ? b : a), shorter = (swapped ? a : b) - gained;
    // What cancels has lost digits: of these the length is taken anew.
    const I lost = shorter < 0.25 * (swapped ? a : b);
    squares_[i] = swapped ? shorter : longer;
    squares_[j] = swapped ? longer : shorter;
    if (truth(lost)) {
      squares_[i] = lost ? product(x, x) : squares_[i];
      squares_[j] = lost ? product(y, y) : squares_[j];
    }
    return rotate;
  }

  const ops::GradedValues& op_;
  const int64_t n_, ld_;
  V *const cells_, *const squares_;
  I* const exponents_;
};

std::size_t measure(const ops::GradedValues& op) {
  Arena arena{nullptr};
  Work(op, arena);
  return arena.used;
}

void work(const ops::GradedValues& op, Control& control, char* workspace) {
  Arena arena{workspace};
  Work work(op, arena);
  for (int64_t i = take_members(control, kLanes); i < op.batch && !cancelled(control);
       i = take_members(control, kLanes))
    work.group(i, control);
}

}  // namespace

GradedValuesBody graded_values() { return {measure, work, kLanes}; }

}  // namespace pydln::PYDLN_ISA
