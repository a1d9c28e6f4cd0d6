// Decoupled modes under gradient flow (ops/modes.hpp): one mode a lane, several vectors of them side by side so that none
// waits for its own sums. Every mode goes its own steps in its own time, and another takes its lane when it is done.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/rough.hpp"
#include "math/plateau.hpp"
#include "ops/modes.hpp"

namespace pydln::PYDLN_ISA {

class ModesWorker {
  using V = Doubles;
  using I = SignedBits;
  typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));  // anywhere in memory
  static constexpr int64_t kLanes = lanes_of<double>;
  static constexpr int64_t kVectors = 4;

 public:
  static constexpr int64_t members = kVectors * kLanes;

  ModesWorker(const ops::Modes& op, Control& control, Arena& arena)
      : op_(op),
        control_(control),
        stages_(op.method.stages),
        all_(stages_ + op.method.extra),
        others_(op.depth - 1),
        most_(others_ ? __builtin_exp2(486.0 / static_cast<double>(others_ < kGroup ? others_ : kGroup)) : kNever),
        rest_(op.method.errors ? __builtin_sqrt(kNeglected * op.rtol) : -1) {
    gaps_ = arena.take<Block>(others_);
    sizes_ = arena.take<Block>(others_);
    roots_ = arena.take<Block>(others_);
    room_ = op.times + kLanes;
    times_ = arena.take<double>(room_);
    kept_ = arena.take<double>(members * room_);
    if (!arena.base) return;
    for (int64_t k = 0; k < room_; ++k) times_[k] = k < op.times ? op.record_at[k] : kNever;
    for (int64_t i = 0; i < all_; ++i) rows_[i] = row(op.method.a + i * all_, i);
    for (int64_t r = 0; r < op.method.errors; ++r) errors_[r] = row(op.method.error + r * stages_, stages_);
    for (int64_t p = 0; p < op.method.powers; ++p) dense_[p] = row(op.method.dense + p, all_, op.method.powers);
    for (int64_t i = 0; i < members; ++i) idle(i);
  }

  void run() {
    refill();
    while (busy_ > 0 && !cancelled(control_)) step();
    for (int64_t i = 0; i < members; ++i)
      if (mode_[i] >= 0) finish(i, Status::interrupted);
    for (; first_ < last_; ++first_) write(0, first_, 0);
  }

 private:
  static constexpr double kSmallError = 1e-4, kSmallErrorLog2 = -13.287712379549449;
  static constexpr double kNeglected = 0.1;  // what closed forms may leave out, in units of the tolerance
  static constexpr double kNever = __builtin_huge_val();
  static constexpr double kNan = __builtin_nan("");
  static constexpr double kSmallest = 0x1p-1000;           // errors of so little are none: there digits are lost
  static constexpr int64_t kGroup = 9;                     // squares that are multiplied before a root is taken
  static constexpr int64_t kBetweenLooks = 4096 * kGroup;  // layers of a slope, about a millisecond of them

  struct Block {
    V v[kVectors];
    double& operator[](int64_t i) { return reinterpret_cast<double*>(v)[i]; }
    double operator[](int64_t i) const { return reinterpret_cast<const double*>(v)[i]; }
  };
  struct Truths {
    I v[kVectors];
    int64_t& operator[](int64_t i) { return reinterpret_cast<int64_t*>(v)[i]; }
    int64_t operator[](int64_t i) const { return reinterpret_cast<const int64_t*>(v)[i]; }
  };

  // sum_j c_j k_j over the j that have a weight.
  struct Row {
    int64_t n = 0;
    int64_t of[ops::kMostStages] = {};
    double c[ops::kMostStages] = {};
  };
  static Row row(const double* c, int64_t n, int64_t stride = 1) {
    Row made;
    for (int64_t j = 0; j < n; ++j)
      if (c[j * stride] != 0) {
        made.of[made.n] = j;
        made.c[made.n++] = c[j * stride];
      }
    return made;
  }
  PYDLN_INLINE Block sum(const Row& row) const {
    Block s{};
    for (int64_t j = 0; j < row.n; ++j) {
      const V c = splat(row.c[j]);
      const Block& k = k_[row.of[j]];
#pragma GCC unroll 4
      for (int64_t q = 0; q < kVectors; ++q) s.v[q] = fma(c, k.v[q], s.v[q]);
    }
    return s;
  }

  // ---- modes in and out of lanes ---------------------------------------------------------------------------------------
  void idle(int64_t i) {
    mode_[i] = -1;
    active_[i] = 0;
    z_[i] = s_[i] = d_[i] = k_[0][i] = t_[i] = 0;
    next_h_[i] = op_.times ? times_[op_.times - 1] : 0;
    due_[i] = kNever;
    extreme_[i] = 0;
  }

  // Some are done before they began: others take their lanes.
  void refill() {
    for (bool more = true; more;) {
      bool fresh[members] = {};
      more = false;
      for (int64_t i = 0; i < members; ++i) {
        if (mode_[i] >= 0) continue;
        if (!available()) break;
        load(i, first_++);
        fresh[i] = more = true;
      }
      if (more) begin(fresh);
    }
  }

  // Whether there is a mode without a lane; takes as many as there are lanes from the queue.
  bool available() {
    if (cancelled(control_)) return false;
    if (first_ == last_) {
      first_ = take_members(control_, members);
      last_ = first_ + members < op_.batch ? first_ + members : op_.batch;
      if (first_ > last_) first_ = last_;
    }
    return first_ < last_;
  }

  void load(int64_t i, int64_t mode) {
    const double* a = op_.layer_strengths + mode * op_.depth;
    int64_t m = 0;
    for (int64_t l = 1; l < op_.depth; ++l)
      if (magnitude(a[l]) < magnitude(a[m])) m = l;
    const double least = magnitude(a[m]);
    double sign = 1, largest = least;
    bool extreme = op_.variances[mode] > 0 && magnitude(op_.s[mode]) > most_ * op_.variances[mode], tied = false;
    for (int64_t l = 0, to = 0; l < op_.depth; ++l) {
      if (l == m) continue;
      const double here = magnitude(a[l]), under = here - least, over = here + least;
      sizes_[to][i] = here;
      gaps_[to][i] = under * over;
      roots_[to][i] = __builtin_sqrt(under) * __builtin_sqrt(over);
      const double smallest = under > 0 ? roots_[to][i] : here;
      extreme |= here > most_ || (smallest > 0 && smallest * most_ < 1);
      tied |= under == 0;
      if (here > largest) largest = here;
      if (a[l] < 0) sign = -sign;
      ++to;
    }
    extreme |= tied && sign * a[m] * op_.s[mode] < 0;  // on its way into a saddle at zero
    mode_[i] = mode;
    z_[i] = a[m];
    sign_[i] = sign;
    s_[i] = op_.s[mode];
    d_[i] = op_.variances[mode];
    extreme_[i] = extreme ? -1 : 0;
    extremes_ += extreme;
    extent_[i] = largest;
    t_[i] = 0;
    accepted_[i] = rejected_[i] = 0;
    previous_[i] = kSmallErrorLog2;
    grows_[i] = -1;
    record_[i] = 0;
    if (times_[0] == 0) kept_[i * room_ + record_[i]++] = z_[i];
    if (op_.method.errors) cross(i);
    active_[i] = -1;
    ++busy_;
  }

  // From a small start to the end of its plateau, or of the run.
  void cross(int64_t i) {
    const Plateau way = plateau(z_[i], sign_[i], s_[i], d_[i], &sizes_[0][i], &roots_[0][i], others_,
                                sizeof(Block) / sizeof(double), kNeglected * op_.rtol);
    if (way.end == 0) return;
    for (; times_[record_[i]] <= way.end && record_[i] < op_.times; ++record_[i])
      kept_[i * room_ + record_[i]] = way.at(times_[record_[i]]);
    if (record_[i] == op_.times) {
      t_[i] = times_[op_.times - 1];
      return;
    }
    t_[i] = way.end;
    z_[i] = way.last;
    extent_[i] = magnitude(way.last);
    if (extreme_[i] && magnitude(way.last) * most_ > 1 &&
        magnitude(s_[i]) <= most_ * d_[i]) {  // it only grows from here
      extreme_[i] = 0;
      --extremes_;
    }
  }

  // The first slope and the first step of fresh modes: one that moves them by about a hundredth of themselves. Those under
  // way get the slope again that they have, to the bit.
  void begin(const bool* fresh) {
    slope(z_, k_[0]);
    const double end = times_[op_.times - 1];
    for (int64_t i = 0; i < members; ++i) {
      if (!fresh[i]) continue;
      double h = op_.step > 0 ? op_.step : 0.01 * extent_[i] / magnitude(k_[0][i]);
      if (!(h > 0)) h = 1e-6 * end;
      if (op_.max_step > 0 && h > op_.max_step) h = op_.max_step;
      next_h_[i] = h;
      due_[i] = times_[record_[i]];
      if (record_[i] == op_.times) finish(i, Status::completed);
    }
  }

  void finish(int64_t i, Status status) {
    const int64_t mode = mode_[i];
    const bool written = write(i, mode, record_[i]);
    op_.status[mode] = written ? status : Status::interrupted;
    op_.stopped_at[mode] = t_[i];
    op_.accepted[mode] = accepted_[i];
    op_.rejected[mode] = rejected_[i];
    add_steps(control_, op_.times);
    extremes_ -= extreme_[i] != 0;
    --busy_;
    idle(i);
  }

  // u = z P at the `count` times that are kept, NaN at the others. Whether there was time for it: of a cancelled run whose
  // networks have a million layers not all is worked out that is kept.
  bool write(int64_t i, int64_t mode, int64_t count) {
    double* kept = kept_ + i * room_;
    const int64_t asked = count;
    for (int64_t k = 0; k < count; k += kLanes) {
      if (cancelled(control_)) {
        allowance_ -= others_;
        if (allowance_ < 0) {
          count = k;
          break;
        }
      }
      const V z = *reinterpret_cast<const Loose*>(kept + k);
      V p = splat(sign_[i]);
      for (int64_t g = 0; g < others_; g += kGroup) {
        const V y = z * z;
        V squares = y + gaps_[g][i];
        for (int64_t l = g + 1; l < others_ && l < g + kGroup; ++l) squares = squares * (y + gaps_[l][i]);
        p = p * square_root(squares);
      }
      if (extreme_[i]) {
        p = splat(sign_[i]);
        for (int64_t l = 0; l < others_; ++l) p = p * hypotenuse(z, splat(roots_[l][i]));
      }
      *reinterpret_cast<Loose*>(kept + k) = z * p;
    }
    const int64_t together = op_.together;
    double* to = op_.strengths + mode / together * op_.times * together + mode % together;
    for (int64_t k = 0; k < op_.times; ++k) to[k * together] = k < count ? kept[k] : kNan;
    return count == asked;
  }

  // ---- a step --------------------------------------------------------------------------------------------------------
  void step() {
    const double end = times_[op_.times - 1];
    Block h;
    Truths ends;
    for (int64_t q = 0; q < kVectors; ++q) {
      ends.v[q] = t_.v[q] + next_h_.v[q] * (1 + 1e-8) >= end;
      h.v[q] = ends.v[q] ? end - t_.v[q] : next_h_.v[q];
    }
    for (int64_t i = 1; i < stages_; ++i) {
      Block& at = i + 1 < stages_ ? stage_ : next_;
      stage(i, h, at);
      slope(at, k_[i]);
    }
    if (cancelled(control_)) return;  // perhaps in the middle of a slope

    const Block error = estimate(h);
    Truths kept, settled, stuck, special;
    I any_due{}, any_special{};
    Block reach;  // where the step ends; where it is not kept, nowhere
    for (int64_t q = 0; q < kVectors; ++q) {
      kept.v[q] = error.v[q] <= 1;
      choose(q, h.v[q], error.v[q], kept.v[q]);
      accepted_.v[q] -= kept.v[q];
      rejected_.v[q] -= ~kept.v[q];
      const V arrived = ends.v[q] ? splat(end) : t_.v[q] + h.v[q];
      reach.v[q] = kept.v[q] ? arrived : splat(-1.0);
      any_due |= due_.v[q] <= reach.v[q];
      // A step may be shorter than the time can tell (t is about 1e30 where a plateau as long ends), but not than z can.
      const I still = (fma(next_h_.v[q], k_[0].v[q], z_.v[q]) == z_.v[q]) | (next_h_.v[q] < kSmallest);
      stuck.v[q] = ~kept.v[q] & (op_.method.errors ? still : ~I{});
      const I spent = accepted_.v[q] + rejected_.v[q] >= op_.max_steps;
      settled.v[q] = kept.v[q] & ~ends.v[q] & at_rest(q);
      special.v[q] = active_.v[q] & ((kept.v[q] & ends.v[q]) | settled.v[q] | stuck.v[q] | spent);
      any_special |= special.v[q];
    }
    if (truth(any_due) && !record(h, reach)) return;
    Status status[members];
    const bool look = truth(any_special) != 0;
    if (look)
      for (int64_t i = 0; i < members; ++i)
        if (special[i]) status[i] = ended(i, h[i], error[i], kept[i] && (ends[i] || settled[i]), stuck[i]);
    const Block& last = k_[stages_ - 1];
    for (int64_t q = 0; q < kVectors; ++q) {
      z_.v[q] = kept.v[q] ? next_.v[q] : z_.v[q];
      k_[0].v[q] = kept.v[q] ? last.v[q] : k_[0].v[q];
      t_.v[q] = kept.v[q] ? reach.v[q] : t_.v[q];
    }
    if (!look) return;
    for (int64_t i = 0; i < members; ++i)
      if (special[i]) {
        if (cancelled(control_)) return;
        if (settled[i]) settle(i);
        finish(i, status[i]);
      }
    if (busy_ < members) refill();
  }

  // to <- z + h sum_j a_ij k_j
  void stage(int64_t i, const Block& h, Block& to) const {
    const Block s = sum(rows_[i]);
    for (int64_t q = 0; q < kVectors; ++q) to.v[q] = fma(h.v[q], s.v[q], z_.v[q]);
  }

  // dz/dt = P (s - d z P); unfinished when the run is cancelled on the way through very many layers.
  void slope(const Block& z, Block& f) {
    Block p = sign_;
    for (int64_t g = 0; g < others_; g += kGroup) {
      if (g % kBetweenLooks == 0 && g > 0 && cancelled(control_)) return;
      Block y, squares;
#pragma GCC unroll 4
      for (int64_t q = 0; q < kVectors; ++q) {
        y.v[q] = z.v[q] * z.v[q];
        squares.v[q] = y.v[q] + gaps_[g].v[q];
      }
      for (int64_t l = g + 1; l < others_ && l < g + kGroup; ++l) {
#pragma GCC unroll 4
        for (int64_t q = 0; q < kVectors; ++q) squares.v[q] = squares.v[q] * (y.v[q] + gaps_[l].v[q]);
      }
#pragma GCC unroll 4
      for (int64_t q = 0; q < kVectors; ++q) p.v[q] = p.v[q] * square_root(squares.v[q]);
    }
    if (extremes_ > 0) reach_far(z, p);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kVectors; ++q) f.v[q] = p.v[q] * fma(-d_.v[q] * z.v[q], p.v[q], s_.v[q]);
    p_ = p;
  }

  // P of modes whose squares might leave the range of a double.
  void reach_far(const Block& z, Block& p) const {
    for (int64_t q = 0; q < kVectors; ++q) {
      V far = sign_.v[q];
      for (int64_t l = 0; l < others_; ++l) {
        if (l % kBetweenLooks == 0 && l > 0 && cancelled(control_)) return;
        far = far * hypotenuse(z.v[q], roots_[l].v[q]);
      }
      p.v[q] = extreme_.v[q] ? far : p.v[q];
    }
  }
  static V hypotenuse(V x, V y) {
    const V a = x < 0 ? -x : x, large = a > y ? a : y, small = a > y ? y : a;
    const V ratio = large > 0 ? small / large : V{};
    return large * square_root(fma(ratio, ratio, splat(1.0)));
  }

  // In units of the tolerance; NaN where the new point or an estimate is not finite.
  Block estimate(const Block& h) const {
    Block error{};
    for (int64_t r = 0; r < op_.method.errors; ++r) {
      const Block s = sum(errors_[r]);
      for (int64_t q = 0; q < kVectors; ++q) {
        const V e = magnitude(s.v[q] * h.v[q]);
        const V scale = fma(splat(op_.rtol), max_abs(magnitude(z_.v[q]), next_.v[q]), splat(op_.atol + kSmallest));
        const V scaled = e > 0 ? e / scale : e;
        if (r == 0) {
          error.v[q] = scaled;
        } else {
          const V ratio = scaled / error.v[q];
          error.v[q] = error.v[q] > 0 ? error.v[q] / square_root(fma(ratio * 0.01, ratio, splat(1.0))) : error.v[q];
        }
      }
    }
    for (int64_t q = 0; q < kVectors; ++q) error.v[q] = fma(next_.v[q], V{}, error.v[q]);
    return error;
  }

  // How long the next step is: a controller with memory (PI), within a factor 1/5 to 10 (Hairer, Norsett & Wanner,
  // Solving Ordinary Differential Equations I, section II.4; the same as of kernels/flow.hpp).
  PYDLN_INLINE void choose(int64_t q, V h, V error, I kept) {
    if (op_.method.errors == 0) return;
    const double p = 1 / op_.method.exponent, memory = 0.2 * p;
    const V e = error > kSmallError ? error : splat(kSmallError);
    const V size = rough_log2(e);
    const V steady = fma(splat(p - 0.75 * memory), size, previous_.v[q] * -memory);
    const V ratio = rough_exp2(kept ? steady : splat(p) * size) * (1 / 0.9);
    const V least = kept & grows_.v[q] ? splat(0.1) : splat(1.0);
    V divisor = ratio < least ? least : (ratio > 5 ? splat(5.0) : ratio);
    divisor = error - error == 0 ? divisor : splat(10.0);
    V next = h / divisor;
    if (op_.max_step > 0) next = next > op_.max_step ? splat(op_.max_step) : next;
    next_h_.v[q] = next;
    previous_.v[q] = kept ? size : previous_.v[q];
    grows_.v[q] = kept;
  }

  // Of a mode that goes no further. It was held back by stability, not by accuracy, where h times the eigenvalue that the
  // last two stages see, which both lie at t + h, is at the edge of the region of stability (about 3).
  Status ended(int64_t i, double h, double error, bool there, bool stuck) const {
    if (there) return Status::completed;
    if (stuck) return error - error == 0 ? Status::stiff : Status::diverged;
    const double change = magnitude(k_[stages_ - 1][i] - k_[stages_ - 2][i]),
                 distance = magnitude(next_[i] - stage_[i]);
    return h * change > 2.5 * distance ? Status::stiff : Status::step_limit;
  }

  // ---- the end of the way --------------------------------------------------------------------------------------------
  // Near z* = s / (d P) a mode decays by dz/dt = -lambda (z - z*), lambda = d P² (1 + sum_l z² / a_l²): an explicit method
  // would go on in steps of about 3 / lambda. What the linear equation leaves out is of second order in (s - d u) / s, and
  // far below the tolerance once that is small against its root.
  PYDLN_INLINE I at_rest(int64_t q) const {
    const V du = d_.v[q] * next_.v[q] * p_.v[q];
    return magnitude(s_.v[q] - du) <= rest_ * magnitude(du);
  }

  // All records that a mode at rest still lacks.
  void settle(int64_t i) {
    const double there = z_[i];
    double z = there, lambda = 0;
    for (int round = 0; round < 4; ++round) {
      double p = sign_[i], shares = 1;
      for (int64_t l = 0; l < others_; ++l) {
        const double square = z * z + gaps_[l][i];
        p *= __builtin_sqrt(square);
        shares += z * z / square;
      }
      lambda = d_[i] * p * p * shares;
      const double step = p * (s_[i] - d_[i] * z * p);
      if (step == 0) break;
      z += step / lambda;
    }
    const double end = times_[op_.times - 1], start = t_[i];
    double* kept = kept_ + i * room_;
    for (int64_t k = record_[i]; k < op_.times; k += kLanes) {
      V exponent = (*reinterpret_cast<const Loose*>(times_ + k) - start) * (-1.4426950408889634 * lambda);
      exponent = exponent > -1000 ? exponent : splat(-1000.0);
      *reinterpret_cast<Loose*>(kept + k) = fma(rough_exp2(exponent), splat(there - z), splat(z));
    }
    record_[i] = op_.times;
    t_[i] = end;
  }

  // ---- within a step -------------------------------------------------------------------------------------------------
  // Lane by lane, several times at once: more of the lanes of a vector are of use than if every mode waited for the one with
  // most records in its step. False, and nothing recorded, if the run was cancelled meanwhile.
  bool record(const Block& h, const Block& reach) {
    for (int64_t i = stages_; i < all_; ++i) {
      stage(i, h, between_);
      slope(between_, k_[i]);
    }
    if (cancelled(control_)) return false;
    const int64_t powers = op_.method.powers;
    Block c[ops::kMostStages];
    for (int64_t p = 0; p < powers; ++p) {
      c[p] = sum(dense_[p]);
      for (int64_t q = 0; q < kVectors; ++q) c[p].v[q] = c[p].v[q] * h.v[q];
    }
    Block rate;
    for (int64_t q = 0; q < kVectors; ++q) rate.v[q] = 1 / h.v[q];
    for (int64_t q = 0; q < kVectors; ++q)
      for (unsigned lanes = truth(due_.v[q] <= reach.v[q]); lanes; lanes &= lanes - 1) {
        const int64_t i = q * kLanes + __builtin_ctz(lanes);
        int64_t k = record_[i];
        double* kept = kept_ + i * room_;
        const V start = splat(t_[i]), to = splat(reach[i]), inverse = splat(rate[i]);
        for (;;) {
          const V wanted = *reinterpret_cast<const Loose*>(times_ + k);
          V theta = (wanted - start) * inverse;
          theta = theta > 1 ? splat(1.0) : theta;
          V sum = splat(c[powers - 1][i]);
          for (int64_t p = powers - 2; p >= 0; --p) sum = fma(sum, theta, splat(c[p][i]));
          *reinterpret_cast<Loose*>(kept + k) = fma(sum, theta, splat(z_[i]));
          const int64_t made = __builtin_popcount(truth(wanted <= to));
          k += made;
          if (made < kLanes) break;
        }
        record_[i] = k;
        due_[i] = times_[k];
      }
    return true;
  }

  const ops::Modes& op_;
  Control& control_;
  const int64_t stages_, all_, others_;
  const double most_;  // between this and its inverse, no product of kGroup squares leaves the range of a double
  const double rest_;  // |s - d u| / |d u| of a mode at rest
  int64_t room_ = 0;
  int64_t first_ = 0, last_ = 0;  // modes taken from the queue that have no lane yet
  int64_t busy_ = 0, extremes_ = 0;
  int64_t allowance_ = 4194304;  // layers that may still be looked at once the run is cancelled: hundredths of a second

  Row rows_[ops::kMostStages], errors_[2], dense_[ops::kMostStages];
  Block* gaps_ = nullptr;   // c_l
  Block* roots_ = nullptr;  // their roots
  Block* sizes_ = nullptr;  // |a_l| at the start
  double* times_ = nullptr;
  double* kept_ = nullptr;  // z at the times so far, lane by lane

  int64_t mode_[members];
  int64_t record_[members] = {};  // index of the next time to record
  Block z_, next_, stage_, between_;
  Block p_;  // P of the last slope
  Block k_[ops::kMostStages];
  Block sign_{}, s_, d_, extent_;
  Block t_, next_h_, due_;
  Block previous_{};  // log2 of the error of the last accepted step, in units of the tolerance
  Truths grows_{};    // not in the step after a rejected one
  Truths active_{}, extreme_{}, accepted_{}, rejected_{};
};

}  // namespace pydln::PYDLN_ISA
