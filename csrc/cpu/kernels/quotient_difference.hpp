// Eigenvalues of B^T B, B upper bidiagonal with squared entries q and e, one matrix a lane: shifted differential
// quotient-difference steps (dqds; Fernando & Parlett 1994), of which every value comes out at the lower end.
//
// A step with shift s is good if it leaves all d >= 0: s is then at most the smallest eigenvalue. A lane whose step was not
// keeps its numbers and tries a smaller shift, and no lane waits for its neighbours otherwise.
#pragma once

#include "cpu/kernels/rough.hpp"

namespace pydln::PYDLN_ISA {

class QuotientDifference {
  using V = Doubles;
  using I = SignedBits;
  static constexpr int64_t kLanes = lanes_of<double>;

 public:
  QuotientDifference(int64_t n, Arena& arena)
      : n_(n),
        q_(arena.take<V>(n + 1)),
        e_(arena.take<V>(n + 1)),
        next_q_(arena.take<V>(n + 1)),
        next_e_(arena.take<V>(n + 1)),
        found(arena.take<V>(n)) {}

  // Bit i of the result: lane i did not come to an end in most_steps * n steps. found: the eigenvalues, in any order.
  unsigned solve(const V* d, const V* e, int64_t most_steps) {
    for (int64_t i = 0; i < n_; ++i) q_[i] = d[i] * d[i];
    for (int64_t i = 0; i + 1 < n_; ++i) e_[i] = e[i] * e[i];
    e_[n_ - 1] = V{};
    for (int64_t lane = 0; lane < kLanes; ++lane) begin(lane);
    for (int64_t left = most_steps * n_; left > 0; --left) {
      for (int64_t lane = 0; lane < kLanes; ++lane)
        if (size_[lane] && !failures_[lane]) deflate(lane);
      int64_t longest = 0;
      for (const int64_t size : size_) longest = size > longest ? size : longest;
      if (longest == 0) return 0;
      choose_shifts();
      step(longest);
    }
    unsigned unfinished = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane)
      if (size_[lane]) unfinished |= 1U << static_cast<unsigned>(lane);
    return unfinished;
  }

 private:
  static constexpr double kTiny = 0x1p-900;  // quotients are not formed with less: nothing is left there
  // An e of so much of its eigenvalue moves it by less than it is rounded (LAPACK's dlasq3).
  static constexpr double kNeglected = 0x1p-100;

  void begin(int64_t lane) {
    size_[lane] = n_;
    sum_[lane] = 0;
    failures_[lane] = 0;
    if (!(q_[0][lane] * 1.5 < q_[n_ - 1][lane])) return;
    // The small values leave at the lower end: a matrix that has them at the upper one is turned round.
    for (int64_t i = 0, j = n_ - 1; i < j; ++i, --j) swap(q_[i], q_[j], lane);
    for (int64_t i = 0, j = n_ - 2; i < j; ++i, --j) swap(e_[i], e_[j], lane);
  }
  static PYDLN_INLINE void swap(V& a, V& b, int64_t lane) {
    const double kept = a[lane];
    a[lane] = b[lane];
    b[lane] = kept;
  }

  // Takes what has come out at the lower end of a lane.
  void deflate(int64_t lane) {
    int64_t n = size_[lane];
    const double sum = sum_[lane];
    while (n > 0) {
      const double low = q_[n - 1][lane];
      if (n == 1 || e_[n - 2][lane] <= kNeglected * (sum + low)) {
        found[--n][lane] = sum + low;
        if (n > 0) e_[n - 1][lane] = 0;
        continue;
      }
      const double above = n > 2 ? e_[n - 3][lane] : 0;
      if (n == 2 || above <= kNeglected * sum || above <= kNeglected * q_[n - 2][lane]) {
        const double a = q_[n - 2][lane], b = low, c = e_[n - 2][lane];
        const double gap = a - b - c, trace = a + b + c, root = __builtin_sqrt(gap * gap + 4 * a * c);
        const double large = 0.5 * (trace + root);
        found[n - 1][lane] = sum + large;
        found[n - 2][lane] = sum + (a / large) * b;
        n -= 2;
        if (n > 0) e_[n - 1][lane] = 0;
        continue;
      }
      break;
    }
    size_[lane] = n;
  }

  // The smaller eigenvalue of the last 2 × 2 block of B^T B is too large by what couples it to the third row, to second order:
  // four times that is taken off. Where that is no small correction, a quarter of the eigenvalue.
  void choose_shifts() {
    V low{}, mid{}, high{}, e1{}, e2{}, e3{};
    I fresh{};
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t n = size_[lane];
      if (n == 0 || failures_[lane]) continue;
      fresh[lane] = -1;  // n >= 3
      low[lane] = q_[n - 1][lane], mid[lane] = q_[n - 2][lane], high[lane] = q_[n - 3][lane];
      e1[lane] = e_[n - 2][lane], e2[lane] = e_[n - 3][lane];
      if (n > 3) e3[lane] = e_[n - 4][lane];
    }
    const V a = mid + e2, b = low + e1, coupling = mid * e1, difference = a - b;
    const V twice = a + b + square_root(fma(difference, difference, 4.0 * coupling));
    const V product = fma(low, a, e1 * e2);
    const V mu = twice > 0.0 ? 2.0 * product / twice : V{};
    const V gap = a - mu, weight = coupling + gap * gap, up = high + e3 - mu;
    const V over = coupling * high * e2, under = weight * up;
    const V correction = under > 0.0 ? over / under : mu;
    const V chosen = correction < 0.2 * mu ? fma(splat(-4.0), correction, mu) : 0.25 * mu;
    shift_ = fresh ? (chosen > 0.0 ? chosen : V{}) : shift_;
  }

  void step(int64_t longest) {
    const V s = shift_;
    I last;
    for (int64_t lane = 0; lane < kLanes; ++lane) last[lane] = size_[lane] - 1;
    V d = q_[0] - s, least = splat(1.0), before = splat(1.0);
    least = last < 0 ? least : d;
    for (int64_t i = 0; i + 1 < longest; ++i) {
      const I live = last > i;
      const V q = d + e_[i], above = q_[i + 1];
      const I some = q > kTiny;
      const V quotient = (some ? above : V{}) / (some ? q : splat(1.0));
      next_q_[i] = q;
      next_e_[i] = e_[i] * quotient;
      const V moved = (some ? d * quotient : above) - s;
      d = live ? moved : d;
      before = live ? least : before;
      least = (live & (moved < least)) ? moved : least;
    }
    next_q_[longest - 1] = d + e_[longest - 1];
    next_e_[longest - 1] = V{};
    const I good = least >= 0.0;
    if (const unsigned bad = ~truth(good) & ((1U << static_cast<unsigned>(kLanes)) - 1U)) {
      for (int64_t i = 0; i < longest; ++i) {
        next_q_[i] = good ? next_q_[i] : q_[i];
        next_e_[i] = good ? next_e_[i] : e_[i];
      }
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        if (!(bad >> static_cast<unsigned>(lane) & 1U)) {
          failures_[lane] = 0;
          continue;
        }
        // Only the last d negative: s + d is a bound from below, of third order (Rutishauser).
        const int64_t times = ++failures_[lane];
        const double bound = s[lane] + d[lane];
        if (times == 1 && before[lane] >= 0 && bound > 0)
          shift_[lane] = bound * (1 - 0x1p-50);
        else
          shift_[lane] = times < 3 ? 0.25 * s[lane] : 0.0;
      }
    } else {
      for (int64_t& times : failures_) times = 0;
    }
    sum_ = good ? sum_ + s : sum_;
    V* kept = q_;
    q_ = next_q_, next_q_ = kept;
    kept = e_;
    e_ = next_e_, next_e_ = kept;
  }

  const int64_t n_;
  V *q_, *e_, *next_q_, *next_e_;

 public:
  V* const found;

 private:
  int64_t size_[kLanes] = {}, failures_[kLanes] = {};
  V sum_{}, shift_{};
};

}  // namespace pydln::PYDLN_ISA
