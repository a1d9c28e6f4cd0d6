// Gradient descent of nonlinear networks on samples, taken one group at a time from a shared queue (ops/nonlinear.hpp).
//
// A block of samples is a matrix with one of them in a row, the layers are kept transposed: forward H_l = phi(H_{l-1} W_l^T),
// backward R_{l-1} = (R_l W_l) phi'(Z_{l-1}) and W_l^T += lr H_{l-1}^T R_l, which are the products of the linear kernel with
// samples in place of outputs. Samples pass in blocks whose activations stay near; the gradients of all but the last are summed
// beside the weights, with which the last one's product then goes on. Sums over samples run from the first to the last, however
// they are cut into blocks.
//
// The first layer reads the inputs where the caller has them, unless every lane has its own.
#pragma once

#include "cpu/kernels/activation.hpp"
#include "cpu/kernels/draws.hpp"
#include "cpu/kernels/lanes.hpp"
#include "cpu/kernels/layer_records.hpp"

namespace pydln::PYDLN_ISA {

template <class L, class G>
class NonlinearWorker : Layers<L>, MemberLanes<L, ops::Nonlinear<typename L::Scalar>> {
  using Base = Layers<L>;
  using Base::clear_lane;
  using Base::D_;
  using Base::kMembers;
  using Base::ld;
  using typename Base::Cell;
  using typename Base::T;
  using typename Base::Value;
  using Queue = MemberLanes<L, ops::Nonlinear<T>>;
  using Queue::active_;
  using Queue::at_start;
  using Queue::count_steps;
  using Queue::due;
  using Queue::every_step;
  using Queue::lanes_;
  using Queue::op_;
  using Queue::record_due;
  using Queue::uncounted_;
  using Queue::until_event_;
  using typename Queue::Lane;

  // Whether lanes hold samples of their own side by side.
  static constexpr bool kOwn = kMembers > 1 && sizeof(G) > sizeof(T);

  // Activations of a block of samples fill so many bytes at most. GFLOP/s of 32 units on 48 samples and 128 on 256, tanh, with a
  // second cache level of 1 MiB: 256 KiB 36 and 41, 384 38 and 47, 768 39 and 49, 1200 39 and 49 (Zen 4).
  static constexpr int64_t kNear = 768 * 1024;

 public:
  // With a null arena base this only measures: arena.used is then the workspace one worker needs.
  NonlinearWorker(const ops::Nonlinear<T>& op, Control& control, Arena& arena)
      : Base(op.chain, true),
        Queue(op, control),
        control_(control),
        in_(op.chain.widths[0]),
        out_(op.chain.widths[op.chain.depth]),
        drawn_(op.noise.kind == ops::NoiseKind::minibatch),
        strengths_wanted_(op.strengths || op.stop_strengths),
        block_(block_of(op.train.count)),
        test_block_(block_of(op.test.count)),
        drawn_block_(block_of(op.noise.size)),
        draws_(op.noise, in_, out_, drawn_block_, arena),
        layer_records_(op.chain, true, op.drift, arena) {
    int64_t most = block_ > test_block_ ? block_ : test_block_, widest = 0, cells = 0;
    most = most > drawn_block_ ? most : drawn_block_;
    weights_ = this->layers(arena);
    const bool blocks = drawn_ ? drawn_block_ < op.noise.size : block_ < op.train.count;
    if (blocks || op.stop_steady) gradients_ = this->layers(arena);
    hidden_ = arena.take<Cell*>(D_);
    slopes_ = arena.take<Cell*>(D_);
    for (int64_t l = 0; l < D_; ++l) {
      widest = units(l + 1) > widest ? units(l + 1) : widest;
      const int64_t here = L::cells(units(l), units(l + 1));
      cells = here > cells ? here : cells;
      if (l + 1 == D_) break;
      this->matrix(arena, hidden_, l, most, units(l + 1));
      this->matrix(arena, slopes_, l, most, units(l + 1));
    }
    guesses_ = arena.take<Cell>(L::cells(most, out_));
    for (auto& r : carried_) r = arena.take<Cell>(L::cells(most, widest));
    space_ = L::make_space(arena, widest, cells);
    y_ = arena.take<G>(L::cells(most, out_));
    if (kOwn) x_ = arena.take<Cell>(L::cells(most, in_));
    if (strengths_wanted_) {
      mode_u_ = arena.take<G>(L::cells(out_, op.modes));
      mode_x_ = arena.take<G>(L::cells(most, op.modes));
      mode_product_ = arena.take<Cell>(L::strengths_cells(most, op.modes));
      strengths_ = arena.take<Cell>(L::cells(1, op.modes));
    }
    if (drawn_) {
      drawn_y_ = arena.take<Cell>(L::cells(drawn_block_, out_));
      if (kMembers > 1) drawn_x_ = arena.take<Cell>(L::cells(drawn_block_, in_));
    }
  }

  void run() {
    for (int64_t lane = 0; lane < kMembers; ++lane) clear_lane(weights_, lane);
    if (strengths_wanted_ && !op_.samples_per_member) load_modes(0, 0);
    refill();
    while (active_ > 0) {
      const bool due = until_event_ == 0;
      if (drawn_ && due) {
        if (any_needs_all()) evaluate(op_.train, block_, strengths_wanted_);
      } else if (!drawn_) {
        sum_gradients(due);
      }
      if (cancelled(control_)) return abandon();
      if (due) {
        const bool ended = events();
        if (cancelled(control_)) return abandon();
        if (ended) {
          refill();
          continue;
        }
      }
      if (!(drawn_ ? drawn_step() : last_step())) return abandon();
      ++uncounted_;
      --until_event_;
    }
  }

 private:
  // Units of layer l of them, inputs first; the layer of weights above it, (units(l), units(l + 1)).
  int64_t units(int64_t l) const { return op_.chain.widths[l]; }
  Cell*& layer(int64_t l) const { return weights_[D_ - 1 - l]; }
  Cell* gradient(int64_t l) const { return gradients_[D_ - 1 - l]; }

  // Samples of a block, all blocks of about equal length. A multiple of four where there are several: pieces of minibatches
  // must not cut blocks of random numbers (kernels/random.hpp), and products are made of four rows at a time.
  int64_t block_of(int64_t samples) const {
    int64_t numbers = 2 * out_ + (kOwn ? in_ : 0), widest = out_;
    for (int64_t l = 1; l < D_; ++l) {
      numbers += 2 * units(l);
      widest = units(l) > widest ? units(l) : widest;
    }
    int64_t most = kNear / (static_cast<int64_t>(sizeof(Cell)) * (numbers + 2 * widest));
    most = most < 16 ? 16 : most;
    if (samples <= most) return samples;
    const int64_t blocks = (samples + most - 1) / most;
    return ((samples + blocks - 1) / blocks + 3) / 4 * 4;
  }

  // ---- members in and out of lanes ---------------------------------------------------------------------------------
  void load_modes(int64_t lane, int64_t member) {
    L::load(mode_u_, lane, op_.mode_u.of(member), out_, op_.modes, false);
  }
  void refill() {
    const bool fresh = this->fill([&](int64_t lane, int64_t member) {
      this->load_layers(op_.weights, member, weights_, lane);
      if (strengths_wanted_ && op_.samples_per_member) load_modes(lane, member);
      if (drawn_) draws_.begin(lane, member);
      L::set(rate_, lane, *op_.lr.of(member) * (drawn_ ? op_.noise.scale : op_.train.scale));
      L::set(drawn_loss_, lane, T(0));
    });
    if (fresh && op_.drift)
      layer_records_.start(control_, weights_, [&](int64_t lane) { return at_start(lanes_[lane]); });
    loaded_ = {};
  }
  void store_end(int64_t lane, Status status) {
    this->store_weights(weights_, lane, op_.weights, lanes_[lane].member);
    clear_lane(weights_, lane);
    L::set(rate_, lane, T(0));
    this->leave(lane, status);
  }
  void abandon() {
    count_steps();
    for (int64_t lane = 0; lane < kMembers; ++lane)
      if (lanes_[lane].member >= 0) store_end(lane, Status::interrupted);
  }

  // ---- samples -----------------------------------------------------------------------------------------------------------
  // f(member, lane) for what is loaded: every member's own, or once what all share.
  template <class F>
  void each_source(F f) const {
    if constexpr (kMembers > 1 && !kOwn) {
      f(0, 0);
    } else {
      for (int64_t lane = 0; lane < kMembers; ++lane)
        if (lanes_[lane].member >= 0) f(lanes_[lane].member, lane);
    }
  }
  // f(x, stride, count) with samples first, ... of `s` at hand, and what the strengths are read off with if that is asked for.
  template <class F>
  void with_block(const ops::Samples<T>& s, int64_t block, int64_t first, bool modes, F f) {
    const int64_t count = s.count - first < block ? s.count - first : block;
    const bool same = loaded_.samples == &s && loaded_.first == first;
    if (!same || (modes && !loaded_.modes)) {
      each_source([&](int64_t member, int64_t lane) {
        if (!same) {
          L::load(y_, lane, s.y.of(member) + first * out_, count, out_, false);
          if constexpr (kOwn) L::load(x_, lane, s.x.of(member) + first * in_, count, in_, false);
        }
        if (modes) L::load(mode_x_, lane, op_.mode_x.of(member) + first * op_.modes, count, op_.modes, false);
      });
      loaded_ = {&s, first, modes};
    }
    if constexpr (kOwn)
      f(static_cast<const Cell*>(x_), ld(in_), count);
    else
      f(s.x.of(kMembers > 1 ? 0 : lanes_[0].member) + first * in_, in_, count);
  }
  template <class F>
  void last_block(F f) {
    with_block(op_.train, block_, (op_.train.count - 1) / block_ * block_, false, f);
  }

  // ---- passes --------------------------------------------------------------------------------------------------------------
  template <class X>
  void forward(const X* x, int64_t ldx, int64_t count) {
    for (int64_t l = 0; l < D_; ++l) {
      if (l == 0)
        forward(l, x, ldx, count);
      else
        forward(l, hidden_[l - 1], ld(units(l)), count);
    }
  }
  template <class A>
  void forward(int64_t l, const A* a, int64_t lda, int64_t count) {
    using V = typename Vector<T>::type;
    const int64_t cols = units(l + 1);
    Cell* z = l + 1 < D_ ? hidden_[l] : guesses_;
    L::product(&control_, a, lda, layer(l), ld(cols), z, count, cols, units(l));
    if (l + 1 < D_)
      activate<T>(op_.activation, reinterpret_cast<V*>(z), reinterpret_cast<V*>(slopes_[l]),
                  L::cells(count, cols) * static_cast<int64_t>(sizeof(Cell)) / PYDLN_VECTOR_BYTES);
  }
  template <class Y>
  void residual(const Y* y, int64_t count) {
    L::subtract(y, guesses_, carried_[0], count, out_);
  }
  // Down from the residual; update(l) is what becomes of the gradient of a layer.
  template <class X, class Update>
  void backward(const Control* watch, const X* x, int64_t ldx, int64_t count, Update update) {
    Cell *r = carried_[0], *after = carried_[1];
    for (int64_t l = D_ - 1; l > 0; --l) {
      const int64_t rows = units(l), cols = units(l + 1);
      L::layer_step(watch, space_, hidden_[l - 1], r, typename L::Scaled{after, slopes_[l - 1], ld(rows)}, update(l),
                    rows, cols, count);
      if (watch && cancelled(*watch)) return;
      Cell* t = r;
      r = after;
      after = t;
    }
    L::last_layer_step(watch, space_, x, ldx, r, update(0), in_, units(1), count);
  }
  // Of a block with more to come.
  template <class X>
  void add_gradients(const X* x, int64_t ldx, int64_t count, bool begins) {
    if (begins)
      backward(&control_, x, ldx, count, [&](int64_t l) { return typename L::Slope{layer(l), gradient(l)}; });
    else
      backward(&control_, x, ldx, count, [&](int64_t l) { return typename L::Sum{layer(l), gradient(l)}; });
  }
  // Of the last block, and the step. A block is short: unless the gradients are needed first, it goes on to its end when the run
  // is cancelled, and weights are always those of a whole step. Returns whether the step was made.
  template <class X>
  bool finish(const X* x, int64_t ldx, int64_t count, bool begins) {
    if (op_.stop_steady) {
      add_gradients(x, ldx, count, begins);
      if (cancelled(control_)) return false;
      Value largest{};
      for (int64_t l = 0; l < D_; ++l)
        L::update_all(typename L::Momentum{layer(l), layer(l), gradient(l), rate_, Value{}, Value{}, false, &largest},
                      gradient(l), units(l), units(l + 1));
      this->judge_steady(largest * (drawn_ ? op_.noise.scale : op_.train.scale));
    } else if (begins) {
      backward(nullptr, x, ldx, count, [&](int64_t l) { return typename L::Plain{layer(l), layer(l), rate_}; });
    } else {
      backward(nullptr, x, ldx, count,
               [&](int64_t l) { return typename L::Settle{layer(l), layer(l), gradient(l), rate_}; });
    }
    return true;
  }

  bool last_step() {
    bool made = false;
    last_block([&](auto x, int64_t ldx, int64_t count) { made = finish(x, ldx, count, block_ >= op_.train.count); });
    return made;
  }

  // Loss and strengths of the block that `residual` was called on.
  void add_loss(int64_t count, Value& sum) const {
    for (int64_t p = 0; p < count; ++p) {
      const Cell* e = carried_[0] + p * ld(out_);
      sum = sum + L::dot(e, e, 1, out_);
    }
  }
  void add_strengths(int64_t count, bool begins) {
    const int64_t r = op_.modes;
    L::strengths(&control_, guesses_, ld(out_), mode_u_, mode_x_, ld(r), mode_product_, strengths_, count, r, out_,
                 begins);
  }
  static Value scaled(const Value& sum, T scale) { return sum * (T(0.5) * scale); }

  // All blocks of the task forward, all but the last backward too.
  void sum_gradients(bool due) {
    const int64_t samples = op_.train.count;
    const bool strengths = due && strengths_wanted_;
    Value sum{};
    for (int64_t first = 0; first < samples && !cancelled(control_); first += block_)
      with_block(op_.train, block_, first, strengths, [&](auto x, int64_t ldx, int64_t count) {
        forward(x, ldx, count);
        residual(y_, count);
        if (due) add_loss(count, sum);
        if (strengths) add_strengths(count, first == 0);
        if (first + block_ < samples) add_gradients(x, ldx, count, first == 0);
      });
    loss_ = scaled(sum, op_.train.scale);
  }
  // Forward alone.
  void evaluate(const ops::Samples<T>& s, int64_t block, bool strengths) {
    Value sum{};
    for (int64_t first = 0; first < s.count && !cancelled(control_); first += block)
      with_block(s, block, first, strengths, [&](auto x, int64_t ldx, int64_t count) {
        forward(x, ldx, count);
        residual(y_, count);
        add_loss(count, sum);
        if (strengths) add_strengths(count, first == 0);
      });
    loss_ = scaled(sum, s.scale);
  }
  bool drawn_step() {
    const int64_t size = op_.noise.size;
    Value sum{};
    bool made = false;
    const auto pass = [&](auto x, int64_t ldx, int64_t first) {
      const int64_t count = size - first < drawn_block_ ? size - first : drawn_block_;
      forward(x, ldx, count);
      if (cancelled(control_)) return;
      residual(drawn_y_, count);
      if (until_event_ == 1) add_loss(count, sum);
      if (first + drawn_block_ < size)
        add_gradients(x, ldx, count, first == 0);
      else
        made = finish(x, ldx, count, first == 0);
    };
    for (int64_t first = 0; first < size; first += drawn_block_) {
      for (int64_t lane = 0; lane < kMembers; ++lane) {
        if (lanes_[lane].member < 0) continue;
        draws_.draw(control_, lane, lanes_[lane].step + uncounted_, first, T(0));
        L::load(drawn_y_, lane, draws_.y(), drawn_block_, out_, false);
        if constexpr (kMembers > 1) L::load(drawn_x_, lane, draws_.x(), drawn_block_, in_, false);
      }
      if (cancelled(control_)) return false;
      if constexpr (kMembers > 1)
        pass(static_cast<const Cell*>(drawn_x_), ld(in_), first);
      else
        pass(draws_.x(), in_, first);
    }
    drawn_loss_ = scaled(sum, op_.noise.scale);
    return made;
  }

  // ---- what happens between steps ----------------------------------------------------------------------------------
  // Whether a look at a member is at the loss of all samples, as the last one is; else at that of the last minibatch.
  bool needs_all(const Lane& lane) const {
    return !drawn_ || record_due(lane) || lane.step == op_.steps || op_.stop_loss || op_.stop_strengths;
  }
  bool any_needs_all() {
    count_steps();
    for (const auto& lane : lanes_)
      if (lane.member >= 0 && needs_all(lane)) return true;
    return false;
  }

  // Records, stopping. Returns whether some lane came to its end; decides nothing once the run is cancelled.
  bool events() {
    count_steps();
    bool any_record = false, looked_at[kMembers], all[kMembers];
    for (int64_t lane = 0; lane < kMembers; ++lane) {
      const Lane& state = lanes_[lane];
      looked_at[lane] = state.member >= 0 && due(state);
      all[lane] = needs_all(state);
      any_record |= looked_at[lane] && record_due(state);
    }
    const Value loss = loss_;
    if (any_record) {
      this->find_due();
      record(loss);
      this->for_due([&](int64_t lane, int64_t) { ++lanes_[lane].record; });
    }
    if (cancelled(control_)) return false;
    const auto ends = [&](int64_t lane, Status& status) {
      return Queue::ends(lane, L::get(all[lane] ? loss : drawn_loss_, lane), status,
                         [&](int64_t which, int64_t member) {
                           return reached<L>(strengths_, op_.modes, which, op_.stop_strengths.of(member));
                         });
    };
    return this->end_members(looked_at, ends, [&](int64_t lane, Status status) { store_end(lane, status); });
  }
  void record(const Value& loss) {
    if (op_.loss) this->for_due([&](int64_t lane, int64_t at) { op_.loss[at] = L::get(loss, lane); });
    if (op_.strengths)
      this->for_due([&](int64_t lane, int64_t at) {
        for (int64_t a = 0; a < op_.modes; ++a) op_.strengths[at * op_.modes + a] = L::element(strengths_, a, lane);
      });
    layer_records_.record(control_, op_, weights_, [&](auto f) { this->for_due(f); });
    if (!op_.test_loss) return;
    evaluate(op_.test, test_block_, false);
    if (cancelled(control_)) return;  // perhaps in the middle: unrecorded is NaN
    this->for_due([&](int64_t lane, int64_t at) { op_.test_loss[at] = L::get(loss_, lane); });
    rest();
  }

  // The last block of the task is at hand again after others were passed through.
  void rest() {
    if (drawn_) return;
    last_block([&](auto x, int64_t ldx, int64_t count) {
      forward(x, ldx, count);
      residual(y_, count);
    });
  }

  Control& control_;
  const int64_t in_, out_;
  const bool drawn_, strengths_wanted_;
  const int64_t block_, test_block_, drawn_block_;
  Draws<T, kMembers> draws_;
  LayerRecords<L> layer_records_;
  struct Loaded {
    const ops::Samples<T>* samples = nullptr;
    int64_t first = 0;
    bool modes = false;
  } loaded_;  // what the block at hand is

  Value rate_{}, loss_{}, drawn_loss_{};
  Cell** weights_ = nullptr;
  Cell** gradients_ = nullptr;
  Cell** hidden_ = nullptr;  // H_l, and phi'(Z_l)
  Cell** slopes_ = nullptr;
  Cell* guesses_ = nullptr;  // Y_hat
  Cell* carried_[2] = {};    // R_l
  typename L::Space space_;
  Cell *x_ = nullptr, *drawn_x_ = nullptr, *drawn_y_ = nullptr;
  G* y_ = nullptr;
  G *mode_u_ = nullptr, *mode_x_ = nullptr;
  Cell *mode_product_ = nullptr, *strengths_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
