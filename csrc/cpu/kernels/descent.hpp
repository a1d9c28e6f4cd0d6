// Gradient descent of networks taken one group at a time from a shared queue.
#pragma once

#include "cpu/kernels/lanes.hpp"
#include "cpu/kernels/noise.hpp"
#include "cpu/kernels/recorded_network.hpp"
#include "cpu/kernels/tangent.hpp"
#include "ops/descent.hpp"

namespace pydln::PYDLN_ISA {

// A backward pass of more floating-point operations than this (tens of ms) can be broken off: it writes the new weights
// beside the old ones, so that there are always weights of a whole step to hand back.
inline constexpr double kBreakable = 2e9;

template <class L, class G>
class DescentWorker : RecordedNetwork<L, G>, MemberLanes<L, ops::Descent<typename L::Scalar>> {
  using Net = RecordedNetwork<L, G>;
  using Net::carried_;
  using Net::clear_lane;
  using Net::control_;
  using Net::D_;
  using Net::flipped_;
  using Net::forward;
  using Net::kMembers;
  using Net::layers;
  using Net::load_scalars;
  using Net::m_;
  using Net::n_;
  using Net::products_;
  using Net::see;
  using Net::space_;
  using Net::strengths;
  using Net::strengths_;
  using Net::strengths_reached;
  using Net::train_;
  using Net::train_loss;
  using Net::watch_;
  using Net::weights_;
  using Net::width;
  using typename Net::Cell;
  using typename Net::T;
  using typename Net::Value;

  using Queue = MemberLanes<L, ops::Descent<T>>;
  using Queue::active_;
  using Queue::alike_;
  using Queue::at_start;
  using Queue::count_steps;
  using Queue::due;
  using Queue::due_count_;
  using Queue::every_step;
  using Queue::find_due;
  using Queue::for_due;
  using Queue::lanes_;
  using Queue::lead_;
  using Queue::next_event;
  using Queue::op_;
  using Queue::place_;
  using Queue::record_due;
  using Queue::together_;
  using Queue::uncounted_;
  using Queue::uncounted_records_;
  using Queue::until_event_;
  using typename Queue::Lane;

 public:
  // With a null arena base this only measures: arena.used is then the workspace one worker needs.
  DescentWorker(const ops::Descent<T>& op, Control& control, Arena& arena)
      : Net(op, control, arena),
        Queue(op, control),
        reads_product_(this->records_product() || op.stop_strengths),
        noise_(op, flipped_, arena),
        tangent_(op, flipped_, arena) {
    weights_ = layers(arena);
    if (arena.base) see(weights_);
    if (static_cast<double>(kMembers) * step_flops(op.chain, true) > kBreakable) next_ = layers(arena);
    general_ = op.momentum || op.decay || op.stop_steady;
    if (general_) velocity_ = layers(arena);
  }

  void run() {
    clear();
    load_shared_task();
    refill();
    // Known strides spare a block of a product some twenty cycles: width 12 x1.15, 16 x1.09, 24 x1.06, 32 x1.05 (Zen 4).
    if constexpr (kMembers > 1 && PYDLN_SQUARES) {
      switch (general_ || noise_.any() || !train_.plain() || D_ == 1 ? 0 : this->extent()) {
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
    noise_.load_task(lane, member);
    tangent_.load_task(lane, member);
  }
  void load_shared_task() {
    if (!op_.task_per_member) load_task(0, 0);
  }

  void refill() {
    const bool fresh = this->fill([&](int64_t lane, int64_t member) {
      this->load_weights(weights_, lane, member);
      if (op_.task_per_member) load_task(lane, member);
      load_scalars(lane, member);
      noise_.begin(lane, member);
      L::set(lr_, lane, *op_.lr.of(member));
      L::set(momentum_, lane, op_.momentum ? *op_.momentum.of(member) : T(0));
      L::set(decay_, lane, op_.decay ? *op_.decay.of(member) : T(0));
    });
    if (fresh) this->start_records([&](int64_t lane) { return at_start(lanes_[lane]); });
  }

  void store_end(int64_t lane, Status status) {
    this->store_weights(weights_, lane, op_.weights, lanes_[lane].member);
    clear_lane(weights_, lane);
    if (general_) clear_lane(velocity_, lane);
    L::set(lr_, lane, T(0));
    this->leave(lane, status);
  }

  void abandon() {
    count_steps();
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0) store_end(lane, Status::interrupted);
  }

  // ---- steps -----------------------------------------------------------------------------------------------------------
  // S: the width of all layers, known when compiled, inputs whitened, no more than W <- W + lr G; 0: anything. Steps with an
  // event are the same code as those without: a copy of their own was cold whenever it was run (G2: 1500 cycles an event).
  template <int S>
  void steps() {
    while (active_ > 0) {
      const bool due = until_event_ == 0;
      if constexpr (S > 0)
        this->template square_forward<S>(due && reads_product_);
      else
        forward((due && reads_product_) || noise_.samples_drawn(), due || !noise_.samples_drawn());
      if ((due || S == 0 || S > 8) && cancelled(control_))
        return abandon();  // up to width 8 a step takes a microsecond
      if (due) {
        Value loss;
        if constexpr (S > 0 && S <= 8)
          loss = this->template square_loss<S>();
        else
          loss = train_loss();
        const bool ended = events(loss);
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
    }
  }
  template <int S>
  PYDLN_INLINE void square_backward() {
    if constexpr (S > 0) {
      int from = 0;
      for (int64_t l = 0; l + 2 < D_; ++l, from = 1 - from)
        L::template layer_step<S>(products_[l + 1], carried_[from], L::template store<S>(carried_[1 - from]),
                                  typename L::Plain{weights_[l], weights_[l], lr_});
      Cell*& top = weights_[D_ - 1];
      Cell*& spare = carried_[1 - from];
      L::template last_step<S>(top, carried_[from], spare, weights_[D_ - 2], lr_);
      Cell* t = top;
      top = products_[D_ - 1] = spare;
      spare = t;
    }
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
    if (op_.stop_steady) this->judge_steady(largest);
    return true;
  }
  template <class Update>
  void layer_step(const Control* watch, int64_t l, const Cell* r, Cell* next, const Update& update) {
    L::layer_step(watch, space_, products_[l + 1], r, typename L::Store{next, L::stride(width(l + 1))}, update,
                  width(l + 1), width(l), m_);
  }
  typename L::Momentum momentum_update(int64_t l, Cell** to, Value& largest) const {
    return {weights_[l], to[l], velocity_[l], lr_, momentum_, decay_, op_.nesterov, &largest};
  }

  // ---- what happens between steps ----------------------------------------------------------------------------------
  // Records, stopping. Returns whether some lane came to its end; decides nothing once the run is cancelled.
  bool events(const Value& loss) {
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
    if (op_.stop_steady) this->judge_residual(L::dot(carried_[0], carried_[0], m_, n_), decay_, m_ < n_ ? m_ : n_, D_);

    const auto ends = [&](int64_t lane, Status& status) {
      return Queue::ends(lane, L::get(loss, lane), status,
                         [&](int64_t which, int64_t member) { return strengths_reached(which, member); });
    };
    return this->end_members(looked_at, ends, [&](int64_t lane, Status status) { store_end(lane, status); });
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

  // ---- records -----------------------------------------------------------------------------------------------------------
  void record(const Value& loss) {
    const auto due = [&](auto f) { this->for_due(f); };
    Net::record(loss, due);
    if (op_.kernel_distance && !cancelled(control_))
      due([&](int64_t lane, int64_t at) { op_.kernel_distance[at] = tangent_.distance(lane); });
  }

  void tangent_kernel() {
    tangent_.look(control_, weights_);
    if (cancelled(control_)) return;
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (at_start(lanes_[lane])) tangent_.begin(lane);
    tangent_.measure();
  }

  bool general_ = false;
  const bool reads_product_;  // whether something that is recorded or waited for is read off Omega
  Value lr_{}, momentum_{}, decay_{};

  NoiseSource<L, G> noise_;
  TangentKernel<L, G> tangent_;
  Cell** next_ = nullptr;  // the weights of the next step; null when steps are short and done in place
  Cell** velocity_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
