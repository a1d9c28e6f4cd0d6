// ops::Riccati for one instruction set; CMake compiles this source as it does body.cpp. One time a lane.
//
// Q = e^{Ft} Q_0 N with N N^T = M^-1, M = I + Q_0^T g Q_0, g = (e^{2wt} - 1) / 2w, asks for the columns of [Y; I], Y =
// sqrt(g) Q_0, up to what combines them. A basis B of theirs that is the identity in n pivot rows has entries near 1 or
// below while these are the rows that lead; what it takes to combine the columns of Q_0 so does not depend on t, only
// the scales of rows do. With B^TB = T T^T the columns of L = e^{wt} / sqrt(g) B T^-T on the rows of Y are those of Q
// up to a rotation, L L^T = Q Q^T, and
//
//   Q = L Z,   Z' = omega Z,   omega_ij = -(L^TL)_ij / 2 = -(S^TS)_ij for i > j, omega antisymmetric:
//
// N' = -1/2 M^-1 M' N, and N^-1 times the derivative of a combination K diag(scales) T^-T is triangular, so that the
// part of omega below the diagonal is that of -L^TL/2. omega is known at any time, bounded, and at rest wherever
// nothing is being learned, however fast the rest of the system could move. Steps follow its Legendre coefficients; on
// each the rotation is a polynomial (collocation at 16 Gauss nodes), which all the times on the step read. The steps
// are those of the member: no time changes another.
#include "ops/riccati.hpp"

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/decay.hpp"

namespace pydln::PYDLN_ISA {
namespace {

using V = Doubles;
using ops::kNodes;
constexpr int64_t kLanes = lanes_of<double>;
constexpr int64_t kVectors = kNodes / kLanes;  // that hold the nodes of a step
constexpr int64_t kBlock = 4;                  // columns or rows at a time

// h times the last coefficients of omega: some thirty times what the rotation lacks.
constexpr double kTail = 3e-14;
// Entries of a basis, beyond which its pivots are chosen anew; and that let it be looked at.
constexpr double kLargest = 30, kLarge = 3;
constexpr int64_t kMostSweeps = 40;
constexpr double kSettled = 1e-14;               // of the last sweep but one: each leaves a tenth
constexpr double kLongest = 4, kShortest = 0.1;  // ratios of steps
constexpr double kLast = 0x1.fffffffffffffp1023;

typedef double Lane __attribute__((may_alias));
typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));
PYDLN_INLINE V load(const double* p) { return *reinterpret_cast<const Loose*>(p); }

PYDLN_INLINE double largest_lane(V x) {
  double most = 0;
  for (int64_t i = 0; i < kLanes; ++i) most = x[i] <= most ? most : x[i];  // NaN is the largest
  return most;
}

class Work {
 public:
  Work(const ops::Riccati& op, Arena& arena)
      : op_(op),
        n_(op.cols),
        rows_(op.rows),
        all_(op.rows + op.cols),
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
        free_(arena.take<int64_t>(all_)),
        root_(arena.take<V>(all_)),
        inverse_(arena.take<V>(n_)),
        basis_(arena.take<V>(all_ * n_)),
        triangle_(arena.take<V>(n_ * n_)),
        diagonal_(arena.take<V>(n_)),
        before_(arena.take<V>(all_ * n_)),
        parts_(arena.take<V>(rows_ * n_)),
        block_(arena.take<V>(all_ * kBlock)),
        layer_(arena.take<V>((op.n_in > op.n_out ? op.n_in : op.n_out) * n_)),
        omega_(arena.take<V>(kVectors * n_ * n_)),

        turn_(arena.take<V>(kVectors * n_ * n_)),
        slope_(arena.take<V>(kVectors * n_ * n_)),
        course_(arena.take<double>(kNodes * n_ * n_)) {}

  void member(int64_t index, const Control& control) {
    member_ = index;
    start_ = op_.start + index * rows_ * n_;
    w_ = op_.w + index * rows_;
    upper_ = op_.vectors + index * 2 * op_.modes;
    lower_ = upper_ + op_.modes;
    strengths_ = op_.strengths + index * op_.modes;
    begin_ = op_.begin + index * rows_ * n_;
    first_pivots_ = true;
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

  // The state in parts_ to its places, for some of the times in order, one a lane: as it is, and as layers.
  void put(int64_t first, int64_t count) {
    const auto at = [&](int64_t lane) { return member_ * op_.times + op_.place[member_ * op_.times + first + lane]; };
    if (op_.out)
      for (int64_t lane = 0; lane < count; ++lane) {
        double* const to = op_.out + at(lane) * rows_ * n_;
        for (int64_t i = 0; i < rows_ * n_; ++i) to[i] = parts_[i][lane];
      }
    if (op_.first) {
      product(op_.inputs + member_ * op_.n_in * rows_, parts_, layer_, op_.n_in, rows_);
      for (int64_t lane = 0; lane < count; ++lane) {
        double* const to = op_.first + at(lane) * n_ * op_.n_in;
        for (int64_t j = 0; j < n_; ++j)
          for (int64_t i = 0; i < op_.n_in; ++i) to[j * op_.n_in + i] = layer_[i * n_ + j][lane];
      }
    }
    if (op_.second) {
      product(op_.outputs + member_ * op_.n_out * rows_, parts_, layer_, op_.n_out, rows_);
      for (int64_t lane = 0; lane < count; ++lane) {
        double* to = op_.second + at(lane) * n_ * op_.n_out;
        for (int64_t i = 0; i < op_.n_out * n_; ++i) to[i] = layer_[i][lane];
      }
    }
  }
  void put_start(int64_t k) {
    for (int64_t i = 0; i < rows_ * n_; ++i) parts_[i] = splat(begin_[i]);
    put(k, 1);
  }
  void give_up(int64_t next) {
    op_.status[member_] = Status::step_limit;
    for (int64_t i = 0; i < rows_ * n_; ++i) parts_[i] = splat(__builtin_nan(""));
    for (; next < op_.times; ++next) put(next, 1);
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

  // Pivot rows at time t by elimination with complete pivoting (Gauss-Jordan by columns) on rows [Y; I]. Combining
  // columns, rows keep their scales, and these stay out of the arithmetic: they choose the pivots. If they differ from
  // those in use, Z goes over to the new basis.
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
      const double root = i < rows_ ? decay(splat(2 * __builtin_fabs(w_[i])), splat(t)).integral[0] : 1.0;
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
    first_pivots_ = t == 0;
    for (int64_t j = 0; j < n_; ++j) pivot_[j] = candidate_[j];
    for (int64_t i = 0; i < all_; ++i) column_of_[i] = -1;
    for (int64_t j = 0; j < n_; ++j) column_of_[pivot_[j]] = j;
    for (int64_t i = 0, k = 0; i < all_; ++i)
      if (column_of_[i] < 0) free_[k++] = i;
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
    return static_cast<double>(static_cast<int64_t>(word & ~(std::uint64_t{1} << 63U))) * 0x1p-52;
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
    for (int64_t i = 0; i < rows_; ++i) root_[i] = square_root(decay(splat(2 * __builtin_fabs(w_[i])), t).integral);
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
    // T T^T = B^TB, of which the pivot rows are the identity.
    for (int64_t i = 0; i < n_; i += 2)
      for (int64_t j = 0; j <= i + 1; j += kBlock) {
        const int64_t high = i + 2 <= n_ ? 2 : 1, wide = j + kBlock <= n_ ? kBlock : n_ - j;
        if (high == 2 && wide == kBlock)
          gram<2, kBlock>(i, j);
        else
          for (int64_t q = 0; q < high * wide; ++q) gram<1, 1>(i + q / wide, j + q % wide);
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

  template <int64_t High, int64_t Wide>
  PYDLN_INLINE void gram(int64_t i, int64_t j) {
    V sums[High][Wide];
#pragma GCC unroll 8
    for (int64_t p = 0; p < High; ++p)
#pragma GCC unroll 8
      for (int64_t q = 0; q < Wide; ++q) sums[p][q] = splat(i + p == j + q ? 1.0 : 0.0);
    for (int64_t k = 0; k < rows_; ++k) {
      const V* row = basis_ + free_[k] * n_;
#pragma GCC unroll 8
      for (int64_t p = 0; p < High; ++p)
#pragma GCC unroll 8
        for (int64_t q = 0; q < Wide; ++q) sums[p][q] = fma(row[i + p], row[j + q], sums[p][q]);
    }
#pragma GCC unroll 8
    for (int64_t p = 0; p < High; ++p)
#pragma GCC unroll 8
      for (int64_t q = 0; q < Wide; ++q) triangle_[(i + p) * n_ + j + q] = sums[p][q];
  }

  // T^-1 of rows one after the other, in place: some at once, for each waits for its own sums.
  PYDLN_INLINE void solve(V* x, int64_t count) const {
    int64_t row = 0;
    for (; row + kBlock <= count; row += kBlock) solve_rows<kBlock>(x + row * n_);
    for (; row < count; ++row) solve_rows<1>(x + row * n_);
  }
  template <int64_t Rows>
  PYDLN_INLINE void solve_rows(V* x) const {
    for (int64_t i = 0; i < n_; ++i) {
      V sums[Rows];
#pragma GCC unroll 8
      for (int64_t p = 0; p < Rows; ++p) sums[p] = x[p * n_ + i];
      for (int64_t k = 0; k < i; ++k) {
        const V factor = -triangle_[i * n_ + k];
#pragma GCC unroll 8
        for (int64_t p = 0; p < Rows; ++p) sums[p] = fma(factor, x[p * n_ + k], sums[p]);
      }
#pragma GCC unroll 8
      for (int64_t p = 0; p < Rows; ++p) x[p * n_ + i] = sums[p] * diagonal_[i];
    }
  }

  // c = a b, b of n columns, these by blocks that stay in the first cache; a of vectors or numbers.
  template <class A>
  void product(const A* a, const V* b, V* c, int64_t rows, int64_t inner) {
    for (int64_t j = 0; j < n_; j += kBlock) {
      const int64_t wide = j + kBlock <= n_ ? kBlock : n_ - j;
      for (int64_t k = 0; k < inner; ++k)
        for (int64_t q = 0; q < wide; ++q) block_[k * kBlock + q] = b[k * n_ + j + q];
      for (int64_t i = 0; i < rows; i += 2) {
        const int64_t high = i + 2 <= rows ? 2 : 1;
        if (high == 2 && wide == kBlock)
          cell<2, kBlock>(a + i * inner, block_, c + i * n_ + j, inner);
        else
          for (int64_t q = 0; q < high * wide; ++q)
            cell<1, 1>(a + (i + q / wide) * inner, block_ + q % wide, c + (i + q / wide) * n_ + j + q % wide, inner);
      }
    }
  }
  static PYDLN_INLINE V spread(V x) { return x; }
  static PYDLN_INLINE V spread(double x) { return splat(x); }
  template <int64_t High, int64_t Wide, class A>
  PYDLN_INLINE void cell(const A* a, const V* b, V* c, int64_t inner) const {
    V sums[High][Wide] = {};
    for (int64_t k = 0; k < inner; ++k) {
#pragma GCC unroll 8
      for (int64_t p = 0; p < High; ++p) {
#pragma GCC unroll 8
        for (int64_t q = 0; q < Wide; ++q) sums[p][q] = fma(spread(a[p * inner + k]), b[k * kBlock + q], sums[p][q]);
      }
    }
#pragma GCC unroll 8
    for (int64_t p = 0; p < High; ++p) {
#pragma GCC unroll 8
      for (int64_t q = 0; q < Wide; ++q) c[p * n_ + q] = sums[p][q];
    }
  }

  // e^{wt} / sqrt(g) of a row.
  PYDLN_INLINE V fade(int64_t row, V t) const {
    const double w = w_[row] < 0 ? w_[row] : 0.0;
    return w == 0 ? 1.0 / root_[row] : elementary::exp<double>(w * t, V{}).times(1.0 / root_[row]);
  }

  // omega below the diagonal, from the small side.
  void rotation(V t, V* omega) {
    const bool outer = op_.outer[member_] != 0;
    int64_t count = op_.modes;
    for (int64_t r = 0; r < op_.modes; ++r) {
      const V plus = (outer ? lower_[r] : upper_[r]) * fade(r, t);
      const V minus = (outer ? -upper_[r] : lower_[r]) * fade(op_.modes + r, t);
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
    solve(parts_, count);
    for (int64_t i = 0; i < n_; ++i) {
      omega[i * n_ + i] = V{};
      for (int64_t j = 0; j < i; ++j) {
        V sum{};
        for (int64_t k = 0; k < count; ++k) sum = fma(parts_[k * n_ + i], parts_[k * n_ + j], sum);
        omega[i * n_ + j] = -sum;
        omega[j * n_ + i] = sum;
      }
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

  // omega at the nodes of a step. Returns step times its last Legendre coefficients, or -1 where the pivots do not
  // last: then the part of the step for which they do is in tail_step_.
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
      rotation(t, omega_ + v * n_ * n_);
    }
    largest_ = most;
    double tail = 0;
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < i; ++j)
        for (int64_t degree = kNodes - 2; degree < kNodes; ++degree) {
          const double size = __builtin_fabs(coefficient(degree, omega_ + i * n_ + j, n_ * n_));
          tail = size <= tail ? tail : size;
        }
    return tail * step;
  }

  // Collocation at the nodes, by iteration: O_i = I + h sum_j A_ij omega_j O_j. Whether it settles.
  bool turn(double step) {
    for (int64_t i = 0; i < kVectors * n_ * n_; ++i) {
      omega_[i] *= step;
      slope_[i] = omega_[i];
      turn_[i] = splat(i % (n_ * n_) % (n_ + 1) == 0 ? 1.0 : 0.0);
    }
    for (int64_t sweep = 0; sweep < kMostSweeps; ++sweep) {
      const double change = integrate();
      slopes();
      if (change <= kSettled) return true;
      if (!(change < 2)) return false;
    }
    return false;
  }

  // O at the nodes from its slopes there; how far it has moved.
  double integrate() {
    V change{};
    int64_t i = 0;
    for (; i + kBlock <= n_ * n_; i += kBlock) integrate_entries<kBlock>(i, change);
    for (; i < n_ * n_; ++i) integrate_entries<1>(i, change);
    return largest_lane(change);
  }
  template <int64_t Count>
  PYDLN_INLINE void integrate_entries(int64_t first, V& change) {
    V sums[Count][kVectors];
#pragma GCC unroll 8
    for (int64_t i = 0; i < Count; ++i)
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) sums[i][v] = splat((first + i) % (n_ + 1) == 0 ? 1.0 : 0.0);
    for (int64_t node = 0; node < kNodes; ++node) {
      const auto* slope = reinterpret_cast<const Lane*>(slope_ + node / kLanes * n_ * n_ + first) + node % kLanes;
      const double* to = op_.integrals + node * kNodes;
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) {
        const V weight = load(to + v * kLanes);
#pragma GCC unroll 8
        for (int64_t i = 0; i < Count; ++i) sums[i][v] = fma(splat(double(slope[i * kLanes])), weight, sums[i][v]);
      }
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < Count; ++i)
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) {
        V& x = turn_[v * n_ * n_ + first + i];
        const V size = magnitude(V(sums[i][v] - x));
        change = size <= change ? change : size;
        x = sums[i][v];
      }
  }

  // omega O at the nodes.
  void slopes() {
    for (int64_t v = 0; v < kVectors; ++v)
      product(omega_ + v * n_ * n_, turn_ + v * n_ * n_, slope_ + v * n_ * n_, n_, n_);
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
    for (int64_t i = 0; i < all_ * n_; ++i) to[i] = basis_[i];
    solve(to, all_);
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
      for (int64_t degree = 0; degree < kNodes; ++degree)
        course_[i * kNodes + degree] = coefficient(degree, slope_ + i, n_ * n_);
    for (int64_t k = first; k < next; k += kLanes) {
      V time{};
      for (int64_t i = 0; i < kLanes; ++i) time[i] = t[k + i < next ? k + i : next - 1];
      frame(time);
      turn_at((time - now) / (end - now));
      const int64_t count = next - k < kLanes ? next - k : kLanes;
      for (int64_t row = 0; row < rows_; ++row) {
        const V factor = fade(row, time);
        for (int64_t j = 0; j < n_; ++j) basis_[row * n_ + j] *= factor;
      }
      for (int64_t mode = 0; mode < op_.modes; ++mode) part(mode, time);
      solve(basis_, rows_);
      product(basis_, before_, parts_, rows_, n_);
      put(k, count);
    }
  }

  // From rows of a mode in eigenvectors of F to those of W_1^T and W_2. While little of the smaller layer has come from
  // the other one, it is what is left of larger numbers there: early times take the entries of e^{Ft}, none of them
  // negative, instead.
  void part(int64_t mode, V t) {
    V *plus = basis_ + mode * n_, *minus = basis_ + (op_.modes + mode) * n_;
    const double upper = upper_[mode], lower = lower_[mode], kappa = w_[mode];
    const SignedBits early = kappa * t < 0.7;
    const bool any = first_pivots_ && truth(early);
    const Decay fast = decay(splat(2 * kappa), t);
    const V grown = any ? elementary::exp<double>(early ? kappa * t : V{}, V{}).value() : V{};
    const V mixed = strengths_[mode] * fast.integral * grown;
    const V first = fma(fast.value, splat(lower * lower), splat(upper * upper)) * grown;
    const V second = fma(fast.value, splat(upper * upper), splat(lower * lower)) * grown;
    const double *a = begin_ + mode * n_, *b = begin_ + (op_.modes + mode) * n_;
    for (int64_t j = 0; j < n_; ++j) {
      const V x = plus[j], y = minus[j];
      plus[j] = fma(splat(upper), x, Doubles(lower * y));
      minus[j] = fma(splat(lower), x, Doubles(-upper * y));
      if (!any) continue;
      plus[j] = early ? fma(first, splat(a[j]), Doubles(mixed * b[j])) : plus[j];
      minus[j] = early ? fma(second, splat(b[j]), Doubles(mixed * a[j])) : minus[j];
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
  const int64_t n_, rows_, all_;
  double *const ratios_, *const left_, *const other_, *const Z_, *const turned_, *const scale_;
  int64_t *const pivot_, *const candidate_, *const column_of_, *const closed_, *const ended_, *const free_;
  V *const root_, *const inverse_, *const basis_, *const triangle_, *const diagonal_,
                                                                        *const before_,
                                                                            *const parts_, *const block_, *const layer_;
  V *const omega_, *const turn_, *const slope_;
  double* const course_;

  int64_t member_ = 0;
  const double *start_ = nullptr, *begin_ = nullptr, *w_ = nullptr, *rate_ = nullptr;
  const double *upper_ = nullptr, *lower_ = nullptr, *strengths_ = nullptr;
  bool known_ = false, first_pivots_ = true;
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
