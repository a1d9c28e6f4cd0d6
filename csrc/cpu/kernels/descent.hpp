// Gradient descent of networks taken one group at a time from a shared queue.
#pragma once

#include "cpu/kernels/network.hpp"
#include "cpu/kernels/noise.hpp"
#include "cpu/kernels/tangent.hpp"
#include "ops/descent.hpp"

namespace pydln::PYDLN_ISA {

// Steps between looks at members that have nothing to record: divergence, progress.
inline constexpr int64_t kCheckEvery = 32;

// A backward pass of more floating-point operations than this (tens of ms) can be broken off: it writes the new weights
// beside the old ones, so that there are always weights of a whole step to hand back.
inline constexpr double kBreakable = 2e9;

template <class L, class G>
class DescentWorker : Network<L, G> {
  using Net = Network<L, G>;
  using Net::carried_;
  using Net::clear_lane;
  using Net::control_;
  using Net::D_;
  using Net::flipped_;
  using Net::forward;
  using Net::kMembers;
  using Net::layers;
  using Net::ld;
  using Net::load_moments;
  using Net::load_scalars;
  using Net::loss_of;
  using Net::m_;
  using Net::matrix;
  using Net::n_;
  using Net::outer_layer;
  using Net::products_;
  using Net::residual;
  using Net::see;
  using Net::space_;
  using Net::strengths;
  using Net::strengths_;
  using Net::strengths_reached;
  using Net::train_;
  using Net::watch_;
  using Net::weights_;
  using Net::width;
  using typename Net::Cell;
  using typename Net::Moments;
  using typename Net::T;
  using typename Net::Value;

  struct Lane {
    int64_t member = -1;
    int64_t step = 0;
    int64_t record = 0;  // index of the next record
    int64_t reported = 0;
    bool steady = false;
  };

 public:
  // With a null arena base this only measures: arena.used is then the workspace one worker needs.
  DescentWorker(const ops::Descent<T>& op, Control& control, Arena& arena)
      : Net(op, op.strengths || op.stop_strengths, control, arena),
        op_(op),
        reads_product_(op.strengths || op.stop_strengths || op.product || op.test_loss),
        noise_(op, flipped_, arena),
        tangent_(op, flipped_, arena) {
    weights_ = layers(arena);
    if (arena.base) see(weights_);
    if (op.test.sigma_yx) this->moments(arena, test_, op.test);
    test_residual_ = op.test.sigma_yx ? arena.take<Cell>(L::cells(m_, n_)) : nullptr;
    if (static_cast<double>(kMembers) * step_flops(op.chain, true) > kBreakable) next_ = layers(arena);
    general_ = op.momentum || op.decay || op.stop_steady;
    if (general_) velocity_ = layers(arena);
    if (op.drift) {
      int64_t square = 0, across = 0;
      for (int64_t l = 0; l + 1 < D_; ++l) {
        const int64_t hidden = width(l + 1), s = L::cells(hidden, hidden), t = L::cells(width(l), hidden);
        square = s > square ? s : square;
        across = t > across ? t : across;
      }
      for (auto& q : squares_) q = arena.take<Cell>(square);
      transposed_ = arena.take<Cell>(across);
      conserved_ = arena.take<Cell*>(D_ - 1);
      for (int64_t l = 0; l + 1 < D_; ++l) matrix(arena, conserved_, l, width(l + 1), width(l + 1));
    }
  }

  void run() {
    clear();
    load_shared_task();
    refill();
    // Known strides spare a block of a product some twenty cycles: width 12 x1.15, 16 x1.09, 24 x1.06, 32 x1.05 (Zen 4).
    if constexpr (kMembers > 1 && PYDLN_SQUARES) {
      switch (general_ || noise_.any() || !train_.whitened() || D_ == 1 ? 0 : extent()) {
        case 1:
          return square<1>();
        case 2:
          return square<2>();
        case 3:
          return square<3>();
        case 4:
          return square<4>();
        case 5:
          return square<5>();
        case 6:
          return square<6>();
        case 7:
          return square<7>();
        case 8:
          return square<8>();
        case 12:
          return square<12>();
        case 16:
          return square<16>();
        case 24:
          return square<24>();
        case 32:
          return square<32>();
      }
    }
    steps<0>();
  }

 private:
  // A build that tests the logic alone has one of each kind: odd, two rows at once, a register block, strides.
  template <int S>
  void square() {
    steps<PYDLN_SQUARES == 2 || S == 3 || S == 4 || S == 8 || S == 12 ? S : 0>();
  }

  // ---- shapes -----------------------------------------------------------------------------------------------------
  // The width that all layers share, or 0.
  int64_t extent() const {
    for (int64_t l = 1; l <= D_; ++l)
      if (width(l) != width(0)) return 0;
    return width(0);
  }

  // ---- members in and out of lanes ---------------------------------------------------------------------------------
  void clear() {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      clear_lane(weights_, lane);
      if (general_) clear_lane(velocity_, lane);
      noise_.clear(lane);
      if (op_.task_per_member) load_task(lane, 0);  // idle lanes compute on finite numbers
    }
  }
  void load_task(int64_t lane, int64_t member) {
    Net::load_task(lane, member);
    if (op_.test.sigma_yx) load_moments(test_, op_.test, lane, member);
    noise_.load_task(lane, member);
    tangent_.load_task(lane, member);
  }
  void load_shared_task() {
    if (!op_.task_per_member) load_task(0, 0);
  }

  void refill() {
    bool fresh = false;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member >= 0 || exhausted_) continue;
      const int64_t member = take_member(control_);
      if (member >= op_.batch) {
        exhausted_ = true;
        continue;
      }
      state = Lane{member, 0, 0, 0, false};
      ++active_;
      fresh = true;
      this->load_weights(weights_, lane, member);
      if (op_.task_per_member) load_task(lane, member);
      load_scalars(train_, op_.train, lane, member);
      if (op_.test.sigma_yx) load_scalars(test_, op_.test, lane, member);
      noise_.begin(lane, member);
      L::set(lr_, lane, *op_.lr.of(member));
      L::set(momentum_, lane, op_.momentum ? *op_.momentum.of(member) : T(0));
      L::set(decay_, lane, op_.decay ? *op_.decay.of(member) : T(0));
    }
    if (fresh && op_.drift) start_drift();
    until_event_ = 0;
    lead_ = -1;
    alike_ = true;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      if (lanes_[lane].member < 0) continue;
      if (lead_ < 0) lead_ = lane;
      alike_ &= lanes_[lane].step == lanes_[lead_].step;
    }
  }

  void store_end(int64_t lane, Status status) {
    Lane& state = lanes_[lane];
    this->store_weights(weights_, lane, op_.weights, state.member);
    clear_lane(weights_, lane);
    if (general_) clear_lane(velocity_, lane);
    L::set(lr_, lane, T(0));
    op_.status[state.member] = status;
    op_.stopped_at[state.member] = state.step;
    add_steps(control_, op_.steps - state.reported);  // steps not needed count as done
    state.member = -1;
    --active_;
  }

  void abandon() {
    count_steps();
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0) store_end(lane, Status::interrupted);
  }

  // ---- steps -----------------------------------------------------------------------------------------------------------
  // S: the width of all layers, known when compiled, inputs whitened, no more than W <- W + lr G; 0: anything.
  template <int S>
  void steps() {
    while (active_ > 0) {
      const bool due = until_event_ == 0;
      if constexpr (S > 0)
        square_forward<S>(due && reads_product_);
      else
        forward((due && reads_product_) || noise_.samples_drawn(), due || !noise_.samples_drawn());
      if (cancelled(control_)) return abandon();
      if (due) {
        const bool ended = events();
        if (cancelled(control_)) return abandon();
        if (ended) {  // the successor starts with a forward pass of its own
          refill();
          continue;
        }
      }
      if constexpr (S > 0) {
        square_backward<S>();
      } else {
        if (noise_.any()) disturb();
        if (cancelled(control_) || !backward()) return abandon();
      }
      ++uncounted_;
      --until_event_;
      if constexpr (S > 0) {  // up to the next event
        for (; until_event_ > 0; --until_event_, ++uncounted_) {
          if (S > 8 && cancelled(control_)) return abandon();  // below that a step takes a microsecond
          square_forward<S>();
          square_backward<S>();
        }
      }
    }
  }
  template <int S>
  PYDLN_INLINE void square_forward(bool with_product = false) {
    if constexpr (S > 0) {
      for (int64_t l = D_ - 2; l >= 1; --l) L::template product<S>(products_[l + 1], weights_[l], products_[l]);
      if (with_product) {
        L::template product<S>(products_[1], weights_[0], products_[0]);
        L::subtract(train_.sigma_yx, products_[0], carried_[0], S, S);
      } else {
        L::template residual<S>(train_.sigma_yx, products_[1], weights_[0], carried_[0]);
      }
    }
  }
  template <int S>
  PYDLN_INLINE void square_backward() {
    if constexpr (S > 0) {
      int from = 0;
      for (int64_t l = 0; l + 2 < D_; ++l, from = 1 - from)
        L::template layer_step<S>(products_[l + 1], carried_[from], carried_[1 - from], weights_[l], lr_);
      Cell*& top = weights_[D_ - 1];
      Cell*& spare = carried_[1 - from];
      L::template last_step<S>(top, carried_[from], spare, weights_[D_ - 2], lr_);
      Cell* t = top;
      top = products_[D_ - 1] = spare;
      spare = t;
    }
  }
  void count_steps() {
    for (auto& lane : lanes_) {
      lane.step += uncounted_;
      lane.record += uncounted_records_;
    }
    uncounted_ = uncounted_records_ = 0;
    together_ = false;
  }

  // The residual of this step's noise in place of the task's.
  void disturb() {
    int64_t step[kMembers];
    for (int64_t lane = 0; lane < kMembers; ++lane)
      step[lane] = lanes_[lane].member >= 0 ? lanes_[lane].step + uncounted_ : -1;
    noise_.residual(control_, step, products_[0], carried_[0]);
  }

  // Returns false, the weights as they were, when the run was cancelled on the way; see kBreakable.
  bool backward() {
    const Control* watch = next_ ? watch_ : nullptr;
    Cell** to = next_ ? next_ : weights_;
    Cell* r = carried_[0];
    Cell* after = carried_[1];
    Value largest{};
    for (int64_t l = 0; l + 1 < D_; ++l) {
      if (general_)
        layer_step(watch, l, r, after, momentum_update(l, to, largest));
      else
        layer_step(watch, l, r, after, typename L::Plain{weights_[l], to[l], lr_});
      if (watch && cancelled(*watch)) return false;
      Cell* t = r;
      r = after;
      after = t;
    }
    const int64_t top = D_ - 1;
    if (general_)
      L::update_all(momentum_update(top, to, largest), r, m_, width(top));
    else
      L::update_all(typename L::Plain{weights_[top], to[top], lr_}, r, m_, width(top));
    if (next_) {
      next_ = weights_;
      see(to);
    }
    if (op_.stop_steady)
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (lanes_[lane].member >= 0)
          lanes_[lane].steady = L::get(largest, lane) <= *op_.stop_steady.of(lanes_[lane].member);
    return true;
  }
  template <class Update>
  void layer_step(const Control* watch, int64_t l, const Cell* r, Cell* next, const Update& update) {
    L::layer_step(watch, space_, products_[l + 1], r, next, update, width(l + 1), width(l), m_);
  }
  typename L::Momentum momentum_update(int64_t l, Cell** to, Value& largest) const {
    return {weights_[l], to[l], velocity_[l], lr_, momentum_, decay_, op_.nesterov, &largest};
  }

  // ---- what happens between steps ----------------------------------------------------------------------------------
  // Whether a member is looked at in its present step depends on itself alone, never on what shares its group.
  bool due(const Lane& lane) const {
    return every_step() || record_due(lane) || lane.step % kCheckEvery == 0 || lane.step == op_.steps;
  }
  bool every_step() const { return op_.stop_loss || op_.stop_strengths || op_.stop_steady; }
  static bool at_start(const Lane& lane) { return lane.member >= 0 && lane.step == 0; }
  bool record_due(const Lane& lane) const {
    return lane.record < op_.records && op_.record_at[lane.record] == lane.step;
  }

  // Loss, records, stopping. Returns whether some lane came to its end; decides nothing once the run is cancelled.
  bool events() {
    const Value loss = loss_of(train_, carried_[0]);
    if (alike_ && between(loss)) return false;
    count_steps();
    bool any_record = false, any_start = false, looked_at[kMembers];
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      looked_at[lane] = lanes_[lane].member >= 0 && due(lanes_[lane]);
      any_record |= looked_at[lane] && record_due(lanes_[lane]);
      any_start |= at_start(lanes_[lane]);
    }
    if (tangent_.wanted() && (any_record || any_start)) tangent_kernel();
    if (op_.stop_strengths || (any_record && op_.strengths)) strengths();
    if (any_record) {
      find_due();
      record(loss);
      for_due([&](int64_t lane, int64_t) { ++lanes_[lane].record; });
    }
    if (cancelled(control_)) return false;

    bool ended = false;
    until_event_ = every_step() ? 1 : kCheckEvery;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0) continue;
      if (state.step - state.reported >= kCheckEvery) {
        add_steps(control_, state.step - state.reported);
        state.reported = state.step;
      }
      Status status = Status::completed;
      if (looked_at[lane] && ends(lane, L::get(loss, lane), status)) {
        store_end(lane, status);
        ended = true;
        continue;
      }
      const int64_t next = next_event(state) - state.step;
      if (next < until_event_) until_event_ = next;
    }
    return ended;
  }

  // The same where all members are in the same step, neither the first nor the last, and nothing ends any of them: decided
  // once for all, and counted when they part. One by one they take 300 cycles, as long as a step of small networks.
  bool between(const Value& loss) {
    Lane now = lanes_[lead_];
    now.step += uncounted_;
    now.record += uncounted_records_;
    if (now.step == 0 || now.step == op_.steps || every_step() || tangent_.wanted() || !L::finite(loss)) return false;
    if (record_due(now)) {
      if (!together_) {
        count_steps();
        find_due();
        together_ = true;
      }
      if (op_.strengths) strengths();
      record(loss);
      for (int64_t i = 0; i < due_count_; ++i) ++place_[i];
      ++uncounted_records_;
      ++now.record;
    }
    const int64_t steps = now.step - now.reported;
    if (steps >= kCheckEvery) {
      add_steps(control_, steps * active_);
      for (auto& lane : lanes_) lane.reported = now.step;
    }
    until_event_ = next_event(now) - now.step;
    return true;
  }
  int64_t next_event(const Lane& lane) const {
    int64_t next = (lane.step / kCheckEvery + 1) * kCheckEvery;
    if (lane.record < op_.records && op_.record_at[lane.record] < next) next = op_.record_at[lane.record];
    return op_.steps < next ? op_.steps : next;
  }

  bool ends(int64_t lane, T loss, Status& status) const {
    const Lane& state = lanes_[lane];
    if (!(loss - loss == 0))  // infinite or NaN
      status = Status::diverged;
    else if (op_.stop_loss && loss <= *op_.stop_loss.of(state.member))
      status = Status::reached_loss;
    else if (op_.stop_strengths && strengths_reached(lane, state.member))
      status = Status::reached_strength;
    else if (state.steady)
      status = Status::steady;
    else
      return state.step == op_.steps;
    return true;
  }

  // ---- records -----------------------------------------------------------------------------------------------------------
  void record(const Value& loss) {
    Value test{};
    if (op_.test_loss) {
      residual(test_, test_residual_);
      test = loss_of(test_, test_residual_);
    }
    if (cancelled(control_)) return;  // perhaps in the middle of one of the products: unrecorded is NaN
    if (op_.loss)
      for_due([&](int64_t lane, int64_t at) {
        op_.loss[at] = L::get(loss, lane);
        __builtin_prefetch(op_.loss + at + 1, 1);  // stores that miss fill the queue: 35 of 250 cycles a record of G1
      });
    if (op_.test_loss) for_due([&](int64_t lane, int64_t at) { op_.test_loss[at] = L::get(test, lane); });
    if (op_.strengths)
      for_due([&](int64_t lane, int64_t at) {
        for (int64_t a = 0; a < op_.modes; ++a) op_.strengths[at * op_.modes + a] = L::element(strengths_, a, lane);
      });
    if (op_.kernel_distance)
      for_due([&](int64_t lane, int64_t at) { op_.kernel_distance[at] = tangent_.distance(lane); });
    if (op_.product)
      for_due([&](int64_t lane, int64_t at) {
        L::store(products_[0], lane, op_.product + at * m_ * n_, m_, n_, flipped_);
      });
    for (int64_t l = 0; l < D_; ++l) {
      const int64_t rows = width(l + 1), cols = width(l), to = outer_layer(l);
      if (op_.layer_norms) {
        const Value square = L::dot(weights_[l], weights_[l], rows, cols);
        for_due([&](int64_t lane, int64_t at) {
          op_.layer_norms[at * D_ + to] = static_cast<T>(__builtin_sqrt(L::get(square, lane)));
        });
      }
      if (op_.weight_records)
        for_due([&](int64_t lane, int64_t at) {
          L::store(weights_[l], lane, op_.weight_records[to] + at * rows * cols, rows, cols, flipped_);
        });
    }
    if (op_.drift)
      for (int64_t l = 0; l + 1 < D_; ++l) {
        const int64_t hidden = width(l + 1);
        conserved_quantity(l);
        if (cancelled(control_)) return;
        const Value square = L::distance2(squares_[0], conserved_[l], hidden, hidden);
        const int64_t to = flipped_ ? D_ - 2 - l : l;
        for_due([&](int64_t lane, int64_t at) {
          op_.drift[at * (D_ - 1) + to] = static_cast<T>(__builtin_sqrt(L::get(square, lane)));
        });
      }
  }

  // The lanes that have something to record, and the place of each one's record.
  void find_due() {
    due_count_ = 0;
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0 && record_due(lanes_[lane])) {
        due_[due_count_] = lane;
        place_[due_count_++] = lanes_[lane].member * op_.records + lanes_[lane].record;
      }
  }
  template <class F>
  void for_due(F f) {
    for (int64_t i = 0; i < due_count_; ++i) f(due_[i], place_[i]);
  }

  void tangent_kernel() {
    tangent_.look(control_, weights_, products_);
    if (cancelled(control_)) return;
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (at_start(lanes_[lane])) tangent_.begin(lane);
    tangent_.measure();
  }

  // squares_[0] = W_{l+1}^T W_{l+1} - W_l W_l^T, conserved by gradient flow
  void conserved_quantity(int64_t l) {
    const int64_t above = width(l + 2), hidden = width(l + 1), below = width(l);
    L::product_tn(watch_, weights_[l + 1], ld(hidden), weights_[l + 1], ld(hidden), squares_[0], hidden, hidden, above);
    L::transpose(weights_[l], transposed_, hidden, below);
    L::product(watch_, weights_[l], ld(below), transposed_, ld(hidden), squares_[1], hidden, hidden, below);
    L::subtract(squares_[0], squares_[1], squares_[0], hidden, hidden);
  }
  void start_drift() {
    for (int64_t l = 0; l + 1 < D_ && !cancelled(control_); ++l) {
      conserved_quantity(l);
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (at_start(lanes_[lane])) L::copy_lane(conserved_[l], squares_[0], lane, width(l + 1), width(l + 1));
    }
  }

  const ops::Descent<T>& op_;

  Lane lanes_[kMembers];
  int64_t due_[kMembers], place_[kMembers], due_count_ = 0;
  int64_t active_ = 0;
  int64_t until_event_ = 0;
  bool exhausted_ = false;
  int64_t lead_ = -1;   // the first lane that has a member
  bool alike_ = false;  // all lanes that have one are in the same step
  bool general_ = false;
  const bool reads_product_;                       // whether something that is recorded or waited for is read off Omega
  int64_t uncounted_ = 0, uncounted_records_ = 0;  // steps and records that no lane has counted yet
  bool together_ = false;  // all lanes that have a member are due, and place_ is where their next records belong
  Value lr_{}, momentum_{}, decay_{};

  Moments test_;
  NoiseSource<L, G> noise_;
  TangentKernel<L, G> tangent_;
  Cell** next_ = nullptr;  // the weights of the next step; null when steps are short and done in place
  Cell** velocity_ = nullptr;
  Cell** conserved_ = nullptr;
  Cell* squares_[2] = {};
  Cell* transposed_ = nullptr;
  Cell* test_residual_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
