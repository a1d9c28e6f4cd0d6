// Gradient flow of networks taken one group at a time from a shared queue (ops/flow.hpp): every member of a group goes its
// own steps in its own time, only the stages are computed together.
#pragma once

#include "cpu/kernels/network.hpp"
#include "ops/flow.hpp"

namespace pydln::PYDLN_ISA {

template <class L, class G>
class FlowWorker : Network<L, G> {
  using Net = Network<L, G>;
  using typename Net::Cell;
  using typename Net::T;
  using typename Net::Value;
  using V = typename Vector<T>::type;
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

  struct Lane {
    int64_t member = -1;
    int64_t record = 0;  // index of the next time to record
    int64_t accepted = 0, rejected = 0;
    double t = 0;
    double h = 0;                   // the step in work
    double next = 0;                // the step after it
    double previous = kSmallError;  // error of the last accepted step, in units of the tolerance
    bool grows = true;              // not in the step after a rejected one
    bool ends = false;              // the step in work reaches the end of the run
  };

 public:
  FlowWorker(const ops::Flow<T>& op, Control& control, Arena& arena)
      : Net(op, static_cast<bool>(op.stop_strengths), control, arena),
        op_(op),
        stages_(op.method.stages),
        all_(op.method.stages + op.method.extra),
        stops_(op.stop_loss || op.stop_strengths || op.stop_steady) {
    now_ = layers(arena);
    next_ = layers(arena);
    stage_ = layers(arena);
    between_ = layers(arena);
    for (int64_t r = 0; r < op.method.errors; ++r) partial_[r] = layers(arena);
    sizes_ = arena.take<Value>(D_);
    for (int64_t i = 0; i < all_; ++i) k_[i] = layers(arena);
    if (stops_) spare_ = layers(arena);
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
  static constexpr double kSmallError = 1e-4;

  // ---- members in and out of lanes ---------------------------------------------------------------------------------
  void clear() {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Cell** const sets[] = {now_, next_, stage_, between_};
      for (Cell** set : sets) clear_lane(set, lane);
      for (int64_t i = 0; i < all_; ++i) clear_lane(k_[i], lane);
      if (stops_) clear_lane(spare_, lane);
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
        lanes_[lane].member = member;
        ++active_;
        fresh[lane] = true;
        this->load_weights(now_, lane, member);
        if (op_.task_per_member) load_task(lane, member);
        this->load_scalars(train_, op_.train, lane, member);
      }
      begin(fresh);
    }
  }

  // The first slope and the first step of fresh members: one that moves them by about a hundredth of themselves. Those
  // under way get the slope again that they have, to the bit.
  void begin(const bool* fresh) {
    slope(now_, k_[0], true);
    if (cancelled(control_)) return;
    const Value fastest = largest(k_[0]), size = largest(now_);
    const double end = op_.record_at[op_.times - 1];
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      if (!fresh[lane]) continue;
      Lane& state = lanes_[lane];
      const double speed = L::get(fastest, lane), extent = L::get(size, lane);
      state.next = op_.step > 0 ? op_.step : 0.01 * extent / speed;
      if (!(state.next > 0)) state.next = 1e-6 * end;
      limit(state);
      if (op_.record_at[0] == 0) record(lane, now_);
      Status status = Status::completed;
      if (reached(lane, status) || state.record == op_.times) finish(lane, now_, 0, status);
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
    --active_;
  }

  void record(int64_t lane, Cell** weights) {
    Lane& state = lanes_[lane];
    store_weights(weights, lane, op_.weight_records, state.member * op_.times + state.record);
    ++state.record;
    add_steps(control_, 1);
  }

  // ---- a step --------------------------------------------------------------------------------------------------------
  void step() {
    const ops::Tableau& method = op_.method;
    const double end = op_.record_at[op_.times - 1];
    Value h{};
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0) continue;
      state.ends = state.t + state.next * (1 + 1e-8) >= end;
      L::set(h, lane, static_cast<T>(state.ends ? end - state.t : state.next));
      state.h = static_cast<double>(L::get(h, lane));
    }
    for (int64_t i = 1; i + 1 < stages_; ++i) {
      combine(stage_, h, method.a + i * all_, i);
      slope(stage_, k_[i], false);
      if (cancelled(control_)) return;
    }
    Value error[2] = {};
    if (method.errors == 2)
      reach<2>(h, error);
    else if (method.errors == 1)
      reach<1>(h, error);
    else
      reach<0>(h, error);
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
      if (any_stopped) {
        interpolate(h, theta);
        for (int64_t lane = 0; lane < kMembers; ++lane)
          if (stopped[lane]) {
            const Lane& state = lanes_[lane];
            finish(lane, between_, state.t + static_cast<double>(L::get(theta, lane)) * state.h, status[lane]);
          }
      }
      commit(accepted);
    }
    advance(accepted, exhausted, status);
    if (active_ < kMembers) refill();
  }

  // k <- -dL/dW at `weights`; with what members stop for if `looks`.
  void slope(Cell** weights, Cell** k, bool looks) {
    this->see(weights);
    forward(looks && op_.stop_strengths, true);
    if (looks && op_.stop_loss) loss_ = this->loss_of(train_, carried_[0]);
    if (looks && op_.stop_strengths) this->strengths();
    Cell *r = carried_[0], *after = carried_[1];
    for (int64_t l = 0; l + 1 < D_; ++l) {
      if (cancelled(control_)) return;
      L::layer_step(watch_, space_, products_[l + 1], r, typename L::Store{after, L::stride(width(l + 1))},
                    typename L::Slope{weights[l], k[l]}, width(l + 1), width(l), m_);
      Cell* t = r;
      r = after;
      after = t;
    }
    const int64_t top = D_ - 1;
    L::update_all(typename L::Slope{weights[top], k[top]}, r, m_, width(top));
    if (looks && op_.stop_steady) fastest_ = largest(k);
  }

  bool reached(int64_t lane, Status& status) const {
    const int64_t member = lanes_[lane].member;
    if (op_.stop_loss && L::get(loss_, lane) <= *op_.stop_loss.of(member))
      status = Status::reached_loss;
    else if (op_.stop_strengths && this->strengths_reached(lane, member))
      status = Status::reached_strength;
    else if (op_.stop_steady && L::get(fastest_, lane) <= *op_.stop_steady.of(member))
      status = Status::steady;
    else
      return false;
    return true;
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
      const double e = error > kSmallError ? error : kSmallError;
      const double ratio = __builtin_pow(e, p - 0.75 * memory) / __builtin_pow(state.previous, memory) / 0.9;
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

  // A member out of steps was held back by stability, not by accuracy, where h times the largest eigenvalue that the last
  // two stages see lies at the edge of the region of stability (about 3). Both lie at t + h.
  void tell_stiffness(const Value& h, const bool* exhausted, Status* status) {
    Value change{}, distance{};
    for (int64_t l = 0; l < D_; ++l) {
      const V *k = vectors(k_[stages_ - 1][l]), *k2 = vectors(k_[stages_ - 2][l]);
      const V *y = vectors(next_[l]), *y2 = vectors(stage_[l]);
      V dk{}, dy{};
      for (int64_t q = 0; q < count(l); ++q) {
        dk = max_abs(dk, V(k[q] - k2[q]));
        dy = max_abs(dy, V(y[q] - y2[q]));
      }
      change = max_abs(change, across(dk));
      distance = max_abs(distance, across(dy));
    }
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (exhausted[lane])
        status[lane] = L::get(h, lane) * L::get(change, lane) > T(2.5) * L::get(distance, lane) ? Status::stiff
                                                                                                : Status::step_limit;
  }

  // ---- within a step -------------------------------------------------------------------------------------------------
  void further_stages(const Value& h) {
    for (int64_t i = stages_; i < all_; ++i) {
      combine(between_, h, op_.method.a + i * all_, i);
      slope(between_, k_[i], false);
      if (cancelled(control_)) return;
    }
  }

  // between_ <- y(t + theta h)
  void interpolate(const Value& h, const Value& theta) {
    V weight[ops::kMostStages];
    const V at = spread(theta);
    for (int64_t i = 0; i < all_; ++i) {
      const double* row = op_.method.dense + i * op_.method.powers;
      V sum{};
      for (int64_t p = op_.method.powers - 1; p >= 0; --p) sum = fma(sum, at, splat(static_cast<T>(row[p])));
      weight[i] = sum * at;
    }
    add(between_, h, weight, k_, all_);
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
      slope(between_, spare_, true);
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
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (due[lane]) record(lane, between_);
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
      k_[stages_ - 1] = k_[0];
      k_[0] = last;
      return;
    }
    const auto move = spread(moves) > V{};
    for (int64_t l = 0; l < D_; ++l) {
      V *y = vectors(now_[l]), *k = vectors(k_[0][l]);
      const V *y2 = vectors(next_[l]), *k2 = vectors(last[l]);
      for (int64_t q = 0; q < count(l); ++q) {
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

  // ---- sums over stages ------------------------------------------------------------------------------------------------
  // to <- y + h sum_j c_j k_j over the j < n that have a weight
  void combine(Cell** to, const Value& h, const double* c, int64_t n) {
    V weight[ops::kMostStages];
    Cell** k[ops::kMostStages];
    int64_t used = 0;
    for (int64_t j = 0; j < n; ++j)
      if (c[j] != 0) {
        weight[used] = splat(static_cast<T>(c[j]));
        k[used++] = k_[j];
      }
    add(to, h, weight, k, used);
  }
  void add(Cell** to, const Value& h, const V* weight, Cell** const* k, int64_t n) {
    const V step = spread(h);
    for (int64_t l = 0; l < D_; ++l) {
      V* out = vectors(to[l]);
      const V* y = vectors(now_[l]);
      const V* from[ops::kMostStages];
      for (int64_t j = 0; j < n; ++j) from[j] = vectors(k[j][l]);
      const int64_t size = count(l);
      int64_t q = 0;
      for (; q + 8 <= size; q += 8) sum<8>(out, y, step, weight, from, n, q);
      for (; q < size; ++q) sum<1>(out, y, step, weight, from, n, q);
    }
  }
  template <int N>
  static PYDLN_INLINE void sum(V* out, const V* y, V step, const V* weight, const V* const* from, int64_t n,
                               int64_t q) {
    V s[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) s[i] = weight[0] * from[0][q + i];
    for (int64_t j = 1; j < n; ++j) {
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) s[i] = fma(weight[j], from[j][q + i], s[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) out[q + i] = fma(step, s[i], y[q + i]);
  }

  // next_ <- y + h sum_j b_j k_j and its slope; the largest scaled entry of each of the R estimates, NaN where the new point
  // or an estimate is not finite. What the estimates take from the stages before the last, and how large the layers are, is
  // found while those are read for the new point: reading them twice took a tenth of the time.
  template <int R>
  void reach(const Value& h, Value* error) {
    const int64_t n = stages_ - 1;
    const double* b = op_.method.a + n * all_;
    const double* e[R + 1] = {};
    for (int r = 0; r < R; ++r) e[r] = op_.method.error + r * stages_;
    V weight[(R + 1) * ops::kMostStages];  // of the new point and of every estimate, stage by stage
    Cell** k[ops::kMostStages];
    int64_t used = 0;
    for (int64_t j = 0; j < n; ++j) {
      bool counts = b[j] != 0;
      for (int r = 0; r < R; ++r) counts |= e[r][j] != 0;
      if (!counts) continue;
      weight[(R + 1) * used] = splat(static_cast<T>(b[j]));
      for (int r = 0; r < R; ++r) weight[(R + 1) * used + r + 1] = splat(static_cast<T>(e[r][j]));
      k[used++] = k_[j];
    }
    const V step = spread(h), zero{};
    V nan{};
    for (int64_t l = 0; l < D_; ++l) {
      const V* from[ops::kMostStages];
      for (int64_t j = 0; j < used; ++j) from[j] = vectors(k[j][l]);
      // NOLINTNEXTLINE(misc-const-correctness): sums writes there
      V* to[R + 1] = {vectors(next_[l])};
      for (int r = 0; r < R; ++r) to[r + 1] = vectors(partial_[r][l]);
      const V* y = vectors(now_[l]);
      const int64_t size = count(l);
      V largest{};
      int64_t q = 0;
      for (; q + 4 <= size; q += 4) sums<4, R + 1>(to, y, step, weight, from, used, q, largest, nan);
      for (; q < size; ++q) sums<1, R + 1>(to, y, step, weight, from, used, q, largest, nan);
      sizes_[l] = across(largest);
    }
    slope(next_, k_[n], true);

    const T atol = static_cast<T>(op_.atol), rtol = static_cast<T>(op_.rtol);
    for (int r = 0; r < R; ++r) {
      const V last = splat(static_cast<T>(e[r][n]));
      for (int64_t l = 0; l < D_; ++l) {
        const V *before = vectors(partial_[r][l]), *from = vectors(k_[n][l]);
        V largest[2] = {};
        const int64_t size = count(l);
        int64_t q = 0;
        for (; q + 2 <= size; q += 2)
          for (int i = 0; i < 2; ++i) {
            const V s = fma(last, from[q + i], before[q + i]) * step;
            largest[i] = max_abs(largest[i], s);
            nan = fma(zero, s, nan);
          }
        for (; q < size; ++q) {
          const V s = fma(last, from[q], before[q]) * step;
          largest[0] = max_abs(largest[0], s);
          nan = fma(zero, s, nan);
        }
        const Value scale = fma(Value{} + rtol, sizes_[l], Value{} + atol);
        error[r] = max_abs(error[r], Value(across(max_abs(largest[0], largest[1])) / scale));
      }
    }
    error[0] = error[0] + total(nan);
  }
  // P sums at once, the first of which leads on from y.
  template <int N, int P>
  static PYDLN_INLINE void sums(V* const* to, const V* y, V step, const V* weight, const V* const* from, int64_t n,
                                int64_t q, V& largest, V& nan) {
    V s[P][N] = {};
    for (int64_t j = 0; j < n; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const V k = from[j][q + i];
#pragma GCC unroll 3
        for (int p = 0; p < P; ++p) s[p][i] = fma(weight[P * j + p], k, s[p][i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const V before = y[q + i], after = fma(step, s[0][i], before);
      to[0][q + i] = after;
      largest = max_abs(max_abs(largest, before), after);
      nan = fma(V{}, after, nan);
#pragma GCC unroll 2
      for (int p = 1; p < P; ++p) to[p][q + i] = s[p][i];
    }
  }

  Value largest(Cell** set) const {
    Value most{};
    for (int64_t l = 0; l < D_; ++l) {
      V here{};
      for (int64_t q = 0; q < count(l); ++q) here = max_abs(here, vectors(set[l])[q]);
      most = max_abs(most, across(here));
    }
    return most;
  }

  // ---- a matrix as vectors: in either layout, and with padding that stays zero ----------------------------------------
  static V* vectors(Cell* p) { return reinterpret_cast<V*>(p); }
  static const V* vectors(const Cell* p) { return reinterpret_cast<const V*>(p); }
  int64_t count(int64_t l) const {
    return L::cells(width(l + 1), width(l)) * static_cast<int64_t>(sizeof(Cell)) / static_cast<int64_t>(sizeof(V));
  }
  static V spread(V x) { return x; }
  static V spread(T x) { return splat(x); }
  static Value across(const V& x) {
    if constexpr (kMembers > 1) {
      return x;
    } else {
      T most = 0;
      for (int64_t i = 0; i < lanes_of<T>; ++i) most = max_abs(most, T(x[i]));
      return most;
    }
  }
  static Value total(const V& x) {
    if constexpr (kMembers > 1) {
      return x;
    } else {
      T sum = 0;
      for (int64_t i = 0; i < lanes_of<T>; ++i) sum += x[i];
      return sum;
    }
  }

  const ops::Flow<T>& op_;
  const int64_t stages_, all_;
  const bool stops_;
  Lane lanes_[kMembers];
  int64_t active_ = 0;
  bool exhausted_ = false;
  Value loss_{}, fastest_{};

  Cell** now_ = nullptr;
  Cell** next_ = nullptr;
  Cell** stage_ = nullptr;
  Cell** between_ = nullptr;
  Cell** spare_ = nullptr;
  Cell** partial_[2] = {};  // estimates without their last stage
  Value* sizes_ = nullptr;  // largest entry of every layer at both ends of the step
  Cell** k_[ops::kMostStages] = {};
};

}  // namespace pydln::PYDLN_ISA
