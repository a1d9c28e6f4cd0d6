// ops::Riccati for one instruction set; CMake compiles this source as it does body.cpp. One time a lane.
//
// Q = e^{Ft} Q_0 N with N N^T = M^-1, M = I + Q_0^T g Q_0, g = (e^{2wt} - 1) / 2w, asks for the columns of [Y; I], Y = sqrt(g) Q_0,
// up to what combines them. A basis B of theirs that is the identity in n pivot rows has entries near 1 or below while these are
// the rows that lead; what it takes to combine the columns of Q_0 so does not depend on t, only the scales of rows do. With
// B^TB = T T^T the columns of L = e^{wt} / sqrt(g) B T^-T on the rows of Y are those of Q up to a rotation, L L^T = Q Q^T, and
//
//   Q = L Z,   Z' = omega Z,   omega_ij = -(L^TL)_ij / 2 = -(S^TS)_ij for i > j, omega antisymmetric:
//
// N' = -1/2 M^-1 M' N, and N^-1 times the derivative of a combination K diag(scales) T^-T is triangular, so that the part of omega
// below the diagonal is that of -L^TL/2. omega is known at any time, bounded, and at rest wherever nothing is being learned, however
// fast the rest of the system could move. Steps follow its Legendre coefficients; on each the rotation is a polynomial (collocation
// at 16 Gauss nodes), which all the times on the step read. The steps are those of the member: no time changes another.
#include "ops/riccati.hpp"

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/rough.hpp"

namespace pydln::PYDLN_ISA {
namespace {

using V = Doubles;
using ops::kNodes;
constexpr int64_t kLanes = lanes_of<double>;
constexpr int64_t kVectors = kNodes / kLanes;  // that hold the nodes of a step

// h times the last coefficients of omega: some thirty times what the rotation lacks.
constexpr double kTail = 3e-14;
// Entries of a basis, beyond which its pivots are chosen anew; and that let it be looked at.
constexpr double kLargest = 30, kLarge = 3;
constexpr int64_t kMostSweeps = 40;
constexpr double kSettled = 1e-15;
constexpr double kLongest = 4, kShortest = 0.1;  // ratios of steps
constexpr double kLast = 0x1.fffffffffffffp1023;

typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));
PYDLN_INLINE V load(const double* p) { return *reinterpret_cast<const Loose*>(p); }

PYDLN_INLINE V minimum(V a, V b) { return a < b ? a : b; }
PYDLN_INLINE double largest_lane(V x) {
  double most = 0;
  for (int64_t i = 0; i < kLanes; ++i) most = x[i] <= most ? most : x[i];  // NaN is the largest
  return most;
}

// (1 - e^-x) / x t for x = rate t >= 0.
PYDLN_INLINE V integral_of_decay(double rate, V t) {
  const auto g = elementary::grown<double>(elementary::at_least<double>(-rate * t, -700.0), V{});
  const V power = elementary::power_of_two<double>(elementary::word_of<double>(g.whole) -
                                                   elementary::word_of<double>(splat(elementary::kWhole)));
  const V gone = fma(g.rest, power, power - 1.0);
  return rate * t > 1e-290 ? -gone / rate : t;
}

class Work {
 public:
  Work(const ops::Riccati& op, Arena& arena)
      : op_(op),
        n_(op.cols),
        rows_(op.rows),
        all_(op.rows + op.cols),
        pairs_(n_ * (n_ - 1) / 2),
        small_(op.modes + (op.outside_in > op.outside_out ? op.outside_in : op.outside_out)),
        ratios_(arena.take<double>(all_ * n_)),
        left_(arena.take<double>(all_ * n_)),
        other_(arena.take<double>(all_ * n_)),
        Z_(arena.take<double>(n_ * n_)),
        turned_(arena.take<double>(n_ * n_)),
        scale_(arena.take<double>(all_)),
        pivot_(arena.take<int64_t>(n_)),
        candidate_(arena.take<int64_t>(n_)),
        column_of_(arena.take<int64_t>(all_)),
        closed_(arena.take<int64_t>(all_)),
        ended_(arena.take<int64_t>(n_)),
        root_(arena.take<V>(all_)),
        inverse_(arena.take<V>(n_)),
        basis_(arena.take<V>(all_ * n_)),
        triangle_(arena.take<V>(n_ * n_)),
        diagonal_(arena.take<V>(n_)),
        before_(arena.take<V>(all_ * n_)),
        parts_(arena.take<V>((small_ > n_ ? small_ : n_) * n_)),
        omega_(arena.take<V>(kVectors * pairs_)),
        turn_(arena.take<V>(kVectors * n_ * n_)),
        slope_(arena.take<V>(kVectors * n_ * n_)),
        course_(arena.take<double>(kNodes * n_ * n_)) {}

  void member(int64_t index, const Control& control) {
    member_ = index;
    start_ = op_.start + index * rows_ * n_;
    w_ = op_.w + index * rows_;
    rate_ = op_.rate + index * (rows_ + 1);
    const double* t = op_.t + index * op_.times;
    int64_t next = 0;
    for (; next < op_.times && !(t[next] > 0); ++next) put_start(next);
    op_.status[index] = Status::completed;
    if (next == op_.times) return;

    for (int64_t i = 0; i < n_ * n_; ++i) Z_[i] = i % (n_ + 1) == 0 ? 1.0 : 0.0;
    choose_pivots(0);
    double now = 0, step = first_step();
    for (int64_t steps = 0; next < op_.times; ++steps) {
      if (cancelled(control)) return;
      if (steps == op_.most_steps || !(step > 0)) return give_up(next);
      const double end = now + step < kLast ? now + step : kLast;
      const double tail = look(now, end);
      if (tail < 0) {  // the pivots do not last
        step *= tail_step_;
        continue;
      }
      const double wanted = tail > 0 ? 0.9 * root16(kTail / tail) : kLongest;
      if (tail > kTail || !turn(end - now)) {
        step *= tail > kTail ? (wanted < kShortest ? kShortest : wanted) : 0.5;
        continue;
      }
      const int64_t first = next;
      while (next < op_.times && t[next] <= end) ++next;
      if (next > first) write(first, next, now, end);
      advance();
      now = end;
      step *= (wanted > kLongest ? kLongest : wanted);
      if (largest_ > kLarge) choose_pivots(now);
    }
  }

 private:
  // The 16th root of a ratio of step errors: 2^(log2 / 16).
  static double root16(double x) {
    x = x < 1e-200 ? 1e-200 : x > 1e200 ? 1e200 : x;
    return rough_exp2(rough_log2(splat(x)) * (1.0 / 16))[0];
  }

  double* out(int64_t k) const {
    return op_.out + (member_ * op_.times + op_.place[member_ * op_.times + k]) * rows_ * n_;
  }
  void put_start(int64_t k) const {
    double* to = out(k);
    for (int64_t i = 0; i < rows_ * n_; ++i) to[i] = start_[i];
  }
  void give_up(int64_t next) const {
    op_.status[member_] = Status::step_limit;
    for (; next < op_.times; ++next)
      for (int64_t i = 0; i < rows_ * n_; ++i) out(next)[i] = __builtin_nan("");
  }

  // The fastest that anything can move.
  double first_step() const {
    double most = 0;
    for (int64_t i = 0; i < rows_; ++i) {
      double square = 0;
      for (int64_t j = 0; j < n_; ++j) square += start_[i * n_ + j] * start_[i * n_ + j];
      const double rate = __builtin_fabs(w_[i]) + square;
      most = rate > most ? rate : most;
    }
    return most > 1e-300 ? 1 / most : 1e300;
  }

  double rate_of(int64_t row) const { return rate_[row < rows_ ? row : rows_]; }

  // Pivot rows at time t by elimination with complete pivoting (Gauss-Jordan by columns) on rows [Y; I]. Combining columns, rows
  // keep their scales, and these stay out of the arithmetic: they choose the pivots. If they differ from those in use, Z goes
  // over to the new basis.
  void choose_pivots(double t) {
    const double* floor = op_.floor + member_ * rows_;
    double* m = other_;
    for (int64_t i = 0; i < all_; ++i) {
      double most = 0;
      for (int64_t j = 0; j < n_; ++j) {
        m[i * n_ + j] = i < rows_ ? start_[i * n_ + j] : i - rows_ == j ? 1.0 : 0.0;
        left_[i * n_ + j] = i < rows_ ? floor[i] : 0.0;
        const double size = __builtin_fabs(m[i * n_ + j]);
        most = size > most ? size : most;
      }
      if (i < rows_ && !(most > floor[i]))
        for (int64_t j = 0; j < n_; ++j) m[i * n_ + j] = 0;
      constexpr double kPerLn2 = 1.442695040888963407360;
      const double root = i < rows_ ? integral_of_decay(2 * __builtin_fabs(w_[i]), splat(t))[0] : 1.0;
      scale_[i] = root > 0 ? rate_of(i) * (t < 1e290 ? t : 1e290) * kPerLn2 + 0.5 * rough_log2(splat(root))[0] : -1e300;
      closed_[i] = 0;
    }
    for (int64_t j = 0; j < n_; ++j) ended_[j] = 0;
    for (int64_t k = 0; k < n_; ++k) eliminate(m);

    bool same = known_;
    for (int64_t j = 0; j < n_; ++j) same = same && candidate_[j] == pivot_[j];
    if (same && t > 0) return;
    if (t > 0) {
      frame(splat(t));
      orthonormalize(before_);
    }
    for (int64_t j = 0; j < n_; ++j) pivot_[j] = candidate_[j];
    for (int64_t i = 0; i < all_; ++i) column_of_[i] = -1;
    for (int64_t j = 0; j < n_; ++j) column_of_[pivot_[j]] = j;
    for (int64_t i = 0; i < all_; ++i)
      for (int64_t j = 0; j < n_; ++j) ratios_[i * n_ + j] = m[i * n_ + j] / m[pivot_[j] * n_ + j];
    known_ = true;
    if (t > 0) {
      frame(splat(t));
      orthonormalize(basis_);
      change_basis();
    }
  }

  // What the sizes of entries are compared by: log2 to a tenth.
  static double size_of(double x) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, &x, sizeof word);
    return static_cast<double>(static_cast<int64_t>(word & ~(1UL << 63U))) * 0x1p-52;
  }

  void eliminate(double* m) {
    int64_t row = -1, column = 0;
    double most = 0;
    for (int64_t i = 0; i < all_; ++i)
      for (int64_t j = 0; !closed_[i] && j < n_; ++j) {
        if (ended_[j] || m[i * n_ + j] == 0) continue;
        const double size = size_of(m[i * n_ + j]) + scale_[i];
        if (row < 0 || size > most) row = i, column = j, most = size;
      }
    candidate_[column] = row;
    closed_[row] = 1;
    ended_[column] = 1;
    const double pivot = m[row * n_ + column], of_pivot = left_[row * n_ + column];
    for (int64_t j = 0; j < n_; ++j) {
      if (j == column) continue;
      const double ratio = m[row * n_ + j] / pivot, size = __builtin_fabs(ratio);
      // What rounding has left of an entry grows with the entries it is combined with: a remainder below it is none.
      const double of_ratio = (left_[row * n_ + j] + size * of_pivot) / __builtin_fabs(pivot);
      if (ratio == 0 && of_ratio == 0) continue;
      for (int64_t i = 0; i < all_; ++i) {
        if (i == row) continue;
        double *x = m + i * n_, *left = left_ + i * n_;
        const double change = x[column] * ratio;
        left[j] += left[column] * size + __builtin_fabs(x[column]) * of_ratio;
        x[j] -= change;
        if (change != 0 && __builtin_fabs(x[j]) <= left[j]) x[j] = 0;
      }
      m[row * n_ + j] = 0;
    }
  }

  // B and T at times t; the largest entry of B.
  V frame(V t) {
    for (int64_t i = 0; i < rows_; ++i)
      root_[i] = square_root(integral_of_decay(2 * __builtin_fabs(w_[i]), t));
    for (int64_t i = rows_; i < all_; ++i) root_[i] = splat(1.0);
    for (int64_t j = 0; j < n_; ++j) inverse_[j] = 1.0 / root_[pivot_[j]];
    V most = splat(1.0);
    for (int64_t i = 0; i < all_; ++i) {
      V* row = basis_ + i * n_;
      for (int64_t j = 0; j < n_; ++j) {
        const double ratio = ratios_[i * n_ + j];
        if (column_of_[i] >= 0 || ratio == 0) {
          row[j] = splat(column_of_[i] == j ? 1.0 : 0.0);
          continue;
        }
        // The scales of rows from differences of rates: those of equal modes cancel exactly.
        const double apart = rate_of(i) - rate_of(pivot_[j]);
        row[j] = apart == 0 ? ratio * (root_[i] * inverse_[j])
                            : elementary::exp<double>(apart * t, V{}).times(ratio * (root_[i] * inverse_[j]));
        const V size = magnitude(row[j]);
        most = size <= most ? most : size;
      }
    }
    // T T^T = B^TB, row by row.
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j <= i; ++j) triangle_[i * n_ + j] = splat(i == j ? 1.0 : 0.0);
    for (int64_t k = 0; k < all_; ++k) {
      if (column_of_[k] >= 0) continue;
      const V* row = basis_ + k * n_;
      for (int64_t i = 0; i < n_; ++i) {
        if (ratios_[k * n_ + i] == 0) continue;
        for (int64_t j = 0; j <= i; ++j) triangle_[i * n_ + j] = fma(row[i], row[j], triangle_[i * n_ + j]);
      }
    }
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        V sum = triangle_[i * n_ + j];
        for (int64_t k = 0; k < j; ++k) sum = fma(-triangle_[i * n_ + k], triangle_[j * n_ + k], sum);
        triangle_[i * n_ + j] = i == j ? square_root(sum) : V(sum * diagonal_[j]);
        if (i == j) diagonal_[i] = 1.0 / triangle_[i * n_ + i];
      }
    return most;
  }

  // T^-1 of a row, in place.
  PYDLN_INLINE void solve(V* x) const {
    for (int64_t i = 0; i < n_; ++i) {
      V sum = x[i];
      for (int64_t k = 0; k < i; ++k) sum = fma(-triangle_[i * n_ + k], x[k], sum);
      x[i] = sum * diagonal_[i];
    }
  }

  // e^{wt} / sqrt(g) of a row.
  PYDLN_INLINE V fade(int64_t row, V t) const {
    const double w = w_[row] < 0 ? w_[row] : 0.0;
    return w == 0 ? 1.0 / root_[row] : elementary::exp<double>(w * t, V{}).times(1.0 / root_[row]);
  }

  // omega below the diagonal, from the small side.
  void rotation(V t, V* omega) {
    const double* fold = op_.fold + member_ * 2 * op_.modes;
    const bool outer = op_.outer[member_] != 0;
    int64_t count = op_.modes;
    for (int64_t r = 0; r < op_.modes; ++r) {
      const V plus = fold[r] * fade(r, t), minus = fold[op_.modes + r] * fade(op_.modes + r, t);
      const V *above = basis_ + r * n_, *below = basis_ + (op_.modes + r) * n_;
      V* row = parts_ + r * n_;
      for (int64_t j = 0; j < n_; ++j) row[j] = fma(plus, above[j], Doubles(minus * below[j]));
    }
    const int64_t begin = 2 * op_.modes + (outer ? op_.outside_in : 0);
    const int64_t extra = outer ? op_.outside_out : op_.outside_in;
    for (int64_t i = 0; i < extra; ++i, ++count) {
      const V factor = fade(begin + i, t);
      for (int64_t j = 0; j < n_; ++j) parts_[count * n_ + j] = factor * basis_[(begin + i) * n_ + j];
    }
    for (int64_t p = 0; p < pairs_; ++p) omega[p] = V{};
    for (int64_t k = 0; k < count; ++k) {
      V* row = parts_ + k * n_;
      solve(row);
      for (int64_t i = 1, p = 0; i < n_; ++i)
        for (int64_t j = 0; j < i; ++j, ++p) omega[p] = fma(-row[i], row[j], omega[p]);
    }
  }

  // A Legendre coefficient of what has these values at the nodes, `stride` between vectors.
  PYDLN_INLINE double coefficient(int64_t degree, const V* values, int64_t stride) const {
    V sum{};
    for (int64_t v = 0; v < kVectors; ++v)
      sum = fma(load(op_.coefficients + degree * kNodes + v * kLanes), values[v * stride], sum);
    double total = 0;
    for (int64_t i = 0; i < kLanes; ++i) total += sum[i];
    return total;
  }

  // omega at the nodes of a step. Returns step times its last Legendre coefficients, or -1 where the pivots do not last: then the
  // part of the step for which they do is in tail_step_.
  double look(double now, double end) {
    const double step = end - now;
    double most = 0;
    for (int64_t v = 0; v < kVectors; ++v) {
      const V t = now + step * load(op_.nodes + v * kLanes);
      const V size = frame(t);
      for (int64_t i = 0; i < kLanes; ++i) {
        most = size[i] <= most ? most : size[i];
        if (!(size[i] <= kLargest)) {
          const int64_t node = v * kLanes + i;
          tail_step_ = node > 0 ? op_.nodes[node - 1] : 0.5 * op_.nodes[0];
          return -1;
        }
      }
      rotation(t, omega_ + v * pairs_);
    }
    largest_ = most;
    double tail = 0;
    for (int64_t p = 0; p < pairs_; ++p)
      for (int64_t degree = kNodes - 2; degree < kNodes; ++degree) {
        const double size = __builtin_fabs(coefficient(degree, omega_ + p, pairs_));
        tail = size <= tail ? tail : size;
      }
    return tail * step;
  }

  // Collocation at the nodes, by iteration: O_i = I + h sum_j A_ij omega_j O_j. Whether it settles.
  bool turn(double step) {
    for (int64_t v = 0; v < kVectors; ++v)
      for (int64_t i = 0; i < n_ * n_; ++i) turn_[v * n_ * n_ + i] = splat(i % (n_ + 1) == 0 ? 1.0 : 0.0);
    for (int64_t sweep = 0; sweep < kMostSweeps; ++sweep) {
      slopes(step);
      if (n_ == 1) return true;
      V change{};
      for (int64_t i = 0; i < n_ * n_; ++i) {
        V sums[kVectors];
        for (int64_t v = 0; v < kVectors; ++v) sums[v] = splat(i % (n_ + 1) == 0 ? 1.0 : 0.0);
        for (int64_t node = 0; node < kNodes; ++node) {
          const double of = slope_[node / kLanes * n_ * n_ + i][node % kLanes];
          const double* to = op_.integrals + node * kNodes;
#pragma GCC unroll 8
          for (int64_t v = 0; v < kVectors; ++v) sums[v] = fma(splat(of), V(load(to + v * kLanes)), sums[v]);
        }
        for (int64_t v = 0; v < kVectors; ++v) {
          V& x = turn_[v * n_ * n_ + i];
          const V size = magnitude(V(sums[v] - x));
          change = size <= change ? change : size;
          x = sums[v];
        }
      }
      const double most = largest_lane(change);
      if (most <= kSettled) {
        slopes(step);
        return true;
      }
      if (!(most < 2)) return false;
    }
    return false;
  }

  // h omega O at the nodes.
  void slopes(double step) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const V *omega = omega_ + v * pairs_, *O = turn_ + v * n_ * n_;
      V* to = slope_ + v * n_ * n_;
      for (int64_t i = 0; i < n_ * n_; ++i) to[i] = V{};
      for (int64_t i = 1, p = 0; i < n_; ++i)
        for (int64_t k = 0; k < i; ++k, ++p) {
          const V factor = step * omega[p];
          for (int64_t j = 0; j < n_; ++j) {
            to[i * n_ + j] = fma(factor, O[k * n_ + j], to[i * n_ + j]);
            to[k * n_ + j] = fma(-factor, O[i * n_ + j], to[k * n_ + j]);
          }
        }
    }
  }

  // Z at the end of the step.
  void advance() {
    if (n_ == 1) return;
    for (int64_t i = 0; i < n_ * n_; ++i)  // the first Legendre coefficient is the integral
      turned_[i] = (i % (n_ + 1) == 0 ? 1.0 : 0.0) + coefficient(0, slope_ + i, n_ * n_);
    multiply(turned_, Z_, course_);
    for (int64_t i = 0; i < n_ * n_; ++i) Z_[i] = course_[i];
    orthogonalize();
  }

  void multiply(const double* a, const double* b, double* to) const {
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j < n_; ++j) to[i * n_ + j] = 0;
      for (int64_t k = 0; k < n_; ++k)
        for (int64_t j = 0; j < n_; ++j) to[i * n_ + j] = fma(a[i * n_ + k], b[k * n_ + j], to[i * n_ + j]);
    }
  }

  // The orthogonal matrix nearest to Z, to second order: a step of Newton's iteration.
  void orthogonalize() {
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < n_; ++j) {
        double sum = i == j ? 1.5 : 0.0;
        for (int64_t k = 0; k < n_; ++k) sum = fma(-0.5 * Z_[i * n_ + k], Z_[j * n_ + k], sum);
        turned_[i * n_ + j] = sum;
      }
    multiply(turned_, Z_, course_);
    for (int64_t i = 0; i < n_ * n_; ++i) Z_[i] = course_[i];
  }

  // The orthonormal basis B T^-T of [Y; I].
  void orthonormalize(V* to) {
    for (int64_t i = 0; i < all_; ++i) {
      for (int64_t j = 0; j < n_; ++j) to[i * n_ + j] = basis_[i * n_ + j];
      solve(to + i * n_);
    }
  }

  // From the basis in before_ to that in basis_, both orthonormal.
  void change_basis() {
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < n_; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < all_; ++k) sum = fma(basis_[k * n_ + i][0], before_[k * n_ + j][0], sum);
        turned_[i * n_ + j] = sum;
      }
    multiply(turned_, Z_, course_);
    for (int64_t i = 0; i < n_ * n_; ++i) Z_[i] = course_[i];
    orthogonalize();
    orthogonalize();
  }

  // Q = L O Z at times first … next - 1, all on one step.
  void write(int64_t first, int64_t next, double now, double end) {
    const double* t = op_.t + member_ * op_.times;
    for (int64_t i = 0; i < n_ * n_; ++i)
      for (int64_t degree = 0; degree < kNodes; ++degree) course_[i * kNodes + degree] = coefficient(degree, slope_ + i, n_ * n_);
    for (int64_t k = first; k < next; k += kLanes) {
      V time{};
      for (int64_t i = 0; i < kLanes; ++i) time[i] = t[k + i < next ? k + i : next - 1];
      frame(time);
      turn_at((time - now) / (end - now));
      const int64_t count = next - k < kLanes ? next - k : kLanes;
      for (int64_t row = 0; row < rows_; ++row) {
        V* x = parts_;
        const V factor = fade(row, time);
        for (int64_t j = 0; j < n_; ++j) x[j] = factor * basis_[row * n_ + j];
        solve(x);
        for (int64_t j = 0; j < n_; ++j) {
          V sum{};
          for (int64_t i = 0; i < n_; ++i) sum = fma(x[i], before_[i * n_ + j], sum);
          for (int64_t i = 0; i < count; ++i) out(k + i)[row * n_ + j] = sum[i];
        }
      }
    }
  }

  // O Z at places x of the step, into before_: O = I + sum_k c_k (P_{k+1} - P_{k-1}) / (4k + 2) of 2x - 1.
  void turn_at(V x) {
    V integrals[kNodes];
    const V z = 2.0 * x - 1.0;
    V lower = splat(1.0), middle = z;
    integrals[0] = x;
    for (int64_t k = 1; k < kNodes; ++k) {
      const auto order = static_cast<double>(k);
      const V upper = ((2 * order + 1) * z * middle - order * lower) / (order + 1);
      integrals[k] = (upper - lower) / (4 * order + 2);
      lower = middle, middle = upper;
    }
    for (int64_t i = 0; i < n_; ++i) {
      V* to = before_ + i * n_;
      for (int64_t j = 0; j < n_; ++j) to[j] = V{};
      for (int64_t k = 0; k < n_; ++k) {
        V sum = splat(i == k ? 1.0 : 0.0);
        for (int64_t degree = 0; degree < kNodes; ++degree)
          sum = fma(splat(course_[(i * n_ + k) * kNodes + degree]), integrals[degree], sum);
        for (int64_t j = 0; j < n_; ++j) to[j] = fma(sum, splat(Z_[k * n_ + j]), to[j]);
      }
    }
  }

  const ops::Riccati& op_;
  const int64_t n_, rows_, all_, pairs_, small_;
  double *const ratios_, *const left_, *const other_, *const Z_, *const turned_, *const scale_;
  int64_t *const pivot_, *const candidate_, *const column_of_, *const closed_, *const ended_;
  V *const root_, *const inverse_, *const basis_, *const triangle_, *const diagonal_, *const before_, *const parts_;
  V *const omega_, *const turn_, *const slope_;
  double* const course_;

  int64_t member_ = 0;
  const double *start_ = nullptr, *w_ = nullptr, *rate_ = nullptr;
  bool known_ = false;
  double tail_step_ = 0, largest_ = 0;
};

std::size_t measure(const ops::Riccati& op) {
  Arena arena{nullptr};
  Work(op, arena);
  return arena.used;
}

void work(const ops::Riccati& op, Control& control, char* workspace) {
  Arena arena{workspace};
  Work work(op, arena);
  for (int64_t i = take_member(control); i < op.batch && !cancelled(control); i = take_member(control))
    work.member(i, control);
}

}  // namespace

RiccatiBody riccati() { return {measure, work, 1}; }

}  // namespace pydln::PYDLN_ISA
