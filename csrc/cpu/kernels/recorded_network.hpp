// A group of networks and what is recorded of them: losses, strengths, products, and what LayerRecords reads off the layers.
#pragma once

#include "cpu/kernels/layer_records.hpp"
#include "cpu/kernels/network.hpp"

namespace pydln::PYDLN_ISA {

template <class L, class G>
class RecordedNetwork : protected Network<L, G> {
  using Net = Network<L, G>;

 protected:
  using Net::carried_;
  using Net::control_;
  using Net::flipped_;
  using Net::m_;
  using Net::n_;
  using Net::products_;
  using Net::residual;
  using Net::strengths;
  using Net::strengths_;
  using Net::train_;
  using Net::training_;
  using Net::weights_;
  using typename Net::Cell;
  using typename Net::Residual;
  using typename Net::T;
  using typename Net::Value;

  // Op is ops::Training and ops::Recording.
  template <class Op>
  RecordedNetwork(const Op& op, Control& control, Arena& arena)
      : Net(op, op.strengths || op.stop_strengths, control, arena),
        layer_records_(op.chain, flipped_, op.drift, arena),
        recording_(op) {
    if (!op.test) return;
    this->make_residual(arena, test_, op.test);
    test_residual_ = arena.take<Cell>(L::cells(test_.rows, test_.cols));
  }

  // Whether something that is recorded is read off Omega.
  bool records_product() const { return recording_.strengths || recording_.product || recording_.test_loss; }

  void load_task(int64_t lane, int64_t member) {
    Net::load_task(lane, member);
    if (recording_.test) this->load_residual(test_, recording_.test, lane, member);
  }
  void load_scalars(int64_t lane, int64_t member) {
    Net::load_scalars(lane, member);
    if (recording_.test) L::set(test_.floor, lane, *recording_.test_floor.of(member));
  }

  // The layers as they are where the lanes start that fresh(lane) is true of.
  template <class Fresh>
  void start_records(Fresh fresh) {
    if (recording_.drift) layer_records_.start(control_, weights_, fresh);
  }

  // Writes the records of the lanes and to the places that for_due(f) hands to f(lane, place), after a forward pass; strengths
  // are there already. Ends, unfinished, once the run is cancelled: unrecorded is NaN.
  template <class ForDue>
  void record(const Value& loss, ForDue for_due) {
    const ops::Recording<T>& to = recording_;
    Value test{};
    if (to.test_loss) {
      residual(test_, test_residual_);
      test = this->loss_of(test_, test_residual_, test_.floor);
    }
    if (cancelled(control_)) return;  // perhaps in the middle of one of the products
    if (to.loss)
      for_due([&](int64_t lane, int64_t at) {
        to.loss[at] = L::get(loss, lane);
        __builtin_prefetch(to.loss + at + 1, 1);  // stores that miss fill the queue: 35 of 250 cycles a record of G1
      });
    if (to.test_loss) for_due([&](int64_t lane, int64_t at) { to.test_loss[at] = L::get(test, lane); });
    if (to.strengths)
      for_due([&](int64_t lane, int64_t at) {
        const int64_t modes = training_.modes;
        T* values = to.strengths + at * modes;
        for (int64_t a = 0; a < modes; ++a) values[a] = L::element(strengths_, a, lane);
        constexpr int64_t kLine = 64 / sizeof(T);  // likewise: 90 of 470 cycles
        for (int64_t a = 0; a < modes; a += kLine) __builtin_prefetch(values + modes + a, 1);
      });
    if (to.product)
      for_due(
          [&](int64_t lane, int64_t at) { L::store(products_[0], lane, to.product + at * m_ * n_, m_, n_, flipped_); });
    layer_records_.record(control_, to, weights_, for_due);
  }

 private:
  LayerRecords<L> layer_records_;
  const ops::Recording<T>& recording_;
  Residual test_;
  Cell* test_residual_ = nullptr;
};

}  // namespace pydln::PYDLN_ISA
