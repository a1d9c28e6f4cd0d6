// Members taken from the shared queue into lanes, each with a step of its own: when it is looked at, when it records, how it
// ends. Op is an operation that takes steps: batch, steps, records, record_at, stop_..., status and stopped_at are read.
#pragma once

#include "core/control.hpp"
#include "core/status.hpp"
#include "cpu/kernels/vector.hpp"
#include "math/steady.hpp"

namespace pydln::PYDLN_ISA {

// Steps between looks at members that have nothing to record: divergence, progress.
inline constexpr int64_t kCheckEvery = 32;

// Whether every strength of a member is at its threshold, of those that have one.
template <class L>
bool reached(const typename L::Cell* strengths, int64_t modes, int64_t lane, const typename L::Scalar* threshold) {
  for (int64_t a = 0; a < modes; ++a) {
    const typename L::Scalar u = L::element(strengths, a, lane);
    if (threshold[a] == threshold[a] && !((u < 0 ? -u : u) >= threshold[a])) return false;
  }
  return true;
}

template <class L, class Op>
class MemberLanes {
 protected:
  using T = typename L::Scalar;
  using Value = typename L::Value;
  static constexpr int64_t kMembers = L::members;

  struct Lane {
    int64_t member = -1;
    int64_t step = 0;
    int64_t record = 0;  // index of the next record
    int64_t reported = 0;
    bool steady = false;
    bool still = false;  // nothing moved at all
  };

  MemberLanes(const Op& op, Control& control) : op_(op), control_(control) {}

  // Gives members to lanes that have none, by begin(lane, member). Returns whether there were any.
  template <class Begin>
  bool fill(Begin begin) {
    bool fresh = false;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member >= 0 || exhausted_) continue;
      const int64_t member = take_member(control_);
      if (member >= op_.batch) {
        exhausted_ = true;
        continue;
      }
      state = Lane{};
      state.member = member;
      ++active_;
      fresh = true;
      begin(lane, member);
    }
    until_event_ = 0;
    lead_ = -1;
    alike_ = true;
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      if (lanes_[lane].member < 0) continue;
      if (lead_ < 0) lead_ = lane;
      alike_ &= lanes_[lane].step == lanes_[lead_].step;
    }
    return fresh;
  }
  void leave(int64_t lane, Status status) {
    Lane& state = lanes_[lane];
    op_.status[state.member] = status;
    op_.stopped_at[state.member] = state.step;
    add_steps(control_, op_.steps - state.reported);  // steps not needed count as done
    state.member = -1;
    --active_;
  }
  void count_steps() {
    for (auto& lane : lanes_) {
      lane.step += uncounted_;
      lane.record += uncounted_records_;
    }
    uncounted_ = uncounted_records_ = 0;
    together_ = false;
  }

  // Whether a member is looked at in its present step depends on itself alone, never on what shares its group.
  bool due(const Lane& lane) const {
    return every_step() || record_due(lane) || lane.step % kCheckEvery == 0 || lane.step == op_.steps;
  }
  bool every_step() const { return op_.stop_loss || op_.stop_strengths || op_.stop_steady; }
  static bool at_start(const Lane& lane) { return lane.member >= 0 && lane.step == 0; }
  bool record_due(const Lane& lane) const {
    return lane.record < op_.records && op_.record_at[lane.record] == lane.step;
  }
  int64_t next_event(const Lane& lane) const {
    int64_t next = (lane.step / kCheckEvery + 1) * kCheckEvery;
    if (lane.record < op_.records && op_.record_at[lane.record] < next) next = op_.record_at[lane.record];
    return op_.steps < next ? op_.steps : next;
  }

  // end(lane, status) for the members looked at that ends(lane, status) says are at theirs; when the next look is due.
  // Returns whether some member ended.
  template <class Ends, class End>
  bool end_members(const bool (&looked_at)[kMembers], Ends ends, End end) {
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
      if (looked_at[lane] && ends(lane, status)) {
        end(lane, status);
        ended = true;
        continue;
      }
      const int64_t next = next_event(state) - state.step;
      if (next < until_event_) until_event_ = next;
    }
    return ended;
  }
  // reached(lane, member): whether the strengths are those waited for.
  template <class Reached>
  bool ends(int64_t lane, T loss, Status& status, Reached reached) const {
    const Lane& state = lanes_[lane];
    if (!(loss - loss == 0))  // infinite or NaN
      status = Status::diverged;
    else if (op_.stop_loss && loss <= *op_.stop_loss.of(state.member))
      status = Status::reached_loss;
    else if (op_.stop_strengths && reached(lane, state.member))
      status = Status::reached_strength;
    else if (state.steady)
      status = Status::steady;
    else
      return state.step == op_.steps;
    return true;
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

  // What moved fastest in the last step, against what counts as standing still.
  void judge_steady(const Value& largest) {
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0) {
        lanes_[lane].steady = L::get(largest, lane) <= *op_.stop_steady.of(lanes_[lane].member);
        lanes_[lane].still = L::get(largest, lane) == T(0);
      }
  }
  // Whether those may take off again, of what is left to learn: the squared norm of a residual of so many modes. Weight decay w
  // leaves a residual of w to each.
  void judge_residual(const Value& square, const Value& decay, int64_t modes, int64_t depth) {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      Lane& state = lanes_[lane];
      if (state.member < 0 || !state.steady || state.still) continue;
      const double kept = static_cast<double>(L::get(decay, lane)) * __builtin_sqrt(static_cast<double>(modes));
      const double left = residual_to_learn(L::get(square, lane), op_.least_residual, state.member) - kept;
      const double limit = static_cast<double>(*op_.stop_steady.of(state.member));
      state.steady = !(attainable_speed(left, depth) > limit);
    }
  }

  const Op& op_;
  Lane lanes_[kMembers];
  int64_t due_[kMembers], place_[kMembers], due_count_ = 0;
  int64_t active_ = 0;
  int64_t until_event_ = 0;
  int64_t lead_ = -1;                              // the first lane that has a member
  bool alike_ = false;                             // all lanes that have one are in the same step
  int64_t uncounted_ = 0, uncounted_records_ = 0;  // steps and records that no lane has counted yet
  bool together_ = false;  // all lanes that have a member are due, and place_ is where their next records belong

 private:
  Control& control_;
  bool exhausted_ = false;
};

}  // namespace pydln::PYDLN_ISA
