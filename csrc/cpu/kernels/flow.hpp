// Gradient flow of networks taken one group at a time from a shared queue (ops/flow.hpp): every member of a group goes its
// own steps in its own time, only the stages are computed together.
#pragma once

#include "cpu/kernels/growth.hpp"
#include "cpu/kernels/recorded_network.hpp"
#include "cpu/kernels/stage_sums.hpp"
#include "math/steady.hpp"
#include "ops/flow.hpp"

namespace pydln::PYDLN_ISA {

template <class L, class G>
class FlowWorker : RecordedNetwork<L, G> {
  using Net = RecordedNetwork<L, G>;
  using typename Net::Cell;
  using typename Net::T;
  using typename Net::Value;
  using V = typename Vector<T>::type;
  using Stages = StageSums<L>;
  using Leading = typename Stages::Leading;
  using Unused = typename Stages::Unused;
  template <int P>
  using Sums = typename Stages::template Sums<P>;
  using Net::carried_;
  using Net::clear_lane;
  using Net::control_;
  using Net::D_;
  using Net::forward;
  using Net::kMembers;
  using Net::layers;
  using Net::load_task;
  using Net::m_;
  using Net::products_;
  using Net::space_;
  using Net::store_weights;
  using Net::train_;
  using Net::watch_;
  using Net::weights_;
  using Net::width;
  using InLanes = PerLane<kMembers>;
  using Numbers = typename InLanes::Numbers;
  using Marks = typename InLanes::Marks;
  static constexpr int64_t kSome = InLanes::some;

  struct Lane {
    int64_t member = -1;
    int64_t record = 0;  // index of the next time to record
    int64_t accepted = 0, rejected = 0;
    double t = 0;
    double h = 0;                      // the step in work
    double next = 0;                   // the step after it
    double previous = kLogSmallError;  // logarithm of the error of the last accepted step, in units of the tolerance
    bool grows = true;                 // not in the step after a rejected one
    bool ends = false;                 // the step in work reaches the end of the run
    Growth growth;                     // of members that are hidden or settle
  };

  // What survey() found.
  struct Seen {
    typename InLanes::Doubles residual;  // ||E||
    typename InLanes::Doubles rate;      // of growth, that it allows along the way of its mode
    typename InLanes::Doubles insight;   // speed, in units of what it would be if what grows at `rate` were in sight
    typename InLanes::Flags idle;        // steps for which they are kept
    typename InLanes::Flags hidden;      // the member is so slow that what grows may be out of sight
    typename InLanes::Flags settles;     // a step moves it by less than what is tolerated
    void clear(int64_t lane) {
      residual[lane] = rate[lane] = 0;
      insight[lane] = 1;
      idle[lane] = 1;  // nothing is due
      hidden[lane] = settles[lane] = 0;
    }
    bool looks(int64_t lane) const { return hidden[lane] != 0 || settles[lane] != 0; }
  };
  // What it is asked about.
  struct Asked {
    typename InLanes::Flags live;  // the lanes that it is
    typename InLanes::Doubles speed, size;
    typename InLanes::Doubles step;  // the last one, or the first
    typename InLanes::Doubles left;  // time, from its beginning on
  };

 public:
  FlowWorker(const ops::Flow<T>& op, Control& control, Arena& arena)
      : Net(op, control, arena),
        op_(op),
        stages_(op.method.stages),
        all_(op.method.stages + op.method.extra),
        stops_(op.stop_loss || op.stop_strengths || op.stop_steady),
        square_(train_.plain() && D_ > 1 ? this->extent() : 0),
        residual_(arena, m_, this->n_),
        gains_(arena, D_, widest()) {
    now_ = layers(arena);
    next_ = layers(arena);
    between_ = layers(arena);
    to_ = arena.take<Cell*>(D_);
    other_top_ = arena.take<Cell>(L::cells(m_, width(D_ - 1)));
    for (int64_t r = 0; r < op.method.errors; ++r) {
      partial_[r] = layers(arena);
      errors_[r] = arena.take<Value>(D_);
    }
    sizes_ = arena.take<Value>(D_);
    next_sizes_ = arena.take<Value>(D_);
    for (int64_t i = 0; i < all_; ++i) k_[i] = layers(arena);
    if (stops_ || op.method.errors) spare_ = layers(arena);
    if (!op.method.errors) return;
    direction_ = layers(arena);
    int64_t most = 0;
    for (int64_t l = 0; l < D_; ++l) most = width(l) * width(l + 1) > most ? width(l) * width(l + 1) : most;
    scattered_ = arena.take<T>(most);
    if (arena.base)
      for (int64_t i = 0; i < most; ++i) scattered_[i] = scattered<T>(i);
  }

  void run() {
    clear();
    if (!op_.task_per_member) load_task(0, 0);
    refill();
    while (active_ > 0 && !cancelled(control_)) step();
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0) finish(lane, now_, lanes_[lane].t, Status::interrupted);
  }

 private:
  static constexpr double kSmallError = 1e-4, kLogSmallError = -9.210340371976182;
  static constexpr double kHidden = 0.01;  // of the pace at which everything would be in sight
  // How much longer steps may be where what moves is what grows fastest, and the error of a step shows it, in units of
  // `Method.growth`'s share. At half that rate something else may move, with what grows faster beneath it: a high power of the
  // part. Of more layers than two the rate is an estimate, above what grows where a mode is under way.
  static constexpr double kInSight = 0.5 / 0.03, kInSightDeep = 2 / 0.03;
  // Where steps are so much shorter than growth allows, its rate is measured in every fourth alone: M3 8x8, a tenth of a step.
  static constexpr double kFar = 0.0625;
  static constexpr int64_t kIdle = 3;
  static constexpr double kSmooth = 1.5;  // of h times the fastest decay: steps that leave nothing to ring
  static constexpr double kStable = 3;    // of it elsewhere: a first step has no error to go by, and longer steps ring
  static constexpr int64_t kFirstRounds = 6;    // of power iteration on the residual of a start
  static constexpr bool kFused = kMembers > 1;  // whether slopes are used where products make them

  // ---- members in and out of lanes ---------------------------------------------------------------------------------
  void clear() {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      seen_.clear(lane);
      Cell** const sets[] = {now_, next_, between_};
      for (Cell** set : sets) clear_lane(set, lane);
      for (int64_t i = 0; i < all_; ++i) clear_lane(k_[i], lane);
      if (spare_) clear_lane(spare_, lane);
      if (direction_) clear_lane(direction_, lane);
      if (op_.task_per_member) load_task(lane, 0);  // idle lanes compute on finite numbers
    }
  }

  void refill() {
    while (!exhausted_ && active_ < kMembers && !cancelled(control_)) {
      bool fresh[kMembers] = {};
      for (int64_t lane = 0; lane < kMembers; ++lane) {
        if (lanes_[lane].member >= 0 || exhausted_) continue;
        const int64_t member = take_member(control_);
        if (member >= op_.batch) {
          exhausted_ = true;
          continue;
        }
        lanes_[lane] = Lane{};
        seen_.idle[lane] = 0;
        lanes_[lane].member = member;
        ++active_;
        fresh[lane] = true;
        this->load_weights(now_, lane, member);
        if (op_.task_per_member) load_task(lane, member);
        this->load_scalars(lane, member);
      }
      begin(fresh);
    }
  }

  // The first slope and the first step of fresh members: one that moves them by about a hundredth of themselves. Those
  // under way get the slope again that they have, to the bit.
  void begin(const bool* fresh) {
    measured_ = Value{};
    for (int64_t lane = 0; lane < kMembers; ++lane) L::set(measured_, lane, fresh[lane] ? T(1) : T(0));
    residual_.restart(measured_);
    rounds_ = kFirstRounds;
    slope(now_, k_[0], true, Unused{});
    rounds_ = 0;
    if (cancelled(control_)) return;
    const Value fastest = largest(k_[0]), nan = unsound(k_[0]);
    Value size{};
    for (int64_t l = 0; l < D_; ++l) {
      sizes_[l] = largest(now_, l);
      size = max_abs(size, sizes_[l]);
    }
    this->see(now_);
    this->start_records([&](int64_t lane) { return fresh[lane]; });
    if (op_.record_at[0] == 0) record(now_, fresh);
    if (cancelled(control_)) return;
    const double end = op_.record_at[op_.times - 1];
    Asked asked;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      if (!fresh[lane]) continue;
      Lane& state = lanes_[lane];
      const double speed = L::get(fastest, lane), extent = L::get(size, lane);
      state.next = op_.step > 0 ? op_.step : 0.01 * extent / speed;
      if (!(state.next > 0)) state.next = 1e-6 * end;
      limit(state);
      asked.live[lane] = -1;
      asked.speed[lane] = speed;
      asked.size[lane] = extent;
      asked.step[lane] = state.next;
      asked.left[lane] = end;
    }
    if (op_.method.errors) survey(asked);
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      if (!fresh[lane]) continue;
      const Lane& state = lanes_[lane];
      Status status = L::get(nan, lane) == 0 ? Status::completed : Status::diverged;
      if (status == Status::diverged || reached(lane, status) || state.record == op_.times)
        finish(lane, now_, 0, status);
    }
  }

  void finish(int64_t lane, Cell** weights, double t, Status status) {
    Lane& state = lanes_[lane];
    store_weights(weights, lane, op_.weights, state.member);
    clear_lane(now_, lane);
    op_.status[state.member] = status;
    op_.stopped_at[state.member] = t;
    op_.accepted[state.member] = state.accepted;
    op_.rejected[state.member] = state.rejected;
    add_steps(control_, op_.times - state.record);  // records that will not be made count as done
    state.member = -1;
    seen_.clear(lane);
    --active_;
  }

  // The next records of the lanes that are due, at `weights`.
  void record(Cell** weights, const bool* due) {
    this->see(weights);
    Value loss{};
    if (op_.loss || this->records_product()) {
      forward(this->records_product(), static_cast<bool>(op_.loss));
      if (op_.loss) loss = this->train_loss();
      if (op_.strengths) this->strengths();
    }
    if (cancelled(control_)) return;
    Net::record(loss, [&](auto f) {
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (due[lane]) f(lane, lanes_[lane].member * op_.times + lanes_[lane].record);
    });
    if (cancelled(control_)) return;
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (due[lane]) {
        ++lanes_[lane].record;
        add_steps(control_, 1);
      }
  }

  // ---- a step --------------------------------------------------------------------------------------------------------
  void step() {
    const ops::Tableau& method = op_.method;
    const double end = op_.record_at[op_.times - 1];
    look();
    if (cancelled(control_)) return;
    Value h{};
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0) continue;
      bound(lane);
      state.ends = state.t + state.next * (1 + 1e-8) >= end;
      L::set(h, lane, static_cast<T>(state.ends ? end - state.t : state.next));
      state.h = static_cast<double>(L::get(h, lane));
    }
    Value error[2] = {};
    if (method.errors == 2)
      try_step<2>(h, error);
    else if (method.errors == 1)
      try_step<1>(h, error);
    else
      try_step<0>(h, error);
    if (cancelled(control_)) return;

    bool accepted[kMembers] = {}, stopped[kMembers] = {}, exhausted[kMembers] = {};
    Status status[kMembers] = {};
    bool dense = false, any_stopped = false, any_accepted = false, any_exhausted = false;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0) continue;
      accepted[lane] = judge(state, error_of(error, lane), status[lane]);
      if (accepted[lane]) {
        any_accepted = true;
        stopped[lane] = reached(lane, status[lane]);
        any_stopped |= stopped[lane];
        dense |= stopped[lane] || op_.record_at[state.record] <= state.t + state.h;
      }
      exhausted[lane] = state.accepted + state.rejected >= op_.max_steps;
      any_exhausted |= exhausted[lane];
    }
    if (any_exhausted) tell_stiffness(h, exhausted, status);

    if (any_accepted) {
      Value theta = Value{} + T(1);
      if (dense) further_stages(h);
      if (any_stopped) locate(h, stopped, theta);
      if (cancelled(control_)) return;
      record_all(h, accepted, stopped, theta);
      if (cancelled(control_)) return;  // nobody has come to the end whose records may be missing
      if (any_stopped) {
        interpolate(h, theta);
        for (int64_t lane = 0; lane < kMembers; ++lane)
          if (stopped[lane]) {
            const Lane& state = lanes_[lane];
            finish(lane, between_, state.t + static_cast<double>(L::get(theta, lane)) * state.h, status[lane]);
          }
      }
      const Value moved = method.errors ? movement() : Value{};
      commit(accepted);
      if (method.errors) survey_all(accepted, moved);
      if (cancelled(control_)) return;
    }
    advance(accepted, exhausted, status);
    if (active_ < kMembers) refill();
  }

  // k <- -dL/dW at `weights`, and what `use(l)` makes of its layers; with what members stop for if `looks`.
  template <class Use>
  void slope(Cell** weights, Cell** k, bool looks, const Use& use) {
    if constexpr (kFused && PYDLN_SQUARES && sizeof(G) == sizeof(T)) {  // one task for all, to compile half as much
      switch (square_) {
        case 8:
          return slope_of<8>(weights, k, looks, use);
        case 16:  // a build that tests the logic alone has one of them
          return slope_of<PYDLN_SQUARES == 2 ? 16 : 0>(weights, k, looks, use);
      }
    }
    slope_of<0>(weights, k, looks, use);
  }
  // S: the width of all layers, known when compiled, inputs whitened; 0: anything. As in DescentWorker::run; here x1.09 at 8,
  // x1.05 at 16.
  template <int S, class Use>
  __attribute__((noinline)) void slope_of(Cell** weights, Cell** k, bool looks, const Use& use) {
    this->see(weights);
    if constexpr (S > 0)
      this->template square_forward<S>(looks && op_.stop_strengths);
    else
      forward(looks && op_.stop_strengths, true);
    if (looks && op_.stop_steady) left_ = L::dot(carried_[0], carried_[0], m_, this->n_);
    if (looks && rounds_ > 0) {
      for (int64_t i = 0; i < rounds_; ++i) residual_.template iterate<S>(watch_, carried_[0], measured_);
      if (D_ > 2)
        gains_.template measure<S>(watch_, weights, residual_.right(), residual_.right_square(),
                                   [&](int64_t l) { return width(l); });
    }
    if (looks && op_.stop_loss) loss_ = this->train_loss();
    if (looks && op_.stop_strengths) this->strengths();
    const int64_t top = D_ - 1;
    Cell *r = carried_[0], *after = carried_[1];
    for (int64_t l = 0; l < top; ++l) {
      if (cancelled(control_)) return;
      if (l + 1 < top)
        back<S>(l, weights[l], k[l], r, typename L::Store{after, L::stride(S > 0 ? S : width(l + 1))}, use);
      else
        back<S>(l, weights[l], k[l], r, whole<S>(k[top], use), use);
      Cell* t = r;
      r = after;
      after = t;
    }
    if (top == 0) L::update_all(typename L::Slope{weights[0], k[0]}, r, m_, width(0));
    if (top == 0 || !kFused) pass(top, k[top], use);
    if (looks && op_.stop_steady) fastest_ = largest(k);
  }
  // A layer of the backward pass: R W^T to `next`, A^T R to k.
  template <int S, class Next, class Use>
  PYDLN_INLINE void back(int64_t l, const Cell* weights, Cell* k, const Cell* r, const Next& next, const Use& use) {
    const auto step = [&](const auto& update) __attribute__((always_inline)) {
      if constexpr (S > 0)
        L::template layer_step<S>(products_[l + 1], r, next, update);
      else
        L::layer_step(watch_, space_, products_[l + 1], r, next, update, width(l + 1), width(l), m_);
    };
    if constexpr (kFused && Use::any) {
      step(L::used(weights, k, use(l)));
    } else {
      step(typename L::Slope{weights, k});
      pass(l, k, use);
    }
  }
  // Where the last product of the backward pass goes, the slope of the top layer.
  template <int S, class Use>
  PYDLN_INLINE auto whole(Cell* k, const Use& use) {
    const int64_t ld = L::stride(S > 0 ? S : width(D_ - 1));
    if constexpr (kFused && Use::any)
      return L::each(use(D_ - 1), k, ld);
    else
      return typename L::Store{k, ld};
  }
  template <class Use>
  void pass(int64_t l, const Cell* k, const Use& use) const {
    if constexpr (Use::any) Stages::pass(use(l), k, count(l));
  }

  bool reached(int64_t lane, Status& status) const {
    const int64_t member = lanes_[lane].member;
    if (op_.stop_loss && L::get(loss_, lane) <= *op_.stop_loss.of(member))
      status = Status::reached_loss;
    else if (op_.stop_strengths && this->strengths_reached(lane, member))
      status = Status::reached_strength;
    else if (op_.stop_steady && L::get(fastest_, lane) <= *op_.stop_steady.of(member) &&
             (L::get(fastest_, lane) == T(0) || !takes_off(lane, member)))
      status = Status::steady;
    else
      return false;
    return true;
  }

  // Whether a slow member may become faster than what is steady: it is on a plateau, not at its end.
  bool takes_off(int64_t lane, int64_t member) const {
    const double residual = residual_to_learn(L::get(left_, lane), op_.least_residual, member);
    return attainable_speed(residual, D_) > static_cast<double>(*op_.stop_steady.of(member));
  }

  // ---- step control ---------------------------------------------------------------------------------------------------
  // Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.4, and II.10 for two estimates.
  double error_of(const Value* error, int64_t lane) const {
    const auto e = static_cast<double>(L::get(error[0], lane)), f = static_cast<double>(L::get(error[1], lane));
    if (op_.method.errors < 2 || !(e > 0)) return e;
    const double ratio = f / e;  // e² / sqrt(e² + f² / 100), of which neither square need be a number
    return e / __builtin_sqrt(1 + 0.01 * ratio * ratio);
  }

  // Whether a step is kept, and how long the next one is: a controller with memory (PI), within a factor 1/5 to 10.
  bool judge(Lane& state, double error, Status& status) const {
    const double p = 1 / op_.method.exponent, memory = 0.2 * p;
    const bool finite = error - error == 0, kept = finite && error <= 1;
    ++(kept ? state.accepted : state.rejected);
    if (op_.method.errors == 0) {  // nothing to choose: `error` is 0 or NaN
      if (!kept) status = Status::diverged;
      return kept;
    }
    if (kept) {
      // e^(p - 0.75 m) previous^-m / 0.9, of one logarithm and one exponential
      const double e = error > kSmallError ? __builtin_log(error) : kLogSmallError;
      const double ratio = __builtin_exp((p - 0.75 * memory) * e - memory * state.previous) / 0.9;
      state.next = state.h / between(state.grows ? 0.1 : 1, ratio, 5);
      state.previous = e;
      state.grows = true;
      limit(state);
      return true;
    }
    state.next = state.h / (finite ? between(1, __builtin_pow(error, p) / 0.9, 5) : 10);
    state.grows = false;
    if (!(state.t + state.next > state.t)) status = finite ? Status::stiff : Status::diverged;
    return false;
  }
  void limit(Lane& state) const {
    if (op_.max_step > 0 && state.next > op_.max_step) state.next = op_.max_step;
  }
  static double between(double least, double x, double most) { return x < least ? least : (x > most ? most : x); }

  // ---- what grows unseen ---------------------------------------------------------------------------------------------
  // Where a member is slow against its residual, something may grow that the error of a step does not show. A step of length h
  // multiplies v' = rho v by R(h rho) in the place of exp(h rho), of which h rho <= method.growth makes good rtol; and where
  // the member moves the sooner this ends, the less it needs. Lanes that are not asked about are computed beside the others.
  void survey(const Asked& asked) {
    const double far = kFar * op_.method.growth;
    // Steps at the edge of stability ring at some rtol.
    const double little = 100 * op_.rtol < 1e-3 ? 100 * op_.rtol : 1e-3;
    const Numbers zero{}, one = zero + 1.0;
    const Marks none{};
    for (int64_t q = 0; q < kMembers; q += kSome) {
      Marks &idle = seen_.idle.at(q), &was_hidden = seen_.hidden.at(q), &did_settle = seen_.settles.at(q);
      const Marks live = asked.live.at(q), due = live & (idle == none);
      idle = idle + (live & ~due);  // one less: a mark is -1
      if (none_of(due)) continue;
      const Numbers speed = asked.speed.at(q), size = asked.size.at(q), step = asked.step.at(q);
      Numbers residual{};
      if (D_ > 1) residual = InLanes::roots(InLanes::template get<L>(residual_.square(), q));
      const Numbers rate = D_ > 2 ? Numbers(residual * gains_.most(q)) : residual;
      Numbers whole = residual * size;
      for (int64_t l = 2; l < D_; ++l) whole = whole * size;
      // Speed, in units of what it would be if all that is to be learned were in sight.
      const Numbers pace = whole > zero ? Numbers(speed / whole) : one;
      const Numbers least = was_hidden ? Numbers(zero + 3 * kHidden) : Numbers(zero + kHidden);
      const Marks hidden = pace < least;
      const Marks settles = (step * speed <= little * size) & (asked.left.at(q) > 20.0 * step);
      const Marks looks = hidden | settles, looked = was_hidden | did_settle;
      const Numbers insight = rate > zero ? Numbers(speed / (rate * size)) : one;
      seen_.residual.at(q) = due ? residual : seen_.residual.at(q);
      seen_.rate.at(q) = due ? rate : seen_.rate.at(q);
      seen_.insight.at(q) = due ? insight : seen_.insight.at(q);
      was_hidden = due ? hidden : was_hidden;
      did_settle = due ? settles : did_settle;
      idle = (due & ~looks & (step * rate < far)) ? Marks(none + kIdle) : idle;
      if (none_of(due & looks)) continue;
      for (int64_t i = 0; i < kSome; ++i) {
        if (due[i] == 0 || looks[i] == 0) continue;
        Growth& growth = lanes_[q + i].growth;
        if (looked[i])
          growth.due = 1;
        else
          growth.begin();
      }
    }
  }
  static bool none_of(const Marks& marks) {
    bool any = false;
    for (int64_t i = 0; i < kSome; ++i) any = any || marks[i] != 0;
    return !any;
  }

  void bound(int64_t lane) {
    if (!op_.method.errors) return;
    Lane& state = lanes_[lane];
    const bool looks = seen_.looks(lane);
    const double rate = looks ? state.growth.rate : seen_.rate[lane];
    const double excess = state.next * rate / op_.method.growth;
    if (excess > 1) {
      const double square = seen_.insight[lane] * seen_.insight[lane], fourth = square * square;
      const double most = 1 + (D_ > 2 ? kInSightDeep * fourth : kInSight * fourth * fourth);
      // A root is taken where it is exceeded alone: exponents are small whole numbers.
      double power = excess;
      for (auto p = static_cast<int64_t>(op_.method.exponent); p > 1; --p) power *= excess;
      if (power > most) state.next = op_.method.growth * __builtin_pow(most, 1 / op_.method.exponent) / rate;
    }
    if (!looks) return;
    const bool ends_here =
        state.growth.rate * (op_.record_at[op_.times - 1] - state.t) <= 10;  // else a plateau ends first
    const double longest = seen_.settles[lane] && ends_here ? kSmooth : kStable;
    if (state.next * state.growth.decay > longest) state.next = longest / state.growth.decay;
  }

  // As many rounds of power iteration as members are due.
  void look() {
    for (;;) {
      Value nudge{}, per_nudge{}, shift{}, live{};
      bool any = false;
      for (int64_t lane = 0; lane < kMembers; ++lane) {
        const Lane& state = lanes_[lane];
        if (state.member < 0 || state.growth.due <= 0) continue;
        if (state.growth.begins())
          for (int64_t l = 0; l < D_; ++l) L::load(direction_[l], lane, scattered_, width(l + 1), width(l), false);
        double size = 0;
        for (int64_t l = 0; l < D_; ++l) {
          const auto here = static_cast<double>(L::get(sizes_[l], lane));
          size = here > size ? here : size;
        }
        const double length = (size > 0 ? size : 1) * (sizeof(T) == 8 ? 0x1p-26 : 0x1p-12);
        L::set(nudge, lane, static_cast<T>(length));
        L::set(per_nudge, lane, static_cast<T>(1 / length));
        L::set(shift, lane, static_cast<T>(state.growth.shift));
        L::set(live, lane, T(1));
        any = true;
      }
      if (!any || cancelled(control_)) return;
      round(nudge, per_nudge, shift, live);
    }
  }
  void round(const Value& nudge, const Value& per_nudge, const Value& shift, const Value& live) {
    const V by = Stages::spread(nudge), per = Stages::spread(per_nudge), more = Stages::spread(shift);
    for (int64_t l = 0; l < D_; ++l) {
      const V *x = Stages::vectors(direction_[l]), *y = Stages::vectors(now_[l]);
      V* to = Stages::vectors(between_[l]);
      for (int64_t q = 0, end = count(l); q < end; ++q) to[q] = fma(by, x[q], y[q]);
    }
    slope(between_, spare_, false, Unused{});
    if (cancelled(control_)) return;
    Value along{}, square{}, most{};
    for (int64_t l = 0; l < D_; ++l) {
      V *jx = Stages::vectors(spare_[l]), *x = Stages::vectors(direction_[l]);
      const V* k = Stages::vectors(k_[0][l]);
      const int64_t end = count(l);
      for (int64_t q = 0; q < end; ++q) jx[q] = (jx[q] - k[q]) * per;
      along = along + L::dot(direction_[l], spare_[l], width(l + 1), width(l));
      square = square + L::dot(direction_[l], direction_[l], width(l + 1), width(l));
      V far{};
      for (int64_t q = 0; q < end; ++q) {
        jx[q] = fma(more, x[q], jx[q]);
        far = max_abs(far, jx[q]);
      }
      most = max_abs(most, Stages::across(far));
    }
    const Value scale = T(1) / most;
    const auto take = Stages::spread(live) > V{};
    const V by_scale = Stages::spread(scale);
    const auto sound = by_scale - by_scale == V{};
    for (int64_t l = 0; l < D_; ++l) {
      const V* jx = Stages::vectors(spare_[l]);
      V* x = Stages::vectors(direction_[l]);
      for (int64_t q = 0, end = count(l); q < end; ++q) x[q] = take & sound ? V(jx[q] * by_scale) : x[q];
    }
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (L::get(live, lane) > 0)
        lanes_[lane].growth.take(static_cast<double>(L::get(along, lane)) / static_cast<double>(L::get(square, lane)));
  }

  // How far the step in work moves every member, 0 where no entry changes but in its own last bits. Of members that settle.
  Value movement() const {
    bool any = false;
    for (int64_t lane = 0; lane < kMembers; ++lane) any |= lanes_[lane].member >= 0 && seen_.settles[lane];
    Value most{};
    if (!any) return most + T(1);
    const V last_bits = splat(T(sizeof(T) == 8 ? 0x1p-50 : 0x1p-21));
    for (int64_t l = 0; l < D_; ++l) {
      const V *y = Stages::vectors(now_[l]), *y2 = Stages::vectors(next_[l]);
      V far{};
      for (int64_t q = 0, end = count(l); q < end; ++q) {
        const V beyond = max_abs(V{}, V(y2[q] - y[q])) - max_abs(V{}, y[q]) * last_bits;
        far = beyond > V{} ? max_abs(far, beyond) : far;
      }
      most = max_abs(most, Stages::across(far));
    }
    return most;
  }

  // Members that made their step: how fast they are, and whether they rest.
  void survey_all(const bool* accepted, const Value& moved) {
    const double end = op_.record_at[op_.times - 1];
    Value sizes{};
    for (int64_t l = 0; l < D_; ++l) sizes = max_abs(sizes, sizes_[l]);
    Asked asked;
    for (int64_t q = 0; q < kMembers; q += kSome) {
      asked.speed.at(q) = InLanes::template get<L>(speed_, q);
      asked.size.at(q) = InLanes::template get<L>(sizes, q);
    }
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (!accepted[lane] || state.member < 0 || state.ends) continue;
      const double speed = asked.speed[lane], left = end - state.t - state.h;
      if (speed == 0 ||
          (seen_.settles[lane] && rests(lane, speed, asked.size[lane], L::get(moved, lane) == T(0), left))) {
        state.ends = true;
        rest(lane);
        if (cancelled(control_)) return;
        continue;
      }
      asked.live[lane] = -1;
      asked.step[lane] = state.h;
      asked.left[lane] = end - state.t;
    }
    survey(asked);
  }
  // Whether nothing that is recorded will change any more in the time that is left.
  bool rests(int64_t lane, double speed, double size, bool unmoved, double left) const {
    const Lane& state = lanes_[lane];
    const Growth& growth = state.growth;
    if (growth.rounds < Growth::kBegin || !(growth.decay > 0)) return false;
    // A step as long as they get that changes last bits alone, and has no slope beyond some roundings, will do so for ever; of a
    // part that grows others change. Steps that stiffness holds to 1e-12 change last bits too, and may have 1e12 to go.
    constexpr double kEps = sizeof(T) == 8 ? 0x1p-52 : 0x1p-23;
    const double rounding = kEps * growth.decay * size;
    const bool longest = 2 * state.h * growth.decay > kSmooth || 2 * state.h * growth.rate > op_.method.growth;
    // Beside what decays so fast a rate below this is not seen: what it makes of a last bit must not be seen either.
    const bool blind = 4 * 0x1p-26 * growth.decay * left > 16;
    if (unmoved && longest && !blind && speed <= 32 * rounding) return true;
    // The slope is what rounding leaves of it, and no part grows in the time left, whatever its size.
    if (!(speed <= 16 * rounding)) return false;
    double fastest = seen_.residual[lane];
    for (int64_t l = 2; l < D_; ++l)
      fastest *= size * static_cast<double>(width(l) < width(l - 1) ? width(l) : width(l - 1));
    return fastest * left <= 0.1 || (growth.sure() && !blind && growth.rate <= 4 * __builtin_sqrt(kEps) * growth.decay);
  }
  // All records that are left, of what will not change.
  void rest(int64_t lane) {
    bool due[kMembers] = {};
    due[lane] = true;
    while (lanes_[lane].record < op_.times && !cancelled(control_)) record(now_, due);
  }

  // A member out of steps was held back by stability, not by accuracy, where h times the largest eigenvalue that the last
  // two stages see lies at the edge of the region of stability (about 3). Both lie at t + h.
  void tell_stiffness(const Value& h, const bool* exhausted, Status* status) {
    Value change{}, distance{};
    point(stages_ - 2, h);
    for (int64_t l = 0; l < D_; ++l) {
      const V *k = Stages::vectors(k_[stages_ - 1][l]), *k2 = Stages::vectors(k_[stages_ - 2][l]);
      const V *y = Stages::vectors(next_[l]), *y2 = Stages::vectors(between_[l]);
      V dk{}, dy{};
      for (int64_t q = 0, end = count(l); q < end; ++q) {
        dk = max_abs(dk, V(k[q] - k2[q]));
        dy = max_abs(dy, V(y[q] - y2[q]));
      }
      change = max_abs(change, Stages::across(dk));
      distance = max_abs(distance, Stages::across(dy));
    }
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (exhausted[lane]) {
        const Lane& state = lanes_[lane];
        // Held back to settle.
        const bool smooth = seen_.settles[lane] && 1.01 * state.h * state.growth.decay > kSmooth;
        const bool held = smooth || L::get(h, lane) * L::get(change, lane) > T(2.5) * L::get(distance, lane);
        status[lane] = held ? Status::stiff : Status::step_limit;
      }
  }

  // ---- within a step -------------------------------------------------------------------------------------------------
  void further_stages(const Value& h) {
    for (int64_t i = stages_; i < all_; ++i) {
      point(i, h);
      slope(between_, k_[i], false, Unused{});
      if (cancelled(control_)) return;
    }
  }

  // between_ <- where stage i lies
  void point(int64_t i, const Value& h) {
    const double* const row[] = {op_.method.a + i * all_};
    combine(between_, h, sums<1>(row, i));
  }

  // between_ <- y(t + theta h)
  void interpolate(const Value& h, const Value& theta) {
    const V at = Stages::spread(theta);
    Sums<1> sums;
    for (int64_t i = 0; i < all_; ++i) {
      const double* row = op_.method.dense + i * op_.method.powers;
      V sum{};
      for (int64_t p = op_.method.powers - 1; p >= 0; --p) sum = fma(sum, at, splat(static_cast<T>(row[p])));
      const V weight = sum * at;
      sums.add(k_[i], &weight);
    }
    combine(between_, h, sums);
  }

  // Where members that are where they wanted to be at the end of the step got there first, by bisection.
  void locate(const Value& h, const bool* stopped, Value& theta) {
    double low[kMembers] = {}, high[kMembers];
    for (double& x : high) x = 1;
    for (int round = 0; round < static_cast<int>(6 * sizeof(T)); ++round) {
      Value middle{};
      for (int64_t lane = 0; lane < kMembers; ++lane)
        L::set(middle, lane, static_cast<T>(0.5 * (low[lane] + high[lane])));
      interpolate(h, middle);
      slope(between_, spare_, true, Unused{});
      if (cancelled(control_)) return;
      Status ignored{};
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (stopped[lane]) (reached(lane, ignored) ? high : low)[lane] = 0.5 * (low[lane] + high[lane]);
    }
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (stopped[lane]) L::set(theta, lane, static_cast<T>(high[lane]));
  }

  void record_all(const Value& h, const bool* accepted, const bool* stopped, const Value& theta) {
    for (;;) {
      bool due[kMembers] = {}, any = false;
      Value at{};
      for (int64_t lane = 0; lane < kMembers; ++lane) {
        const Lane& state = lanes_[lane];
        if (!accepted[lane] || state.record == op_.times) continue;
        const double wanted = op_.record_at[state.record];
        const double last = stopped[lane] ? state.t + static_cast<double>(L::get(theta, lane)) * state.h
                            : state.ends  ? wanted
                                          : state.t + state.h;
        due[lane] = wanted <= last;
        any |= due[lane];
        L::set(at, lane, static_cast<T>(between(0, (wanted - state.t) / state.h, 1)));
      }
      if (!any) return;
      interpolate(h, at);
      record(between_, due);
      if (cancelled(control_)) return;
    }
  }

  // Members that made their step move on.
  void commit(const bool* accepted) {
    bool everyone = true;
    Value moves{};
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      everyone &= accepted[lane] || lanes_[lane].member < 0;
      L::set(moves, lane, accepted[lane] && lanes_[lane].member >= 0 ? T(1) : T(0));
    }
    Cell** last = k_[stages_ - 1];
    if (everyone) {
      Cell** before = now_;
      now_ = next_;
      next_ = before;
      Value* sizes = sizes_;
      sizes_ = next_sizes_;
      next_sizes_ = sizes;
      k_[stages_ - 1] = k_[0];
      k_[0] = last;
      return;
    }
    const auto move = Stages::spread(moves) > V{};
    for (int64_t l = 0; l < D_; ++l) {
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (accepted[lane]) L::set(sizes_[l], lane, L::get(next_sizes_[l], lane));
      V *y = Stages::vectors(now_[l]), *k = Stages::vectors(k_[0][l]);
      const V *y2 = Stages::vectors(next_[l]), *k2 = Stages::vectors(last[l]);
      for (int64_t q = 0, end = count(l); q < end; ++q) {
        y[q] = move ? y2[q] : y[q];
        k[q] = move ? k2[q] : k[q];
      }
    }
  }

  void advance(const bool* accepted, const bool* exhausted, const Status* status) {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0) continue;
      if (accepted[lane]) state.t = state.ends ? op_.record_at[op_.times - 1] : state.t + state.h;
      if (accepted[lane] && state.ends)
        finish(lane, now_, state.t, Status::completed);
      else if (exhausted[lane] || status[lane] != Status::completed)
        finish(lane, now_, state.t, status[lane]);
    }
  }

  // ---- stages of a step ------------------------------------------------------------------------------------------------
  // Of the first n stages: those that have a weight anywhere, and the last.
  template <int P>
  Sums<P> sums(const double* const* c, int64_t n) const {
    Sums<P> made;
    for (int64_t j = 0; j < n; ++j) {
      bool counts = j + 1 == n;
      V weights[P];
      for (int p = 0; p < P; ++p) {
        counts |= c[p][j] != 0;
        weights[p] = splat(static_cast<T>(c[p][j]));
      }
      if (counts) made.add(k_[j], weights);
    }
    return made;
  }

  void combine(Cell** to, const Value& h, const Sums<1>& sums) const {
    const Leading lead{{sums, Stages::spread(h), now_, to}};
    for (int64_t l = 0; l < D_; ++l) pass(l, sums.k[sums.before][l], lead);
  }

  // All stages of a step, next_ and its slope; the largest scaled entry of each of the R estimates, NaN where the new point or
  // an estimate is not finite. Where a stage lies is written over where the one before it lay, for what fills the second cache
  // is half the time: a layer is met for the last time before its slope is made, but for the top one, which has two places.
  template <int R>
  void try_step(const Value& h, Value* error) {
    const int64_t last = stages_ - 1;
    const V step = Stages::spread(h);
    for (int64_t l = 0; l < D_; ++l) to_[l] = next_[l];
    for (int64_t i = 1; i < last; ++i) {
      const double* const row[] = {op_.method.a + i * all_};
      const Sums<1> made = sums<1>(row, i);
      stage(i - 1, [&](Cell** to) { return Leading{{made, step, now_, to}}; });
    }
    const double* rows[R + 1] = {op_.method.a + last * all_};
    for (int r = 0; r < R; ++r) rows[r + 1] = op_.method.error + r * stages_;
    nan_ = Value{};
    for (int64_t l = 0; l < D_; ++l) {
      next_sizes_[l] = Value{};
      for (int r = 0; r < R; ++r) errors_[r][l] = Value{};
    }
    const Sums<R + 1> made = sums<R + 1>(rows, last);
    stage(last - 1, [&](Cell** to) {
      return typename Stages::template Arriving<R>{{made, step, now_, to}, partial_, next_sizes_, &nan_};
    });
    if (cancelled(control_)) return;
    if constexpr (R > 0) {
      speed_ = Value{};
      measured_ = Value{};
      rounds_ = 0;
      for (int64_t q = 0; D_ > 1 && q < kMembers; q += kSome) {
        const Marks due = seen_.idle.at(q) == Marks{};
        if (none_of(due)) continue;
        rounds_ = 1;
        InLanes::template put<L>(measured_, q, due ? Numbers(Numbers{} + 1.0) : Numbers{});
      }
      typename Stages::template Judging<R> judging{{}, step, partial_, errors_, &nan_, &speed_};
      for (int r = 0; r < R; ++r) judging.last_weights[r] = rows[r + 1] + last;
      slope(next_, k_[last], true, judging);
      rounds_ = 0;
    } else {
      slope(next_, k_[last], true, Unused{});
      nan_ = nan_ + unsound(k_[last]);
    }

    const T atol = static_cast<T>(op_.atol), rtol = static_cast<T>(op_.rtol);
    for (int64_t l = 0; l < D_; ++l) {
      const Value scale = fma(Value{} + rtol, max_abs(sizes_[l], next_sizes_[l]), Value{} + atol);
      for (int r = 0; r < R; ++r) error[r] = max_abs(error[r], Value(errors_[r][l] / scale));
    }
    error[0] = error[0] + nan_;
  }
  // k_i of the step, at next_, and what leading(to) makes of it, which is next_ after that.
  template <class Lead>
  void stage(int64_t i, Lead leading) {
    if (cancelled(control_)) return;
    const int64_t top = D_ - 1;
    to_[top] = other_top_;
    const auto use = leading(to_);
    if (i > 0)
      slope(next_, k_[i], false, use);
    else
      for (int64_t l = 0; l < D_; ++l) pass(l, k_[0][l], use);
    other_top_ = next_[top];
    next_[top] = to_[top];
  }

  // Not finite where an entry is not.
  Value unsound(Cell** set) const {
    V sum{};
    for (int64_t l = 0; l < D_; ++l)
      for (int64_t q = 0, end = count(l); q < end; ++q) {
        const V x = Stages::vectors(set[l])[q];
        sum = sum + (x - x);
      }
    return Stages::total(sum);
  }
  Value largest(Cell** set) const {
    Value most{};
    for (int64_t l = 0; l < D_; ++l) most = max_abs(most, largest(set, l));
    return most;
  }
  Value largest(Cell** set, int64_t l) const {
    V most{};
    for (int64_t q = 0, end = count(l); q < end; ++q) most = max_abs(most, Stages::vectors(set[l])[q]);
    return Stages::across(most);
  }

  int64_t widest() const {
    int64_t most = 0;
    for (int64_t l = 0; l <= D_; ++l) most = width(l) > most ? width(l) : most;
    return most;
  }

  int64_t count(int64_t l) const {
    return L::cells(width(l + 1), width(l)) * static_cast<int64_t>(sizeof(Cell)) / static_cast<int64_t>(sizeof(V));
  }

  const ops::Flow<T>& op_;
  const int64_t stages_, all_;
  const bool stops_;
  const int64_t square_;  // the width that all layers share and kernels of their own are for; 0: others
  ResidualNorm<L> residual_;
  PathGains<L> gains_;
  Lane lanes_[kMembers];
  Seen seen_;
  int64_t active_ = 0;
  bool exhausted_ = false;
  Value loss_{}, fastest_{};
  Value speed_{};     // largest entry of the slope at the new point
  Value left_{};      // ||E||_F^2, for members that stop when they are steady
  Value measured_{};  // 1 of members whose residual is measured
  int64_t rounds_ = 0;
  Value nan_{};  // not finite where the new point, or an estimate of its error, is not

  Cell** now_ = nullptr;
  Cell** next_ = nullptr;
  Cell** between_ = nullptr;
  Cell** to_ = nullptr;  // where the point after next_ goes
  Cell* other_top_ = nullptr;
  Cell** spare_ = nullptr;
  Cell** direction_ = nullptr;  // of the fastest growth of members that are hidden or settle
  T* scattered_ = nullptr;
  Cell** partial_[2] = {};  // estimates without their last stage
  Value* errors_[2] = {};   // largest entry of every layer of each
  Value* sizes_ = nullptr;  // largest entry of every layer of now_
  Value* next_sizes_ = nullptr;
  Cell** k_[ops::kMostStages] = {};
};

}  // namespace pydln::PYDLN_ISA
