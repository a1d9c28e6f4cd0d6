// Gradient descent of networks taken one group at a time from a shared queue. L is the layout; G is how the task's
// matrices are stored, see kernels/task.hpp.
//
// The chain is carried along the output side (math/cost.hpp). When the input side is cheaper, the transposed chain
// W_D^T, ..., W_1^T with the transposed task is run instead: "flipped" below; only loading, storing and the side on
// which Sigma_xx multiplies know of it.
#pragma once

#include "core/control.hpp"
#include "cpu/kernels/noise.hpp"
#include "cpu/kernels/tangent.hpp"
#include "cpu/kernels/task.hpp"
#include "cpu/kernels/vector.hpp"
#include "math/cost.hpp"
#include "ops/descent.hpp"

namespace pydln::PYDLN_ISA {

// Steps between looks at members that have nothing to record: divergence, progress.
inline constexpr int64_t kCheckEvery = 32;

// A backward pass of more floating-point operations than this (tens of ms) can be broken off: it writes the new weights
// beside the old ones, so that there are always weights of a whole step to hand back.
inline constexpr double kBreakable = 2e9;

template <class L, class G>
class DescentWorker {
  using T = typename L::Scalar;
  using Cell = typename L::Cell;
  using Value = typename L::Value;
  static constexpr int64_t kMembers = L::members;

  struct Moments {  // in working orientation
    G* sigma_xx = nullptr;
    G* variances = nullptr;
    G* sigma_yx = nullptr;
    G* anchor = nullptr;
    Value ridge{}, anchor_loss{};
    bool whitened() const { return !anchor; }
  };
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
      : op_(op),
        control_(control),
        D_(op.chain.depth),
        flipped_(carry_input_side(op.chain)),
        m_(width(D_)),
        n_(width(0)),
        reads_product_(op.strengths || op.stop_strengths || op.product || op.test_loss),
        noise_(op, flipped_, arena),
        tangent_(op, flipped_, arena) {
    weights_ = arena.take<Cell*>(D_);
    products_ = arena.take<Cell*>(D_);
    for (int64_t l = 0; l < D_; ++l) matrix(arena, weights_, l, width(l + 1), width(l));
    for (int64_t l = 0; l + 1 < D_; ++l) matrix(arena, products_, l, m_, width(l));  // A_l = W_D ... W_{l+1}
    if (arena.base) products_[D_ - 1] = weights_[D_ - 1];

    int64_t widest = n_, cells = 0;
    for (int64_t l = 0; l < D_; ++l) {
      widest = width(l) > widest ? width(l) : widest;
      const int64_t here = L::cells(width(l + 1), width(l));
      cells = here > cells ? here : cells;
    }
    for (auto& r : carried_) r = arena.take<Cell>(L::cells(m_, widest));
    space_ = L::make_space(arena, widest, cells);

    moments(arena, train_, op.train);
    if (op.test.sigma_yx) moments(arena, test_, op.test);
    test_residual_ = op.test.sigma_yx ? arena.take<Cell>(L::cells(m_, n_)) : nullptr;
    if (op.strengths || op.stop_strengths) {
      mode_u_ = arena.take<G>(task_cells<L, G>(m_, op.modes));
      mode_v_ = arena.take<G>(task_cells<L, G>(n_, op.modes));
      mode_product_ = arena.take<Cell>(L::cells(m_, op.modes));
      strengths_ = arena.take<Cell>(L::cells(1, op.modes));
    }

    if (static_cast<double>(kMembers) * step_flops(op.chain, true) > kBreakable) {
      next_ = arena.take<Cell*>(D_);
      for (int64_t l = 0; l < D_; ++l) matrix(arena, next_, l, width(l + 1), width(l));
    }
    general_ = op.momentum || op.decay || op.stop_steady;
    if (general_) {
      velocity_ = arena.take<Cell*>(D_);
      for (int64_t l = 0; l < D_; ++l) matrix(arena, velocity_, l, width(l + 1), width(l));
    }
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
    if constexpr (kMembers > 1 && PYDLN_SQUARES) {
      switch (general_ || noise_.any() || !train_.whitened() || D_ == 1 ? 0 : extent()) {
        case 1:
          return steps<1>();
        case 2:
          return steps<2>();
        case 3:
          return steps<3>();
        case 4:
          return steps<4>();
        case 5:
          return steps<5>();
        case 6:
          return steps<6>();
        case 7:
          return steps<7>();
        case 8:
          return steps<8>();
      }
    }
    steps<0>();
  }

 private:
  // ---- shapes -----------------------------------------------------------------------------------------------------
  int64_t width(int64_t l) const { return op_.chain.widths[flipped_ ? op_.chain.depth - l : l]; }
  int64_t outer_layer(int64_t l) const { return flipped_ ? D_ - 1 - l : l; }  // working layer -> the caller's layer
  static int64_t ld(int64_t cols) { return L::stride(cols); }
  // The width that all layers share, or 0.
  int64_t extent() const {
    for (int64_t l = 1; l <= D_; ++l)
      if (width(l) != width(0)) return 0;
    return width(0);
  }

  static void matrix(Arena& arena, Cell** list, int64_t l, int64_t rows, int64_t cols) {
    Cell* p = arena.take<Cell>(L::cells(rows, cols));
    if (arena.base) list[l] = p;
  }
  void moments(Arena& arena, Moments& to, const ops::Moments<T>& from) {
    if (from.sigma_xx) to.sigma_xx = arena.take<G>(task_cells<L, G>(inputs(), inputs()));
    if (from.variances) to.variances = arena.take<G>(task_cells<L, G>(1, inputs()));
    to.sigma_yx = arena.take<G>(task_cells<L, G>(m_, n_));
    if (!from.whitened()) to.anchor = arena.take<G>(task_cells<L, G>(m_, n_));
  }
  int64_t inputs() const { return op_.chain.widths[0]; }

  // ---- members in and out of lanes ---------------------------------------------------------------------------------
  void clear() {
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      for (int64_t l = 0; l < D_; ++l) {
        L::clear_lane(weights_[l], lane, width(l + 1), width(l));
        if (general_) L::clear_lane(velocity_[l], lane, width(l + 1), width(l));
      }
      noise_.clear(lane);
      if (op_.task_per_member) load_task(lane, 0);  // idle lanes compute on finite numbers
    }
  }
  void load_moments(Moments& to, const ops::Moments<T>& from, int64_t lane, int64_t member) {
    L::load(to.sigma_yx, lane, from.sigma_yx.of(member), m_, n_, flipped_);
    if (from.sigma_xx) L::load(to.sigma_xx, lane, from.sigma_xx.of(member), inputs(), inputs(), false);  // symmetric
    if (from.variances) L::load(to.variances, lane, from.variances.of(member), 1, inputs(), false);
    if (!from.whitened()) L::load(to.anchor, lane, from.anchor.of(member), m_, n_, flipped_);
  }
  void load_scalars(Moments& to, const ops::Moments<T>& from, int64_t lane, int64_t member) {
    L::set(to.anchor_loss, lane, *from.anchor_loss.of(member));
    if (!from.whitened()) L::set(to.ridge, lane, *from.ridge.of(member));
  }
  void load_task(int64_t lane, int64_t member) {
    load_moments(train_, op_.train, lane, member);
    if (op_.test.sigma_yx) load_moments(test_, op_.test, lane, member);
    noise_.load_task(lane, member);
    tangent_.load_task(lane, member);
    if (mode_u_) {
      L::load(mode_u_, lane, (flipped_ ? op_.mode_v : op_.mode_u).of(member), m_, op_.modes, false);
      L::load(mode_v_, lane, (flipped_ ? op_.mode_u : op_.mode_v).of(member), n_, op_.modes, false);
    }
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
      for (int64_t l = 0; l < D_; ++l) {
        const int64_t rows = width(l + 1), cols = width(l), from = outer_layer(l);
        L::load(weights_[l], lane, op_.weights[from] + member * rows * cols, rows, cols, flipped_);
      }
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
  }

  void store_end(int64_t lane, Status status) {
    Lane& state = lanes_[lane];
    for (int64_t l = 0; l < D_; ++l) {
      const int64_t rows = width(l + 1), cols = width(l);
      L::store(weights_[l], lane, op_.weights[outer_layer(l)] + state.member * rows * cols, rows, cols, flipped_);
      L::clear_lane(weights_[l], lane, rows, cols);
      if (general_) L::clear_lane(velocity_[l], lane, rows, cols);
    }
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
        forward(due);
      if (cancelled(control_)) return abandon();
      if (due) {
        count_steps();
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
      if constexpr (S > 0) {  // up to the next event: some ten steps of a microsecond each
        uncounted_ += until_event_;
        for (; until_event_ > 0; --until_event_) {
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
      L::template residual<S>(train_.sigma_yx, products_[1], weights_[0], carried_[0]);
      if (with_product) L::template product<S>(products_[1], weights_[0], products_[0]);
    }
  }
  template <int S>
  PYDLN_INLINE void square_backward() {
    if constexpr (S > 0) {
      Cell *r = carried_[0], *after = carried_[1];
      for (int64_t l = 0; l + 1 < D_; ++l) {
        L::template layer_step<S>(products_[l + 1], r, after, weights_[l], lr_);
        Cell* t = r;
        r = after;
        after = t;
      }
      L::template update_all<S>(weights_[D_ - 1], r, lr_);
    }
  }
  void count_steps() {
    for (auto& lane : lanes_) lane.step += uncounted_;
    uncounted_ = 0;
  }

  // Products A_l and the residual E of the present weights. Omega itself is kept only where something reads it.
  void forward(bool due) {
    Cell* e = carried_[0];
    for (int64_t l = D_ - 2; l >= 1; --l) {
      if (cancelled(control_)) return;
      product(products_[l + 1], weights_[l], products_[l], width(l), width(l + 1));
    }
    if (D_ > 1 && train_.whitened() && !(due && reads_product_) && !noise_.samples_drawn()) {
      const int64_t K = width(1);
      L::residual(watch_, train_.sigma_yx, products_[1], ld(K), weights_[0], ld(n_), e, m_, n_, K);
      return;
    }
    if (D_ > 1) product(products_[1], weights_[0], products_[0], n_, width(1));
    if (due || !noise_.samples_drawn()) residual(train_, e);
  }
  // The residual of this step's noise in place of the task's.
  void disturb() {
    int64_t step[kMembers];
    for (int64_t lane = 0; lane < kMembers; ++lane)
      step[lane] = lanes_[lane].member >= 0 ? lanes_[lane].step + uncounted_ : -1;
    noise_.residual(control_, step, products_[0], carried_[0]);
  }
  void product(const Cell* a, const Cell* b, Cell* c, int64_t cols, int64_t inner) {
    L::product(watch_, a, ld(inner), b, ld(cols), c, m_, cols, inner);
  }

  void residual(const Moments& task, Cell* e) {
    const Cell* omega = products_[0];
    if (task.variances)
      L::subtract_scaled(task.sigma_yx, omega, task.variances, flipped_, e, m_, n_);
    else if (!task.sigma_xx)
      L::subtract(task.sigma_yx, omega, e, m_, n_);
    else if (flipped_)
      L::residual(watch_, task.sigma_yx, task.sigma_xx, ld(m_), omega, ld(n_), e, m_, n_, m_);
    else
      L::residual(watch_, task.sigma_yx, omega, ld(n_), task.sigma_xx, ld(n_), e, m_, n_, n_);
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
      weights_ = to;
      products_[top] = weights_[top];
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
    bool any_record = false, any_start = false, looked_at[kMembers];
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      looked_at[lane] = lanes_[lane].member >= 0 && due(lanes_[lane]);
      any_record |= looked_at[lane] && record_due(lanes_[lane]);
      any_start |= at_start(lanes_[lane]);
    }
    if (tangent_.wanted() && (any_record || any_start)) tangent_kernel();
    if (op_.stop_strengths || (any_record && op_.strengths)) strengths();
    if (any_record) record(loss);
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
      int64_t next = (state.step / kCheckEvery + 1) * kCheckEvery;
      if (state.record < op_.records && op_.record_at[state.record] < next) next = op_.record_at[state.record];
      if (op_.steps < next) next = op_.steps;
      if (next - state.step < until_event_) until_event_ = next - state.step;
    }
    return ended;
  }

  bool ends(int64_t lane, T loss, Status& status) const {
    const Lane& state = lanes_[lane];
    if (!(loss - loss == 0))  // infinite or NaN
      status = Status::diverged;
    else if (op_.stop_loss && loss <= *op_.stop_loss.of(state.member))
      status = Status::reached_loss;
    else if (op_.stop_strengths && strengths_reached(lane))
      status = Status::reached_strength;
    else if (state.steady)
      status = Status::steady;
    else
      return state.step == op_.steps;
    return true;
  }

  Value loss_of(const Moments& task, const Cell* e) {
    const Value half = Value{} + T(0.5);
    const Value product =
        !task.whitened() ? L::anchored_dot(e, task.ridge, task.anchor, products_[0], m_, n_) : L::dot(e, e, m_, n_);
    return fma(half, product, task.anchor_loss);
  }

  void strengths() {
    L::product(watch_, products_[0], ld(n_), mode_v_, ld(op_.modes), mode_product_, m_, op_.modes, n_);
    L::column_dots(mode_u_, mode_product_, strengths_, m_, op_.modes);
  }

  bool strengths_reached(int64_t lane) const {
    const T* threshold = op_.stop_strengths.of(lanes_[lane].member);
    for (int64_t a = 0; a < op_.modes; ++a) {
      const T u = L::element(strengths_, a, lane);
      if (threshold[a] == threshold[a] && !((u < 0 ? -u : u) >= threshold[a])) return false;
    }
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
    for_due([&](int64_t lane, int64_t at) {
      if (op_.loss) op_.loss[at] = L::get(loss, lane);
      if (op_.test_loss) op_.test_loss[at] = L::get(test, lane);
      if (op_.strengths)
        for (int64_t a = 0; a < op_.modes; ++a) op_.strengths[at * op_.modes + a] = L::element(strengths_, a, lane);
      if (op_.kernel_distance) op_.kernel_distance[at] = tangent_.distance(lane);
      if (op_.product) L::store(products_[0], lane, op_.product + at * m_ * n_, m_, n_, flipped_);
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
    for (auto& lane : lanes_)
      if (lane.member >= 0 && record_due(lane)) ++lane.record;
  }

  template <class F>
  void for_due(F f) {
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0 && record_due(lanes_[lane]))
        f(lane, lanes_[lane].member * op_.records + lanes_[lane].record);
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
  Control& control_;
  const Control* const watch_ = &control_;  // for products, which look at it when they are long
  const int64_t D_;
  const bool flipped_;
  const int64_t m_, n_;  // working outputs and inputs

  Lane lanes_[kMembers];
  int64_t active_ = 0;
  int64_t until_event_ = 0;
  bool exhausted_ = false;
  bool general_ = false;
  const bool reads_product_;  // whether something that is recorded or waited for is read off Omega
  int64_t uncounted_ = 0;     // steps that no lane has counted yet
  Value lr_{}, momentum_{}, decay_{};

  Moments train_, test_;
  NoiseSource<L, G> noise_;
  TangentKernel<L, G> tangent_;
  Cell** weights_ = nullptr;
  Cell** next_ = nullptr;  // the weights of the next step; null when steps are short and done in place
  Cell** products_ = nullptr;
  Cell** velocity_ = nullptr;
  Cell** conserved_ = nullptr;
  Cell* carried_[2] = {};
  typename L::Space space_;
  Cell* squares_[2] = {};
  Cell* transposed_ = nullptr;
  Cell* test_residual_ = nullptr;
  G* mode_u_ = nullptr;
  G* mode_v_ = nullptr;
  Cell* mode_product_ = nullptr;
  Cell* strengths_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
